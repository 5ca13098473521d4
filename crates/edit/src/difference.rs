//! What an edit did, and the edits that put it back.

use serde::{Deserialize, Serialize};

use crate::{
    Edit,
    image::Reference,
    kustomize::{Entry, Scalar},
    path::{FilePath, Folder},
};

/// What one edit did to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Difference {
    Entry(EntryDifference),
    Values(ValuesDifference),
    /// No file was meant to change.
    Marker {
        marker: bool,
    },
}

/// An entry of `images` of a kustomization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryDifference {
    pub path: Folder,
    /// With `added`, only its name.
    pub before: Entry,
    pub after: Entry,
    /// There was no entry of that name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
}

/// Values of a file of values or manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValuesDifference {
    pub file: FilePath,
    pub values: Vec<ValueDifference>,
    /// The image that they said.
    pub before: Reference,
    /// The image that they say.
    pub after: Reference,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueDifference {
    /// The document: `Deployment/web` for an object of Kubernetes, else its number, counted from 1.
    pub document: String,
    /// The path in the document: `spec.template.spec.containers[name=web].image`.
    pub at: String,
    /// Absent where there was no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Scalar>,
}

/// Puts an entry back as it stood before a change of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreImage {
    pub path: Folder,
    /// How it is to stand.
    pub entry: Entry,
    /// What our change had written. Where something else stands now, somebody changed it since and the edit is
    /// refused; absent, it is put back whatever stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Entry>,
    /// The entry was not there before, so it is taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

/// Puts values back as they stood before a change of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreValues {
    pub file: FilePath,
    /// As the change found and left them.
    pub values: Vec<ValueDifference>,
    /// The image that they will say again.
    pub image: Reference,
    /// Also when somebody changed them since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl Edit {
    /// The edit that puts a difference back; none where there is nothing to put back. Without `force` it is refused
    /// when somebody changed the same image since.
    pub fn undoing(difference: &Difference, force: bool) -> Option<Self> {
        match difference {
            Difference::Entry(entry) => Some(Self::RestoreImage(Box::new(RestoreImage {
                path: entry.path.clone(),
                entry: entry.before.clone(),
                written: (!force).then(|| entry.after.clone()),
                remove: entry.added,
            }))),
            Difference::Values(values) => Some(Self::RestoreValues(Box::new(RestoreValues {
                file: values.file.clone(),
                values: values.values.clone(),
                image: values.before.clone(),
                force,
            }))),
            Difference::Marker { .. } => None,
        }
    }
}
