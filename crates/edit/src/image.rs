//! Image references as files write them, and what an edit asks for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use slipway_model::{Digest, ImageName, Tag};

use crate::InvalidEdit;

/// The image that an edit writes; at least one part is given.
///
/// Tag and digest together identify an image: giving one of them alone removes the other, as `kustomize edit set image`
/// does. A digest that stayed would override the new tag, and a tag that stayed would show people a version that is not
/// running. The name changes only when it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewImage {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_name: Option<ImageName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_tag: Option<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl NewImage {
    /// Reads the fields of a request; empty ones are absent.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(new_name: &str, new_tag: &str, digest: &str) -> Result<Self, InvalidEdit> {
        fn given<T: FromStr<Err = slipway_model::Invalid>>(
            field: &'static str,
            text: &str,
        ) -> Result<Option<T>, InvalidEdit> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse()
                .map(Some)
                .map_err(|error: slipway_model::Invalid| InvalidEdit::new(field, error.to_string()))
        }
        let image = Self {
            new_name: given("new_name", new_name)?,
            new_tag: given("new_tag", new_tag)?,
            digest: given("digest", digest)?,
        };
        if image == Self::default() {
            return Err(InvalidEdit::new(
                "new_tag",
                "give at least one of new_name, new_tag and digest",
            ));
        }
        Ok(image)
    }
}

/// An image as a file names it, in any form; nothing about it is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// With its registry; empty where the file gives none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

impl Reference {
    /// Splits `name[:tag][@digest]`; a colon before a slash is a port.
    pub fn split(text: &str) -> Self {
        let (rest, digest) = text.split_once('@').unwrap_or((text, ""));
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (rest, ""),
        };
        Self {
            name: name.to_owned(),
            tag: tag.to_owned(),
            digest: digest.to_owned(),
        }
    }
}

/// `name:tag@digest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        if !self.digest.is_empty() {
            write!(f, "@{}", self.digest)?;
        }
        Ok(())
    }
}
