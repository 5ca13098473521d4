//! Events of deployments as they were recorded before images had names and came in lists: still read, but never
//! written. What they say about the image applies to the service's only one, which has the service's name.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_model::{Actor, Digest, Id, Image, ImageName, Images, Name, duration};
use slipway_verdict::{Target, Verify};

use super::{Action, DeploymentRequest, Revert, Source};
use crate::catalog::{Bake, Check, Jobs, Pauses, Shared};

/// Of `requested`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub service: Name,
    pub environment: Name,
    pub target: Target,
    pub image: ImageName,
    pub digest: Digest,
    #[serde(flatten)]
    pub source: Option<Source>,
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "Action::is_apply")]
    pub action: Action,
    #[serde(default, skip_serializing_if = "Jobs::is_empty")]
    pub jobs: Jobs,
    #[serde(default)]
    pub checks: Vec<Check>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
    #[serde(default, skip_serializing_if = "super::request::waits")]
    pub pauses: Pauses,
    pub verify: Verify,
    #[serde(with = "duration")]
    pub timeout: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolls_back: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<Revert>,
    #[serde(default)]
    pub correlation_id: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub requested_by: Actor,
    #[serde(default)]
    pub holds_lane: bool,
}

impl From<Request> for DeploymentRequest {
    fn from(old: Request) -> Self {
        Self {
            images: Images::one(Image {
                name: old.service.clone(),
                repository: old.image,
                digest: old.digest,
                tags: Vec::new(),
            }),
            service: old.service,
            environment: old.environment,
            target: old.target,
            shared: Shared::default(),
            source: old.source,
            epoch: old.epoch,
            action: old.action,
            jobs: old.jobs,
            checks: old.checks,
            bake: old.bake,
            pauses: old.pauses,
            verify: old.verify,
            timeout: old.timeout,
            create_namespace: false,
            restores: None,
            follows_steps: false,
            rolls_back: old.rolls_back,
            reverts: old.reverts,
            correlation_id: old.correlation_id,
            labels: old.labels,
            requested_by: old.requested_by,
            holds_lane: old.holds_lane,
        }
    }
}
