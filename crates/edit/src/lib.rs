//! What can be changed in a file of a GitOps repository, and the proof that nothing else was. Pure.
//!
//! An edit is recomputed on the branch's current content, never merged, so it cannot conflict. It is a splice of the
//! text; before it is accepted, the text is parsed again, and must differ only where intended.
//!
//! Where to look: [`Edit`] is what can be asked for, [`apply`] does it on any [`Source`] of files, and [`Difference`]
//! is what it did, from which [`Edit::undoing`] makes the edit that puts it back. Inside, `layout` makes the splices
//! and the proof; `kustomization`, `images` and `bases` are kustomize's, `slots` and `parts` find the image that several
//! values form together. `sharing` follows aliases, `embedded` reads YAML that stands in a block of text, and `added`
//! writes an image where there is none.

mod added;
mod anchors;
mod bases;
mod contents;
mod difference;
mod embedded;
mod entry;
mod field_spec;
mod fields;
mod helm;
mod image;
mod images;
mod inputs;
mod kustomization;
mod kustomize;
mod layout;
mod manifest;
mod naming;
mod objects;
mod parts;
mod path;
mod pattern;
mod place;
mod restore;
mod sharing;
mod slot;
mod slots;
mod splice;
mod steps;
mod taken_out;
mod unreadable;
mod values;
mod walk;
mod yaml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::{
    contents::Contents,
    difference::{
        Added, Difference, EntryDifference, Exact, RestoreImage, RestoreValues, ValueDifference,
        ValuesDifference,
    },
    entry::{Entry, Scalar},
    helm::HelmImage,
    image::{NewImage, Reference},
    inputs::{At, BUILT_ON, CONTENT, Chart, Inputs, Listing, NotHere, PLUGINS, rendered},
    kustomize::KustomizeImage,
    manifest::ManifestImage,
    path::{FilePath, Folder, KUSTOMIZATION_NAMES},
    place::{HelmPlace, ImageAtPlace, ManifestPlace, Place, read},
};

/// A file larger than this is not read: values and kustomizations have a few kilobytes, bundles of manifests a few
/// megabytes.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// An edit that makes no sense whatever the file contains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidEdit {
    /// The field of the edit.
    pub field: &'static str,
    pub message: String,
}

impl InvalidEdit {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
        }
    }
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Edit {
    /// Sets an entry of `images` in a kustomization.
    KustomizeImage(KustomizeImage),
    /// Restores an entry of `images` to exactly what it was.
    RestoreImage(Box<RestoreImage>),
    /// Sets the image at a path of a values file.
    HelmImage(HelmImage),
    /// Sets the image of containers, or of a field of a custom resource.
    ManifestImage(ManifestImage),
    /// Restores values of a file to exactly what they were.
    RestoreValues(Box<RestoreValues>),
    /// Changes no file: a commit that tells those who watch the branch.
    Marker,
}

/// The files that edits read: those of a commit's tree, or of a working copy.
pub trait Source {
    /// What keeps the files from being read at all.
    type Error;

    /// What is at a path from the root, written with `/`.
    ///
    /// # Errors
    /// The source itself failed; a path that does not exist is not an error.
    fn read(&self, path: &str) -> Result<Read, Self::Error>;
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Text(String),
    Absent,
    Folder,
    /// Something that cannot be edited; the reason is worded to follow the path: `is a symbolic link`.
    Unfit(String),
}

/// Files in memory, by path. A folder exists if some path goes through it.
impl Source for BTreeMap<String, String> {
    type Error = std::convert::Infallible;

    fn read(&self, path: &str) -> Result<Read, Self::Error> {
        if let Some(text) = self.get(path) {
            return Ok(Read::Text(text.clone()));
        }
        let within = |next: &String| next.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        // `a-b` sorts before `a/b`, so the first path after `a` proves nothing; the first after `a/` does.
        let next = self.range(format!("{path}/")..).next();
        Ok(match next {
            Some((next, _)) if within(next) => Read::Folder,
            _ => Read::Absent,
        })
    }
}

/// The result of a list of edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The files that differ, by path, with their whole new text. Empty when nothing had to be changed.
    pub files: BTreeMap<String, String>,
    /// One for each edit, in order, also where nothing had to be changed.
    pub differences: Vec<Difference>,
}

/// Why a file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such file or folder, or no kustomization in it.
    #[error("{0}")]
    FileNotFound(String),
    /// Not a text file.
    #[error("{0}")]
    NotAFile(String),
    #[error("line {line}: not YAML: {message}")]
    NotYaml { line: usize, message: String },
    /// The file has no such image, container or path. Names what is there instead, and the remedy.
    #[error("{0}")]
    ImageNotFound(String),
    #[error("line {line}: {reason}")]
    Unsafe { line: usize, reason: String },
    /// Other places show the same value by an anchor, and would change with it.
    #[error(
        "line {line}: the value is shared by an anchor, and changing it also changes {others}; set `allow_shared` to change them all, or write the value out first"
    )]
    Shared { line: usize, others: String },
    #[error(
        "{name} was changed since: it is {now}, and this change wrote {written}; use force to restore it nevertheless"
    )]
    ChangedSince {
        name: String,
        now: String,
        written: String,
    },
}

/// A refusal and where it occurred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {refusal}")]
pub struct Refused {
    /// The file or folder, from the root.
    pub path: String,
    pub refusal: Refusal,
}

/// Files as the edits so far left them, layered over those of a source.
struct Overlay<'a, S> {
    /// As each was read, and as it is now.
    files: BTreeMap<String, (String, String)>,
    source: &'a S,
}

impl<S: Source> Source for Overlay<'_, S> {
    type Error = S::Error;

    fn read(&self, path: &str) -> Result<Read, Self::Error> {
        match self.files.get(path) {
            Some((_, now)) => Ok(Read::Text(now.clone())),
            None => self.source.read(path),
        }
    }
}

/// Applies edits in order, each to the result of those before it. All of them, or none.
///
/// # Errors
/// The outer one is the source's own; the inner one says why an edit cannot be done, and where.
pub fn apply<S: Source>(edits: &[Edit], source: &S) -> Result<Result<Edited, Refused>, S::Error> {
    let mut overlay = Overlay {
        files: BTreeMap::new(),
        source,
    };
    let mut differences = Vec::with_capacity(edits.len());
    for edit in edits {
        let path = match edit {
            Edit::Marker => {
                differences.push(Difference::Marker { marker: true });
                continue;
            }
            Edit::KustomizeImage(edit) => kustomization(&edit.path, &overlay)?,
            Edit::RestoreImage(edit) => kustomization(&edit.path, &overlay)?,
            Edit::HelmImage(edit) => Ok(edit.file.to_string()),
            Edit::ManifestImage(edit) => Ok(edit.file.to_string()),
            Edit::RestoreValues(edit) => Ok(edit.file.to_string()),
        };
        let path = match path {
            Ok(path) => path,
            Err(refused) => return Ok(Err(refused)),
        };
        let now = match text(&path, &overlay)? {
            Ok(now) => now,
            Err(refused) => return Ok(Err(refused)),
        };
        let done = match edit {
            Edit::KustomizeImage(edit) => match path.parse() {
                Ok(file) => edit.apply(&file, &now, &overlay)?,
                Err(error) => Err(Refusal::NotAFile(error.message)),
            },
            Edit::RestoreImage(edit) => edit.apply(&now).map(|done| done.at(&edit.path)),
            Edit::HelmImage(edit) => edit.apply(&now),
            Edit::ManifestImage(edit) => edit.apply(&now),
            Edit::RestoreValues(edit) => edit.apply(&now),
            Edit::Marker => continue,
        };
        match done {
            Ok((after, difference)) => {
                differences.push(difference);
                overlay
                    .files
                    .entry(path)
                    .and_modify(|(_, now)| now.clone_from(&after))
                    .or_insert((now, after));
            }
            Err(refusal) => return Ok(Err(Refused { path, refusal })),
        }
    }
    let changed = overlay
        .files
        .into_iter()
        .filter(|(_, (before, after))| before != after)
        .map(|(path, (_, after))| (path, after));
    Ok(Ok(Edited {
        files: changed.collect(),
        differences,
    }))
}

/// The text of a file.
fn text<S: Source>(path: &str, source: &S) -> Result<Result<String, Refused>, S::Error> {
    let refused = |refusal| Refused {
        path: path.to_owned(),
        refusal,
    };
    Ok(match source.read(path)? {
        Read::Text(text) => Ok(text),
        Read::Absent => Err(refused(Refusal::FileNotFound("there is no such file".to_owned()))),
        Read::Folder => Err(refused(Refusal::NotAFile("is a folder".to_owned()))),
        Read::Unfit(why) => Err(refused(Refusal::NotAFile(why))),
    })
}

/// The one kustomization of a folder.
fn kustomization<S: Source>(folder: &Folder, source: &S) -> Result<Result<String, Refused>, S::Error> {
    let refused = |refusal| Refused {
        path: folder.to_string(),
        refusal,
    };
    if !folder.as_str().is_empty() {
        match source.read(folder.as_str())? {
            Read::Folder => {}
            Read::Absent => {
                let refusal = Refusal::FileNotFound("there is no such folder".to_owned());
                return Ok(Err(refused(refusal)));
            }
            Read::Text(_) => {
                let refusal =
                    Refusal::NotAFile("is a file, and a kustomization's folder is meant".to_owned());
                return Ok(Err(refused(refusal)));
            }
            Read::Unfit(why) => return Ok(Err(refused(Refusal::NotAFile(why)))),
        }
    }
    let mut found = Vec::new();
    for name in KUSTOMIZATION_NAMES {
        if source.read(&folder.join(name))? != Read::Absent {
            found.push(name);
        }
    }
    Ok(match found.as_slice() {
        [name] => Ok(folder.join(name)),
        [] => Err(refused(Refusal::FileNotFound(format!(
            "has no kustomization: none of {}",
            KUSTOMIZATION_NAMES.join(", ")
        )))),
        several => Err(refused(Refusal::NotAFile(format!(
            "has several kustomizations: {}",
            several.join(", ")
        )))),
    })
}
