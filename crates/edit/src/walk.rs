//! The images of a manifest that are found without a path: of containers, of volumes, and of an Application's
//! kustomization.

use crate::{
    Refusal,
    image::Reference,
    layout::{Text, refuse},
    objects::{Object, text_at},
    sharing::Spot,
    slots::{ImageAt, WholeKind},
    yaml::Kind,
};

/// Containers are found under these keys, wherever a kind has its pod template.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Nodes that are reached by aliases in one object: aliases of aliases can make a small file look endless.
const MAX_NODES: usize = 50_000;
/// How deep images are looked for: aliases can make a node contain itself.
const MAX_DEPTH: usize = 200;

/// Collects the images of an object that match what is given, and describes the others.
pub(crate) fn walk<'a>(
    text: &'a Text<'_>,
    object: &Object<'a>,
    container: &str,
    image: &str,
    found: &mut Vec<ImageAt<'a>>,
    there: &mut Vec<String>,
) -> Result<(), Refusal> {
    let mut walk = Walk {
        text,
        object,
        container,
        image,
        found,
        there,
        nodes: 0,
        is_application: text_at(object.node, "kind") == Some("Application")
            && text_at(object.node, "apiVersion").is_some_and(|version| version.starts_with("argoproj.io/")),
    };
    let root = Spot::of(text, object).resolved(text)?;
    walk.node(&root, 0)
}

struct Walk<'w, 'a, 't> {
    text: &'a Text<'t>,
    object: &'w Object<'a>,
    container: &'w str,
    image: &'w str,
    found: &'w mut Vec<ImageAt<'a>>,
    there: &'w mut Vec<String>,
    nodes: usize,
    is_application: bool,
}

impl<'a> Walk<'_, 'a, '_> {
    fn node(&mut self, spot: &Spot<'a>, depth: usize) -> Result<(), Refusal> {
        self.nodes += usize::from(spot.is_shared);
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(refuse(
                spot.node.line,
                "aliases repeat this part of the file too often",
            ));
        }
        match &spot.node.kind {
            Kind::Mapping { .. } if !spot.node.is_template() => {
                if text_at(spot.node, "kind") == Some("CustomResourceDefinition") {
                    return Ok(());
                }
                for (key, value) in spot.collections(self.text)? {
                    if spot.node.fields(key).nth(1).is_some() && holds_images(value.node) {
                        // Which of the two counts is not known.
                        spot.field(self.text, key)?;
                    }
                    if matches!(value.node.kind, Kind::Sequence { .. }) {
                        self.list(spot, key, &value)?;
                    }
                    self.node(&value, depth + 1)?;
                }
            }
            Kind::Sequence { items, .. } => {
                for index in 0..items.len() {
                    if let Some(item) = spot.item(self.text, index)? {
                        self.node(&item, depth + 1)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A list that may hold images.
    fn list(&mut self, above: &Spot<'a>, key: &str, list: &Spot<'a>) -> Result<(), Refusal> {
        let Kind::Sequence { items, .. } = &list.node.kind else {
            return Ok(());
        };
        let of_kustomize = self.is_application
            && key == "images"
            && above.seen.steps.last() == Some(&crate::steps::Step::Key("kustomize".to_owned()));
        for index in 0..items.len() {
            let Some(item) = list.item(self.text, index)? else {
                continue;
            };
            if LISTS.contains(&key) {
                self.container(&item)?;
            } else if key == "volumes" {
                self.volume(&item)?;
            } else if of_kustomize {
                self.replacement(&item)?;
            }
        }
        Ok(())
    }

    /// Records a container that matches.
    fn container(&mut self, item: &Spot<'a>) -> Result<(), Refusal> {
        if !matches!(item.node.kind, Kind::Mapping { .. }) {
            return Ok(());
        }
        let name = self.name(item)?;
        let what = format!("container {name:?} of {}", self.object.label);
        if !self.container.is_empty() && self.container != name {
            let image = item
                .node
                .fields("image")
                .next()
                .and_then(|(_, image)| image.scalar());
            self.there
                .push(format!("{what} ({})", image.unwrap_or("no image")));
            return Ok(());
        }
        let first = item.node.fields("image").next();
        if let Some((_, first)) = first
            && item.node.fields("image").nth(1).is_some()
            && !self.image.is_empty()
            && first.scalar().map(Reference::split).unwrap_or_default().name != self.image
        {
            return Ok(());
        }
        let Some(image) = item.field(self.text, "image")? else {
            self.there.push(format!("{what} (no image)"));
            return Ok(());
        };
        self.record(&what, &image)
    }

    /// Records a volume whose image matches.
    fn volume(&mut self, item: &Spot<'a>) -> Result<(), Refusal> {
        if !matches!(item.node.kind, Kind::Mapping { .. }) {
            return Ok(());
        }
        let source = item.field(self.text, "image")?;
        let Some(source) = source.filter(|source| matches!(source.node.kind, Kind::Mapping { .. })) else {
            return Ok(());
        };
        let Some(reference) = source.field(self.text, "reference")? else {
            return Ok(());
        };
        let name = self.name(item)?;
        let what = format!("volume {name:?} of {}", self.object.label);
        if self.container.is_empty() {
            return self.record(&what, &reference);
        }
        self.there.push(format!(
            "{what} ({})",
            reference.node.scalar().unwrap_or("no image")
        ));
        Ok(())
    }

    /// Records an entry of `kustomize.images` that matches, by the name that it replaces or by the one that it writes.
    fn replacement(&mut self, item: &Spot<'a>) -> Result<(), Refusal> {
        let Some(entry) = item.node.scalar() else {
            return Ok(());
        };
        let what = format!("`kustomize.images` of {}", self.object.label);
        let (name, reference) = entry.split_once('=').unwrap_or(("", entry));
        let is_meant = name == self.image || Reference::split(reference).name == self.image;
        if self.container.is_empty() && (self.image.is_empty() || is_meant) {
            self.push(item, WholeKind::OfKustomize);
        } else {
            self.there.push(format!("{what} ({entry})"));
        }
        Ok(())
    }

    fn record(&mut self, what: &str, image: &Spot<'a>) -> Result<(), Refusal> {
        let now = image.node.scalar();
        let reference = now.map(Reference::split).unwrap_or_default();
        if !self.image.is_empty() && reference.name != self.image {
            self.there
                .push(format!("{what} ({})", now.unwrap_or("a template")));
            return Ok(());
        }
        if image.node.is_template() {
            return Err(refuse(
                image.node.line,
                "there is a template here: edit the values that it uses",
            ));
        }
        self.push(image, WholeKind::OfPod);
        Ok(())
    }

    fn push(&mut self, spot: &Spot<'a>, kind: WholeKind) {
        self.found
            .extend(ImageAt::whole(self.text, self.object, spot, kind));
    }

    fn name(&self, item: &Spot<'a>) -> Result<&'a str, Refusal> {
        if let Some(name) = text_at(item.node, "name") {
            return Ok(name);
        }
        let name = item.field(self.text, "name")?;
        Ok(name.and_then(|name| name.node.scalar()).unwrap_or_default())
    }
}

/// Whether containers or volumes are listed in a node.
fn holds_images(node: &crate::yaml::Node) -> bool {
    match &node.kind {
        Kind::Mapping { entries, .. } => entries.iter().any(|(key, value)| {
            key.scalar()
                .is_some_and(|key| LISTS.contains(&key) || matches!(key, "volumes" | "image"))
                || holds_images(value)
        }),
        Kind::Sequence { items, .. } => items.iter().any(holds_images),
        Kind::Scalar { .. } | Kind::Alias(_) => false,
    }
}
