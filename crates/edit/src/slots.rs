//! The image at a place in a document, in one value or in several next to each other: found, read, and written.

use slipway_model::ImageName;

use crate::{
    Refusal,
    difference::ValueDifference,
    fields::{Fields, parameter},
    image::{NewImage, Reference},
    layout::{Field, Text, refuse},
    naming::{Naming, is_parameter_value},
    objects::{Object, position},
    parts::Parts,
    sharing::{Seen, Spot},
    slot::{Slot, Writer},
    steps::{Step, Steps},
    values::{Changes, Led, follow, what_is_there},
    yaml::{Kind, is_text, needs_quotes},
};

/// What is known of a whole reference before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WholeKind {
    /// The path was given by a person, and may end elsewhere than in an image.
    AtPath,
    /// Of a container, or of a volume.
    OfPod,
    /// An item of `kustomize.images` of an Application: `NAME=REFERENCE` or a reference.
    OfKustomize,
}

#[derive(Debug)]
enum Form<'a> {
    /// One value has the whole reference.
    Whole(Slot, WholeKind),
    Parts(Box<Parts<'a>>),
}

/// An image in a document.
#[derive(Debug)]
pub(crate) struct ImageAt<'a> {
    pub(crate) object: Object<'a>,
    form: Form<'a>,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Image(ImageAt<'a>),
    /// Not an image; says what is there instead.
    Missing {
        instead: String,
    },
    /// The path goes on in the text of a block.
    Embedded {
        spot: Spot<'a>,
        left: usize,
    },
}

impl<'a> ImageAt<'a> {
    /// The image at a path of an object.
    ///
    /// # Errors
    /// The path is not unambiguous, or leads into a template.
    pub(crate) fn find(text: &'a Text<'_>, object: &Object<'a>, steps: &Steps) -> Result<Found<'a>, Refusal> {
        let parts = |parts: Parts<'a>| {
            Found::Image(Self {
                object: object.clone(),
                form: Form::Parts(Box::new(parts)),
            })
        };
        let parent = |count: usize| Steps(steps.0[..steps.0.len().saturating_sub(count)].to_vec());
        let missing = |instead| Ok(Found::Missing { instead });
        match follow(text, object, steps)? {
            Led::Embedded { spot, left } => Ok(Found::Embedded { spot, left }),
            Led::Node(spot) => match &spot.node.kind {
                Kind::Mapping { .. } if !spot.node.is_template() => {
                    if let Some(name) = parameter(text, &spot)?
                        && let Some(found) = Self::of_parameter(text, object, &parent(1), name)?
                    {
                        return Ok(Found::Image(found));
                    }
                    let fields = Fields::mapping(spot.clone(), steps.clone());
                    let found = Parts::of(text, object, fields, &Naming::plain(), true)?;
                    if found.is_image(text)? {
                        return Ok(parts(found));
                    }
                    let more = match position(spot.node, "image") {
                        Some(_) => "; end the path in its `image`",
                        None => "",
                    };
                    let instead = format!(
                        "`{steps}` is not an image: it has neither `repository` nor `tag`; {}{more}",
                        what_is_there(spot.node)
                    );
                    missing(instead)
                }
                Kind::Scalar { .. } => Self::of_value(text, object, steps, &spot),
                _ if spot.node.is_template() => Err(refuse(
                    spot.node.line,
                    "there is a template here: edit the values that it uses",
                )),
                _ => missing(format!("`{steps}` is a list; {}", what_is_there(spot.node))),
            },
            Led::Missing { spot, left } => {
                if left == 1
                    && let Some(found) = Parts::beside(text, object, &parent(1), &spot, &steps.0)?
                {
                    return Ok(parts(found));
                }
                let done = parent(left);
                let next = Steps(steps.0[steps.0.len() - left..][..1].to_vec());
                let place = match done.0.is_empty() {
                    true => "at the top".to_owned(),
                    false => format!("in `{done}`"),
                };
                let instead = format!("no `{next}` {place}; {}", what_is_there(spot.node));
                missing(instead)
            }
        }
    }

    /// The image that a plain value is, or is a part of.
    fn of_value(
        text: &'a Text<'_>,
        object: &Object<'a>,
        steps: &Steps,
        spot: &Spot<'a>,
    ) -> Result<Found<'a>, Refusal> {
        let whole = |kind| {
            let slot = Slot::new(text, object, steps, spot);
            Ok(match slot {
                Some(slot) => Found::Image(Self {
                    object: object.clone(),
                    form: Form::Whole(slot, kind),
                }),
                None => Found::Missing {
                    instead: format!("`{steps}` holds no value"),
                },
            })
        };
        let (last, above) = match steps.0.split_last() {
            Some((last, above)) => (last, Steps(above.to_vec())),
            None => return whole(WholeKind::AtPath),
        };
        if let [.., Step::Key(tool), Step::Key(images)] = above.0.as_slice()
            && (tool.as_str(), images.as_str()) == ("kustomize", "images")
        {
            return whole(WholeKind::OfKustomize);
        }
        let Step::Key(key) = last else {
            return whole(WholeKind::AtPath);
        };
        let Led::Node(mapping) = follow(text, object, &above)? else {
            return whole(WholeKind::AtPath);
        };
        if is_parameter_value(key)
            && let Some(name) = parameter(text, &mapping)?
        {
            let list = Steps(above.0[..above.0.len().saturating_sub(1)].to_vec());
            if let Some(found) = Self::of_parameter(text, object, &list, name)? {
                return Ok(Found::Image(found));
            }
        }
        let fields = Fields::mapping(mapping, above);
        match Parts::around(text, object, fields, key, spot)? {
            Some(parts) => Ok(Found::Image(Self {
                object: object.clone(),
                form: Form::Parts(Box::new(parts)),
            })),
            None => whole(WholeKind::AtPath),
        }
    }

    /// The image that a parameter is, or is a part of.
    fn of_parameter(
        text: &'a Text<'_>,
        object: &Object<'a>,
        list: &Steps,
        name: &str,
    ) -> Result<Option<Self>, Refusal> {
        let Led::Node(spot) = follow(text, object, list)? else {
            return Ok(None);
        };
        if !matches!(spot.node.kind, Kind::Sequence { .. }) {
            return Ok(None);
        }
        let fields = Fields::parameters(spot, list.clone());
        let Some((value, steps)) = fields.get(text, name)? else {
            return Ok(None);
        };
        let form = match Parts::around(text, object, fields, name, &value)? {
            Some(parts) => Form::Parts(Box::new(parts)),
            None => match Slot::new(text, object, &steps, &value) {
                Some(slot) => Form::Whole(slot, WholeKind::AtPath),
                None => return Ok(None),
            },
        };
        Ok(Some(Self {
            object: object.clone(),
            form,
        }))
    }

    /// A whole reference at a place that is known to have one.
    pub(crate) fn whole(
        text: &Text<'_>,
        object: &Object<'a>,
        spot: &Spot<'_>,
        kind: WholeKind,
    ) -> Option<Self> {
        let slot = match spot.at.get(object.at.len()..).filter(|_| !spot.is_shared) {
            Some(below) => Slot {
                document: object.label.clone(),
                steps: object.steps_to(below),
                ..Slot::unnamed(text, spot)?
            },
            None => Slot::recorded(text, spot)?,
        };
        Some(Self {
            object: object.clone(),
            form: Form::Whole(slot, kind),
        })
    }

    /// The image that the file names.
    pub(crate) fn reference(&self) -> Reference {
        match &self.form {
            Form::Whole(slot, _) => Reference::split(slot.renamed().1),
            Form::Parts(parts) => parts.reference(),
        }
    }

    /// Where people look for it: the tag, if it has a value of its own.
    pub(crate) fn line(&self) -> usize {
        match &self.form {
            Form::Whole(slot, _) => slot.line,
            Form::Parts(parts) => parts.line(),
        }
    }

    /// The places that are meant by the edit.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        match &self.form {
            Form::Whole(slot, _) => vec![slot.seen.clone()],
            Form::Parts(parts) => parts.seen(),
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
            changes,
            values: Vec::new(),
        };
        let after = match &self.form {
            Form::Whole(slot, kind) => {
                let (text, reference) = whole(slot, *kind, to)?;
                writer.set(slot, Some(Field::Set(text)))?;
                reference
            }
            Form::Parts(parts) => parts.write(&mut writer, to)?,
        };
        Ok((writer.values, after))
    }
}

/// The new value of a whole reference, and the image that it names.
fn whole(slot: &Slot, kind: WholeKind, to: &NewImage) -> Result<(String, Reference), Refusal> {
    let (renames, stands) = slot.renamed();
    let mut reference = Reference::split(stands);
    let plain = slot.stands.written == slot.stands.value;
    let named = slot.key().to_ascii_lowercase().contains("image");
    let bare = !stands.contains(['/', ':', '@']);
    let version = bare
        && stands
            .trim_start_matches('v')
            .starts_with(|c: char| c.is_ascii_digit());
    let other = match named {
        // What only cannot be an image: a number, a boolean.
        true => plain && !is_text(&slot.stands.value),
        false => version || (plain && needs_quotes(&slot.stands.value)),
    };
    if kind == WholeKind::AtPath && !slot.is_empty() && other {
        return Err(refuse(
            slot.line,
            format!(
                "{:?} does not look like an image: end the path in the key of an image, a tag or a digest",
                slot.stands.value
            ),
        ));
    }
    let mut renames = renames.to_owned();
    if let Some(name) = &to.new_name {
        if kind == WholeKind::OfKustomize && renames.is_empty() && reference.name != name.as_str() {
            renames = format!("{}=", reference.name);
        }
        reference.name = name.to_string();
    }
    if reference.name.is_empty() {
        return Err(refuse(slot.line, "there is no image here yet: give its name too"));
    }
    // A tag that is broken is replaced; a name that is broken has to be given.
    if kind == WholeKind::OfPod && reference.name.parse::<ImageName>().is_err() {
        return Err(refuse(
            slot.line,
            format!(
                "{:?} is not the name of an image, so a tag cannot follow it: give the name too",
                reference.name
            ),
        ));
    }
    if to.new_tag.is_some() || to.digest.is_some() {
        reference.tag = to.new_tag.as_ref().map(ToString::to_string).unwrap_or_default();
        reference.digest = to.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    }
    Ok((format!("{renames}{reference}"), reference))
}
