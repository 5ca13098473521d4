//! Recognises the kind of a file if the command line does not give it. Pure.

use slipway_edit::{Contents, KUSTOMIZATION_NAMES};

use super::edits::FileKind;

/// How many paths are named in an error.
const SHOWN: usize = 8;

/// Whether the last part of a path is a kustomization's file name.
pub(crate) fn is_kustomization(path: &str) -> bool {
    KUSTOMIZATION_NAMES.contains(&path.rsplit('/').next().unwrap_or(path))
}

/// The kind of a file with this path and text.
///
/// # Errors
/// What to give on the command line, and why.
pub(crate) fn kind(path: &str, text: &str) -> Result<FileKind, (String, String)> {
    if is_kustomization(path) {
        return Ok(FileKind::Kustomization);
    }
    let unknown = |what: String| format!("{path}: {what}");
    let contents = Contents::of(text).map_err(|refusal| {
        (
            unknown(refusal.to_string()),
            "templates cannot be edited; edit the values that they use".to_owned(),
        )
    })?;
    let mut places = match contents {
        Contents::Kustomization(kind) => {
            let names = KUSTOMIZATION_NAMES.join(", ");
            return Err((
                unknown(format!("is a {kind}, but does not have the name of one")),
                format!("name it one of {names}"),
            ));
        }
        Contents::Objects => return Ok(FileKind::Manifest),
        Contents::Values { images } => images,
    };
    let next = if places.is_empty() {
        "give the path of the image with --helm PATH, such as --helm image".to_owned()
    } else {
        let more = if places.len() > SHOWN { ", …" } else { "" };
        places.truncate(SHOWN);
        let places = places.join(", ");
        format!("give the path of the image with --helm PATH; there are {places}{more}")
    };
    Err((
        unknown("is neither a kustomization nor a manifest".to_owned()),
        next,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_name_and_by_what_is_said() {
        for (path, text, wanted) in [
            ("a/kustomization.yaml", "", FileKind::Kustomization),
            ("Kustomization", "", FileKind::Kustomization),
            (
                "a/web.yaml",
                "apiVersion: apps/v1\nkind: Deployment\n",
                FileKind::Manifest,
            ),
            (
                "all.yaml",
                "# first\n---\nkind: Service\napiVersion: v1\n---\nkind: X\napiVersion: y/v1\n",
                FileKind::Manifest,
            ),
        ] {
            assert_eq!(kind(path, text), Ok(wanted), "{path}");
        }
    }

    #[test]
    fn values_are_refused_with_the_paths_that_they_have() {
        let text = "image:\n  repository: r.example/web\n  tag: '1'\nweb:\n  image: r.example/x:1\n\
                    workers:\n- name: mail\n  image: {registry: r, name: mail, tag: '2'}\n- image: y:1\nreplicas: 2\n";
        let (error, next) = kind("values.yaml", text).unwrap_err();
        assert!(
            error.contains("neither a kustomization nor a manifest"),
            "{error}"
        );
        for path in [
            "image",
            "web.image",
            "workers[name=mail].image",
            "workers[1].image",
        ] {
            assert!(next.contains(path), "{path}: {next}");
        }
        assert!(!next.contains("replicas"), "{next}");

        let (error, _) = kind("deployment.yaml", "image: {{ .Values.image }}\n{{- end }}\n").unwrap_err();
        assert!(error.contains("not YAML"), "{error}");
        let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
        let (_, next) = kind("dev.yaml", text).unwrap_err();
        assert!(next.contains("kustomization.yaml"), "{next}");
    }
}
