//! Which fields a file of kustomize's `configurations` makes images, as its field specifications are read.

use crate::yaml::{Kind, Node};

/// How many nodes lie between an object and an image: deeper than any kind has it.
const MAX_DEPTH: usize = 100;

/// A kind of object, and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldSpec {
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
    path: Vec<String>,
}

impl FieldSpec {
    /// Reads an item of `images`; `None` where it has no path.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let text = |key| {
            let field = node.fields(key).next().and_then(|(_, value)| value.scalar());
            field.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Some(Self {
            group: text("group"),
            version: text("version"),
            kind: text("kind"),
            path: steps(&text("path")?),
        })
    }

    /// The values at the path, in an object of that kind.
    pub(crate) fn values<'a>(
        &'a self,
        object: &'a Node,
        anchored: &impl Fn(usize) -> Option<&'a Node>,
    ) -> Vec<&'a str> {
        let text = |key| object.fields(key).next().and_then(|(_, value)| value.scalar());
        let version = text("apiVersion").unwrap_or_default();
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let fits =
            |wanted: &Option<String>, stands: &str| wanted.as_ref().is_none_or(|wanted| wanted == stands);
        let mut found = Vec::new();
        if fits(&self.group, group)
            && fits(&self.version, version)
            && fits(&self.kind, text("kind").unwrap_or_default())
        {
            collect(object, &self.path, anchored, &mut found, 0);
        }
        found
    }
}

/// The keys of a path: `spec/list[]/image`; `\\/` is a slash in a key. Lists are entered with brackets or without.
fn steps(path: &str) -> Vec<String> {
    const SLASH: char = '\u{0}';
    path.replace("\\/", &SLASH.to_string())
        .split('/')
        .filter(|step| !step.is_empty())
        .map(|step| step.strip_suffix("[]").unwrap_or(step).replace(SLASH, "/"))
        .collect()
}

fn collect<'a>(
    node: &'a Node,
    path: &'a [String],
    anchored: &impl Fn(usize) -> Option<&'a Node>,
    found: &mut Vec<&'a str>,
    depth: usize,
) {
    // An alias may stand in what its own anchor is on.
    if depth > MAX_DEPTH {
        return;
    }
    match (&node.kind, path.split_first()) {
        (Kind::Alias(anchor), _) => {
            if let Some(node) = anchored(*anchor).filter(|node| !matches!(node.kind, Kind::Alias(_))) {
                collect(node, path, anchored, found, depth + 1);
            }
        }
        (Kind::Sequence { items, .. }, Some(_)) => {
            for item in items {
                collect(item, path, anchored, found, depth + 1);
            }
        }
        (Kind::Mapping { .. }, Some((key, rest))) => {
            if let Some(value) = node.fields(key.as_str()).next().map(|(_, value)| value) {
                collect(value, rest, anchored, found, depth + 1);
            }
        }
        (Kind::Scalar { .. }, None) => found.extend(node.scalar().filter(|text| !text.is_empty())),
        _ => {}
    }
}
