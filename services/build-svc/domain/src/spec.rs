//! What is built: the recipe as it was requested, and the names that follow from it.
//!
//! Tags, labels and build arguments are functions of the recipe and of the time of the request, so that a second run of
//! the same build makes the same names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_model::{BranchName, CommitSha, GitTag, Id, ImageName, Name, Tag, Timestamp};

use crate::repository::RepositoryUrl;

/// The label that holds the id of the build which made an image.
pub const BUILD_LABEL: &str = "dev.slipway.build";
/// The label that holds the time of the image, in RFC 3339 (OCI image specification, annotations).
pub const CREATED_LABEL: &str = "org.opencontainers.image.created";

/// Build arguments that Slipway sets and callers may not set.
pub const RESERVED_ARGUMENTS: [&str; 3] = ["BUILD_DATE", "VCS_REF", "VERSION"];

/// The tag that moves from build to build, whatever gives it.
const LATEST: &str = "latest";
/// Most build arguments of one build.
const MAX_ARGUMENTS: usize = 64;
/// Longest value of a build argument or version, in bytes.
const MAX_VALUE: usize = 4096;
/// Longest path of a context or Dockerfile, in bytes.
const MAX_PATH: usize = 512;

/// A value that cannot be used, and the field that holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// The path of the field in the request, such as `spec.commit`.
    pub field: String,
    pub message: String,
}

impl InvalidField {
    pub(crate) fn new(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    pub repository: RepositoryUrl,
    pub commit: CommitSha,
    /// Gives the branch tag; never fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    pub image: ImageName,
    /// Folder in the repository; empty is its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub context: String,
    /// Path within the context; empty is `Dockerfile`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dockerfile: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// Empty is the short commit id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
    /// Gives a tag that names one image for good; never fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_tag: Option<GitTag>,
    /// The stage to build; empty is the last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
}

impl Recipe {
    /// Checks what the types of the fields leave open.
    ///
    /// # Errors
    /// The field (as in `StartBuildRequest`) and the remedy.
    pub fn check(&self) -> Result<(), InvalidField> {
        check_path("spec.context", &self.context)?;
        check_path("spec.dockerfile", &self.dockerfile)?;
        if self.arguments.len() > MAX_ARGUMENTS {
            return Err(InvalidField::new(
                "spec.build_args",
                format!("give at most {MAX_ARGUMENTS}"),
            ));
        }
        for (key, value) in &self.arguments {
            let field = format!("spec.build_args[{:?}]", key.chars().take(64).collect::<String>());
            if !is_identifier(key) || key.len() > 128 {
                return Err(InvalidField::new(
                    &field,
                    "use letters, digits and _ for its name, and no digit first",
                ));
            }
            if RESERVED_ARGUMENTS.contains(&key.as_str()) {
                return Err(InvalidField::new(&field, "is set by the service; leave it out"));
            }
            check_text(&field, value)?;
        }
        check_text("spec.version", &self.version)?;
        let stage = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.target.len() > 128 || !self.target.bytes().all(stage) || self.target.starts_with('-') {
            return Err(InvalidField::new(
                "spec.target",
                "use letters, digits, ., _ and - for the name of a stage",
            ));
        }
        Ok(())
    }

    /// Whether both make the same image of the same commit, with tags left aside.
    pub fn makes_image_of(&self, other: &Self) -> bool {
        let Self {
            repository,
            commit,
            branch: _,
            image,
            context,
            dockerfile,
            arguments,
            version: _,
            git_tag: _,
            latest: _,
            target,
        } = self;
        *repository == other.repository
            && *commit == other.commit
            && *image == other.image
            && written_out(context, ".") == written_out(&other.context, ".")
            && written_out(dockerfile, "Dockerfile") == written_out(&other.dockerfile, "Dockerfile")
            && *arguments == other.arguments
            && self.version_or_short() == other.version_or_short()
            && *target == other.target
    }

    /// The version for people: as requested, else the short commit id.
    pub fn version_or_short(&self) -> &str {
        if self.version.is_empty() {
            self.commit.short()
        } else {
            &self.version
        }
    }

    /// The build arguments, Slipway's own included.
    pub fn build_arguments(&self, requested_at: Timestamp) -> BTreeMap<String, String> {
        let mut arguments = self.arguments.clone();
        arguments.insert("BUILD_DATE".into(), rfc3339_seconds(requested_at));
        arguments.insert("VCS_REF".into(), self.commit.to_string());
        arguments.insert("VERSION".into(), self.version_or_short().into());
        arguments
    }

    /// The labels of the image: the OCI image specification's, and the one that names the build.
    pub fn labels(&self, build: &Id, service: &Name, requested_at: Timestamp) -> BTreeMap<String, String> {
        BTreeMap::from([
            (CREATED_LABEL.into(), rfc3339_seconds(requested_at)),
            (
                "org.opencontainers.image.revision".into(),
                self.commit.to_string(),
            ),
            (
                "org.opencontainers.image.version".into(),
                self.version_or_short().into(),
            ),
            (
                "org.opencontainers.image.source".into(),
                self.repository.to_string(),
            ),
            ("org.opencontainers.image.title".into(), service.to_string()),
            (BUILD_LABEL.into(), build.to_string()),
        ])
    }

    /// The tags in the order in which they are written: the fixed ones first, the moving ones last.
    pub fn tags(&self, requested_at: Timestamp) -> Vec<BuildTag> {
        let mut tags = Vec::with_capacity(5);
        let mut add = |text: &str, moves: bool| {
            if let Some(tag) = Tag::sanitized(text)
                && !tags.iter().any(|known: &BuildTag| known.tag == tag)
            {
                tags.push(BuildTag { tag, moves });
            }
        };
        add(self.commit.as_str(), false);
        add(self.commit.short(), false);
        add(&requested_at.compact(), false);
        if let Some(tag) = self.git_tag.as_ref().filter(|tag| tag.as_str() != LATEST) {
            add(tag.as_str(), false);
        }
        if let Some(branch) = &self.branch {
            add(branch.as_str(), true);
        }
        if self.latest || self.git_tag.as_ref().is_some_and(|tag| tag.as_str() == LATEST) {
            add(LATEST, true);
        }
        tags
    }

    /// The tag under which an image of this commit may already exist.
    pub fn commit_tag(&self) -> Option<Tag> {
        Tag::sanitized(self.commit.as_str())
    }
}

/// A tag for a build's image, and whether it may be taken from another image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildTag {
    pub tag: Tag,
    /// A branch or `latest` moves from build to build; the tag of a commit, a time or a Git tag names one image for good.
    pub moves: bool,
}

/// The image that a tag names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedImage {
    pub digest: slipway_model::Digest,
    pub labels: BTreeMap<String, String>,
}

/// What to do about a tag for a build's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagVerdict {
    /// It does not exist, or names an image that gives way: write it.
    Write,
    /// It already names our image.
    Ours,
    /// It names another image and stays with it.
    Keep,
}

/// Decides about one tag, given the image that it names now. A fixed tag stays with the image that had it first: when the
/// same commit is built again, the second image gets its digest, time and branch tags, and whoever pinned the commit's
/// tag keeps the first one. A moving tag never goes back to an image that was requested earlier.
pub fn tag_verdict(
    tag: &BuildTag,
    ours: &slipway_model::Digest,
    requested_at: Timestamp,
    current: Option<&TaggedImage>,
) -> TagVerdict {
    let Some(current) = current else {
        return TagVerdict::Write;
    };
    if current.digest == *ours {
        return TagVerdict::Ours;
    }
    if !tag.moves {
        return TagVerdict::Keep;
    }
    let theirs = current
        .labels
        .get(CREATED_LABEL)
        .and_then(|text| text.parse::<Timestamp>().ok());
    // Labels hold whole seconds: compare with whole seconds. Images made by other means give way.
    match theirs {
        Some(theirs) if current.labels.contains_key(BUILD_LABEL) && theirs > whole_seconds(requested_at) => {
            TagVerdict::Keep
        }
        _ => TagVerdict::Write,
    }
}

fn written_out<'a>(path: &'a str, default: &'a str) -> &'a str {
    if path.is_empty() { default } else { path }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}

/// `YYYY-MM-DDTHH:MM:SSZ`, as labels hold it.
fn rfc3339_seconds(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{}Z", text.split('.').next().unwrap_or(&text))
}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_text(field: &str, text: &str) -> Result<(), InvalidField> {
    if text.len() > MAX_VALUE || text.chars().any(char::is_control) {
        return Err(InvalidField::new(
            field,
            format!("use at most {MAX_VALUE} bytes without control characters"),
        ));
    }
    Ok(())
}

/// A path inside the checkout: relative, without `..`. Symbolic links are checked once the files are there.
fn check_path(field: &str, path: &str) -> Result<(), InvalidField> {
    let bad = path.len() > MAX_PATH
        || path.starts_with('/')
        || path.chars().any(|c| c.is_control() || c == '\\')
        || path.split('/').any(|part| part == ".." || part == ".git");
    if bad {
        return Err(InvalidField::new(
            field,
            "give a relative path inside the repository, without .. and .git",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            repository: "https://git.example/team/app.git".parse().unwrap(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
            branch: Some("feature/login".parse().unwrap()),
            image: "registry.example/team/app".parse().unwrap(),
            context: String::new(),
            dockerfile: String::new(),
            arguments: BTreeMap::new(),
            version: String::new(),
            latest: true,
            git_tag: None,
            target: String::new(),
        }
    }

    fn time() -> Timestamp {
        "2026-01-31T12:00:05.25Z".parse().unwrap()
    }

    #[test]
    fn names_follow_from_recipe_and_time() {
        let tags: Vec<String> = recipe()
            .tags(time())
            .iter()
            .map(|wanted| wanted.tag.to_string())
            .collect();
        assert_eq!(
            tags,
            [
                "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d",
                "1a2b3c4",
                "20260131120005",
                "feature-login",
                "latest"
            ]
        );
        let of_tag = |name: &str| {
            let git_tag = Some(name.parse().unwrap());
            let recipe = Recipe { git_tag, ..recipe() };
            let tags = recipe.tags(time());
            tags.iter()
                .skip(3)
                .map(|tag| (tag.tag.to_string(), tag.moves))
                .collect::<Vec<_>>()
        };
        let moving = |tag: &str| (tag.to_owned(), true);
        let (branch, latest) = (moving("feature-login"), moving("latest"));
        let fixed = |tag: &str| vec![(tag.to_owned(), false), branch.clone(), latest.clone()];
        assert_eq!(of_tag("v1.2.3"), fixed("v1.2.3"));
        assert_eq!(
            of_tag("app/v2+x"),
            fixed("app-v2-x"),
            "as far as a tag can say it"
        );
        assert_eq!(
            of_tag("latest"),
            [branch.clone(), latest.clone()],
            "it moves anyway"
        );
        let arguments = recipe().build_arguments(time());
        assert_eq!(arguments["BUILD_DATE"], "2026-01-31T12:00:05Z");
        assert_eq!(arguments["VERSION"], "1a2b3c4");
        let labels = recipe().labels(&"bld-1".parse().unwrap(), &"app".parse().unwrap(), time());
        assert_eq!(labels[BUILD_LABEL], "bld-1");
        assert_eq!(
            labels["org.opencontainers.image.revision"],
            recipe().commit.to_string()
        );
    }

    #[test]
    fn fields_are_checked_by_name() {
        type Change = fn(&mut Recipe);
        let cases: [(Change, &str); 6] = [
            (|r| r.context = "../x".into(), "spec.context"),
            (|r| r.dockerfile = "/etc/passwd".into(), "spec.dockerfile"),
            (
                |r| drop(r.arguments.insert("VERSION".into(), "1".into())),
                "spec.build_args[\"VERSION\"]",
            ),
            (
                |r| drop(r.arguments.insert("a b".into(), "1".into())),
                "spec.build_args[\"a b\"]",
            ),
            (|r| r.version = "a\nb".into(), "spec.version"),
            (|r| r.target = "--x".into(), "spec.target"),
        ];
        recipe().check().unwrap();
        for (change, field) in cases {
            let mut recipe = recipe();
            change(&mut recipe);
            assert_eq!(recipe.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn tags_are_given_kept_and_moved() {
        let digest = |c: &str| {
            format!("sha256:{}", c.repeat(64))
                .parse::<slipway_model::Digest>()
                .unwrap()
        };
        let found = |digest, created: Option<&str>| TaggedImage {
            digest,
            labels: created
                .map(|at| {
                    BTreeMap::from([
                        (CREATED_LABEL.into(), at.into()),
                        (BUILD_LABEL.into(), "bld-0".into()),
                    ])
                })
                .unwrap_or_default(),
        };
        let (fixed, moving) = (
            BuildTag {
                tag: "1a2b3c4".parse().unwrap(),
                moves: false,
            },
            BuildTag {
                tag: "main".parse().unwrap(),
                moves: true,
            },
        );
        let older = Some("2026-01-31T12:00:04Z");
        let same = Some("2026-01-31T12:00:05Z");
        let newer = Some("2026-01-31T12:00:06Z");
        for (wanted, found, verdict) in [
            (&fixed, None, TagVerdict::Write),
            (&fixed, Some(found(digest("a"), None)), TagVerdict::Ours),
            (&fixed, Some(found(digest("b"), older)), TagVerdict::Keep),
            (&moving, None, TagVerdict::Write),
            (&moving, Some(found(digest("a"), newer)), TagVerdict::Ours),
            (&moving, Some(found(digest("b"), older)), TagVerdict::Write),
            (&moving, Some(found(digest("b"), same)), TagVerdict::Write),
            (&moving, Some(found(digest("b"), newer)), TagVerdict::Keep),
            (&moving, Some(found(digest("b"), None)), TagVerdict::Write),
        ] {
            assert_eq!(
                tag_verdict(wanted, &digest("a"), time(), found.as_ref()),
                verdict,
                "{wanted:?} {found:?}"
            );
        }
    }
}
