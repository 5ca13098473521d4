//! Images in plain manifests: containers of everything with a pod template, and fields of custom resources.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    InvalidEdit, Refusal,
    difference::Difference,
    helm::check_object,
    image::{NewImage, Reference},
    layout::{Text, list, refuse},
    objects::{Object, named, objects, text_at},
    path::FilePath,
    slots::ImageAt,
    steps::Steps,
    values::{Changes, done, follow, not_merged},
    yaml::{Kind, Node},
};

/// Containers are found under these keys, wherever a kind has its pod template.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Sets the image of containers, or of a field of a custom resource. At least one of `container`, `image` and `field`
/// is given; those that are given must all match.
///
/// Containers are the items of any `containers`, `initContainers` and `ephemeralContainers` of any kind but
/// CustomResourceDefinition: pods, workloads, jobs, Rollouts, and items of lists of objects. Several matches are all
/// edited, unless they are in several objects, have different names, and were selected only by the container's name or
/// the field: then the edit is refused, naming the objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestImage {
    pub file: FilePath,
    /// Only this object: `Deployment/web`; empty for all of the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The name of a container or init container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The image's name as written in the file, without tag and digest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// A path to an image within the object: `spec.image`. For kinds without a pod template.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(flatten)]
    pub to: NewImage,
}

impl ManifestImage {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(
        file: &str,
        object: &str,
        container: &str,
        image: &str,
        field: &str,
        to: NewImage,
    ) -> Result<Self, InvalidEdit> {
        check_place(object, container, field)?;
        check_word("image", image, 512)?;
        let split = Reference::split(image);
        if !split.tag.is_empty() || !split.digest.is_empty() {
            return Err(InvalidEdit::new(
                "image",
                format!(
                    "give the name that the file has without tag and digest: {:?}",
                    split.name
                ),
            ));
        }
        if container.is_empty() && image.is_empty() && field.is_empty() {
            return Err(InvalidEdit::new(
                "container",
                "give at least one of container, image and field",
            ));
        }
        Ok(Self {
            file: file.parse()?,
            object: object.to_owned(),
            container: container.to_owned(),
            image: image.to_owned(),
            field: field.to_owned(),
            to,
        })
    }

    pub(crate) fn apply(&self, whole: &str) -> Result<(String, Difference), Refusal> {
        let text = Text::read(whole)?;
        let find = |image: &str| find(&text, &self.object, &self.container, image, &self.field);
        let found = match (find(&self.image), &self.to.new_name) {
            // Already renamed, for example by an earlier run of the same edit.
            (Err(Refusal::ImageNotFound(there)), Some(name)) if !self.image.is_empty() => {
                find(name.as_str()).map_err(|_| Refusal::ImageNotFound(there))?
            }
            (found, _) => found?,
        };
        let names: BTreeSet<String> = found.iter().map(|image| image.reference().name).collect();
        let objects: BTreeSet<&[usize]> = found.iter().map(|image| image.object.at.as_slice()).collect();
        if self.image.is_empty() && names.len() > 1 && objects.len() > 1 {
            let each: Vec<String> = found
                .iter()
                .map(|image| format!("{} has {}", image.object.label, image.reference().name))
                .collect();
            let what = match self.field.is_empty() {
                true => format!("container {:?}", self.container),
                false => format!("`{}`", self.field),
            };
            return Err(refuse(
                found.get(1).map_or(1, ImageAt::line),
                format!(
                    "{what} has several images ({}): name one by `object` or `image`",
                    list(&each)
                ),
            ));
        }
        let mut changes = Changes::new(&text);
        let mut values = Vec::new();
        let (mut before, mut after) = (Reference::default(), Reference::default());
        for (number, image) in found.iter().enumerate() {
            let (mut wrote, now) = image.write(&mut changes, &self.to)?;
            values.append(&mut wrote);
            if number == 0 {
                (before, after) = (image.reference(), now);
            }
        }
        Ok(done(changes.finish()?, &self.file, values, before, after))
    }
}

/// Which containers, or which field, of a file's objects are meant; empty means all containers.
pub(crate) fn check_place(object: &str, container: &str, field: &str) -> Result<(), InvalidEdit> {
    check_object("object", object)?;
    check_word("container", container, 253)?;
    if field.is_empty() {
        return Ok(());
    }
    Steps::parse("field", field)?;
    if container.is_empty() {
        Ok(())
    } else {
        Err(InvalidEdit::new(
            "field",
            "give either a container or a field: a field belongs to no container",
        ))
    }
}

fn check_word(name: &'static str, text: &str, longest: usize) -> Result<(), InvalidEdit> {
    if text.len() > longest || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(InvalidEdit::new(
            name,
            format!("give up to {longest} characters, without spaces"),
        ));
    }
    Ok(())
}

/// The images that match everything that is given, at least one; an empty text matches all.
pub(crate) fn find<'a>(
    text: &'a Text<'_>,
    object: &str,
    container: &str,
    image: &str,
    field: &str,
) -> Result<Vec<ImageAt<'a>>, Refusal> {
    let all = objects(&text.stream);
    let chosen: Vec<Object<'a>> = match object.is_empty() {
        true => all,
        false => named(&all, object)?,
    };
    let steps = match field.is_empty() {
        true => None,
        false => Some(Steps::parse("field", field).map_err(|error| Refusal::ImageNotFound(error.message))?),
    };
    let (mut found, mut there) = (Vec::new(), Vec::new());
    for object in chosen.iter().filter(|object| !object.is_list) {
        match &steps {
            Some(steps) => match ImageAt::find(text, object, steps)? {
                Ok(at) if image.is_empty() || at.reference().name == image => found.push(at),
                Ok(at) => there.push(format!("{} has {}", object.label, at.reference().name)),
                Err(instead) => there.push(format!("{}: {instead}", object.label)),
            },
            None => {
                let mut walk = Walk {
                    text,
                    object,
                    container,
                    image,
                    found: &mut found,
                    there: &mut there,
                };
                walk.node(object.node, &mut Vec::new(), shared(text, object)?)?;
            }
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let wanted: Vec<String> = [
        ("container", container),
        ("image", image),
        ("field", field),
        ("object", object),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .map(|(what, text)| format!("{what} {text:?}"))
    .collect();
    Err(Refusal::ImageNotFound(match there.is_empty() {
        true => format!(
            "nothing fits {}: no containers are there; for a custom resource give `field`",
            wanted.join(" and ")
        ),
        false => format!(
            "nothing fits {}; what is there: {}",
            wanted.join(" and "),
            list(&there)
        ),
    }))
}

/// The line of an anchor above an object that is used by an alias.
fn shared(text: &Text<'_>, object: &Object<'_>) -> Result<Option<usize>, Refusal> {
    let above = (1..object.at.len()).filter_map(|depth| text.stream.at(&object.at[..depth]));
    Ok(above
        .into_iter()
        .find(|node| text.stream.points_to(node.anchor))
        .map(|node| node.line))
}

struct Walk<'w, 'a, 't> {
    text: &'a Text<'t>,
    object: &'w Object<'a>,
    container: &'w str,
    image: &'w str,
    found: &'w mut Vec<ImageAt<'a>>,
    there: &'w mut Vec<String>,
}

impl<'a> Walk<'_, 'a, '_> {
    /// Looks for containers in a node. `shared` is the line of an anchor above it that is used by an alias elsewhere.
    fn node(&mut self, node: &'a Node, below: &mut Vec<usize>, shared: Option<usize>) -> Result<(), Refusal> {
        let shared = shared.or_else(|| self.text.stream.points_to(node.anchor).then_some(node.line));
        match &node.kind {
            Kind::Mapping { entries, .. } => {
                if text_at(node, "kind") == Some("CustomResourceDefinition") {
                    return Ok(());
                }
                for (index, (key, value)) in entries.iter().enumerate() {
                    below.push(index);
                    if key.scalar().is_some_and(|key| LISTS.contains(&key))
                        && let Kind::Sequence { items, .. } = &value.kind
                    {
                        let shared =
                            shared.or_else(|| self.text.stream.points_to(value.anchor).then_some(value.line));
                        for (index, item) in items.iter().enumerate() {
                            below.push(index);
                            self.item(item, below, shared)?;
                            below.pop();
                        }
                    }
                    self.node(value, below, shared)?;
                    below.pop();
                }
            }
            Kind::Sequence { items, .. } => {
                for (index, item) in items.iter().enumerate() {
                    below.push(index);
                    self.node(item, below, shared)?;
                    below.pop();
                }
            }
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
        Ok(())
    }

    /// Records a container that matches.
    fn item(&mut self, item: &'a Node, below: &mut Vec<usize>, shared: Option<usize>) -> Result<(), Refusal> {
        let name = text_at(item, "name").unwrap_or_default();
        let by_name = !self.container.is_empty() && self.container == name;
        if !self.container.is_empty() && !by_name {
            let shown = text_at(item, "image").unwrap_or("no image");
            self.there
                .push(format!("container {name:?} of {} ({shown})", self.object.label));
            return Ok(());
        }
        let mut images = match &item.kind {
            Kind::Mapping { entries, .. } => entries
                .iter()
                .enumerate()
                .filter(|(_, (key, _))| key.scalar() == Some("image")),
            _ => return Ok(()),
        };
        let Some((index, (_, image))) = images.next() else {
            if by_name || !self.image.is_empty() {
                let merged = not_merged(self.text, item, "image");
                if by_name {
                    merged?;
                }
            }
            self.there
                .push(format!("container {name:?} of {} (no image)", self.object.label));
            return Ok(());
        };
        let second = images.next();
        let now = match image.kind {
            Kind::Alias(anchor) => self.text.stream.anchored(anchor).and_then(Node::scalar),
            _ => image.scalar(),
        };
        let reference = now.map(Reference::split).unwrap_or_default();
        if !self.image.is_empty() && reference.name != self.image {
            self.there.push(format!(
                "container {name:?} of {} ({})",
                self.object.label,
                now.unwrap_or("a template")
            ));
            return Ok(());
        }
        if let Some((_, (second, _))) = second {
            return Err(refuse(second.line, "`image` stands here a second time"));
        }
        if matches!(image.kind, Kind::Alias(_)) {
            return Err(refuse(
                image.line,
                "the image is an alias: edit it where its anchor stands, or write it out here",
            ));
        }
        if image.is_template() {
            return Err(refuse(
                image.line,
                "a template stands here: edit the values that it is filled with",
            ));
        }
        let shared = shared.or_else(|| {
            [item, image]
                .into_iter()
                .find(|node| self.text.stream.points_to(node.anchor))
                .map(|node| node.line)
        });
        if let Some(line) = shared {
            return Err(refuse(
                line,
                "an anchor stands here that an alias elsewhere uses: write the value out there first",
            ));
        }
        below.push(index);
        // The path to it is unambiguous: no key on it occurs twice.
        follow(self.text, self.object, &self.object.steps_to(below))?;
        self.found.extend(ImageAt::whole(self.text, self.object, below));
        below.pop();
        Ok(())
    }
}
