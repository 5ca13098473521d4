//! Which images a kustomization's `images` applies to: those of what it builds on, as renamed by the kustomizations
//! below it.
//!
//! Follows kustomize 5: resources first, then components and patches, then `images`; an image is the `image` of an item
//! of any `containers` or `initContainers`, whatever the kind but CustomResourceDefinition, and what a file of
//! `configurations` says is one, here or in anything that the kustomization builds on.

use std::collections::BTreeSet;

use crate::{
    KUSTOMIZATION_NAMES, Read, Source,
    field_spec::FieldSpec,
    image::Reference,
    layout::list,
    path::Folder,
    pattern::matches,
    yaml::{self, Kind, Node},
};

/// Files read for one kustomization: far more than any real one has, few enough to take under a second.
const MAX_FILES: usize = 2_000;
/// Their total size in bytes.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// How deeply kustomizations may be nested.
const MAX_DEPTH: usize = 32;

/// What is used.
#[derive(Debug, Default)]
pub(crate) struct Used {
    /// References in full, as `images` finds them.
    pub(crate) names: BTreeSet<String>,
    /// It is a component, which applies to what the kustomizations that include it build on.
    pub(crate) is_component: bool,
    /// What could not be examined, and why.
    unknown: BTreeSet<String>,
}

impl Used {
    /// An error saying that `name` is not among them, and what is.
    pub(crate) fn without(&self, name: &str) -> String {
        let broken = self
            .names
            .iter()
            .find(|image| Reference::split(image).name == name && !matches(name, image));
        if let Some(broken) = broken {
            return format!(
                "the manifests have {broken:?}, which is not a valid reference, so kustomize would leave it as it is; \
                 repair it in the manifest first"
            );
        }
        let names: BTreeSet<String> = self
            .names
            .iter()
            .map(|image| Reference::split(image).name)
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        let uses = match names.is_empty() {
            true => "what the kustomization builds on uses none".to_owned(),
            false => format!("what the kustomization builds on uses: {}", list(&names)),
        };
        if self.unknown.is_empty() {
            return format!("{uses}; give the name that it uses, not {name:?}");
        }
        let unknown: Vec<&String> = self.unknown.iter().collect();
        format!(
            "{uses}; whether {name:?} is used besides is not known: {}; add the entry by hand once",
            list(&unknown)
        )
    }
}

/// The images that the kustomization in a folder applies to. `root` is its text's mapping.
pub(crate) fn used<S: Source>(folder: &Folder, root: &Node, source: &S) -> Result<Used, S::Error> {
    let mut walk = Walk::new(folder, source, Vec::new());
    let mut images = walk.below(folder.as_str(), root)?;
    if !walk.fields.is_empty() {
        // Now that they are all known, also those of what was read before them.
        let fields = std::mem::take(&mut walk.fields);
        walk = Walk::new(folder, source, fields);
        images = walk.below(folder.as_str(), root)?;
    }
    let kind = root.fields("kind").next().and_then(|(_, kind)| kind.scalar());
    Ok(Used {
        names: images.into_iter().map(|image| image.text).collect(),
        is_component: kind == Some("Component"),
        unknown: walk.unknown,
    })
}

/// An image that something uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Image {
    text: String,
    /// The kustomizations whose `images` apply to it; `None` for all.
    only: Option<BTreeSet<String>>,
}

impl Image {
    fn everywhere(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            only: None,
        }
    }

    fn is_seen_by(&self, folder: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(folder))
    }
}

/// A field that is an image by a file of `configurations`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ImageField {
    field: FieldSpec,
    /// The kustomization that names the file, and those that build on it.
    seen_by: BTreeSet<String>,
}

struct Walk<'a, S> {
    source: &'a S,
    files: usize,
    bytes: usize,
    /// The kustomizations being examined, outermost first.
    open: Vec<String>,
    /// The fields of custom resources that are images.
    fields: Vec<ImageField>,
    unknown: BTreeSet<String>,
}

impl<'a, S: Source> Walk<'a, S> {
    fn new(folder: &Folder, source: &'a S, fields: Vec<ImageField>) -> Self {
        Self {
            source,
            files: 0,
            bytes: 0,
            open: vec![folder.as_str().to_owned()],
            fields,
            unknown: BTreeSet::new(),
        }
    }

    /// The fields that a file of `configurations` makes images.
    fn configuration(&mut self, folder: &str, path: &str) -> Result<(), S::Error> {
        let Some(at) = join(folder, path).filter(|at| !at.is_empty()) else {
            return Ok(());
        };
        let Read::Text(text) = self.read(&at)? else {
            self.unknown.insert(format!("there is no {at}"));
            return Ok(());
        };
        let stream = match yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(&text)) {
            Ok(stream) => stream,
            Err(error) => {
                self.unknown
                    .insert(format!("{at} is not YAML at line {}", error.line));
                return Ok(());
            }
        };
        for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
            for field in items(root, "images").iter().filter_map(FieldSpec::of) {
                let field = ImageField {
                    field,
                    seen_by: self.open.iter().cloned().collect(),
                };
                if !self.fields.contains(&field) {
                    self.fields.push(field);
                }
            }
        }
        Ok(())
    }

    /// What a kustomization's own `images` applies to.
    fn below(&mut self, folder: &str, root: &Node) -> Result<BTreeSet<Image>, S::Error> {
        let mut images = BTreeSet::new();
        for path in texts(root, "configurations") {
            self.configuration(folder, path)?;
        }
        for key in ["resources", "bases"] {
            for path in texts(root, key) {
                images.append(&mut self.resource(folder, path, BTreeSet::new())?);
            }
        }
        for path in texts(root, "components") {
            // A component applies to everything that was gathered so far.
            images = self.resource(folder, path, images)?;
        }
        for patch in texts(root, "patchesStrategicMerge") {
            self.patch(folder, patch, &mut images)?;
        }
        for key in ["patches", "patchesJson6902"] {
            for item in items(root, key) {
                for field in ["path", "patch"] {
                    if let Some(patch) = item.fields(field).next().and_then(|(_, value)| value.scalar()) {
                        self.patch(folder, patch, &mut images)?;
                    }
                }
            }
        }
        for key in ["helmCharts", "helmChartInflationGenerator", "generators"] {
            if root.fields(key).next().is_some() {
                self.unknown
                    .insert(format!("`{key}` of {} is not run here", shown(folder)));
            }
        }
        Ok(images)
    }

    /// A path of `resources`, `bases` or `components`.
    fn resource(
        &mut self,
        folder: &str,
        path: &str,
        mut seen: BTreeSet<Image>,
    ) -> Result<BTreeSet<Image>, S::Error> {
        let Some(at) = join(folder, path).filter(|_| !is_url(path)) else {
            self.unknown.insert(format!("{path} is not in this repository"));
            return Ok(seen);
        };
        let found = match at.is_empty() {
            true => Read::Folder,
            false => self.read(&at)?,
        };
        match found {
            Read::Text(text) => {
                self.manifests(&at, &text, &mut seen);
                Ok(seen)
            }
            Read::Folder => self.kustomization(&at, seen),
            Read::Absent if is_remote(path) => {
                self.unknown.insert(format!("{path} is not in this repository"));
                Ok(seen)
            }
            Read::Absent => {
                self.unknown.insert(format!("there is no {at}"));
                Ok(seen)
            }
            Read::Unfit(why) => {
                self.unknown.insert(format!("{at} {why}"));
                Ok(seen)
            }
        }
    }

    /// What a nested kustomization makes of its own images and, as a component, of those gathered before it.
    fn kustomization(
        &mut self,
        folder: &str,
        mut seen: BTreeSet<Image>,
    ) -> Result<BTreeSet<Image>, S::Error> {
        if self.open.iter().any(|open| open == folder) {
            self.unknown.insert(format!("{} builds on itself", shown(folder)));
            return Ok(seen);
        }
        if self.open.len() >= MAX_DEPTH {
            self.unknown.insert(format!(
                "{} is more than {MAX_DEPTH} kustomizations deep",
                shown(folder)
            ));
            return Ok(seen);
        }
        let mut text = None;
        for name in KUSTOMIZATION_NAMES {
            let path = if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            if let Read::Text(found) = self.read(&path)? {
                text = Some((path, found));
                break;
            }
        }
        let Some((path, text)) = text else {
            self.unknown
                .insert(format!("{} has no kustomization", shown(folder)));
            return Ok(seen);
        };
        let stream = match yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(&text)) {
            Ok(stream) => stream,
            Err(error) => {
                self.unknown
                    .insert(format!("{path} is not YAML at line {}", error.line));
                return Ok(seen);
            }
        };
        let Some(root) = stream.documents.iter().find_map(|(_, root)| root.as_ref()) else {
            return Ok(seen);
        };
        self.open.push(folder.to_owned());
        seen.append(&mut self.below(folder, root)?);
        self.open.pop();
        for entry in items(root, "images") {
            let field = |key| entry.fields(key).next().and_then(|(_, value)| value.scalar());
            let Some(name) = field("name") else { continue };
            seen = seen
                .into_iter()
                .map(|image| {
                    if image.is_seen_by(folder) && matches(name, &image.text) {
                        let text = renamed(&image.text, &field);
                        Image { text, ..image }
                    } else {
                        image
                    }
                })
                .collect();
        }
        Ok(seen)
    }

    /// A patch: a file's path, or the patch itself.
    fn patch(&mut self, folder: &str, patch: &str, images: &mut BTreeSet<Image>) -> Result<(), S::Error> {
        if patch.contains('\n') || patch.trim_start().starts_with(['{', '[']) {
            self.manifests(folder, patch, images);
            return Ok(());
        }
        match join(folder, patch) {
            Some(at) if !at.is_empty() => {
                if let Read::Text(text) = self.read(&at)? {
                    self.manifests(&at, &text, images);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn manifests(&mut self, path: &str, text: &str, images: &mut BTreeSet<Image>) {
        match yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            Ok(stream) => {
                for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
                    let anchored = |anchor| stream.anchored(anchor);
                    containers(root, &anchored, images);
                    self.custom(root, &anchored, images);
                    json_patch(root, images);
                }
            }
            Err(error) => {
                self.unknown
                    .insert(format!("{path} is not YAML at line {}", error.line));
            }
        }
    }

    /// The images of an object, and of the items of a list, that a configuration says are some.
    fn custom<'n>(
        &'n self,
        root: &'n Node,
        anchored: &impl Fn(usize) -> Option<&'n Node>,
        images: &mut BTreeSet<Image>,
    ) {
        let listed = root.fields("kind").next().and_then(|(_, kind)| kind.scalar());
        if listed.is_some_and(|kind| kind.ends_with("List")) {
            for item in items(root, "items") {
                self.custom(item, anchored, images);
            }
        }
        for field in &self.fields {
            for text in field.field.values(root, anchored) {
                images.insert(Image {
                    text: text.to_owned(),
                    only: Some(field.seen_by.clone()),
                });
            }
        }
    }

    /// What is at that path, within bounds.
    fn read(&mut self, path: &str) -> Result<Read, S::Error> {
        if self.files >= MAX_FILES || self.bytes >= MAX_BYTES {
            return Ok(Read::Unfit(
                "was not read: too many files are referenced".to_owned(),
            ));
        }
        self.files += 1;
        let read = self.source.read(path)?;
        if let Read::Text(text) = &read {
            self.bytes += text.len();
        }
        Ok(read)
    }
}

fn shown(folder: &str) -> &str {
    if folder.is_empty() {
        "the root folder"
    } else {
        folder
    }
}

/// The items of a list of the mapping.
fn items<'a>(root: &'a Node, key: &'a str) -> &'a [Node] {
    match root.fields(key).next() {
        Some((
            _,
            Node {
                kind: Kind::Sequence { items, .. },
                ..
            },
        )) => items,
        _ => &[],
    }
}

fn texts<'a>(root: &'a Node, key: &'a str) -> impl Iterator<Item = &'a str> {
    items(root, key).iter().filter_map(Node::scalar)
}

/// The path from the root of what a kustomization in `folder` names; `None` when that is outside.
pub(crate) fn join(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(crate) fn is_url(path: &str) -> bool {
    path.contains("://") || path.contains("git@") || path.contains("?ref=")
}

/// Something that does not exist here and looks like a host name: `github.com/org/repo//path`.
pub(crate) fn is_remote(path: &str) -> bool {
    let (host, rest) = path.split_once('/').unwrap_or((path, ""));
    path.contains("//") || (!rest.is_empty() && !host.starts_with('.') && host.contains('.'))
}

/// The image after an entry of `images` is applied, as kustomize writes it.
fn renamed<'a>(image: &str, field: &impl Fn(&'static str) -> Option<&'a str>) -> String {
    let mut reference = Reference::split(image);
    let given = |key| field(key).filter(|value| !value.is_empty()).map(str::to_owned);
    if let Some(name) = given("newName") {
        reference.name = name;
    }
    let (tag, digest) = (given("newTag"), given("digest"));
    if tag.is_some() || digest.is_some() {
        reference.tag = tag.unwrap_or_default();
        reference.digest = digest.unwrap_or_default();
    }
    reference.to_string()
}

/// The images of the containers of an object.
fn containers<'a>(
    node: &'a Node,
    anchored: &impl Fn(usize) -> Option<&'a Node>,
    images: &mut BTreeSet<Image>,
) {
    match &node.kind {
        Kind::Mapping { entries, .. } => {
            let kind = node.fields("kind").next().and_then(|(_, kind)| kind.scalar());
            if kind == Some("CustomResourceDefinition") {
                return;
            }
            for (key, value) in entries {
                if matches!(key.scalar(), Some("containers" | "initContainers"))
                    && let Kind::Sequence { items, .. } = &value.kind
                {
                    for item in items {
                        let image = item.fields("image").next().map(|(_, image)| match image.kind {
                            Kind::Alias(anchor) => anchored(anchor),
                            _ => Some(image),
                        });
                        if let Some(image) = image
                            .flatten()
                            .and_then(Node::scalar)
                            .filter(|image| !image.is_empty())
                        {
                            images.insert(Image::everywhere(image));
                        }
                    }
                }
                containers(value, anchored, images);
            }
        }
        Kind::Sequence { items, .. } => {
            for item in items {
                containers(item, anchored, images);
            }
        }
        Kind::Scalar { .. } | Kind::Alias(_) => {}
    }
}

/// The images that the operations of a JSON patch write.
fn json_patch(root: &Node, images: &mut BTreeSet<Image>) {
    let Kind::Sequence { items, .. } = &root.kind else {
        return;
    };
    for item in items {
        let field = |key| item.fields(key).next().and_then(|(_, value)| value.scalar());
        if field("path").is_some_and(|path| path.ends_with("/image"))
            && let Some(image) = field("value")
        {
            images.insert(Image::everywhere(image));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_remote, is_url, join};

    #[test]
    fn paths_stay_inside() {
        assert_eq!(join("a/b", "../c/x.yaml").as_deref(), Some("a/c/x.yaml"));
        assert_eq!(join("a", "..").as_deref(), Some(""));
        assert_eq!(join("a", "../../c"), None);
        assert_eq!(join("", "./c/").as_deref(), Some("c"));
        assert!(is_url("https://x/y") && is_url("git@x:y") && is_url("x/y?ref=1"));
        assert!(is_remote("github.com/a/b") && is_remote("x//y") && !is_remote("../a.b/c"));
    }
}
