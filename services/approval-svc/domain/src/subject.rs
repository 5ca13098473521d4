//! What an approval is for.
//!
//! A section's body is kept as the bytes that are hashed: within the event when it is small, otherwise as a content of
//! the ledger, which the event names by its hash. A body whose bytes do not match the hash is never shown.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;
use slipway_model::{BranchName, CommitSha, ContentHash, Digest, ImageName, Name, Tag};

/// The maximum size of a body that is kept within the event.
pub const MAX_INLINE: u64 = 4 * 1024;

/// What an approval is for. A decision holds for exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Kind,
    pub scope: Scope,
    /// What would run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<CommitRange>,
    /// Hash of the plan that the request belongs to; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_hash: String,
    /// One line for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What people should see, as the requester supplied it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Release,
    WorkflowRun,
    Canary,
    Infrastructure,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::WorkflowRun => "workflow_run",
            Self::Canary => "canary",
            Self::Infrastructure => "infrastructure",
        }
    }
}

/// Where it would take effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub service: Name,
    /// Always there for releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Name>,
    /// Within the environment, such as `staging/shop/Deployment/web`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
}

impl Scope {
    /// The environment as roles and lists know it: empty for none.
    pub fn environment(&self) -> &str {
        self.environment.as_ref().map_or("", Name::as_str)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) => write!(f, "{} in {environment}", self.service),
            None => write!(f, "{} in no environment", self.service),
        }
    }
}

/// An image that would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub name: Name,
    /// Not known of approvals from before images had names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<ImageName>,
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// Commits that `head` has and `base` has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRange {
    /// May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repository_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitSha>,
    pub head: CommitSha,
}

/// One part of what people see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    pub title: String,
    /// Which system supplied it.
    pub source: String,
    pub form: Form,
    /// Of the body's bytes.
    pub sha256: ContentHash,
    /// The number of the body's bytes.
    pub size: u64,
    /// The body's bytes; absent when they are kept as a content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// In which form a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Table,
    Diff,
    Text,
    Link,
}

impl Form {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Diff => "diff",
            Self::Text => "text",
            Self::Link => "link",
        }
    }
}

/// What a section shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Table(Table),
    /// A unified diff.
    Diff(String),
    Text(String),
    Link(Link),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub rel: String,
    pub href: String,
}

/// Why a body cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "the body of section {title:?} (SHA-256 {sha256}) is missing from the ledger: restore the table contents from a backup"
    )]
    Missing { title: String, sha256: ContentHash },
    #[error(
        "the body of section {title:?} does not have SHA-256 {sha256}: it was changed since the request; restore the table contents from a backup"
    )]
    Changed { title: String, sha256: ContentHash },
}

impl Body {
    pub fn form(&self) -> Form {
        match self {
            Self::Table(_) => Form::Table,
            Self::Diff(_) => Form::Diff,
            Self::Text(_) => Form::Text,
            Self::Link(_) => Form::Link,
        }
    }

    /// The bytes that are hashed and kept: text as it is, the rest as JSON in the canonical form of RFC 8785. Of strings
    /// that is what serde_json writes, and the keys stand in their order.
    pub fn canonical(&self) -> String {
        match self {
            Self::Diff(text) | Self::Text(text) => text.clone(),
            Self::Table(table) => json!({"columns": table.columns, "rows": table.rows}).to_string(),
            Self::Link(link) => json!({"href": link.href, "rel": link.rel}).to_string(),
        }
    }

    fn of(form: Form, canonical: String) -> Result<Self, serde_json::Error> {
        Ok(match form {
            Form::Diff => Self::Diff(canonical),
            Form::Text => Self::Text(canonical),
            Form::Table => Self::Table(serde_json::from_str(&canonical)?),
            Form::Link => Self::Link(serde_json::from_str(&canonical)?),
        })
    }
}

impl Section {
    pub fn new(title: impl Into<String>, source: impl Into<String>, body: &Body) -> Self {
        let canonical = body.canonical();
        Self {
            title: title.into(),
            source: source.into(),
            form: body.form(),
            sha256: ContentHash::of(&canonical),
            size: u64::try_from(canonical.len()).unwrap_or(u64::MAX),
            body: Some(canonical),
        }
    }

    /// Takes out the bytes of a body that is too large for an event, to be kept as a content.
    pub fn take_large(&mut self) -> Option<String> {
        if self.size > MAX_INLINE {
            self.body.take()
        } else {
            None
        }
    }

    /// What it shows; `content` is the body's bytes if they were kept outside the event.
    ///
    /// # Errors
    /// When there are no bytes, or not those that were hashed.
    pub fn read(&self, content: Option<Vec<u8>>) -> Result<Body, Unreadable> {
        let (title, sha256) = (self.title.clone(), self.sha256.clone());
        let canonical = match (&self.body, content) {
            (Some(body), _) => body.clone(),
            (None, Some(content)) => match String::from_utf8(content) {
                Ok(text) => text,
                Err(_) => return Err(Unreadable::Changed { title, sha256 }),
            },
            (None, None) => return Err(Unreadable::Missing { title, sha256 }),
        };
        if ContentHash::of(&canonical) != self.sha256 {
            return Err(Unreadable::Changed { title, sha256 });
        }
        Body::of(self.form, canonical).map_err(|_| Unreadable::Changed { title, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn bodies() -> impl Strategy<Value = Body> {
        let text = || "\\PC{0,20}|[ -~\\n\\t]{0,40}";
        let link =
            ("[a-z]{1,9}", "https://[a-z]{1,20}").prop_map(|(rel, href)| Body::Link(Link { rel, href }));
        let table = proptest::collection::vec(text(), 1..4).prop_flat_map(move |columns| {
            let row = proptest::collection::vec(text(), columns.len());
            (Just(columns), proptest::collection::vec(row, 0..5))
        });
        prop_oneof![
            text().prop_map(Body::Diff),
            text().prop_map(Body::Text),
            link,
            table.prop_map(|(columns, rows)| Body::Table(Table { columns, rows })),
        ]
    }

    proptest! {
        #[test]
        fn bodies_are_what_was_hashed(body in bodies(), pad in 0_usize..2) {
            let body = match body {
                Body::Text(text) => Body::Text(text + &"x".repeat(pad * 5000)),
                body => body,
            };
            let mut section = Section::new("t", "s", &body);
            prop_assert_eq!(section.size, body.canonical().len() as u64);
            prop_assert_eq!(section.read(None), Ok(body.clone()));
            let kept = section.take_large();
            prop_assert_eq!(kept.is_some(), section.size > MAX_INLINE);
            let kept = kept.map(String::into_bytes);
            prop_assert_eq!(section.read(kept.clone()), Ok(body));
            // Another byte, one more, or none at all: it is not shown.
            if let Some(mut kept) = kept {
                kept[0] ^= 1;
                let unreadable = matches!(section.read(Some(kept)), Err(Unreadable::Changed { .. }));
                prop_assert!(unreadable);
                let unreadable = matches!(section.read(None), Err(Unreadable::Missing { .. }));
                prop_assert!(unreadable);
            } else {
                section.body.as_mut().unwrap().push('x');
                let unreadable = matches!(section.read(None), Err(Unreadable::Changed { .. }));
                prop_assert!(unreadable);
            }
        }
    }

    /// Callers can compute the hash themselves, with common tools.
    #[test]
    fn what_is_hashed_is_pinned() {
        let table = Table {
            columns: vec!["name".to_owned(), "say \"hi\"".to_owned()],
            rows: vec![vec!["a/b".to_owned(), "ünï\u{7f}\\".to_owned()]],
        };
        let link = Link {
            rel: "log".to_owned(),
            href: "https://ci.example/1".to_owned(),
        };
        for (body, canonical) in [
            (Body::Diff("--- a\n".to_owned()), "--- a\n"),
            (Body::Text("as it is\n".to_owned()), "as it is\n"),
            (
                Body::Table(table),
                "{\"columns\":[\"name\",\"say \\\"hi\\\"\"],\"rows\":[[\"a/b\",\"ünï\u{7f}\\\\\"]]}",
            ),
            (Body::Link(link), r#"{"href":"https://ci.example/1","rel":"log"}"#),
        ] {
            assert_eq!(body.canonical(), canonical);
        }
        // printf 'as it is\n' | sha256sum
        assert_eq!(
            Section::new("t", "s", &Body::Text("as it is\n".to_owned()))
                .sha256
                .as_str(),
            SHA
        );
    }
    const SHA: &str = "56142c2012c97c209e3981318a3aa139551caa5b21bd9aef6435350199db1cc3";
}
