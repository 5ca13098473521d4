//! A deployment as it stands: how far it is with what was asked for.

use std::fmt;

use serde::{Deserialize, Serialize};
use slipway_ledger::EffectKey;
use slipway_model::Timestamp;
use slipway_verdict::{Applied, evidence::PodEvidence};

use super::request::DeploymentRequest;
pub use crate::reason::Reason;
use crate::result::{CheckResult, JobResult};

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
    /// It was to put back what ran before, and did not: a person must look.
    RollbackFailed,
}

impl DeploymentStatus {
    /// Nothing more will become of it.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Errored | Self::Cancelled | Self::RollbackFailed
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
            Self::RollbackFailed => "rollback_failed",
        }
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStep {
    /// The change that failed is taken out of git.
    Revert,
    /// Jobs before the change.
    Before,
    #[default]
    Apply,
    Rollout,
    Checks,
    /// Jobs after the rollout.
    After,
    /// Metrics are watched; each measurement is an attempt.
    Bake,
    Evidence,
}

impl fmt::Display for DeploymentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revert => "revert",
            Self::Before => "before",
            Self::Apply => "apply",
            Self::Rollout => "rollout",
            Self::Checks => "checks",
            Self::After => "after",
            Self::Bake => "bake",
            Self::Evidence => "evidence",
        })
    }
}

/// A deployment as it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Jobs that came to their end, in the order of their ends.
    #[serde(default)]
    pub jobs: Vec<JobResult>,
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
