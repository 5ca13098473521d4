//! The state of a release, rebuilt from its events.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
pub use slipway_model::Reason;
use slipway_model::{Actor, CommitSha, Id, ImageRef, Images, Name, Retry, Timestamp, TraceContext, duration};
use slipway_verdict::{Restored, before::Before};

use super::limit::{limit, prolonged};
use crate::{
    catalog::OnFailure,
    plan::{Plan, PlannedEnvironment},
};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// Absent before the release was requested.
    pub plan: Option<Plan>,
    pub requested_by: Option<Actor>,
    pub labels: BTreeMap<String, String>,
    pub caller: Option<TraceContext>,
    /// What it takes through its environments, once built.
    pub images: Option<Images>,
    /// The build must not use an image that exists already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuild: bool,
    /// Authors of the commit as reported by the build; absent if the images were not built by this release.
    pub authors: Option<Vec<String>>,
    pub status: ReleaseStatus,
    pub reason: Option<Reason>,
    /// In the order in which they were queued. The last one is active unless the release is final.
    pub steps: Vec<Step>,
    /// One for each environment of the plan.
    pub environments: Vec<EnvironmentProgress>,
    pub stop: Option<Stop>,
    /// Why the release is reverting what it changed.
    pub failure: Option<Failure>,
    pub requested_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    #[default]
    Running,
    Succeeded,
    Failed,
    RolledBack,
    RollbackFailed,
    Errored,
    Cancelled,
    Superseded,
}

impl ReleaseStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::RollbackFailed => "rollback_failed",
            Self::Errored => "errored",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    pub fn is_final(self) -> bool {
        self != Self::Running
    }
}

/// What a change did to the GitOps repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMade {
    pub change: Id,
    pub commit: CommitSha,
    /// The images were there already.
    pub no_op: bool,
    /// The images that were there before, if they were named by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Images>,
    /// The image that was there before, if it was named by tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_tag: Option<ImageRef>,
    /// The same of the environments that it wrote as well, in the plan's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_of_others: Vec<Option<Images>>,
}

/// The progress of a release in one environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentProgress {
    /// The lane's epoch, once it was granted.
    pub epoch: Option<u64>,
    /// What the target ran before the change.
    #[serde(default)]
    pub before: Option<Before>,
    pub change: Option<ChangeMade>,
    pub revert: Option<ChangeMade>,
    /// The change that names the previous image by its digest, where its tag leads to another one by now.
    #[serde(default)]
    pub pin: Option<ChangeMade>,
    /// The change was being applied to the cluster.
    pub deployed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Build,
    Lane,
    Gate,
    /// Jobs before anything else is changed.
    Prepare,
    Change,
    Deploy,
    Revert,
    Redeploy,
    /// Names the previous image by digest in git, since its tag does not lead to it any more.
    Pin,
}

impl StepKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Lane => "lane",
            Self::Gate => "gate",
            Self::Prepare => "prepare",
            Self::Change => "change",
            Self::Deploy => "deploy",
            Self::Revert => "revert",
            Self::Redeploy => "redeploy",
            Self::Pin => "pin",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
    Errored,
    Cancelled,
    Skipped,
}

impl StepStatus {
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingKind {
    Machine,
    Human,
    Lane,
}

/// What a running step waits for, in its backend's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub kind: WaitingKind,
    pub message: String,
    /// What its backend is retrying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Reason>,
    /// Until when its backend works on it, where that is later than was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Waiting {
    pub fn new(kind: WaitingKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry: None,
            until: None,
        }
    }

    /// Including what the step backend is retrying.
    #[must_use]
    pub fn retrying(self, retry: Option<Reason>) -> Self {
        Self { retry, ..self }
    }

    /// Whether this is the same; each try may fail with slightly different words.
    pub(super) fn says_as(&self, other: &Self) -> bool {
        let code = |waiting: &Self| waiting.retry.as_ref().map(|retry| retry.code.clone());
        let same = self.kind == other.kind && self.message == other.message;
        same && self.until == other.until && code(self) == code(other)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `build`, or `<environment>/<kind>`.
    pub name: String,
    pub kind: StepKind,
    /// Index into the plan's environments.
    pub environment: Option<usize>,
    /// Grows when the step is taken again.
    pub attempt: u32,
    pub status: StepStatus,
    /// The step backend's id of the build, approval, change or deployment.
    pub reference: Option<Id>,
    pub waiting: Option<Waiting>,
    pub waiting_since: Option<Timestamp>,
    /// Why it ended as it did.
    pub reason: Option<Reason>,
    pub result: String,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub deadline: Timestamp,
    pub past_deadline: bool,
    pub overdue: bool,
    pub stop_sent: bool,
    /// Calls made for this step: the attempt of its effect keys.
    pub tries: u32,
    /// When a failed call is repeated.
    pub retry_at: Option<Timestamp>,
    /// Why the last call to its backend failed, until one succeeds.
    pub fault: Option<Reason>,
    /// The number of calls in a row that failed like that.
    pub faults: u32,
    /// How long it has waited for a person so far, in periods that are over.
    #[serde(default, with = "duration")]
    pub human: Duration,
}

impl Step {
    /// What is being retried for it: by this service or, as far as reported, by its backend.
    pub fn retry(&self) -> Option<Retry> {
        let of_backend = || {
            let error = self.waiting.as_ref()?.retry.clone()?;
            Some(Retry {
                error,
                attempt: 0,
                next_time: None,
            })
        };
        let own = self.fault.clone().map(|error| Retry {
            error,
            attempt: self.faults,
            next_time: self.retry_at,
        });
        own.or_else(of_backend)
    }

    pub(super) fn answered(&mut self) {
        self.retry_at = None;
        self.fault = None;
        self.faults = 0;
    }
}

/// Why a release is being stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Stop {
    Cancelled {
        by: Actor,
        reason: String,
    },
    Superseded {
        by: Id,
    },
    /// A step's time was up.
    Deadline {
        step: String,
    },
}

/// A failed or errored step, from which the release is rolling back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub status: StepStatus,
    pub reason: Reason,
}

impl ReleaseState {
    /// The active step; `None` when the release is over or was never requested.
    pub fn active_step(&self) -> Option<&Step> {
        self.steps
            .last()
            .filter(|step| !step.status.is_final() && !self.status.is_final())
    }

    /// The plan of an environment.
    pub fn planned(&self, environment: Option<usize>) -> Option<&PlannedEnvironment> {
        self.plan.as_ref()?.environments.get(environment?)
    }

    /// The version from before the change, where the files named its image by tag and its target existed.
    pub fn restored(&self, environment: Option<usize>) -> Option<Restored> {
        let progress = self.environments.get(environment?)?;
        let change = progress.change.as_ref()?;
        if change.previous.is_some() {
            return None;
        }
        let own = &self.plan.as_ref()?.images.only().repository;
        let written = change.previous_tag.as_ref().map(|image| &image.name);
        let names: Vec<_> = written.into_iter().chain([own]).collect();
        progress.before.as_ref()?.restored(&names)
    }

    /// The position of an environment in the plan.
    pub(super) fn index_of(&self, planned: &PlannedEnvironment) -> Option<usize> {
        let environments = &self.plan.as_ref()?.environments;
        environments.iter().position(|other| other.name == planned.name)
    }

    /// The planned environment of a step.
    pub fn environment_of(&self, step: &Step) -> Option<(usize, &PlannedEnvironment)> {
        let index = step.environment?;
        Some((index, self.plan.as_ref()?.environments.get(index)?))
    }

    /// The environment whose lane this release is waiting for or holds.
    pub fn lane(&self) -> Option<usize> {
        match self.stop {
            // Superseding removed it from the lane in the same transaction.
            Some(Stop::Superseded { .. }) => None,
            _ => self.active_step().and(self.turn()),
        }
    }

    /// The environment that is being changed, or was last. People may be asked about later ones meanwhile.
    pub fn turn(&self) -> Option<usize> {
        let mut steps = self.steps.iter().rev();
        steps.find(|step| step.kind == StepKind::Lane)?.environment
    }

    /// The environments that a revert takes back: the one whose turn it is, unless it stays as it is, and those that were
    /// written with it and have not had their turn.
    pub fn to_take_back(&self) -> Vec<&PlannedEnvironment> {
        let (Some(plan), Some(turn)) = (&self.plan, self.turn()) else {
            return Vec::new();
        };
        let Some(current) = plan.environments.get(turn) else {
            return Vec::new();
        };
        let group = current.written_with.as_ref().unwrap_or(&current.name);
        let later = plan.written_by(group).filter(|(index, _)| *index > turn);
        let current = Some(current).filter(|planned| !self.leaves(planned));
        current
            .into_iter()
            .chain(later.map(|(_, planned)| planned))
            .collect()
    }

    /// Whether the environment keeps a version that failed, for people to look at.
    pub(super) fn leaves(&self, planned: &PlannedEnvironment) -> bool {
        let wished = matches!(self.stop, Some(Stop::Cancelled { .. } | Stop::Superseded { .. }));
        let index = self.index_of(planned);
        let progress = index.and_then(|index| self.environments.get(index));
        planned.on_failure == OnFailure::Stay && !wished && progress.is_some_and(|progress| progress.deployed)
    }

    /// Whether this step should be stopped. Steps that revert or redeploy are stopped only by their deadline.
    pub fn stops(&self, step: &Step) -> bool {
        match &self.stop {
            Some(Stop::Deadline { step: name }) => *name == step.name,
            Some(_) => !matches!(step.kind, StepKind::Revert | StepKind::Redeploy | StepKind::Pin),
            None => false,
        }
    }

    /// The status that a stopped release ends with, and why.
    pub fn stop_ending(&self) -> Option<(ReleaseStatus, Reason)> {
        match self.stop.as_ref()? {
            Stop::Cancelled { by, reason } if reason.is_empty() => Some((
                ReleaseStatus::Cancelled,
                Reason::new("CANCELLED", format!("cancelled by {by}")),
            )),
            Stop::Cancelled { by, reason } => Some((
                ReleaseStatus::Cancelled,
                Reason::new("CANCELLED", format!("cancelled by {by}: {reason}")),
            )),
            Stop::Superseded { by } => Some((
                ReleaseStatus::Superseded,
                Reason::new(
                    "SUPERSEDED",
                    format!("{by}, which is newer, came for the same target before this one changed it"),
                ),
            )),
            Stop::Deadline { step } => Some((
                ReleaseStatus::Errored,
                Reason::new(
                    "DEADLINE_EXCEEDED",
                    format!("step {step} did not end in the time that the plan gives it"),
                ),
            )),
        }
    }

    /// The active step has time until its backend is done, if that is later than was planned.
    pub(super) fn prolong(&mut self, name: &str, until: Timestamp) {
        let environment = self.active_step().and_then(|step| step.environment);
        let Some(until) = self.plan.as_ref().map(|plan| prolonged(plan, environment, until)) else {
            return;
        };
        if let Some(step) = self.active_mut(name).filter(|step| !step.past_deadline) {
            step.deadline = step.deadline.max(until);
        }
    }

    pub(super) fn active_mut(&mut self, name: &str) -> Option<&mut Step> {
        self.steps
            .last_mut()
            .filter(|step| step.name == name && !step.status.is_final())
    }

    pub(super) fn push_step(&mut self, kind: StepKind, environment: Option<usize>, at: Timestamp) {
        let Some(plan) = &self.plan else { return };
        let name = match environment.and_then(|index| plan.environments.get(index)) {
            Some(environment) => format!("{}/{}", environment.name, kind.as_str()),
            None => kind.as_str().to_owned(),
        };
        let deadline = at + limit(plan, kind, environment);
        let lane_waits = kind == StepKind::Lane;
        let earlier = self.steps.iter().rev().find(|step| step.name == name);
        let (attempt, tries) = earlier.map_or((1, 1), |step| (step.attempt + 1, step.tries + 1));
        let planned = environment.and_then(|index| plan.environments.get(index));
        let others: Vec<&str> = planned
            .into_iter()
            .flat_map(|planned| planned.shared.services())
            .map(Name::as_str)
            .collect();
        let waits_for = if others.is_empty() {
            "waits for the deploy target to be free".to_owned()
        } else {
            let others = others.join(", ");
            format!("waits for its turn: the target or folder is shared with {others}")
        };
        self.steps.push(Step {
            name,
            kind,
            environment,
            attempt,
            status: StepStatus::Queued,
            reference: None,
            waiting: lane_waits.then(|| Waiting::new(WaitingKind::Lane, waits_for)),
            waiting_since: lane_waits.then_some(at),
            reason: None,
            result: String::new(),
            queued_at: at,
            started_at: None,
            ended_at: None,
            deadline,
            past_deadline: false,
            overdue: false,
            stop_sent: false,
            tries,
            retry_at: None,
            fault: None,
            faults: 0,
            human: Duration::ZERO,
        });
    }
}
