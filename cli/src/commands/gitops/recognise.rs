//! Recognises the kind of a file if the command line does not give it. Pure.

use serde_json::Value;
use slipway_edit::KUSTOMIZATION_NAMES;

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
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let error = error.to_string();
        let error = error.lines().next().unwrap_or_default().to_owned();
        (
            unknown(format!("is not YAML: {error}")),
            "templates cannot be edited; edit the values that they use".to_owned(),
        )
    })?;
    let field = |document: &Value, key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut objects = 0;
    for document in &documents {
        if let (Some(version), Some(kind)) = (field(document, "apiVersion"), field(document, "kind")) {
            if version.starts_with("kustomize.config.k8s.io/") {
                let names = KUSTOMIZATION_NAMES.join(", ");
                return Err((
                    unknown(format!("is a {kind}, but does not have the name of one")),
                    format!("name it one of {names}"),
                ));
            }
            objects += 1;
        }
    }
    if objects > 0 {
        return Ok(FileKind::Manifest);
    }
    let mut places = Vec::new();
    for document in &documents {
        images(document, String::new(), &mut places);
    }
    places.dedup();
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

/// The paths where charts keep images: a mapping with a tag or repository, and texts called `image`.
fn images(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let is_image = fields.contains_key("repository")
                || (fields.contains_key("tag")
                    && ["name", "image", "registry"]
                        .iter()
                        .any(|key| fields.contains_key(*key)));
            if is_image && !path.is_empty() {
                found.push(path);
                return;
            }
            for (key, value) in fields {
                let key = if key.contains(['.', '[', ']', '"', ' ']) {
                    format!("{key:?}")
                } else {
                    key.clone()
                };
                let below = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                if key == "image" && value.is_string() {
                    found.push(below);
                } else {
                    images(value, below, found);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let below = match item.get("name").and_then(Value::as_str) {
                    Some(name) if !name.contains([']', '"', ' ']) => format!("{path}[name={name}]"),
                    _ => format!("{path}[{at}]"),
                };
                images(item, below, found);
            }
        }
        _ => {}
    }
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
