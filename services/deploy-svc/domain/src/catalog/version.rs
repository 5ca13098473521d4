//! What an image is called beside its commit: its version, from a template, and whether it is `latest`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use slipway_model::{BranchName, CommitSha, GitTag};

use super::BranchPattern;

/// The longest version: what build-svc accepts.
const LONGEST: usize = 4096;

/// A text in which `{{branch}}`, `{{git_tag}}`, `{{commit}}` and `{{short_commit}}` stand for what is released. With
/// alternatives, as in `{{git_tag|branch}}`, it is the first that the release has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionTemplate(String);

/// What is released, as far as versions are made from it.
#[derive(Debug, Clone, Copy)]
pub struct Released<'a> {
    pub commit: &'a CommitSha,
    pub branch: Option<&'a BranchName>,
    pub git_tag: Option<&'a GitTag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Branch,
    GitTag,
    Commit,
    ShortCommit,
}

impl Placeholder {
    fn of(name: &str) -> Result<Self, String> {
        match name.trim() {
            "branch" => Ok(Self::Branch),
            "git_tag" => Ok(Self::GitTag),
            "commit" => Ok(Self::Commit),
            "short_commit" => Ok(Self::ShortCommit),
            other => Err(format!(
                "{{{{{other}}}}} is not a placeholder: there are {{{{branch}}}}, {{{{git_tag}}}}, {{{{commit}}}} and {{{{short_commit}}}}"
            )),
        }
    }

    fn value(self, released: Released<'_>) -> Option<String> {
        match self {
            Self::Branch => released.branch.map(ToString::to_string),
            Self::GitTag => released.git_tag.map(ToString::to_string),
            Self::Commit => Some(released.commit.to_string()),
            Self::ShortCommit => Some(released.commit.short().to_owned()),
        }
    }
}

/// A part of a template.
enum Part<'a> {
    Text(&'a str),
    /// The text between the braces, and what it names.
    Value(&'a str, Vec<Placeholder>),
}

fn parts(template: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("{{") {
        let (inside, following) = after
            .split_once("}}")
            .ok_or_else(|| "{{ is not closed by }}".to_owned())?;
        let alternatives: Result<Vec<_>, _> = inside.split('|').map(Placeholder::of).collect();
        parts.push(Part::Text(text));
        parts.push(Part::Value(inside.trim(), alternatives?));
        rest = following;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

impl VersionTemplate {
    /// The version of what is released.
    ///
    /// # Errors
    /// The placeholder for which the release has no value, as it is written.
    pub fn fill(&self, released: Released<'_>) -> Result<String, String> {
        let mut version = String::new();
        // It was parsed when it was made.
        for part in parts(&self.0).unwrap_or_default() {
            match part {
                Part::Text(text) => version.push_str(text),
                Part::Value(written, alternatives) => {
                    let value = alternatives.iter().find_map(|one| one.value(released));
                    version.push_str(&value.ok_or_else(|| written.to_owned())?);
                }
            }
        }
        Ok(version)
    }
}

impl TryFrom<String> for VersionTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(format!(
                "a version has 1 to {LONGEST} bytes without control characters; leave it out for the short commit id"
            ));
        }
        parts(&text)?;
        Ok(Self(text))
    }
}

impl From<VersionTemplate> for String {
    fn from(template: VersionTemplate) -> Self {
        template.0
    }
}

/// Which images are also tagged `latest`: none, all, or those of branches: `false`, `true`, or a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Latest {
    #[default]
    Never,
    Always,
    Of(BranchPattern),
}

impl Latest {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(super) fn is_never(&self) -> bool {
        *self == Self::Never
    }

    /// Whether an image of this branch is tagged `latest`.
    pub fn includes(&self, branch: Option<&BranchName>) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Of(pattern) => branch.is_some_and(|branch| pattern.matches(branch)),
        }
    }
}

impl Serialize for Latest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_bool(false),
            Self::Always => serializer.serialize_bool(true),
            Self::Of(pattern) => pattern.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Latest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Latest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or the pattern of the branches whose images become latest")
            }

            fn visit_bool<E: Error>(self, always: bool) -> Result<Latest, E> {
                Ok(if always { Latest::Always } else { Latest::Never })
            }

            fn visit_str<E: Error>(self, pattern: &str) -> Result<Latest, E> {
                Ok(match pattern {
                    // Where a library hands a plain scalar over as text.
                    "true" => Latest::Always,
                    "false" => Latest::Never,
                    pattern => Latest::Of(BranchPattern(pattern.to_owned())),
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const COMMIT: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

    #[test]
    fn a_version_is_made_from_branch_tag_and_commit() {
        let commit: CommitSha = COMMIT.parse().unwrap();
        let branch: BranchName = "release/1.2".parse().unwrap();
        let tag: GitTag = "v1.2.3".parse().unwrap();
        let filled = |template: &str, branch: Option<&BranchName>, git_tag: Option<&GitTag>| {
            let template = VersionTemplate::try_from(template.to_owned()).unwrap();
            template.fill(Released {
                commit: &commit,
                branch,
                git_tag,
            })
        };
        for (template, branch, tag, version) in [
            ("{{git_tag}}", None, Some(&tag), Ok("v1.2.3")),
            (
                "{{ branch }}-{{short_commit}}",
                Some(&branch),
                None,
                Ok("release/1.2-1a2b3c4"),
            ),
            ("{{commit}}", None, None, Ok(COMMIT)),
            (
                "1.{{git_tag | branch | short_commit}}",
                None,
                None,
                Ok("1.1a2b3c4"),
            ),
            ("{{git_tag|branch}}", Some(&branch), Some(&tag), Ok("v1.2.3")),
            ("{{git_tag|branch}}", Some(&branch), None, Ok("release/1.2")),
            ("4", None, None, Ok("4")),
            ("x{{git_tag}}", Some(&branch), None, Err("git_tag")),
            ("{{git_tag|branch}}", None, None, Err("git_tag|branch")),
        ] {
            let expected = version.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(filled(template, branch, tag), expected, "{template}");
        }
        for (bad, words) in [
            ("", "1 to 4096 bytes"),
            ("a\nb", "control characters"),
            ("{{tag}}", "{{tag}} is not a placeholder: there are {{branch}}"),
            ("{{}}", "{{}} is not a placeholder"),
            ("{{git_tag|}}", "{{}} is not a placeholder"),
            ("{{branch", "{{ is not closed"),
        ] {
            let error = VersionTemplate::try_from(bad.to_owned()).unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn latest_is_for_all_branches_or_for_some() {
        let read = |json: &str| serde_json::from_str::<Latest>(json).unwrap();
        let main: BranchName = "main".parse().unwrap();
        let feature: BranchName = "feature/x".parse().unwrap();
        for (json, of_main, of_feature, of_none) in [
            ("false", false, false, false),
            ("true", true, true, true),
            (r#""main""#, true, false, false),
            (r#""feature/*""#, false, true, false),
        ] {
            let latest = read(json);
            assert_eq!(latest.includes(Some(&main)), of_main, "{json}");
            assert_eq!(latest.includes(Some(&feature)), of_feature, "{json}");
            assert_eq!(latest.includes(None), of_none, "{json}");
            assert_eq!(serde_json::to_string(&latest).unwrap(), json);
        }
    }
}
