//! What a file contains, to tell which kind of edit fits it.

use std::fmt::Write as _;

use crate::{
    Refusal,
    layout::Text,
    objects::text_at,
    steps::{Step, Steps},
    yaml::{Kind, Node, Stream},
};

/// What a file contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// A kustomization or a component, by its `kind`.
    Kustomization(String),
    /// Objects of Kubernetes.
    Objects,
    /// Anything else; the paths where charts keep images.
    Values { images: Vec<String> },
}

impl Contents {
    /// Reads a file. Keys that stand twice do not matter.
    ///
    /// # Errors
    /// It is not YAML.
    pub fn of(whole: &str) -> Result<Self, Refusal> {
        let text = Text::read(whole)?;
        let mut is_object = false;
        for root in text.stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
            let (version, kind) = (text_at(root, "apiVersion"), text_at(root, "kind"));
            if let (Some(version), Some(kind)) = (version, kind) {
                if version.starts_with("kustomize.config.k8s.io/") {
                    return Ok(Self::Kustomization(kind.to_owned()));
                }
                is_object = true;
            }
        }
        Ok(match is_object {
            true => Self::Objects,
            false => Self::Values {
                images: image_paths(&text.stream),
            },
        })
    }
}

/// The paths in all documents where images may stand.
pub(crate) fn image_paths(stream: &Stream) -> Vec<String> {
    let mut images = Vec::new();
    for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
        find(root, &mut Vec::new(), &mut images);
    }
    images.dedup();
    images
}

/// The paths where charts keep images: a mapping with a tag or repository, texts called `image`, parameters called so.
fn find(node: &Node, path: &mut Vec<Step>, found: &mut Vec<String>) {
    let shown = |path: &[Step]| Steps(path.to_vec()).to_string();
    match &node.kind {
        Kind::Mapping { entries, .. } if !node.is_template() => {
            let has = |key: &str| node.fields(key).next().is_some();
            let is_image =
                has("repository") || (has("tag") && ["name", "image", "registry"].iter().any(|key| has(key)));
            if is_image && !path.is_empty() {
                found.push(shown(path));
                return;
            }
            for (key, value) in entries {
                let Some(key) = key.scalar() else { continue };
                path.push(Step::Key(key.to_owned()));
                match value.scalar() {
                    Some(_) if key == "image" => found.push(shown(path)),
                    Some(text) if text.contains('\n') => embedded(text, path, found),
                    _ => find(value, path, found),
                }
                path.pop();
            }
        }
        Kind::Sequence { items, .. } => {
            for (index, item) in items.iter().enumerate() {
                let name = text_at(item, "name").filter(|name| !name.contains([']', '"', ' ']));
                path.push(match name {
                    Some(name) => Step::Item {
                        key: "name".to_owned(),
                        value: name.to_owned(),
                    },
                    None => Step::Index(index),
                });
                let is_parameter = name.is_some_and(|name| {
                    let word = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
                    name.to_ascii_lowercase().contains("image") && (word == "tag" || word.ends_with("image"))
                });
                if is_parameter && text_at(item, "value").is_some() {
                    found.push(shown(path));
                } else {
                    find(item, path, found);
                }
                path.pop();
            }
        }
        _ => {}
    }
}

/// The paths in a text that is YAML of its own.
fn embedded(text: &str, path: &mut [Step], found: &mut Vec<String>) {
    let Ok(inner) = Text::read(text) else { return };
    for root in inner
        .stream
        .documents
        .iter()
        .filter_map(|(_, root)| root.as_ref())
    {
        let mut below = Vec::new();
        find(root, &mut Vec::new(), &mut below);
        for path_below in below {
            let mut whole = Steps(path.to_vec()).to_string();
            let dot = if path_below.starts_with('[') { "" } else { "." };
            let _ = write!(whole, "{dot}{path_below}");
            found.push(whole);
        }
    }
}
