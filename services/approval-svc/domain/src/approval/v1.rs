//! Events of approvals as they were recorded when each approval was for a release of one image, which was identified by
//! its digest alone: read, and never written. Their bindings stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use slipway_model::{Actor, CommitSha, Digest, Name, Principal, Timestamp};

use crate::{
    policy::Policy,
    subject::{self, CommitRange, Image, Kind, Scope},
};

/// The content of `requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRequest {
    pub subject: Subject,
    pub policy: Policy,
    pub binding: String,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub authors: BTreeSet<Principal>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unmapped_authors: BTreeSet<String>,
    pub required: u32,
    pub expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub service: Name,
    pub environment: Name,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitSha>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

impl From<RecordedRequest> for super::RecordedRequest {
    fn from(old: RecordedRequest) -> Self {
        Self {
            subject: old.subject.into(),
            policy: old.policy,
            binding: old.binding,
            requested_by: old.requested_by,
            authors: old.authors,
            unmapped_authors: old.unmapped_authors,
            required: old.required,
            expires_at: old.expires_at,
            correlation: old.correlation,
            labels: old.labels,
        }
    }
}

impl From<Subject> for subject::Subject {
    fn from(old: Subject) -> Self {
        let image = |digest| Image {
            name: old.service.clone(),
            repository: None,
            digest,
            tags: Vec::new(),
        };
        let commits = |head| CommitRange {
            repository_url: String::new(),
            branch: None,
            base: None,
            head,
        };
        Self {
            kind: Kind::Release,
            images: old.digest.map(image).into_iter().collect(),
            commits: old.commit.map(commits),
            scope: Scope {
                service: old.service,
                environment: Some(old.environment),
                target: old.target,
            },
            plan_hash: old.plan_hash,
            summary: old.summary,
            sections: Vec::new(),
        }
    }
}
