//! The state of a deployment: its progress with what was requested.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_decider::EffectKey;
pub use slipway_model::Reason;
use slipway_model::{Id, Name, Timestamp};
use slipway_verdict::{Applied, analysis::Tally, evidence::PodEvidence};

use super::{
    request::{Action, DeploymentRequest},
    step::DeploymentStep,
};
use crate::{
    catalog::{Job, Metric},
    result::{CheckResult, JobResult},
};

/// The code of rollouts that a person aborted; the same as [`slipway_verdict::FailureReason::Aborted`]'s.
pub(super) const ABORTED: &str = "ABORTED";

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
    /// It was to restore what ran before, and did not: a person must look.
    RollbackFailed,
}

impl DeploymentStatus {
    /// It will not change any more.
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

/// The state of a deployment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeploymentState {
    /// `None` before it is requested.
    pub request: Option<DeploymentRequest>,
    pub status: DeploymentStatus,
    pub step: DeploymentStep,
    /// Of the step, from 1.
    pub attempt: u32,
    /// The step waits until then before its next attempt.
    pub retry_at: Option<Timestamp>,
    /// How often in a row the remote system could not be asked.
    #[serde(default)]
    pub(super) stumbles: u32,
    /// Why the remote system could not be asked at the last try.
    pub fault: Option<Reason>,
    /// What the API server answered; `None` before it has accepted all manifests.
    pub applied: Option<Applied>,
    /// What is being waited for, in words.
    pub progress: String,
    pub(super) progress_count: u32,
    /// It has failed for this reason, and evidence is being collected.
    pub failing: Option<Reason>,
    /// Why it failed, errored or was cancelled.
    pub reason: Option<Reason>,
    pub checks: Vec<CheckResult>,
    /// Jobs that have ended, in the order in which they ended.
    #[serde(default)]
    pub jobs: Vec<JobResult>,
    /// What a bake has measured so far, by metric.
    #[serde(default)]
    pub metrics: BTreeMap<Name, Tally>,
    /// When the bake ends.
    #[serde(default)]
    pub bake_until: Option<Timestamp>,
    /// At how many measurements in a row the workload was not complete.
    #[serde(default)]
    pub(super) unwell: u32,
    /// The change that gitops-svc makes for the revert.
    #[serde(default)]
    pub reverting: Option<Id>,
    /// What a person requested of a paused rollout, until it is carried out.
    #[serde(default)]
    pub ask: Option<Ask>,
    #[serde(default)]
    pub(super) asks: u32,
    /// Why the last request was not carried out, until the next one.
    #[serde(default)]
    pub declined: Option<String>,
    /// It is waiting for a person: the rollout continues when it is promoted.
    #[serde(default)]
    pub human: bool,
    /// What is not waited for any more but may still be running.
    #[serde(default)]
    pub stray: Option<Stray>,
    pub evidence: Vec<PodEvidence>,
    /// What a person should know although the rollout did well.
    #[serde(default)]
    pub warnings: Vec<String>,
    pub requested_at: Option<Timestamp>,
    pub applied_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    /// What the deadline follows from, or why it will not suffice; empty unless the rollout has steps.
    #[serde(default)]
    pub deadline_basis: String,
    /// Since when the current step, or the current wait, lasts.
    pub since: Option<Timestamp>,
    pub lane_left: bool,
}

/// What a deployment that ended early leaves behind, until it is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stray {
    /// The Job of that name in the catalog.
    Job { name: Name },
    /// Argo CD's sync.
    Sync,
}

/// What a person requests of a canary or blue-green rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ask {
    /// It should continue; `full`: past all further steps.
    Promote { full: bool },
    /// The stable version should serve everything again.
    Abort { message: String },
}

/// The key of cleaning up what is left behind.
pub(super) fn stop_key() -> EffectKey {
    EffectKey::new("stop", 1)
}

impl DeploymentState {
    /// The key of the step's current attempt.
    pub fn key(&self) -> EffectKey {
        EffectKey::new(self.step.to_string(), self.attempt)
    }

    /// The key under which the revert's change is checked.
    pub fn observe_key(&self) -> EffectKey {
        EffectKey::new(format!("{}:observe", self.step), self.attempt)
    }

    /// The key of the request to the rollout.
    pub fn ask_key(&self) -> EffectKey {
        let word = match self.ask {
            Some(Ask::Abort { .. }) => "abort",
            Some(Ask::Promote { .. }) | None => "promote",
        };
        EffectKey::new(word, self.asks)
    }

    /// The Job that should run now.
    pub fn job(&self) -> Option<&Job> {
        let request = self.request.as_ref()?;
        let jobs = request.jobs_of(self.step);
        let done = match self.step {
            DeploymentStep::After => self.jobs.len().checked_sub(request.jobs.before.len())?,
            _ => self.jobs.len(),
        };
        jobs.get(done)
    }

    /// The metrics of the bake with what was measured of each, in the catalog's order.
    pub fn measured(&self) -> impl Iterator<Item = (&Metric, Tally)> {
        let bake = self.request.as_ref().and_then(|request| request.bake.as_ref());
        let metrics = bake.map(|bake| bake.metrics.as_slice()).unwrap_or_default();
        metrics.iter().map(|metric| {
            (
                metric,
                self.metrics.get(&metric.name).cloned().unwrap_or_default(),
            )
        })
    }

    /// What is being waited for, and why the last try failed, in words.
    pub fn progress_words(&self) -> String {
        let Some(fault) = self.fault.as_ref().filter(|_| self.stumbles > 0) else {
            return self.progress.clone();
        };
        let next = match self.retry_at {
            Some(at) => format!("the next one is at {}", at.in_seconds()),
            None => "it is tried again now".to_owned(),
        };
        format!(
            "{}; attempt {} failed: {}; {next}",
            self.progress, self.stumbles, fault.message
        )
    }

    /// The current state in words, for commands that come at the wrong time.
    pub(super) fn words(&self) -> String {
        if self.status.is_final() {
            self.status.as_str().to_owned()
        } else {
            format!("at its step {}", self.step)
        }
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

    /// From the revert, while its change is followed.
    pub(super) fn observes(&self, key: &EffectKey) -> bool {
        self.active() && self.reverting.is_some() && *key == self.observe_key()
    }

    pub(super) fn begin(&mut self, step: DeploymentStep, at: Timestamp) {
        if step == DeploymentStep::Evidence {
            self.let_go();
        }
        let failing = self.failing.as_ref().filter(|_| step == DeploymentStep::Evidence);
        let failing = failing.map(|reason| reason.code.clone());
        self.close_ask(step != DeploymentStep::Evidence, failing.as_deref());
        self.step = step;
        self.attempt = 1;
        self.retry_at = None;
        self.stumbles = 0;
        self.fault = None;
        self.reverting = None;
        self.human = false;
        self.since = Some(at);
    }

    /// A request to a rollout that is over: done, if it ended as requested before the answer arrived.
    fn close_ask(&mut self, well: bool, failing: Option<&str>) {
        let (done, words) = match self.ask.take() {
            Some(Ask::Promote { .. }) => (well, "the rollout was over before it could be promoted"),
            Some(Ask::Abort { .. }) => (
                failing == Some(ABORTED),
                "the rollout was over before it could be aborted",
            ),
            None => return,
        };
        if !done {
            self.declined = Some(words.to_owned());
        }
    }

    /// Notes what would continue although it is not waited for any more.
    fn let_go(&mut self) {
        let request = self.request.as_ref();
        let syncs = request.is_some_and(|request| matches!(request.action, Action::Sync { .. }));
        match self.step {
            DeploymentStep::Before | DeploymentStep::After => {
                let ended = self.jobs.last().is_some_and(|last| !last.succeeded);
                if let Some(job) = self.job().filter(|_| !ended) {
                    self.stray = Some(Stray::Job {
                        name: job.name.clone(),
                    });
                }
            }
            DeploymentStep::Apply | DeploymentStep::Rollout if syncs => self.stray = Some(Stray::Sync),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, status: DeploymentStatus, reason: Option<&Reason>, at: Timestamp) {
        if status != DeploymentStatus::Succeeded {
            self.let_go();
        }
        self.status = status;
        self.reason = reason.cloned();
        self.close_ask(
            status == DeploymentStatus::Succeeded,
            reason.map(|reason| reason.code.as_str()),
        );
        self.human = false;
        self.reverting = None;
        self.failing = None;
        self.retry_at = None;
        self.fault = None;
        self.progress.clear();
        self.ended_at = Some(at);
    }
}
