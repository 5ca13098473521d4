//! What can be changed in a file of a GitOps repository, and the proof that nothing else was. Pure.
//!
//! An edit is recomputed on whatever the branch holds, never merged, so it cannot conflict. It is a splice of the
//! text; before it counts, the text is read again, and must differ only where it was meant to.

pub mod kustomize;
mod splice;
mod yaml;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use slipway_model::{Digest, ImageName, Tag};

pub use kustomize::{Edited, Entry, Field, Scalar, Wanted};

/// The names that kustomize looks for in a folder; more than one of them is an error.
pub const KUSTOMIZATION_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A file larger than this is not read: a kustomization has a few kilobytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// A folder of a repository, from its root: `apps/shop/overlays/dev`; empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Folder(String);

impl Folder {
    /// The path as given, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of a file in this folder.
    pub fn join(&self, name: &str) -> String {
        if self.0.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.0)
        }
    }
}

impl FromStr for Folder {
    type Err = InvalidEdit;
    fn from_str(text: &str) -> Result<Self, InvalidEdit> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let path = path.strip_prefix("./").unwrap_or(path);
        let bad = |part: &str| {
            matches!(part, "" | "." | "..")
                || part.eq_ignore_ascii_case(".git")
                || part.contains(|c: char| c.is_control() || c == '\\')
        };
        if (path.is_empty() && text != "/") || path == "." {
            Ok(Self(String::new()))
        } else if text.len() > 1024 || path.split('/').any(bad) {
            Err(InvalidEdit {
                field: "path",
                message: format!(
                    "{:?} is not a folder: write it from the repository's root with '/', without '..'",
                    text.chars().take(120).collect::<String>()
                ),
            })
        } else {
            Ok(Self(path.to_owned()))
        }
    }
}

impl TryFrom<String> for Folder {
    type Error = InvalidEdit;
    fn try_from(text: String) -> Result<Self, InvalidEdit> {
        text.parse()
    }
}

impl From<Folder> for String {
    fn from(folder: Folder) -> String {
        folder.0
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

/// An edit that makes no sense whatever the file holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidEdit {
    /// The field of the edit.
    pub field: &'static str,
    pub message: String,
}

/// One edit of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Edit {
    /// Sets an entry of `images` in a kustomization.
    KustomizeImage(KustomizeImage),
    /// Puts an entry of `images` back as it stood, to the letter.
    RestoreImage(Box<RestoreImage>),
}

impl Edit {
    /// The folder whose kustomization is edited.
    pub fn folder(&self) -> &Folder {
        match self {
            Self::KustomizeImage(edit) => &edit.path,
            Self::RestoreImage(edit) => &edit.path,
        }
    }

    /// The entry that is edited.
    pub fn name(&self) -> &str {
        match self {
            Self::KustomizeImage(edit) => &edit.name,
            Self::RestoreImage(edit) => &edit.entry.name,
        }
    }

    /// Applies this edit to the text of a kustomization.
    ///
    /// # Errors
    /// What keeps it from being done, and where.
    pub fn apply(&self, text: &str) -> Result<Edited, Refusal> {
        match self {
            Self::KustomizeImage(edit) => kustomize::set_image(text, &edit.name, &edit.wanted()),
            Self::RestoreImage(edit) => edit.apply(text),
        }
    }
}

/// Sets an entry of `images`.
///
/// Tag and digest say together which image is meant: giving one of them alone removes the other, as
/// `kustomize edit set image` does. A digest that stayed would win over the new tag, and a tag that stayed would
/// tell people a version that does not run. `new_name` changes only when it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KustomizeImage {
    pub path: Folder,
    /// The entry's `name`: what the manifests say.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_name: Option<ImageName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_tag: Option<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl KustomizeImage {
    /// Reads the fields of a request; empty ones are absent.
    ///
    /// # Errors
    /// Names the field.
    pub fn new(
        path: &str,
        name: &str,
        new_name: &str,
        new_tag: &str,
        digest: &str,
    ) -> Result<Self, InvalidEdit> {
        fn given<T: FromStr<Err = slipway_model::Invalid>>(
            field: &'static str,
            text: &str,
        ) -> Result<Option<T>, InvalidEdit> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse()
                .map(Some)
                .map_err(|error: slipway_model::Invalid| InvalidEdit {
                    field,
                    message: error.to_string(),
                })
        }
        if name.is_empty() || name.len() > 512 || name.contains(char::is_control) {
            return Err(InvalidEdit {
                field: "name",
                message: "give the image's name as the manifests have it, up to 512 characters".to_owned(),
            });
        }
        let edit = Self {
            path: path.parse()?,
            name: name.to_owned(),
            new_name: given("new_name", new_name)?,
            new_tag: given("new_tag", new_tag)?,
            digest: given("digest", digest)?,
        };
        if edit.new_name.is_none() && edit.new_tag.is_none() && edit.digest.is_none() {
            return Err(InvalidEdit {
                field: "new_tag",
                message: "give at least one of new_name, new_tag and digest".to_owned(),
            });
        }
        Ok(edit)
    }

    fn wanted(&self) -> Wanted {
        let field = |value: Option<String>, remove: bool| match value {
            Some(value) => Field::Set(value),
            None if remove => Field::Remove,
            None => Field::Keep,
        };
        let either = self.new_tag.is_some() || self.digest.is_some();
        Wanted {
            new_name: field(self.new_name.clone().map(String::from), false),
            new_tag: field(self.new_tag.clone().map(String::from), either),
            digest: field(self.digest.clone().map(String::from), either),
        }
    }
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
}

impl RestoreImage {
    fn apply(&self, text: &str) -> Result<Edited, Refusal> {
        if let Some(written) = &self.written {
            let entries = kustomize::read(text)?;
            if let Some(now) = entries.iter().find(|entry| entry.name == self.entry.name)
                && !now.means(written)
                && !now.means(&self.entry)
            {
                return Err(Refusal::ChangedSince {
                    name: now.name.clone(),
                    now: now.to_string(),
                    written: written.to_string(),
                });
            }
        }
        let field = |scalar: &Option<Scalar>| match scalar {
            Some(scalar) => Field::Restore(scalar.clone()),
            None => Field::Remove,
        };
        let wanted = Wanted {
            new_name: field(&self.entry.new_name),
            new_tag: field(&self.entry.new_tag),
            digest: field(&self.entry.digest),
        };
        kustomize::set_image(text, &self.entry.name, &wanted)
    }
}

/// Why a file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("line {line}: not YAML: {message}")]
    NotYaml { line: usize, message: String },
    #[error("{}", image_not_found(name, present))]
    ImageNotFound { name: String, present: Vec<String> },
    #[error("line {line}: {reason}")]
    Unsafe { line: usize, reason: String },
    #[error(
        "image {name} was changed by somebody else since: it is {now}, and this change had written {written}; force puts it back all the same"
    )]
    ChangedSince {
        name: String,
        now: String,
        written: String,
    },
}

/// Names what there is instead, bounded.
fn image_not_found(name: &str, present: &[String]) -> String {
    const SHOWN: usize = 20;
    if present.is_empty() {
        return format!("no image {name:?} in `images`, which has no entries");
    }
    let mut list = present.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if present.len() > SHOWN {
        list.push_str(&format!(" and {} more", present.len() - SHOWN));
    }
    format!("no image {name:?} in `images`; the names that are there: {list}")
}

#[cfg(test)]
mod tests {
    use super::{Folder, KustomizeImage};

    #[test]
    fn folders_stay_inside() {
        for (given, read) in [
            ("", ""),
            (".", ""),
            ("a/b/", "a/b"),
            ("./a", "a"),
            ("a.b/c-d", "a.b/c-d"),
        ] {
            assert_eq!(given.parse::<Folder>().unwrap().as_str(), read);
        }
        for bad in [
            "/etc",
            "../x",
            "a/../b",
            "a//b",
            ".git/hooks",
            "a/.GIT",
            "a\nb",
            "a\\b",
            "/",
        ] {
            assert!(bad.parse::<Folder>().is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_are_checked_field_by_field() {
        let field = |name: &str, new_name: &str, tag: &str, digest: &str| {
            KustomizeImage::new("a", name, new_name, tag, digest).map_err(|error| error.field)
        };
        assert_eq!(field("", "", "v1", ""), Err("name"));
        assert_eq!(field("app", "Bad Name", "v1", ""), Err("new_name"));
        assert_eq!(field("app", "", "a b", ""), Err("new_tag"));
        assert_eq!(field("app", "", "", "sha256:1"), Err("digest"));
        assert_eq!(field("app", "", "", ""), Err("new_tag"));
        assert!(field("app", "", "v1", "").is_ok());
    }
}
