//! Images in files of Helm values, and in objects that hold values: a HelmRelease, an Application.

use serde::{Deserialize, Serialize};

use crate::{InvalidEdit, image::NewImage, path::FilePath};

/// Sets the image at a path of a values file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelmImage {
    pub file: FilePath,
    /// `image`, `image.tag`, `frontend.image`, `workers[name=mail].image`, `spec.values.image`.
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
        Ok(Self {
            file: file.parse()?,
            path: path.to_owned(),
            document: document.to_owned(),
            to,
        })
    }
}
