//! Paths of a repository, confined to it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::InvalidEdit;

const MAX_PATH: usize = 1024;

/// The file names that kustomize looks for in a folder; more than one of them is an error.
pub const KUSTOMIZATION_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Whether no part leaves the folder it is in.
fn is_confined(path: &str) -> bool {
    let bad = |part: &str| {
        matches!(part, "" | "." | "..")
            || part.eq_ignore_ascii_case(".git")
            || part.contains(|c: char| c.is_control() || c == '\\')
    };
    path.len() <= MAX_PATH && !path.split('/').any(bad)
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

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
        if (path.is_empty() && text != "/") || path == "." {
            Ok(Self(String::new()))
        } else if is_confined(path) {
            Ok(Self(path.to_owned()))
        } else {
            Err(InvalidEdit::new(
                "path",
                format!(
                    "{:?} is not a folder: write it from the repository's root with '/', without '..'",
                    cut(text)
                ),
            ))
        }
    }
}

/// A file of a repository, from its root: `charts/shop/values-dev.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

impl FilePath {
    /// The path as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = InvalidEdit;
    fn from_str(text: &str) -> Result<Self, InvalidEdit> {
        let path = text.strip_prefix("./").unwrap_or(text);
        if is_confined(path) {
            Ok(Self(path.to_owned()))
        } else {
            Err(InvalidEdit::new(
                "file",
                format!(
                    "{:?} is not a file: write it from the repository's root with '/', without '..'",
                    cut(text)
                ),
            ))
        }
    }
}

macro_rules! as_text {
    ($type:ident, $empty:literal) => {
        impl TryFrom<String> for $type {
            type Error = InvalidEdit;
            fn try_from(text: String) -> Result<Self, InvalidEdit> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(path: $type) -> String {
                path.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(if self.0.is_empty() { $empty } else { &self.0 })
            }
        }
    };
}
as_text!(Folder, ".");
as_text!(FilePath, "");

#[cfg(test)]
mod tests {
    use super::{FilePath, Folder};

    #[test]
    fn folders_and_files_stay_inside() {
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
            assert!(bad.parse::<FilePath>().is_err(), "{bad}");
        }
        for bad in ["", ".", "a/"] {
            assert!(bad.parse::<FilePath>().is_err(), "{bad}");
        }
        assert_eq!("./a/b.yaml".parse::<FilePath>().unwrap().as_str(), "a/b.yaml");
    }
}
