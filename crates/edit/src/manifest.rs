//! Images in plain manifests: containers of everything with a pod template, and fields of custom resources.

use serde::{Deserialize, Serialize};

use crate::{InvalidEdit, image::NewImage, path::FilePath};

/// Sets the image of containers, or of a field of a custom resource. At least one of `container`, `image` and
/// `field` is given; those that are given must all fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestImage {
    pub file: FilePath,
    /// Only this object: `Deployment/web`; empty for all of the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The name of a container or init container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The image's name as the file has it, without tag and digest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// A path in the object where an image stands: `spec.image`. For kinds without a pod template.
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
        Ok(Self {
            file: file.parse()?,
            object: object.to_owned(),
            container: container.to_owned(),
            image: image.to_owned(),
            field: field.to_owned(),
            to,
        })
    }
}
