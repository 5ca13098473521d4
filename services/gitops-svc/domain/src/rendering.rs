//! Whether a change may be committed, from what rendering its folders showed.
//!
//! A folder that does not render cannot be deployed, so a change of it is refused, whoever broke it. A revert is not: it
//! makes nothing worse, and others may rely on it. What cannot be rendered here is committed, and the change says so.
//!
//! A chart is more than what is in the repository: whoever deploys it may give it more values, another name, another
//! version of Kubernetes. So one that does not render says something only if it did before the change.

mod chart;

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

/// What renders a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Kustomize,
    /// With this file of values besides the chart's own.
    Helm {
        values: Option<String>,
    },
}

/// A folder of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Empty for the repository's root.
    pub folder: String,
    pub by: By,
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
        let folder = rendered.shown();
        match &rendered.with {
            Answer::Renders => {}
            Answer::NotHere(why) => notes.push(why.clone()),
            Answer::Fails(words) => {
                let before = match (&rendered.by, &rendered.without) {
                    (By::Kustomize, without) => {
                        matches!(without, Some(Answer::Fails(before)) if before == words)
                    }
                    (By::Helm { .. }, Some(Answer::Renders)) => false,
                    (By::Helm { values }, _) if chart::is_unreadable(words, values.as_deref()) => true,
                    (By::Helm { .. }, _) => {
                        notes.push(format!(
                            "{folder} cannot be rendered here: it does not render by itself, and did not before this \
                             change; {words}"
                        ));
                        continue;
                    }
                };
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

impl Rendered {
    /// As messages name it.
    fn shown(&self) -> String {
        let folder = match self.folder.as_str() {
            "" => "the root folder",
            folder => folder,
        };
        match &self.by {
            By::Helm { values: Some(file) } => format!("{folder} with {file}"),
            By::Helm { values: None } | By::Kustomize => folder.to_owned(),
        }
    }
}

impl By {
    /// What its failure means.
    pub fn failure(&self, words: &str) -> Answer {
        match self {
            Self::Kustomize => failure(words),
            Self::Helm { .. } => chart::failure(words),
        }
    }
}

/// What kustomize's failure means.
fn failure(words: &str) -> Answer {
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
    use super::{Answer, By, Rendered, admit, failure, is_kept_elsewhere};
    use crate::reason::Code;

    fn folder(with: Answer, without: Option<Answer>) -> Rendered {
        Rendered {
            folder: "apps/shop/dev".to_owned(),
            by: By::Kustomize,
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
    fn a_chart_is_refused_only_where_the_change_breaks_it() {
        let elsewhere = Answer::NotHere("x".to_owned());
        let unreadable = "helm says: failed to parse charts/shop/values-dev.yaml: yaml: line 1";
        let alone = "charts/shop with charts/shop/values-dev.yaml cannot be rendered here: it does not render by \
                     itself, and did not before this change; no";
        for (words, without, reverts, wanted) in [
            (
                "no",
                Some(Answer::Renders),
                false,
                Err("charts/shop with charts/shop/values-dev.yaml would not render with this change; no"),
            ),
            ("no", Some(fails("no")), false, Ok(alone)),
            ("no", Some(fails("other")), false, Ok(alone)),
            ("no", Some(elsewhere), false, Ok(alone)),
            ("no", None, false, Ok(alone)),
            ("no", Some(fails("no")), true, Ok(alone)),
            (
                unreadable,
                Some(fails("other")),
                false,
                Err(
                    "charts/shop with charts/shop/values-dev.yaml does not render, and did not before this change: \
                     repair it; helm says: failed to parse charts/shop/values-dev.yaml: yaml: line 1",
                ),
            ),
            (
                unreadable,
                Some(fails(unreadable)),
                true,
                Ok(
                    "charts/shop with charts/shop/values-dev.yaml does not render, and did not before: helm says: \
                    failed to parse charts/shop/values-dev.yaml: yaml: line 1",
                ),
            ),
        ] {
            let case = format!("{words} {without:?} {reverts}");
            let rendered = Rendered {
                folder: "charts/shop".to_owned(),
                by: By::Helm {
                    values: Some("charts/shop/values-dev.yaml".to_owned()),
                },
                with: fails(words),
                without,
            };
            let got = admit(&[rendered], reverts).map_err(|reason| reason.message);
            assert_eq!(got, wanted.map(str::to_owned).map_err(str::to_owned), "{case}");
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
