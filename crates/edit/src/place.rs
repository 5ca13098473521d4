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
            Self::Helm(HelmPlace { file, path, document }) => {
                HelmImage::new(file.as_str(), path, document, to).map(Edit::HelmImage)
            }
            Self::Manifest(ManifestPlace {
                file,
                object,
                container,
                field,
            }) => {
                ManifestImage::new(file.as_str(), object, container, name, field, to).map(Edit::ManifestImage)
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
            let image = crate::helm::find(&text, &place.path, &place.document)?;
            Ok(vec![ImageAtPlace {
                name: place.path.clone(),
                image: image.reference(),
                file: path.clone(),
                line: image.line(),
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
