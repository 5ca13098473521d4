//! Images in files of Helm values, and in objects that hold values: a HelmRelease, an Application.

use serde::{Deserialize, Serialize};

use crate::{
    InvalidEdit, Refusal,
    added::NewKeys,
    difference::{Added, Difference, ValueDifference},
    embedded::Embedded,
    image::{NewImage, Reference},
    layout::{Text, list, refuse},
    objects::{named, objects},
    path::FilePath,
    slots::{Found, ImageAt},
    steps::Steps,
    values::{Changes, Led, Sharing, difference, done, follow},
};

/// How deeply texts of YAML may be nested in one another.
const MAX_EMBEDDED: usize = 4;

/// The longest `Kind/name`: what Kubernetes allows for both.
const MAX_OBJECT: usize = 320;

/// Sets the image at a path of a values file.
///
/// What is at the path decides what is written:
/// - A mapping with `repository`, `tag`, `digest`, `registry` gets each part in its own key. A missing `tag` is added.
///   A digest that has to go is emptied but keeps its key, since removing the key would leave the chart's default; a
///   new digest without a `digest` key is appended to the tag, as `TAG@DIGEST`. A digest given alone keeps the tag.
///   `sha` and `sha256` are digests as well; `useDigest` is switched with them.
/// - A tag or digest that stands in `repository` is replaced there.
/// - A path whose last key is such a part (`image.tag`, `imageTag`, `IMAGE_TAG`) refers to the image that it belongs
///   to. So does the name of a parameter (`parameters[name=image.tag]`).
/// - Any other value is a whole reference; it keeps its name unless a new one is given.
///
/// The path may go on in a block of text that is YAML itself: `spec.source.helm.values.image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelmImage {
    pub file: FilePath,
    /// `image`, `image.tag`, `frontend.image`, `workers[name=mail].image`, `spec.values.image`. Keys are separated by
    /// dots, list items given by `[0]` or `[KEY=VALUE]`; a key that holds a dot or bracket is written in double quotes.
    pub path: String,
    /// Which document of several, as in [`crate::ValueDifference::document`]; empty where the path is in one only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub document: String,
    #[serde(flatten)]
    pub to: NewImage,
    /// Also changes the other places that show the same value by an anchor. Without it that is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_shared: bool,
    /// Adds the image where the file has none at the path. Without it that is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add_missing: bool,
}

impl HelmImage {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(file: &str, path: &str, document: &str, to: NewImage) -> Result<Self, InvalidEdit> {
        Steps::parse("path", path)?;
        check_object("document", document)?;
        Ok(Self {
            file: file.parse()?,
            path: path.to_owned(),
            document: document.to_owned(),
            to,
            allow_shared: false,
            add_missing: false,
        })
    }

    pub(crate) fn apply(&self, whole: &str) -> Result<(String, Difference), Refusal> {
        let text = Text::read(whole)?;
        let sharing = match self.allow_shared {
            true => Sharing::Allowed,
            false => Sharing::Refused,
        };
        let mut changes = Changes::new(&text, sharing);
        let steps = parse(&self.path)?;
        let written = self.write(&text, &mut changes, &steps, &self.document, 0)?;
        let shared_with = std::mem::take(&mut changes.shared_with);
        let edited = changes.finish()?;
        let mut difference = difference(
            &self.file,
            written.values,
            written.before,
            written.after,
            shared_with,
        );
        difference.added = written.added.map(Box::new);
        Ok(done(edited, difference))
    }

    /// Writes the image in a text, or in a text that it contains.
    fn write(
        &self,
        text: &Text<'_>,
        changes: &mut Changes<'_, '_>,
        steps: &Steps,
        document: &str,
        depth: usize,
    ) -> Result<Written, Refusal> {
        if self.add_missing && is_vacant(text, steps, document)? {
            let keys = NewKeys::of(steps, &self.to)?;
            let after = keys.reference();
            let (values, added) = keys.add(text, changes, document)?;
            return Ok(Written {
                values,
                before: Reference::default(),
                after,
                added: Some(added),
            });
        }
        match find_one(text, steps, document)? {
            One::Image(image) => {
                changes.named.extend(image.seen());
                let before = image.reference();
                let (values, after) = image.write(changes, &self.to)?;
                Ok(Written {
                    values,
                    before,
                    after,
                    added: None,
                })
            }
            One::Embedded(within) => {
                if depth >= MAX_EMBEDDED {
                    return Err(refuse(within.line, "texts of YAML are nested too deeply here"));
                }
                let inner = within.embedded.yaml()?;
                let mut inside = Changes::new(&inner, changes.sharing().clone());
                let written = self
                    .write(&inner, &mut inside, &within.rest, "", depth + 1)
                    .map_err(|refusal| within.embedded.refusal(refusal))?;
                changes.shared_with.append(&mut inside.shared_with);
                let (value, splices) = inside
                    .spliced()
                    .map_err(|refusal| within.embedded.refusal(refusal))?;
                changes.named.insert(within.seen);
                changes.set_block(&within.at, within.embedded.splices(splices), value)?;
                let values = written.values.into_iter();
                Ok(Written {
                    values: values
                        .map(|value| within.embedded.value(&within.document, value))
                        .collect(),
                    added: written.added.map(|added| Added {
                        at: within.embedded.path_of(&added.at),
                        ..added
                    }),
                    ..written
                })
            }
        }
    }
}

fn parse(path: &str) -> Result<Steps, Refusal> {
    Steps::parse("path", path).map_err(|error| Refusal::ImageNotFound(error.message))
}

/// What was written.
struct Written {
    values: Vec<ValueDifference>,
    before: Reference,
    after: Reference,
    added: Option<Added>,
}

/// What is at a path, in one document.
enum One<'a> {
    Image(Box<ImageAt<'a>>),
    Embedded(Box<Within>),
}

/// A text in a block, and the rest of the path in it.
struct Within {
    embedded: Embedded,
    at: Vec<usize>,
    seen: crate::sharing::Seen,
    document: String,
    rest: Steps,
    line: usize,
}

/// Whether nothing stands at a path, or something that says so: an empty document or mapping, a key without a value.
fn is_vacant(text: &Text<'_>, steps: &Steps, document: &str) -> Result<bool, Refusal> {
    let all = objects(&text.stream);
    if all.is_empty() {
        return Ok(true);
    }
    let objects = named(&all, document)?;
    let [object] = objects.as_slice() else {
        return Ok(find_one(text, steps, document)
            .is_err_and(|refusal| matches!(refusal, Refusal::ImageNotFound(_))));
    };
    match follow(text, object, steps)? {
        Led::Embedded { .. } => Ok(false),
        Led::Node(spot) if spot.node.is_null() => Ok(crate::slot::last_part(&steps.0).is_none()),
        Led::Node(_) | Led::Missing { .. } => Ok(matches!(
            ImageAt::find(text, object, steps)?,
            Found::Missing { .. }
        )),
    }
}

/// The image at a path, and the line on which people look for it.
pub(crate) fn read(text: &Text<'_>, path: &str, document: &str) -> Result<(Reference, usize), Refusal> {
    read_within(text, &parse(path)?, document, 0)
}

fn read_within(
    text: &Text<'_>,
    steps: &Steps,
    document: &str,
    depth: usize,
) -> Result<(Reference, usize), Refusal> {
    match find_one(text, steps, document)? {
        One::Image(image) => Ok((image.reference(), image.line())),
        One::Embedded(within) if depth < MAX_EMBEDDED => {
            let inner = within.embedded.yaml()?;
            let (reference, line) = read_within(&inner, &within.rest, "", depth + 1)
                .map_err(|refusal| within.embedded.refusal(refusal))?;
            Ok((reference, within.embedded.line(line)))
        }
        One::Embedded(within) => Err(refuse(within.line, "texts of YAML are nested too deeply here")),
    }
}

/// What is at a path, in the one document that has it.
fn find_one<'a>(text: &'a Text<'_>, steps: &Steps, document: &str) -> Result<One<'a>, Refusal> {
    let objects = objects(&text.stream);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for object in named(&objects, document)? {
        match ImageAt::find(text, &object, steps)? {
            Found::Image(image) => {
                found.push((object.label.clone(), image.line(), One::Image(Box::new(image))));
            }
            Found::Embedded { spot, left } => {
                let (done, rest) = steps.0.split_at(steps.0.len() - left);
                let within = Within {
                    embedded: Embedded::read(text, &spot, &object.full(&Steps(done.to_vec())))?,
                    at: spot.at,
                    seen: spot.seen,
                    document: object.label.clone(),
                    rest: Steps(rest.to_vec()),
                    line: spot.node.line,
                };
                found.push((object.label.clone(), within.line, One::Embedded(Box::new(within))));
            }
            Found::Missing { instead, .. } => missing.push((object.label.clone(), instead)),
        }
    }
    if let [_, (_, line, _), ..] = found.as_slice() {
        let labels: Vec<&str> = found.iter().map(|(label, ..)| label.as_str()).collect();
        return Err(refuse(
            *line,
            format!(
                "`{steps}` is in several documents ({}): name one by `document`",
                list(&labels)
            ),
        ));
    }
    found.pop().map(|(.., found)| found).ok_or_else(|| {
        Refusal::ImageNotFound(match missing.as_slice() {
            [(_, instead)] => instead.clone(),
            several => {
                let each: Vec<String> = several
                    .iter()
                    .map(|(label, instead)| format!("document {label}: {instead}"))
                    .collect();
                format!("no document has `{steps}`: {}", list(&each))
            }
        })
    })
}

/// Whether a text can be a document's number or `Kind/name`.
pub(crate) fn check_object(field: &'static str, text: &str) -> Result<(), InvalidEdit> {
    let parts = text.split_once('/');
    let named = parts.is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
    let numbered = text.parse::<usize>().is_ok_and(|number| number > 0);
    if text.is_empty()
        || ((named || numbered) && text.len() <= MAX_OBJECT && !text.contains(char::is_control))
    {
        return Ok(());
    }
    let shown: String = text.chars().take(120).collect();
    Err(InvalidEdit::new(
        field,
        format!(
            "{shown:?} names no object: write KIND/NAME, as Deployment/web, or the document's number from 1"
        ),
    ))
}
