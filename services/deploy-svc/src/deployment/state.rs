//! A deployment as it stands: what was asked for, and how far it is.

use std::{collections::BTreeMap, fmt, time::Duration};

pub use crate::reason::Reason;
use serde::{Deserialize, Serialize};
use slipway_ledger::EffectKey;
use slipway_model::{Actor, CommitSha, Digest, ImageName, ImageRef, Name, Timestamp};

use crate::{
    catalog::{Check, Target, Verify, duration},
    kubernetes::{check::CheckResult, evidence::PodEvidence, verdict::Applied},
};

/// Everything that a deployment needs to know, fixed when it is requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRequest {
    pub service: Name,
    pub environment: Name,
    pub target: Target,
    /// The image that must run.
    pub image: ImageName,
    pub digest: Digest,
    /// Where the manifests are rendered from, at exactly this commit.
    pub repository: Name,
    pub path: String,
    pub commit: CommitSha,
    /// Fencing token of the target's lane.
    pub epoch: u64,
    #[serde(default)]
    pub checks: Vec<Check>,
    pub verify: Verify,
    /// From the request to the last passed check.
    #[serde(with = "duration")]
    pub timeout: Duration,
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

impl DeploymentRequest {
    /// The image as it is looked for in manifests and pods.
    pub fn image_ref(&self) -> ImageRef {
        self.image.at(&self.digest)
    }
}

/// As the API shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    #[default]
    Pending,
    Applying,
    Verifying,
    Succeeded,
    Failed,
    Errored,
    Cancelled,
}

impl DeploymentStatus {
    /// Nothing more will become of it.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Errored | Self::Cancelled
        )
    }

    /// In lower case, as lists are filtered.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applying => "applying",
            Self::Verifying => "verifying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStep {
    #[default]
    Apply,
    Rollout,
    Checks,
    Evidence,
}

impl fmt::Display for DeploymentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Rollout => "rollout",
            Self::Checks => "checks",
            Self::Evidence => "evidence",
        })
    }
}

/// A deployment as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentState {
    /// None before it is requested.
    pub request: Option<DeploymentRequest>,
    pub status: DeploymentStatus,
    pub step: DeploymentStep,
    /// Of the step, from 1.
    pub attempt: u32,
    /// The step waits until then before its next attempt.
    pub retry_at: Option<Timestamp>,
    /// The far side could not be asked when it was last tried, in words.
    pub fault: Option<String>,
    /// What the API server answered; none before it took all manifests.
    pub applied: Option<Applied>,
    /// What is being waited for, in words.
    pub progress: String,
    pub(super) progress_count: u32,
    /// It has failed for this reason, and evidence is being collected.
    pub failing: Option<Reason>,
    /// Why it failed, errored or was cancelled.
    pub reason: Option<Reason>,
    pub checks: Vec<CheckResult>,
    pub evidence: Vec<PodEvidence>,
    pub requested_at: Option<Timestamp>,
    pub applied_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    /// Since when the present step, or the present wait, lasts.
    pub since: Option<Timestamp>,
    pub lane_left: bool,
}

impl DeploymentState {
    /// The key of the step's present attempt.
    pub fn key(&self) -> EffectKey {
        EffectKey::new(self.step.to_string(), self.attempt)
    }

    pub(super) fn holds_lane(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.holds_lane) && !self.lane_left
    }

    pub(super) fn active(&self) -> bool {
        self.request.is_some() && !self.status.is_final()
    }

    pub(super) fn expects(&self, key: &EffectKey) -> bool {
        self.active() && self.retry_at.is_none() && *key == self.key()
    }

    pub(super) fn begin(&mut self, step: DeploymentStep, at: Timestamp) {
        self.step = step;
        self.attempt = 1;
        self.retry_at = None;
        self.fault = None;
        self.since = Some(at);
    }

    pub(super) fn end(&mut self, status: DeploymentStatus, reason: Option<&Reason>, at: Timestamp) {
        self.status = status;
        self.reason = reason.cloned();
        self.failing = None;
        self.retry_at = None;
        self.fault = None;
        self.progress.clear();
        self.ended_at = Some(at);
    }
}
