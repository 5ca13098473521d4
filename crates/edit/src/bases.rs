//! Which images a kustomization's `images` applies to: those of what it builds on, as renamed by the kustomizations
//! below it.
//!
//! Follows kustomize 5: resources first, then components and patches, then `images`; an image is the `image` of an item
//! of any `containers` or `initContainers`, whatever the kind but CustomResourceDefinition.

use std::collections::BTreeSet;

use crate::{
    KUSTOMIZATION_NAMES, Read, Source,
    image::Reference,
    layout::list,
    path::Folder,
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
    /// What could not be examined, and why.
    unknown: BTreeSet<String>,
}

impl Used {
    /// An error saying that `name` is not among them, and what is.
    pub(crate) fn without(&self, name: &str) -> String {
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
    let mut walk = Walk {
        source,
        files: 0,
        bytes: 0,
        open: vec![folder.as_str().to_owned()],
        unknown: BTreeSet::new(),
    };
    let names = walk.below(folder.as_str(), root)?;
    Ok(Used {
        names,
        unknown: walk.unknown,
    })
}

struct Walk<'a, S> {
    source: &'a S,
    files: usize,
    bytes: usize,
    /// The kustomizations being examined, outermost first.
    open: Vec<String>,
    unknown: BTreeSet<String>,
}

impl<S: Source> Walk<'_, S> {
    /// What a kustomization's own `images` applies to.
    fn below(&mut self, folder: &str, root: &Node) -> Result<BTreeSet<String>, S::Error> {
        let mut images = BTreeSet::new();
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
        mut seen: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, S::Error> {
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
        mut seen: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, S::Error> {
        if self.open.iter().any(|open| open == folder) {
            self.unknown.insert(format!("{} builds on itself", shown(folder)));
            return Ok(seen);
        }
        if self.open.len() >= MAX_DEPTH {
            self.unknown.insert(format!(
                "{} stands more than {MAX_DEPTH} kustomizations deep",
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
                    if matches(name, &image) {
                        renamed(&image, &field)
                    } else {
                        image
                    }
                })
                .collect();
        }
        Ok(seen)
    }

    /// A patch: a file's path, or the patch itself.
    fn patch(&mut self, folder: &str, patch: &str, images: &mut BTreeSet<String>) -> Result<(), S::Error> {
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

    fn manifests(&mut self, path: &str, text: &str, images: &mut BTreeSet<String>) {
        match yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            Ok(stream) => {
                for root in stream.documents.iter().filter_map(|(_, root)| root.as_ref()) {
                    let anchored = |anchor| stream.anchored(anchor);
                    containers(root, &anchored, images);
                    json_patch(root, images);
                }
            }
            Err(error) => {
                self.unknown
                    .insert(format!("{path} is not YAML at line {}", error.line));
            }
        }
    }

    /// What is at that path, within bounds.
    fn read(&mut self, path: &str) -> Result<Read, S::Error> {
        if self.files >= MAX_FILES || self.bytes >= MAX_BYTES {
            return Ok(Read::Unfit("is one file too many to look into".to_owned()));
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
    images: &mut BTreeSet<String>,
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
                            images.insert(image.to_owned());
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
fn json_patch(root: &Node, images: &mut BTreeSet<String>) {
    let Kind::Sequence { items, .. } = &root.kind else {
        return;
    };
    for item in items {
        let field = |key| item.fields(key).next().and_then(|(_, value)| value.scalar());
        if field("path").is_some_and(|path| path.ends_with("/image"))
            && let Some(image) = field("value")
        {
            images.insert(image.to_owned());
        }
    }
}

/// Whether an entry's `name` fits an image, as kustomize's `IsImageMatched` decides: a pattern for the whole name,
/// optionally followed by a tag and a digest.
pub(crate) fn matches(name: &str, image: &str) -> bool {
    if !name.contains(['*', '+', '?', '(', '[', '{', '|', '^', '$', '\\']) {
        return fits_dotted(name, image);
    }
    let pattern = format!("^{name}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$");
    match regex::bytes::RegexBuilder::new(&pattern)
        .unicode(false)
        .size_limit(1 << 20)
        .build()
    {
        Ok(pattern) => pattern.is_match(image.as_bytes()),
        Err(_) => image.strip_prefix(name).is_some_and(is_version),
    }
}

/// The same for names whose only special character is the dot: nearly all, so no pattern needs to be built for them.
fn fits_dotted(name: &str, image: &str) -> bool {
    let (Some(head), Some(rest)) = (image.get(..name.len()), image.get(name.len()..)) else {
        return false;
    };
    head.bytes().zip(name.bytes()).all(|(a, b)| a == b || b == b'.') && is_version(rest)
}

/// Nothing, `:tag`, `@sha256:digest` or both.
fn is_version(rest: &str) -> bool {
    let word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.{}-".contains(&b))
    };
    let (tag, digest) = match rest.split_once('@') {
        Some((tag, digest)) => (tag, digest.strip_prefix("sha256:")),
        None => (rest, Some("")),
    };
    digest.is_some_and(word) && (tag.is_empty() || tag.strip_prefix(':').is_some_and(word))
}

#[cfg(test)]
mod tests {
    use super::{is_remote, is_url, join, matches};

    #[test]
    fn names_fit_as_kustomize_has_it() {
        for (name, image, fits) in [
            ("app", "app", true),
            ("app", "app:v1", true),
            ("app", "app:v1@sha256:0a", true),
            ("app", "app@sha256:0a", true),
            ("app", "app@md5:0a", false),
            ("app", "apple", false),
            ("app", "r/app", false),
            ("r.example/app", "r.example/app:1", true),
            ("r.example/app", "r-example/app:1", true),
            (".*/app", "r/app:1", true),
            ("ap+", "appp", true),
            ("(app", "app", false),
            ("(app", "(app:v1", true),
            ("a|b", "b:v1", true),
            ("r:5000/app", "r:5000/app:v1", true),
            ("app", "app:", true),
        ] {
            assert_eq!(matches(name, image), fits, "{name} {image}");
        }
    }

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
