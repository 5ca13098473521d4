//! Events of changes as they were recorded before images had names and came in lists: still read, but never written.
//! What they say about the image applies to the service's only one, which has the service's name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_edit::Edit;
use slipway_model::{Actor, BranchName, CommitSha, Digest, Id, ImageName, Images, Name, Tag, TraceContext};

use super::Promotion;
use crate::pull_request::Mode;

/// Of `requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub repository: String,
    pub branch: BranchName,
    pub service: Name,
    pub environment: Name,
    pub edits: Vec<Edit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_commit: Option<CommitSha>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_from: Option<Promotion>,
    #[serde(default, skip_serializing_if = "Mode::is_push")]
    pub mode: Mode,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceContext>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The repository that it is in.
    pub name: ImageName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

impl From<Request> for super::Request {
    fn from(old: Request) -> Self {
        let images = old.image.map(|image| {
            Images::one(super::Image {
                name: old.service.clone(),
                repository: image.name,
                digest: image.digest,
                tags: image.tags,
            })
        });
        Self {
            repository: old.repository,
            branch: old.branch,
            service: old.service,
            environment: old.environment,
            edits: old.edits,
            source_commit: old.source_commit,
            images,
            subject: old.subject,
            reverts: old.reverts,
            promoted_from: old.promoted_from,
            mode: old.mode,
            why: old.why,
            correlation_id: old.correlation_id,
            labels: old.labels,
            requested_by: old.requested_by,
            traceparent: old.traceparent,
        }
    }
}
