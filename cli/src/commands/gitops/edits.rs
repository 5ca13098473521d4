//! The edits that the `--image` options result in for files of each kind. Pure.

use slipway_edit::{Edit, HelmImage, InvalidEdit, KustomizeImage, ManifestImage};

use crate::{
    args::{ImageArgs, ImageOption},
    failure::Failure,
};

/// How files contain images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Kustomization,
    Helm,
    Manifest,
}

impl ImageArgs {
    /// The kind of all files, if given on the command line.
    pub(crate) fn kind(&self) -> Option<FileKind> {
        if self.kustomize {
            Some(FileKind::Kustomization)
        } else if !self.helm.is_empty() {
            Some(FileKind::Helm)
        } else if self.manifest || self.is_narrowed() || !self.object.is_empty() {
            Some(FileKind::Manifest)
        } else {
            None
        }
    }

    /// Whether the place of the image is known without its name.
    fn is_narrowed(&self) -> bool {
        !self.container.is_empty() || !self.field.is_empty()
    }

    /// The edits of one file, or of one folder of a kustomization, by its path from the root. Each comes with the name
    /// that the image must have now, if the edit itself does not check it.
    ///
    /// # Errors
    /// Parts of the command line that cannot be combined.
    pub(crate) fn edits(&self, kind: FileKind, path: &str) -> Result<Vec<(Edit, Option<String>)>, Failure> {
        let invalid = |error: InvalidEdit| Failure::new(format!("{}: {}", error.field, error.message));
        if self.images.is_empty() {
            return Err(Failure::new("no image is given").next("give --image NAME=REF:TAG"));
        }
        if kind == FileKind::Helm && self.helm.len() != self.images.len() {
            let message = format!(
                "{} --helm options and {} --image options",
                self.helm.len(),
                self.images.len()
            );
            return Err(Failure::new(message).next("give one --image for each --helm, in the same order"));
        }
        let edit = |(at, option): (usize, &ImageOption)| {
            Ok(match kind {
                FileKind::Kustomization => {
                    let (name, to) = option.by_name()?;
                    let edit = KustomizeImage::new(path, &name, to).map_err(invalid)?;
                    let edit = KustomizeImage {
                        allow_shared: self.allow_shared,
                        ..edit
                    };
                    (Edit::KustomizeImage(edit), None)
                }
                FileKind::Helm => {
                    let (name, to) = option.by_place()?;
                    let place = self.helm.get(at).map(String::as_str).unwrap_or_default();
                    let edit = HelmImage::new(path, place, &self.document, to).map_err(invalid)?;
                    let edit = HelmImage {
                        allow_shared: self.allow_shared,
                        add_missing: self.add_missing,
                        ..edit
                    };
                    (Edit::HelmImage(edit), name.map(str::to_owned))
                }
                FileKind::Manifest => {
                    let (name, to) = if self.is_narrowed() {
                        let (name, to) = option.by_place()?;
                        (name.unwrap_or_default().to_owned(), to)
                    } else {
                        option.by_name()?
                    };
                    let (object, container, field) = (&self.object, &self.container, &self.field);
                    let edit =
                        ManifestImage::new(path, object, container, &name, field, to).map_err(invalid)?;
                    let edit = ManifestImage {
                        allow_shared: self.allow_shared,
                        ..edit
                    };
                    (Edit::ManifestImage(edit), None)
                }
            })
        };
        self.images.iter().enumerate().map(edit).collect()
    }
}
