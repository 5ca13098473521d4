//! What an edit did, and the edits that undo it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    Edit,
    entry::{Entry, Scalar},
    image::Reference,
    layout::{Splice, Text},
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
    /// With `added`, only its name is set.
    pub before: Entry,
    pub after: Entry,
    /// There was no entry of that name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
    /// The entry was removed; `after` has only its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Absent where the values alone say what the entry was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Box<Exact>>,
}

/// The bytes that an edit replaced and those it wrote, where keys were added or removed: how they were laid out among
/// comments and blank lines cannot be told from their values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exact {
    pub before: String,
    pub after: String,
    /// How many bytes of `after` come before the entry's first key.
    #[serde(default)]
    pub lead: usize,
}

impl Exact {
    /// What was in a range of the text before, and what replaced it.
    pub(crate) fn between(before: &str, after: &str, range: Range<usize>, lead: usize) -> Self {
        let rest = before.len() - range.end;
        Self {
            before: before[range.clone()].to_owned(),
            after: after[range.start..after.len() - rest].to_owned(),
            lead,
        }
    }

    /// The splice that puts the bytes back; `None` when they have been changed since. `entry` is where the entry's first
    /// key is.
    pub(crate) fn splice_back(&self, text: &Text<'_>, entry: usize) -> Option<Splice> {
        let start = entry.checked_sub(self.lead)?;
        let rest = text.text.get(start..)?.strip_prefix(self.after.as_str())?;
        // Where something was written after them since, they are not the same.
        if !rest.is_empty() && !self.after.ends_with('\n') && !rest.starts_with(['\n', '\r', ',', ']', '}']) {
            return None;
        }
        Some((start..start + self.after.len(), self.before.clone()))
    }

    /// The text with the bytes put back.
    pub(crate) fn put_back(&self, text: &Text<'_>, entry: usize) -> Option<String> {
        let splice = self.splice_back(text, entry)?;
        Some(text.splice(&mut [splice]))
    }

    /// The other way round.
    pub(crate) fn turned(&self) -> Self {
        Self {
            before: self.after.clone(),
            after: self.before.clone(),
            lead: self.lead,
        }
    }
}

/// Values of a file of values or manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValuesDifference {
    pub file: FilePath,
    pub values: Vec<ValueDifference>,
    /// The image that they named.
    pub before: Reference,
    /// The image that they name now.
    pub after: Reference,
    /// The other places that show these values, by anchors and aliases, and changed with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<String>,
    /// The values were added, or removed again, along with what holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Box<Added>>,
}

/// Keys that were added to a file, and how they were laid out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The path of the first key.
    pub at: String,
    pub exact: Exact,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueDifference {
    /// The document: `Deployment/web` for an object of Kubernetes, else its number, counted from 1.
    pub document: String,
    /// The path within the document: `spec.template.spec.containers[name=web].image`.
    pub at: String,
    /// Absent where there was no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Scalar>,
}

/// Restores an entry to what it was before one of our changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreImage {
    pub path: Folder,
    /// What it is restored to.
    pub entry: Entry,
    /// What our change wrote. If the entry has been changed since, the edit is refused; if absent, it is restored
    /// whatever is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Entry>,
    /// The entry was not there before, so it is removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
    /// The entry was removed, so it is added again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add: bool,
    /// As in [`EntryDifference::exact`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Box<Exact>>,
}

/// Restores values to what they were before one of our changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreValues {
    pub file: FilePath,
    /// As the change found and left them.
    pub values: Vec<ValueDifference>,
    /// The image that they will name again.
    pub image: Reference,
    /// Restore them even when they have been changed since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// As in [`ValuesDifference::shared_with`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<String>,
    /// As in [`ValuesDifference::added`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Box<Added>>,
}

impl Difference {
    /// Whether what was written is in this folder, or is this file.
    pub fn is_within(&self, place: &Folder) -> bool {
        let path = match self {
            Self::Entry(entry) => entry.path.as_str(),
            Self::Values(values) => values.file.as_str(),
            Self::Marker { .. } => return false,
        };
        let place = place.as_str();
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        place.is_empty() || path.strip_prefix(place).is_some_and(below)
    }

    /// The previous image; `None` for a marker, or where the file did not name one.
    pub fn before(&self) -> Option<Reference> {
        match self {
            Self::Entry(entry) if entry.added => None,
            Self::Entry(entry) => Some(entry.before.image()),
            Self::Values(values) if values.before == Reference::default() => None,
            Self::Values(values) => Some(values.before.clone()),
            Self::Marker { .. } => None,
        }
    }
}

impl Edit {
    /// The edit that undoes a difference; `None` where there is nothing to undo. Without `force` it is refused when the
    /// same image has been changed since. Several differences are undone from last to first.
    pub fn undoing(difference: &Difference, force: bool) -> Option<Self> {
        match difference {
            Difference::Entry(entry) => Some(Self::RestoreImage(Box::new(RestoreImage {
                path: entry.path.clone(),
                entry: entry.before.clone(),
                written: (!force).then(|| entry.after.clone()),
                remove: entry.added,
                add: entry.removed,
                exact: entry.exact.clone(),
            }))),
            Difference::Values(values) => Some(Self::RestoreValues(Box::new(RestoreValues {
                file: values.file.clone(),
                values: values.values.clone(),
                image: values.before.clone(),
                force,
                shared_with: values.shared_with.clone(),
                added: values.added.clone(),
            }))),
            Difference::Marker { .. } => None,
        }
    }
}
