//! What a deployment was asked for, fixed when it is requested.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_model::{Actor, CommitSha, Digest, Id, ImageName, ImageRef, Name, duration};
use slipway_verdict::{Previous, Target, Verify};

use crate::catalog::{ArgoCd, Bake, Check, Jobs, Pauses};

/// Everything that a deployment needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRequest {
    pub service: Name,
    pub environment: Name,
    pub target: Target,
    /// The image that must run.
    pub image: ImageName,
    pub digest: Digest,
    /// Where the manifests are; none where git knows nothing of the target.
    #[serde(flatten)]
    pub source: Option<Source>,
    /// Fencing token of the target's lane.
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "Action::is_apply")]
    pub action: Action,
    #[serde(default, skip_serializing_if = "Jobs::is_empty")]
    pub jobs: Jobs,
    #[serde(default)]
    pub checks: Vec<Check>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
    #[serde(default, skip_serializing_if = "waits")]
    pub pauses: Pauses,
    pub verify: Verify,
    /// From the request to the last passed check; the bake has its own time after that.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The deployment that this one puts back: it ends `ROLLBACK_FAILED` where others end `FAILED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolls_back: Option<Id>,
    /// The caller's id for what this belongs to; may be empty.
    #[serde(default)]
    pub correlation_id: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub requested_by: Actor,
    /// This deployment holds the lane's turn itself, and gives it back when it is final. A release's does not.
    #[serde(default)]
    pub holds_lane: bool,
}

/// One folder of a GitOps repository at exactly one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub repository: Name,
    pub path: String,
    pub commit: CommitSha,
}

/// How the cluster is made to take it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// The source is rendered and applied server-side.
    #[default]
    Apply,
    /// `kubectl rollout restart`.
    Restart,
    /// The image of the target's containers that use it is set, as `kubectl set image` does.
    SetImage,
    /// `kubectl rollout undo`.
    Undo { to: Previous },
    /// Argo CD is asked to sync the source's commit, or followed while it does so by itself.
    Sync { argo_cd: ArgoCd },
    /// Nothing: only the Jobs are run.
    Nothing,
}

impl Action {
    fn is_apply(&self) -> bool {
        *self == Self::Apply
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn waits(pauses: &Pauses) -> bool {
    *pauses == Pauses::Wait
}

impl DeploymentRequest {
    /// The image as it is looked for in manifests and pods.
    pub fn image_ref(&self) -> ImageRef {
        self.image.at(&self.digest)
    }
}
