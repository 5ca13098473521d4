//! Commits and branches.

use serde::{Deserialize, Serialize};

use crate::{Invalid, text_type};

/// A full commit id: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits. Never an abbreviation or a branch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitSha(String);

impl CommitSha {
    fn check(text: &str) -> Result<(), Invalid> {
        let hex = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && matches!(text.len(), 40 | 64) {
            Ok(())
        } else {
            Err(Invalid::new(
                "commit",
                text,
                "give the full id of 40 or 64 lower-case hexadecimal digits, as git rev-parse prints it",
            ))
        }
    }

    /// The first seven digits, for people and tags.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

text_type!(CommitSha);

/// A branch name that `git check-ref-format --branch` accepts and that cannot be taken for an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

impl BranchName {
    fn check(text: &str) -> Result<(), Invalid> {
        let forbidden = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
        let bad = text.is_empty()
            || text.len() > 255
            || text.starts_with(['-', '/'])
            || text.ends_with(['/', '.'])
            || text == "@"
            || text.contains("..")
            || text.contains("//")
            || text.contains("@{")
            || text
                .split('/')
                .any(|part| part.starts_with('.') || part.ends_with(".lock"))
            || text.contains(forbidden);
        if bad {
            Err(Invalid::new("branch", text, "see git check-ref-format"))
        } else {
            Ok(())
        }
    }
}

text_type!(BranchName);

/// The name of a Git tag without `refs/tags/`, as `git check-ref-format` allows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitTag(String);

impl GitTag {
    fn check(text: &str) -> Result<(), Invalid> {
        let full = text.starts_with("refs/");
        match BranchName::check(text) {
            Ok(()) if !full => Ok(()),
            _ => Err(Invalid::new(
                "Git tag",
                text,
                "give its name without refs/tags/; see git check-ref-format",
            )),
        }
    }
}

text_type!(GitTag);

#[cfg(test)]
mod tests {
    use super::{BranchName, CommitSha, GitTag};

    #[test]
    fn commits_are_full_ids() {
        let sha = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
            .parse::<CommitSha>()
            .unwrap();
        assert_eq!(sha.short(), "1a2b3c4");
        for bad in ["", "1a2b3c4", "HEAD", "1A2B3C4D5E6F708192A3B4C5D6E7F8091A2B3C4D"] {
            assert!(bad.parse::<CommitSha>().is_err(), "{bad}");
        }
    }

    #[test]
    fn branches_follow_git() {
        for good in ["main", "feature/x", "release/1.2", "a@b"] {
            assert!(good.parse::<BranchName>().is_ok(), "{good}");
        }
        for bad in [
            "", "-f", "a..b", "a b", "a/", "/a", ".a", "a/.b", "x.lock", "a~1", "@", "a@{1}", "a\nb",
        ] {
            assert!(bad.parse::<BranchName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_named_without_their_folder() {
        for good in ["v1.2.3", "release/2026-01", "1"] {
            assert!(good.parse::<GitTag>().is_ok(), "{good}");
        }
        for bad in ["", "refs/tags/v1", "-v", "v 1", "v1..2"] {
            assert!(bad.parse::<GitTag>().is_err(), "{bad}");
        }
    }
}
