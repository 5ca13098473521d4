//! What a change was requested to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_edit::Edit;
use slipway_model::{Actor, BranchName, CommitSha, Digest, Id, Images, Name, TraceContext};

use crate::pull_request::Mode;

/// An image that a change writes, and that its message names: by tags, digest or both.
pub type Image = slipway_model::Image<Option<Digest>>;

/// Where the images of a change were copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    pub environment: Name,
    /// The commit at which they were read.
    pub commit: CommitSha,
}

/// What was requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Name in this service's configuration.
    pub repository: String,
    pub branch: BranchName,
    pub service: Name,
    pub environment: Name,
    pub edits: Vec<Edit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_commit: Option<CommitSha>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images<Image>>,
    /// The commit's subject; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The change that this one reverts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<Id>,
    /// The environment whose images were copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_from: Option<Promotion>,
    /// How it gets to its branch; decided when it is requested.
    #[serde(default, skip_serializing_if = "Mode::is_push")]
    pub mode: Mode,
    /// Why, for the commit's body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The caller's own id for what this belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceContext>,
}
