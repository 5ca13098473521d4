//! Edits and places, between the wire and the domain.

use gitops_domain::history::ImageChange;
use slipway_edit::{
    Difference, Edit, Entry, FilePath, Folder, HelmImage, HelmPlace, ImageAtPlace, InvalidEdit,
    KustomizeImage, ManifestImage, ManifestPlace, NewImage, Place, Reference, ValueDifference,
};
use slipway_proto::gitops::v1::{self as proto, edit::Edit as Wire};
use slipway_server::ApiError;

/// The maximum number of edits in one change: all overlays of a large service.
const MAX_EDITS: usize = 100;

/// # Errors
/// Names the field of the edit.
pub(super) fn edits(edits: Vec<proto::Edit>) -> Result<Vec<Edit>, ApiError> {
    if edits.len() > MAX_EDITS {
        return Err(ApiError::invalid("edits", format!("give up to {MAX_EDITS}")));
    }
    edits
        .into_iter()
        .enumerate()
        .map(|(index, edit)| {
            let Some(edit) = edit.edit else {
                return Err(ApiError::invalid(format!("edits[{index}].edit"), "is required"));
            };
            let (kind, read) = one(edit);
            read.map_err(|error| {
                let field = format!("edits[{index}].{kind}.{}", error.field);
                ApiError::invalid(field, error)
            })
        })
        .collect()
}

/// The name of the edit's kind, and the edit: where it is, then what it writes.
fn one(edit: Wire) -> (&'static str, Result<Edit, InvalidEdit>) {
    let unset = NewImage::default;
    match edit {
        Wire::KustomizeImage(edit) => (
            "kustomize_image",
            KustomizeImage::new(&edit.path, &edit.name, unset()).and_then(|at| {
                let to = NewImage::new(&edit.new_name, &edit.new_tag, &edit.digest)?;
                Ok(Edit::KustomizeImage(KustomizeImage {
                    to,
                    allow_shared: edit.allow_shared,
                    ..at
                }))
            }),
        ),
        Wire::HelmImage(edit) => (
            "helm_image",
            HelmImage::new(&edit.file, &edit.path, &edit.document, unset()).and_then(|at| {
                let to = NewImage::new(&edit.new_name, &edit.new_tag, &edit.digest)?;
                Ok(Edit::HelmImage(HelmImage {
                    to,
                    allow_shared: edit.allow_shared,
                    add_missing: edit.add_missing,
                    ..at
                }))
            }),
        ),
        Wire::ManifestImage(edit) => (
            "manifest_image",
            ManifestImage::new(
                &edit.file,
                &edit.object,
                &edit.container,
                &edit.image,
                &edit.field,
                unset(),
            )
            .and_then(|at| {
                let to = NewImage::new(&edit.new_name, &edit.new_tag, &edit.digest)?;
                Ok(Edit::ManifestImage(ManifestImage {
                    to,
                    allow_shared: edit.allow_shared,
                    ..at
                }))
            }),
        ),
        Wire::Marker(_) => ("marker", Ok(Edit::Marker)),
    }
}

/// # Errors
/// Names the field, below `field`.
pub(super) fn place(field: &str, place: proto::Place) -> Result<Place, ApiError> {
    use proto::place::Place as Wire;
    let invalid = |kind: &str, error: &InvalidEdit| {
        // A folder's only field is the place itself.
        let field = match kind {
            "kustomization" => format!("{field}.{kind}"),
            _ => format!("{field}.{kind}.{}", error.field),
        };
        ApiError::invalid(field, error)
    };
    match place.place {
        None => Err(ApiError::invalid(field, "say kustomization, helm or manifest")),
        Some(Wire::Kustomization(folder)) => folder
            .parse()
            .map(Place::Kustomization)
            .map_err(|error| invalid("kustomization", &error)),
        Some(Wire::Helm(at)) => HelmPlace::new(&at.file, &at.path, &at.document)
            .map(|place| {
                Place::Helm(HelmPlace {
                    allow_shared: at.allow_shared,
                    add_missing: at.add_missing,
                    ..place
                })
            })
            .map_err(|error| invalid("helm", &error)),
        Some(Wire::Manifest(at)) => ManifestPlace::new(&at.file, &at.object, &at.container, &at.field)
            .map(|place| {
                Place::Manifest(ManifestPlace {
                    allow_shared: at.allow_shared,
                    ..place
                })
            })
            .map_err(|error| invalid("manifest", &error)),
    }
}

/// The file or folder that an edit changes; `None` for a marker.
pub(super) fn path_of(edit: &Edit) -> Option<&str> {
    match edit {
        Edit::KustomizeImage(edit) => Some(edit.path.as_str()),
        Edit::RestoreImage(edit) => Some(edit.path.as_str()),
        Edit::HelmImage(edit) => Some(edit.file.as_str()),
        Edit::ManifestImage(edit) => Some(edit.file.as_str()),
        Edit::RestoreValues(edit) => Some(edit.file.as_str()),
        Edit::Marker => None,
    }
}

/// The parts of an image, as the wire has them.
fn parts(to: &NewImage) -> Reference {
    fn text(value: Option<&impl ToString>) -> String {
        value.map(ToString::to_string).unwrap_or_default()
    }
    Reference {
        name: text(to.new_name.as_ref()),
        tag: text(to.new_tag.as_ref()),
        digest: text(to.digest.as_ref()),
    }
}

fn kustomize(folder: &Folder, name: &str, image: Reference) -> Wire {
    Wire::KustomizeImage(proto::KustomizeImage {
        path: folder.as_str().to_owned(),
        name: name.to_owned(),
        new_name: image.name,
        new_tag: image.tag,
        digest: image.digest,
        ..proto::KustomizeImage::default()
    })
}

fn helm(file: &FilePath, path: &str, document: &str, image: Reference) -> proto::HelmImage {
    proto::HelmImage {
        file: file.to_string(),
        path: path.to_owned(),
        document: document.to_owned(),
        new_name: image.name,
        new_tag: image.tag,
        digest: image.digest,
        ..proto::HelmImage::default()
    }
}

/// The part of a manifest that is meant, apart from the file.
#[derive(Default)]
struct In<'a> {
    object: &'a str,
    container: &'a str,
    image: &'a str,
    field: &'a str,
}

fn manifest(file: &FilePath, at: &In<'_>, image: Reference) -> Wire {
    Wire::ManifestImage(proto::ManifestImage {
        file: file.to_string(),
        object: at.object.to_owned(),
        container: at.container.to_owned(),
        image: at.image.to_owned(),
        field: at.field.to_owned(),
        new_name: image.name,
        new_tag: image.tag,
        digest: image.digest,
        ..proto::ManifestImage::default()
    })
}

/// The same edit, which may change what other places show as well.
fn allowing_shared(mut edit: Wire, allow_shared: bool) -> Wire {
    match &mut edit {
        Wire::KustomizeImage(edit) => edit.allow_shared = allow_shared,
        Wire::HelmImage(edit) => edit.allow_shared = allow_shared,
        Wire::ManifestImage(edit) => edit.allow_shared = allow_shared,
        Wire::Marker(_) => {}
    }
    edit
}

/// Whether an edit may change what other places show as well.
fn allows_shared(edit: &Edit) -> bool {
    match edit {
        Edit::KustomizeImage(edit) => edit.allow_shared,
        Edit::HelmImage(edit) => edit.allow_shared,
        Edit::ManifestImage(edit) => edit.allow_shared,
        Edit::RestoreValues(edit) => !edit.shared_with.is_empty(),
        Edit::RestoreImage(_) | Edit::Marker => false,
    }
}

fn wire(edit: Wire) -> proto::Edit {
    proto::Edit { edit: Some(edit) }
}

fn entry(folder: &Folder, entry: &Entry) -> Wire {
    let value = |scalar: &Option<slipway_edit::Scalar>| {
        scalar
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default()
    };
    let image = Reference {
        name: value(&entry.new_name),
        tag: value(&entry.new_tag),
        digest: value(&entry.digest),
    };
    kustomize(folder, &entry.name, image)
}

/// Restored values: a container is known by its path, and everything else is a path of values.
fn values(file: &FilePath, values: &[ValueDifference], image: &Reference) -> Wire {
    let Some(first) = values.first() else {
        return Wire::HelmImage(helm(file, "", "", image.clone()));
    };
    match container(&first.at) {
        Some(container) => {
            let at = In {
                object: &first.document,
                container,
                ..In::default()
            };
            manifest(file, &at, image.clone())
        }
        None => Wire::HelmImage(helm(file, &first.at, &first.document, image.clone())),
    }
}

/// The name in `spec.template.spec.containers[name=web].image`.
fn container(path: &str) -> Option<&str> {
    let (before, rest) = path.rsplit_once("ontainers[name=")?;
    let (name, rest) = rest.split_once(']')?;
    let list = before.rsplit('.').next().unwrap_or_default();
    (rest == ".image" && matches!(list, "c" | "initC" | "ephemeralC")).then(|| name.trim_matches(['"', '\'']))
}

/// An edit, as requested.
pub(super) fn edit_to_proto(edit: &Edit) -> proto::Edit {
    let written = match edit {
        Edit::KustomizeImage(edit) => kustomize(&edit.path, &edit.name, parts(&edit.to)),
        Edit::HelmImage(edit) => Wire::HelmImage(proto::HelmImage {
            add_missing: edit.add_missing,
            ..helm(&edit.file, &edit.path, &edit.document, parts(&edit.to))
        }),
        Edit::ManifestImage(edit) => {
            let at = In {
                object: &edit.object,
                container: &edit.container,
                image: &edit.image,
                field: &edit.field,
            };
            manifest(&edit.file, &at, parts(&edit.to))
        }
        Edit::RestoreImage(edit) => entry(&edit.path, &edit.entry),
        Edit::RestoreValues(edit) => values(&edit.file, &edit.values, &edit.image),
        Edit::Marker => Wire::Marker(proto::Marker {}),
    };
    wire(allowing_shared(written, allows_shared(edit)))
}

/// The edit that would undo `edit`, in its own kind.
pub(super) fn previous(edit: &Edit, difference: &Difference) -> proto::Edit {
    let written = match (difference, edit) {
        (Difference::Entry(difference), _) => entry(&difference.path, &difference.before),
        (Difference::Values(difference), Edit::HelmImage(edit)) => {
            let before = difference.before.clone();
            Wire::HelmImage(helm(&edit.file, &edit.path, &edit.document, before))
        }
        (Difference::Values(difference), Edit::ManifestImage(edit)) => {
            let at = In {
                object: &edit.object,
                container: &edit.container,
                // By its current name.
                image: if edit.image.is_empty() {
                    ""
                } else {
                    &difference.after.name
                },
                field: &edit.field,
            };
            manifest(&edit.file, &at, difference.before.clone())
        }
        (Difference::Values(difference), _) => {
            values(&difference.file, &difference.values, &difference.before)
        }
        (Difference::Marker { .. }, _) => Wire::Marker(proto::Marker {}),
    };
    wire(allowing_shared(written, allows_shared(edit)))
}

/// What a commit did to an image, as the edit that does it; `None` for an image that was removed or is new.
pub(super) fn change_to_proto(change: &ImageChange, image: Option<&Reference>) -> proto::Edit {
    let image = image.cloned().unwrap_or_default();
    wire(match &change.place {
        Place::Kustomization(folder) => kustomize(folder, &change.name, image),
        Place::Helm(place) => Wire::HelmImage(helm(&place.file, &place.path, &place.document, image)),
        Place::Manifest(place) => {
            let at = In {
                object: &place.object,
                container: &place.container,
                image: if place.container.is_empty() && place.field.is_empty() {
                    &change.name
                } else {
                    ""
                },
                field: &place.field,
            };
            manifest(&place.file, &at, image)
        }
    })
}

pub(super) fn found_to_proto(found: &ImageAtPlace) -> proto::DesiredImage {
    proto::DesiredImage {
        name: found.name.clone(),
        image: found.image.name.clone(),
        tag: found.image.tag.clone(),
        digest: found.image.digest.clone(),
        file: found.file.clone(),
        line: u32::try_from(found.line).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::container;

    #[test]
    fn containers_are_known_by_their_path() {
        for (path, wanted) in [
            ("spec.template.spec.containers[name=web].image", Some("web")),
            ("spec.template.spec.initContainers[name=init].image", Some("init")),
            ("spec.containers[name=web].env[name=x].value", None),
            ("spec.values.image", None),
            ("workers[name=mail].image", None),
        ] {
            assert_eq!(container(path), wanted, "{path}");
        }
    }
}
