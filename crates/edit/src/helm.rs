//! Images in files of Helm values, and in objects that hold values: a HelmRelease, an Application.

use serde::{Deserialize, Serialize};

use crate::{
    InvalidEdit, Refusal,
    difference::Difference,
    image::NewImage,
    layout::{Text, list, refuse},
    objects::{named, objects},
    path::FilePath,
    slots::ImageAt,
    steps::Steps,
    values::{Changes, done},
};

/// The longest `Kind/name`: what Kubernetes allows for both.
const MAX_OBJECT: usize = 320;

/// Sets the image at a path of a values file.
///
/// What is at the path decides what is written:
/// - A mapping with `repository`, `tag`, `digest`, `registry` gets each part in its own key. A missing `tag` is added.
///   A digest that has to go is emptied but keeps its key, since removing the key would leave the chart's default; a
///   new digest without a `digest` key is appended to the tag, as `TAG@DIGEST`. A digest given alone keeps the tag.
/// - A path whose last key is such a part (`image.tag`, `imageTag`, `IMAGE_TAG`) refers to the image that it belongs
///   to.
/// - Any other value is a whole reference; it keeps its name unless a new one is given.
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
        })
    }

    pub(crate) fn apply(&self, whole: &str) -> Result<(String, Difference), Refusal> {
        let text = Text::read(whole)?;
        let image = find(&text, &self.path, &self.document)?;
        let mut changes = Changes::new(&text);
        let before = image.reference();
        let (values, after) = image.write(&mut changes, &self.to)?;
        Ok(done(changes.finish()?, &self.file, values, before, after))
    }
}

/// The one image at a path.
pub(crate) fn find<'a>(text: &'a Text<'_>, path: &str, document: &str) -> Result<ImageAt<'a>, Refusal> {
    let steps = Steps::parse("path", path).map_err(|error| Refusal::ImageNotFound(error.message))?;
    let objects = objects(&text.stream);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for object in named(&objects, document)? {
        match ImageAt::find(text, &object, &steps)? {
            Ok(image) => found.push(image),
            Err(instead) => missing.push((object.label.clone(), instead)),
        }
    }
    if let [first, second, ..] = found.as_slice() {
        let labels: Vec<&str> = found.iter().map(|image| image.object.label.as_str()).collect();
        let _ = first;
        return Err(refuse(
            second.line(),
            format!(
                "`{path}` stands in several documents ({}): name one by `document`",
                list(&labels)
            ),
        ));
    }
    found.pop().ok_or_else(|| {
        Refusal::ImageNotFound(match missing.as_slice() {
            [(_, instead)] => instead.clone(),
            several => {
                let each: Vec<String> = several
                    .iter()
                    .map(|(label, instead)| format!("document {label}: {instead}"))
                    .collect();
                format!("no document has `{path}`: {}", list(&each))
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
