//! The image at a place in a document, in one value or in several next to each other: found, read, and written.

use crate::{
    Refusal,
    difference::ValueDifference,
    entry::Scalar,
    image::{NewImage, Reference},
    layout::{Field, Text, refuse},
    naming::{Naming, Part, assemble},
    objects::{Object, position},
    steps::{Step, Steps},
    values::{Changes, Led, behind, follow, scalar, what_is_there},
    yaml::{Kind, Node, needs_quotes},
};

/// An existing value.
#[derive(Debug, Clone)]
struct Slot {
    steps: Steps,
    /// From the object.
    below: Vec<usize>,
    stands: Scalar,
    line: usize,
}

/// The values of one image.
#[derive(Debug, Default)]
struct Parts {
    /// From the object.
    mapping: Vec<usize>,
    steps: Option<Steps>,
    registry: Option<Slot>,
    name: Option<Slot>,
    tag: Option<Slot>,
    digest: Option<Slot>,
    /// The key that a tag would have.
    tag_key: String,
    line: usize,
}

#[derive(Debug)]
enum Form {
    /// One value has the whole reference.
    Whole(Slot),
    Parts(Box<Parts>),
}

/// An image in a document.
#[derive(Debug)]
pub(crate) struct ImageAt<'a> {
    pub(crate) object: Object<'a>,
    form: Form,
}

impl<'a> ImageAt<'a> {
    /// The image at a path of an object; if there is none, the error says what is there instead.
    ///
    /// # Errors
    /// The value is shared.
    pub(crate) fn find(
        text: &'a Text<'_>,
        object: &Object<'a>,
        steps: &Steps,
    ) -> Result<Result<Self, String>, Refusal> {
        let image = |form| {
            Ok(Ok(Self {
                object: object.clone(),
                form,
            }))
        };
        let last_key = match steps.0.last() {
            Some(Step::Key(key)) => Some(key.as_str()),
            _ => None,
        };
        let parent = Steps(steps.0[..steps.0.len() - 1].to_vec());
        match follow(text, object, steps)? {
            Led::Node { below, node } => match &node.kind {
                Kind::Mapping { .. } if !node.is_template() => {
                    let parts = Parts::of(text, object, steps, below, node, &Naming::plain(), true)?;
                    if parts.is_image(node) {
                        return image(Form::Parts(Box::new(parts)));
                    }
                    let more = match position(node, "image") {
                        Some(_) => "; end the path in its `image`",
                        None => "",
                    };
                    Ok(Err(format!(
                        "`{steps}` is not an image: it has neither `repository` nor `tag`; {}{more}",
                        what_is_there(node)
                    )))
                }
                Kind::Scalar { .. } => {
                    if let Some(key) = last_key
                        && let Some((_, above)) = below.split_last()
                        && let Some(mapping) = at(object, above)
                        && let Some(parts) = Parts::around(text, object, &parent, above, mapping, key, node)?
                    {
                        return image(Form::Parts(Box::new(parts)));
                    }
                    match Slot::new(text, object, steps, below, node) {
                        Some(slot) => image(Form::Whole(slot)),
                        None => Ok(Err(format!("`{steps}` holds no value"))),
                    }
                }
                _ if node.is_template() => Err(refuse(
                    node.line,
                    "a template stands here: edit the values that it is filled with",
                )),
                _ => Ok(Err(format!("`{steps}` is a list; {}", what_is_there(node)))),
            },
            Led::Missing { below, node, left } => {
                // A tag or digest to be added belongs to an existing image.
                if left == 1
                    && let Some((_, Part::Tag | Part::Digest, naming)) = last_key.and_then(Naming::of)
                    && matches!(node.kind, Kind::Mapping { .. })
                {
                    let parts =
                        Parts::of(text, object, &parent, below, node, &naming, is_image_key(&parent))?;
                    if parts.name.is_some() || parts.tag.is_some() || parts.digest.is_some() {
                        return image(Form::Parts(Box::new(parts)));
                    }
                }
                let done = Steps(steps.0[..steps.0.len() - left].to_vec());
                let missing = Steps(steps.0[steps.0.len() - left..][..1].to_vec());
                let place = match done.0.is_empty() {
                    true => "at the top".to_owned(),
                    false => format!("in `{done}`"),
                };
                Ok(Err(format!("no `{missing}` {place}; {}", what_is_there(node))))
            }
        }
    }

    /// A container's image: always a whole reference.
    pub(crate) fn whole(text: &Text<'_>, object: &Object<'a>, below: &[usize]) -> Option<Self> {
        let node = at(object, below)?;
        // The label's own prefix is prepended to the steps later.
        let full = object.steps_to(below);
        let skip = full.0.len() - below.len();
        let steps = Steps(full.0[skip..].to_vec());
        let slot = Slot::new(text, object, &steps, below.to_vec(), node)?;
        Some(Self {
            object: object.clone(),
            form: Form::Whole(slot),
        })
    }

    /// The image that the file names.
    pub(crate) fn reference(&self) -> Reference {
        match &self.form {
            Form::Whole(slot) => Reference::split(&slot.stands.value),
            Form::Parts(parts) => parts.reference(),
        }
    }

    /// Where people look for it: the tag, if it has a value of its own.
    pub(crate) fn line(&self) -> usize {
        match &self.form {
            Form::Whole(slot) => slot.line,
            Form::Parts(parts) => [&parts.tag, &parts.digest, &parts.name]
                .into_iter()
                .flatten()
                .next()
                .map_or(parts.line, |slot| slot.line),
        }
    }

    /// Writes an image here, and returns the values it had before and has now.
    ///
    /// # Errors
    /// There is nowhere to put a part of it.
    pub(crate) fn write(
        &self,
        changes: &mut Changes<'_, '_>,
        to: &NewImage,
    ) -> Result<(Vec<ValueDifference>, Reference), Refusal> {
        let mut writer = Writer {
            object: &self.object,
            changes,
            values: Vec::new(),
        };
        let after = match &self.form {
            Form::Whole(slot) => {
                let reference = whole(slot, to)?;
                writer.set(slot, Some(reference.to_string()))?;
                reference
            }
            Form::Parts(parts) => parts.write(&mut writer, to)?,
        };
        Ok((writer.values, after))
    }
}

fn at<'a>(object: &Object<'a>, below: &[usize]) -> Option<&'a Node> {
    below
        .iter()
        .try_fold(object.node, |node, index| node.child(*index))
}

/// Whether the path's last key is about an image, so that a `name` in it is the image's.
fn is_image_key(steps: &Steps) -> bool {
    matches!(steps.0.last(), Some(Step::Key(key)) if key.to_ascii_lowercase().contains("image"))
}

impl Slot {
    fn new(
        text: &Text<'_>,
        object: &Object<'_>,
        steps: &Steps,
        below: Vec<usize>,
        node: &Node,
    ) -> Option<Self> {
        // An absent value is not a slot's own text, but can be filled in.
        let stands = scalar(text, node)?;
        Some(Self {
            steps: object.full(steps),
            below,
            stands,
            line: node.line,
        })
    }

    fn is_empty(&self) -> bool {
        self.stands.value.is_empty()
    }
}

impl Parts {
    /// The parts in a mapping; `named` when a `name` in it is the image's.
    fn of(
        text: &Text<'_>,
        object: &Object<'_>,
        steps: &Steps,
        mapping: Vec<usize>,
        node: &Node,
        naming: &Naming,
        named: bool,
    ) -> Result<Self, Refusal> {
        let slot = |key: &str| -> Result<Option<Slot>, Refusal> {
            let mut twice = node.fields(key).skip(1);
            if let Some((second, _)) = twice.next() {
                return Err(refuse(second.line, format!("`{key}` stands here a second time")));
            }
            let Some(index) = position(node, key) else {
                crate::values::not_merged(text, node, key)?;
                return Ok(None);
            };
            let Some(value) = node.child(index) else {
                return Ok(None);
            };
            if matches!(value.kind, Kind::Mapping { .. } | Kind::Sequence { .. }) && !value.is_template() {
                return Ok(None);
            }
            let below = mapping.iter().copied().chain([index]).collect();
            match Slot::new(text, object, &steps.with(key), below, value) {
                Some(slot) => Ok(Some(slot)),
                None => Err(refuse(
                    value.line,
                    format!("`{key}` is an alias or a template: edit it where it is written out"),
                )),
            }
        };
        let mut tag = slot(&naming.key("tag"))?;
        let mut tag_key = naming.key("tag");
        if tag.is_none() {
            let version = naming.key("version");
            // A whole document has a version of its own.
            if !naming.prefix.is_empty() || named {
                tag = slot(&version)?;
            }
            if tag.is_some() {
                tag_key = version;
            }
        }
        let mut name = slot(&naming.key("repository"))?;
        let stem = match naming.stem() {
            "" => "image",
            stem => stem,
        };
        if name.is_none() && (tag.is_some() || !naming.prefix.is_empty()) {
            name = slot(stem)?;
        }
        if name.is_none() && named {
            name = slot(&naming.key("name"))?;
        }
        Ok(Self {
            registry: slot(&naming.key("registry"))?,
            name,
            tag,
            digest: slot(&naming.key("digest"))?,
            tag_key,
            line: node.line,
            steps: Some(steps.clone()),
            mapping,
        })
    }

    /// The image that a value of a mapping is a part of; `None` when it is a whole reference.
    fn around(
        text: &Text<'_>,
        object: &Object<'_>,
        steps: &Steps,
        above: &[usize],
        mapping: &Node,
        key: &str,
        value: &Node,
    ) -> Result<Option<Self>, Refusal> {
        let whole = value.scalar().map(Reference::split).unwrap_or_default();
        let is_bare = whole.tag.is_empty() && whole.digest.is_empty();
        let (part, naming, word) = match Naming::of(key) {
            Some((word, part, naming)) => (part, naming, word),
            // `image: nginx` with a tag beside it.
            None if is_bare && key.eq_ignore_ascii_case("image") => (Part::Name, Naming::plain(), "image"),
            None => return Ok(None),
        };
        let mut parts = Self::of(
            text,
            object,
            steps,
            above.to_vec(),
            mapping,
            &naming,
            word == "name" || is_image_key(steps),
        )?;
        if word == "version" && parts.tag_key != key {
            // Next to a tag, a version is something else; alone, and asked for by path, it is the tag.
            if parts.tag.is_some() {
                return Ok(None);
            }
            let index = position(mapping, key).unwrap_or_default();
            let below = above.iter().copied().chain([index]).collect();
            parts.tag = Slot::new(text, object, &steps.with(key), below, value);
            parts.tag_key = key.to_owned();
        }
        if part == Part::Name && word != "repository" {
            let beside = parts.tag.is_some() || parts.digest.is_some();
            let own = parts
                .name
                .as_ref()
                .is_some_and(|slot| slot.steps == object.full(&steps.with(key)));
            return Ok((is_bare && beside && own).then_some(parts));
        }
        if word == "repository" && !is_bare {
            return Ok(None);
        }
        Ok(Some(parts))
    }

    /// Whether the named mapping contains an image.
    fn is_image(&self, node: &Node) -> bool {
        let named = self.name.is_some() && position(node, "image").is_none();
        named
            || self.tag.is_some()
            || self.digest.is_some()
            || self.registry.is_some()
            || position(node, "pullPolicy").is_some()
    }

    fn reference(&self) -> Reference {
        let value = |slot: &Option<Slot>| {
            slot.as_ref()
                .map(|slot| slot.stands.value.clone())
                .unwrap_or_default()
        };
        assemble(
            &value(&self.registry),
            &value(&self.name),
            &value(&self.tag),
            &value(&self.digest),
        )
    }

    fn write(&self, writer: &mut Writer<'_, '_, '_, '_>, to: &NewImage) -> Result<Reference, Refusal> {
        let now = self.reference();
        let (registry, name) = match &to.new_name {
            None => (None, None),
            Some(new) => {
                let Some(slot) = &self.name else {
                    return Err(refuse(
                        self.line,
                        "there is no `repository` here to write the image's name in: add it by hand, or leave the name out",
                    ));
                };
                match (
                    self.registry.as_ref().filter(|slot| !slot.is_empty()),
                    new.registry(),
                ) {
                    (None, _) => (None, Some(new.to_string())),
                    (Some(_), Some(host)) => (Some(host.to_owned()), Some(new.repository().to_owned())),
                    (Some(registry), None) if registry.stands.value == "docker.io" => {
                        (None, Some(new.to_string()))
                    }
                    (Some(_), None) => {
                        return Err(refuse(
                            slot.line,
                            "the registry stands in a value of its own here: give the new name with its registry",
                        ));
                    }
                }
            }
        };
        let (tag, digest) = match (&to.new_tag, &to.digest) {
            (None, None) => (None, None),
            // An emptied digest, since removing the key would leave the chart's default.
            (Some(tag), None) => (
                Some(tag.to_string()),
                self.digest
                    .as_ref()
                    .filter(|slot| !slot.is_empty())
                    .map(|_| String::new()),
            ),
            (Some(tag), Some(digest)) if self.digest.is_some() => {
                (Some(tag.to_string()), Some(digest.to_string()))
            }
            (Some(tag), Some(digest)) => (Some(format!("{tag}@{digest}")), None),
            (None, Some(digest)) if self.digest.is_some() => (
                self.tag
                    .as_ref()
                    .filter(|slot| slot.stands.value.contains('@'))
                    .map(|_| now.tag.clone()),
                Some(digest.to_string()),
            ),
            (None, Some(_)) if now.tag.is_empty() => {
                return Err(refuse(
                    self.line,
                    "there is neither a tag nor a `digest` here that could hold the digest: give the tag too",
                ));
            }
            (None, Some(digest)) => (Some(format!("{}@{digest}", now.tag)), None),
        };
        let registry = writer.part(self.registry.as_ref(), registry)?;
        let name = writer.part(self.name.as_ref(), name)?;
        let tag = match (&self.tag, tag) {
            (None, Some(tag)) => writer.insert(self, &tag)?,
            (slot, tag) => writer.part(slot.as_ref(), tag)?,
        };
        let digest = writer.part(self.digest.as_ref(), digest)?;
        Ok(assemble(&registry, &name, &tag, &digest))
    }
}

/// The new value of a whole reference.
fn whole(slot: &Slot, to: &NewImage) -> Result<Reference, Refusal> {
    let mut reference = Reference::split(&slot.stands.value);
    let key = match slot.steps.0.last() {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    let plain = slot.stands.written == slot.stands.value;
    let bare = !slot.stands.value.contains(['/', ':', '@']);
    let digits = slot
        .stands
        .value
        .trim_start_matches('v')
        .starts_with(|c: char| c.is_ascii_digit());
    let version = bare && digits && !key.to_ascii_lowercase().contains("image");
    if !slot.is_empty() && ((plain && needs_quotes(&slot.stands.value)) || version) {
        return Err(refuse(
            slot.line,
            format!(
                "{:?} does not look like an image: end the path in the key of an image, a tag or a digest",
                slot.stands.value
            ),
        ));
    }
    if let Some(name) = &to.new_name {
        reference.name = name.to_string();
    }
    if reference.name.is_empty() {
        return Err(refuse(slot.line, "no image stands here yet: give its name too"));
    }
    if to.new_tag.is_some() || to.digest.is_some() {
        reference.tag = to.new_tag.as_ref().map(ToString::to_string).unwrap_or_default();
        reference.digest = to.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    }
    Ok(reference)
}

struct Writer<'o, 'c, 't, 'a> {
    object: &'o Object<'o>,
    changes: &'c mut Changes<'t, 'a>,
    values: Vec<ValueDifference>,
}

impl Writer<'_, '_, '_, '_> {
    /// Sets a part, or leaves it; either way it is recorded. Returns its new value.
    fn part(&mut self, slot: Option<&Slot>, to: Option<String>) -> Result<String, Refusal> {
        match slot {
            Some(slot) => self.set(slot, to),
            None => Ok(String::new()),
        }
    }

    fn set(&mut self, slot: &Slot, to: Option<String>) -> Result<String, Refusal> {
        let at: Vec<usize> = self.object.at.iter().chain(&slot.below).copied().collect();
        let after = match to {
            Some(to) => self.changes.set(&at, &Field::Set(to))?,
            None => Some(slot.stands.clone()),
        };
        let value = after
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default();
        self.values.push(ValueDifference {
            document: self.object.label.clone(),
            at: slot.steps.to_string(),
            before: Some(slot.stands.clone()),
            after,
        });
        Ok(value)
    }

    /// Adds a tag.
    fn insert(&mut self, parts: &Parts, tag: &str) -> Result<String, Refusal> {
        let Some(mapping) = at(self.object, &parts.mapping) else {
            return Err(refuse(parts.line, "the mapping is gone"));
        };
        let at: Vec<usize> = self.object.at.iter().chain(&parts.mapping).copied().collect();
        let place = match &parts.name {
            Some(name) => name.below.last().copied().unwrap_or_default(),
            None => behind(mapping, &parts.tag_key),
        };
        let after = self
            .changes
            .insert(&at, place, &parts.tag_key, &Field::Set(tag.to_owned()))?;
        let steps = parts
            .steps
            .clone()
            .unwrap_or(Steps(Vec::new()))
            .with(&parts.tag_key);
        self.values.push(ValueDifference {
            document: self.object.label.clone(),
            at: self.object.full(&steps).to_string(),
            before: None,
            after,
        });
        Ok(tag.to_owned())
    }
}
