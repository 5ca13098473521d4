//! Where a service's images of one environment are, to read them and to make edits to them.

use serde::{Deserialize, Serialize};

use crate::{
    Edit, HelmImage, InvalidEdit, KustomizeImage, ManifestImage, Refusal, Refused, Scalar, Source,
    image::{NewImage, Reference},
    layout::Text,
    path::{FilePath, Folder},
};

/// A place that has images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The folder of a kustomization; its images are the entries of `images`.
    Kustomization(Folder),
    Helm(HelmPlace),
    Manifest(ManifestPlace),
}

/// A path of a values file. See [`crate::HelmImage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelmPlace {
    pub file: FilePath,
    pub path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub document: String,
    /// As in [`crate::HelmImage::allow_shared`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_shared: bool,
    /// As in [`crate::HelmImage::add_missing`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add_missing: bool,
}

impl HelmPlace {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(file: &str, path: &str, document: &str) -> Result<Self, InvalidEdit> {
        // Checked like an edit of that place.
        let HelmImage {
            file, path, document, ..
        } = HelmImage::new(file, path, document, NewImage::default())?;
        Ok(Self {
            file,
            path,
            document,
            allow_shared: false,
            add_missing: false,
        })
    }
}

/// The containers of a file of manifests, or a field of its objects. See [`crate::ManifestImage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPlace {
    pub file: FilePath,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// As in [`crate::ManifestImage::allow_shared`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_shared: bool,
}

impl ManifestPlace {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(file: &str, object: &str, container: &str, field: &str) -> Result<Self, InvalidEdit> {
        crate::manifest::check_place(object, container, field)?;
        Ok(Self {
            file: file.parse()?,
            object: object.to_owned(),
            container: container.to_owned(),
            field: field.to_owned(),
            allow_shared: false,
        })
    }
}

/// An image at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAtPlace {
    /// The name by which edits refer to it: the entry's `name` in a kustomization, the path in values, and in manifests
    /// the image's name as written there.
    pub name: String,
    /// The image that the file names.
    pub image: Reference,
    pub file: String,
    /// Counted from 1.
    pub line: usize,
}

impl Place {
    /// The edit that writes an image here. `name` is as in [`ImageAtPlace::name`]; for a values path, which has only one
    /// image, it is ignored.
    ///
    /// # Errors
    /// Names the field.
    pub fn edit(&self, name: &str, to: NewImage) -> Result<Edit, InvalidEdit> {
        match self {
            Self::Kustomization(folder) => {
                KustomizeImage::new(folder.as_str(), name, to).map(Edit::KustomizeImage)
            }
            Self::Helm(place) => {
                let edit = HelmImage::new(place.file.as_str(), &place.path, &place.document, to)?;
                Ok(Edit::HelmImage(HelmImage {
                    allow_shared: place.allow_shared,
                    add_missing: place.add_missing,
                    ..edit
                }))
            }
            Self::Manifest(place) => {
                let (file, object) = (place.file.as_str(), &place.object);
                let edit = ManifestImage::new(file, object, &place.container, name, &place.field, to)?;
                Ok(Edit::ManifestImage(ManifestImage {
                    allow_shared: place.allow_shared,
                    ..edit
                }))
            }
        }
    }
}

/// The images at a place, in the order of the file.
///
/// # Errors
/// The outer one is the source's own; the inner one says what is wrong with the file.
pub fn read<S: Source>(place: &Place, source: &S) -> Result<Result<Vec<ImageAtPlace>, Refused>, S::Error> {
    let path = match place {
        Place::Kustomization(folder) => match crate::kustomization(folder, source)? {
            Ok(path) => path,
            Err(refused) => return Ok(Err(refused)),
        },
        Place::Helm(place) => place.file.to_string(),
        Place::Manifest(place) => place.file.to_string(),
    };
    let whole = match crate::text(&path, source)? {
        Ok(text) => text,
        Err(refused) => return Ok(Err(refused)),
    };
    let found = Text::read(&whole).and_then(|text| match place {
        Place::Kustomization(_) => entries(&text, &path),
        Place::Helm(place) => {
            let (image, line) = match crate::helm::read(&text, &place.path, &place.document) {
                // It will be there when it is added.
                Err(Refusal::ImageNotFound(_)) if place.add_missing => return Ok(Vec::new()),
                found => found?,
            };
            Ok(vec![ImageAtPlace {
                name: place.path.clone(),
                image,
                file: path.clone(),
                line,
            }])
        }
        Place::Manifest(place) => {
            let images = crate::manifest::find(&text, &place.object, &place.container, "", &place.field)?;
            Ok(images
                .iter()
                .map(|image| ImageAtPlace {
                    name: image.reference().name,
                    image: image.reference(),
                    file: path.clone(),
                    line: image.line(),
                })
                .collect())
        }
    });
    Ok(found.map_err(|refusal| Refused { path, refusal }))
}

fn entries(text: &Text<'_>, path: &str) -> Result<Vec<ImageAtPlace>, Refusal> {
    let value = |scalar: &Option<Scalar>| {
        scalar
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default()
    };
    let entries = crate::kustomization::entries(text)?;
    Ok(entries
        .iter()
        .map(|(node, entry)| ImageAtPlace {
            name: entry.name.clone(),
            image: Reference {
                name: value(&entry.new_name),
                tag: value(&entry.new_tag),
                digest: value(&entry.digest),
            },
            file: path.to_owned(),
            line: node.line,
        })
        .collect())
}
