//! Events of releases as they were recorded before images had names and came in lists: still read, but never written.
//! What they say about the image applies to the service's only one, which has the service's name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_model::{
    Actor, BranchName, CommitSha, Digest, Id, ImageName, Images, Name, ServiceImage, Tag, TraceContext,
};

use super::{Reason, StepStatus, Then};
use crate::{catalog::Build, plan::PlannedEnvironment};

/// Of `requested`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub plan: Plan,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<TraceContext>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub service: Name,
    pub commit: CommitSha,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    pub repository_url: String,
    pub image_name: ImageName,
    pub build: Build,
    pub environments: Vec<PlannedEnvironment>,
    pub catalog_hash: String,
    /// Over this form. It stays: approvals are bound to it.
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The repository that it is in.
    pub name: ImageName,
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// Of `advanced`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advance {
    pub step: String,
    pub attempt: u32,
    pub status: StepStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    #[serde(default)]
    pub facts: Facts,
    pub then: Then,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Facts {
    #[default]
    None,
    Built {
        image: Image,
        authors: Vec<String>,
    },
    Lane {
        epoch: u64,
    },
    Changed(ChangeMade),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMade {
    pub change: Id,
    pub commit: CommitSha,
    pub no_op: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Image>,
}

impl Image {
    fn of(self, service: &Name) -> Images {
        Images::one(slipway_model::Image {
            name: service.clone(),
            repository: self.name,
            digest: self.digest,
            tags: self.tags,
        })
    }
}

impl From<Request> for super::Request {
    fn from(old: Request) -> Self {
        Self {
            images: old.image.map(|image| image.of(&old.plan.service)),
            plan: old.plan.into(),
            requested_by: old.requested_by,
            labels: old.labels,
            rebuild: false,
            caller: old.caller,
        }
    }
}

impl From<Plan> for crate::plan::Plan {
    fn from(old: Plan) -> Self {
        Self {
            images: Images::one(ServiceImage {
                name: old.service.clone(),
                repository: old.image_name,
            }),
            service: old.service,
            commit: old.commit,
            branch: old.branch,
            git_tag: None,
            repository_url: old.repository_url,
            build: old.build,
            version: String::new(),
            environments: old.environments,
            catalog_hash: old.catalog_hash,
            hash: old.hash,
        }
    }
}

impl Advance {
    /// The same in the current form, for a release of this service.
    pub fn of(self, service: &Name) -> super::Advance {
        super::Advance {
            step: self.step,
            attempt: self.attempt,
            status: self.status,
            reason: self.reason,
            result: self.result,
            facts: match self.facts {
                Facts::None => super::Facts::None,
                Facts::Built { image, authors } => super::Facts::Built {
                    images: image.of(service),
                    authors,
                },
                Facts::Lane { epoch } => super::Facts::Lane { epoch },
                Facts::Changed(made) => super::Facts::Changed(super::ChangeMade {
                    change: made.change,
                    commit: made.commit,
                    no_op: made.no_op,
                    previous: made.previous.map(|image| image.of(service)),
                    previous_tag: None,
                    previous_of_others: Vec::new(),
                }),
            },
            then: self.then,
        }
    }
}
