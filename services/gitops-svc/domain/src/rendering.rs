//! Whether a change may be committed, from what rendering its folders showed.
//!
//! A folder that does not render cannot be deployed, so a change of it is refused, whoever broke it. A revert is not: it
//! makes nothing worse, and others may rely on it. What cannot be rendered here is committed, and the change says so.

use slipway_model::Reason;

use crate::{reason::Code, remote::paragraph};

/// What rendering a folder showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Renders,
    /// It does not, in the renderer's words.
    Fails(String),
    /// It cannot be known here, and why.
    NotHere(String),
}

/// A folder of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Empty for the repository's root.
    pub folder: String,
    /// With the change.
    pub with: Answer,
    /// Without it; asked for only where it fails with it.
    pub without: Option<Answer>,
}

/// What the change is to say about folders that were not rendered; empty if there is nothing to say.
///
/// # Errors
/// Why it is not committed.
pub fn admit(folders: &[Rendered], reverts: bool) -> Result<String, Reason> {
    let mut notes: Vec<String> = Vec::new();
    for rendered in folders {
        let folder = match rendered.folder.as_str() {
            "" => "the root folder",
            folder => folder,
        };
        match &rendered.with {
            Answer::Renders => {}
            Answer::NotHere(why) => notes.push(why.clone()),
            Answer::Fails(words) => {
                let before = matches!(&rendered.without, Some(Answer::Fails(before)) if before == words);
                if before && reverts {
                    notes.push(format!("{folder} does not render, and did not before: {words}"));
                    continue;
                }
                let message = if before {
                    format!("{folder} does not render, and did not before this change: repair it; {words}")
                } else {
                    format!("{folder} would not render with this change; {words}")
                };
                return Err(Reason::new(Code::RenderFailed, message));
            }
        }
    }
    notes.dedup();
    Ok(notes.join("; "))
}

/// What kustomize's failure means.
pub fn failure(words: &str) -> Answer {
    let text = paragraph(words);
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    let lower = text.to_lowercase();
    let any = |texts: &[&str]| texts.iter().any(|wanted| lower.contains(wanted));
    if any(&[
        "external plugins disabled",
        "unable to find plugin root",
        "--enable-helm",
        "--enable-exec",
        "--enable-alpha-plugins",
    ]) {
        return Answer::NotHere(format!(
            "it needs programs, which are not run here; kustomize says: {text}"
        ));
    }
    if any(&["security; file"]) {
        return Answer::NotHere(format!(
            "it reads files outside of its folder, which kustomize does only with an option; kustomize says: {text}"
        ));
    }
    Answer::Fails(format!("kustomize says: {text}"))
}

/// Why the content of a file is not what git has of it, if it is kept elsewhere or encrypted.
pub fn is_kept_elsewhere(content: &[u8]) -> Option<&'static str> {
    if content.starts_with(b"version https://git-lfs.github.com/spec/") {
        Some("is kept by Git LFS")
    } else if content.starts_with(b"\0GITCRYPT") {
        Some("is encrypted by git-crypt")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Rendered, admit, failure, is_kept_elsewhere};
    use crate::reason::Code;

    fn folder(with: Answer, without: Option<Answer>) -> Rendered {
        Rendered {
            folder: "apps/shop/dev".to_owned(),
            with,
            without,
        }
    }

    fn fails(words: &str) -> Answer {
        Answer::Fails(words.to_owned())
    }

    #[test]
    fn each_answer_has_its_consequence() {
        let elsewhere = Answer::NotHere("x is remote".to_owned());
        for (with, without, reverts, wanted) in [
            (Answer::Renders, None, false, Ok("")),
            (elsewhere.clone(), None, false, Ok("x is remote")),
            (
                fails("no"),
                Some(Answer::Renders),
                false,
                Err("apps/shop/dev would not render with this change; no"),
            ),
            (
                fails("no"),
                Some(fails("no")),
                false,
                Err("apps/shop/dev does not render, and did not before this change: repair it; no"),
            ),
            // It was broken in another way, or that is not known.
            (
                fails("no"),
                Some(fails("other")),
                false,
                Err("apps/shop/dev would not render with this change; no"),
            ),
            (
                fails("no"),
                Some(elsewhere),
                true,
                Err("apps/shop/dev would not render with this change; no"),
            ),
            // What was broken before does not keep a revert back; what the revert would break does.
            (
                fails("no"),
                Some(fails("no")),
                true,
                Ok("apps/shop/dev does not render, and did not before: no"),
            ),
            (
                fails("no"),
                Some(Answer::Renders),
                true,
                Err("apps/shop/dev would not render with this change; no"),
            ),
        ] {
            let case = format!("{with:?} {without:?} {reverts}");
            match (admit(&[folder(with, without)], reverts), wanted) {
                (Ok(note), Ok(wanted)) => assert_eq!(note, wanted, "{case}"),
                (Err(reason), Err(wanted)) => {
                    assert_eq!(reason.message, wanted, "{case}");
                    assert_eq!(reason.code, Code::RenderFailed);
                }
                (got, wanted) => panic!("{case}: {got:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn what_kustomize_may_not_do_here_is_no_failure_of_the_folder() {
        for words in [
            "Error: loading generator plugins: failed to load generator: external plugins disabled; unable to load external plugin 'ksops'",
            "Error: trouble configuring builtin HelmChartInflationGenerator: must specify --enable-helm",
            "Error: accumulating resources: security; file '/x.yaml' is not in or below '/l'",
        ] {
            assert!(matches!(failure(words), Answer::NotHere(_)), "{words}");
        }
        assert_eq!(
            failure("Error: accumulating resources: missing.yaml\n"),
            fails("kustomize says: accumulating resources: missing.yaml")
        );
        assert!(is_kept_elsewhere(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n").is_some());
        assert!(is_kept_elsewhere(b"kind: Deployment\n").is_none());
    }
}
