//! An entry of a kustomization's `images`, and values as they are written.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::image::Reference;

/// The fields that we set, in the order in which kustomize writes them after `name`.
pub(crate) const FIELDS: [&str; 3] = ["newName", "newTag", "digest"];

/// A value, as its meaning and as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scalar {
    pub value: String,
    /// With its quotes, when it had some.
    pub written: String,
}

/// One entry of `images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_name: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_tag: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Scalar>,
}

impl Entry {
    /// One without fields.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            new_name: None,
            new_tag: None,
            digest: None,
        }
    }

    pub(crate) fn get(&self, field: usize) -> Option<&Scalar> {
        [&self.new_name, &self.new_tag, &self.digest][field].as_ref()
    }

    pub(crate) fn set(&mut self, field: usize, scalar: Option<Scalar>) {
        *[&mut self.new_name, &mut self.new_tag, &mut self.digest][field] = scalar;
    }

    /// The image that it writes; its own name where it has no new one.
    pub(crate) fn image(&self) -> Reference {
        let value = |scalar: &Option<Scalar>| {
            let scalar = scalar.as_ref().map(|scalar| scalar.value.clone());
            scalar.unwrap_or_default()
        };
        Reference {
            name: match value(&self.new_name) {
                empty if empty.is_empty() => self.name.clone(),
                name => name,
            },
            tag: value(&self.new_tag),
            digest: value(&self.digest),
        }
    }

    /// Whether both name the same image, however they are written.
    pub fn means(&self, other: &Self) -> bool {
        self.name == other.name
            && (0..FIELDS.len()).all(|field| {
                self.get(field).map(|scalar| &scalar.value) == other.get(field).map(|scalar| &scalar.value)
            })
    }
}

/// The image as one reference: `newName:newTag@digest`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.new_name.as_ref().map_or(&self.name, |name| &name.value))?;
        if let Some(tag) = &self.new_tag {
            write!(f, ":{}", tag.value)?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{}", digest.value)?;
        }
        Ok(())
    }
}
