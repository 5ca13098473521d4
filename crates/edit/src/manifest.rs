//! Images in plain manifests: containers of everything with a pod template, and fields of custom resources.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    InvalidEdit, Refusal,
    contents::image_paths,
    difference::Difference,
    helm::check_object,
    image::{NewImage, Reference},
    layout::{Text, list, refuse},
    objects::{Object, named, objects},
    path::FilePath,
    slots::{Found, ImageAt},
    steps::Steps,
    values::{Changes, Sharing, difference, done},
    walk::walk,
};

/// Sets the image of containers, or of a field of a custom resource. At least one of `container`, `image` and `field`
/// is given; those that are given must all match.
///
/// Containers are the items of any `containers`, `initContainers` and `ephemeralContainers` of any kind but
/// CustomResourceDefinition: pods, workloads, jobs, Rollouts, and items of lists of objects. By `image` alone, volumes
/// with an image and the `kustomize.images` of an Application are found as well. Several matches are all edited, unless
/// they are in several objects, have different names, and were selected only by the container's name or the field: then
/// the edit is refused, naming the objects.
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
    /// Also changes the other places that show the same value by an anchor. Without it that is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_shared: bool,
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
            allow_shared: false,
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
        let sharing = match self.allow_shared {
            true => Sharing::Allowed,
            false => Sharing::Refused,
        };
        let mut changes = Changes::new(&text, sharing);
        for image in &found {
            changes.named.extend(image.seen());
        }
        let mut values = Vec::new();
        let (mut before, mut after) = (Reference::default(), Reference::default());
        for (number, image) in found.iter().enumerate() {
            let (mut wrote, now) = image.write(&mut changes, &self.to)?;
            values.append(&mut wrote);
            if number == 0 {
                (before, after) = (image.reference(), now);
            }
        }
        // Containers that share a value change it once.
        let mut written = BTreeSet::new();
        values.retain(|value| written.insert((value.document.clone(), value.at.clone())));
        let shared_with = std::mem::take(&mut changes.shared_with);
        let edited = changes.finish()?;
        let difference = difference(&self.file, values, before, after, shared_with);
        Ok(done(edited, difference))
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
                Found::Image(at) if image.is_empty() || at.reference().name == image => found.push(at),
                Found::Image(at) => there.push(format!("{} has {}", object.label, at.reference().name)),
                Found::Missing { instead } => there.push(format!("{}: {instead}", object.label)),
                Found::Embedded { spot, .. } => there.push(format!(
                    "{}: there is a text at line {}: give the path as one of Helm values",
                    object.label, spot.node.line
                )),
            },
            None => walk(text, object, container, image, &mut found, &mut there)?,
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
    let paths = image_paths(&text.stream);
    Err(Refusal::ImageNotFound(match there.is_empty() {
        true if !paths.is_empty() => format!(
            "nothing matches {}: no containers are there; there may be images at {}: edit them by path, as Helm values",
            wanted.join(" and "),
            list(&paths)
        ),
        true => format!(
            "nothing matches {}: there are no containers; for a custom resource give `field`",
            wanted.join(" and ")
        ),
        false => format!(
            "nothing matches {}; there are: {}",
            wanted.join(" and "),
            list(&there)
        ),
    }))
}
