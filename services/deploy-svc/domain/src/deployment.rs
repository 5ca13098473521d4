//! One deployment: a change applied to a cluster, and proof that the image is running. Pure.
//!
//! `revert → before → apply → rollout → checks → after → bake`, each a step with attempts, and only those that the
//! request asks for. If the remote system rejects something the deployment fails; if it cannot be asked this is retried
//! until the deadline, and only then the deployment ends *errored*: the outcome is not known. On failure the reason is
//! recorded first and the pods' evidence is collected after it, in a separate step. A deployment that rolls another one
//! back ends *rollback failed* in both cases: then it is not known what is running, and a person must look.

mod bake;
mod decide;
mod ending;
mod evolve;
mod request;
mod state;
mod step;
mod timing;
pub mod v1;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, EffectKey, Impossible, Index, RefusalKind};
use slipway_model::{CommitSha, Id, Retry, Timestamp};
use slipway_verdict::{Applied, Verdict, WorkloadKind, evidence::PodEvidence, steps::Steps};

use crate::result::{CheckResult, JobResult, Measurement};

pub use bake::limits;
pub use request::{Action, DeploymentRequest, Revert, Source, fencing_epoch, put_back, tag_leads_elsewhere};
pub use state::{Ask, DeploymentState, DeploymentStatus, Reason, Stray};
pub use step::DeploymentStep;
pub(crate) use timing::pause;

/// How often the revert's change is checked: it waits for a push, or for a pull request.
const OBSERVE: Duration = Duration::from_secs(3);

/// The decider of deployments.
#[derive(Debug)]
pub enum Deployment {}

/// What happens to a deployment. Outcomes carry the key of the attempt that they come from.
#[derive(Debug, Clone)]
pub enum DeploymentCommand {
    /// Repeated with the same id, it changes nothing.
    Request(Box<DeploymentRequest>),
    Cancel {
        message: String,
    },
    /// gitops-svc has accepted the order to revert the change.
    Reverting {
        key: EffectKey,
        change: Id,
    },
    /// The commit that reverts it is on its branch.
    Reverted {
        key: EffectKey,
        commit: CommitSha,
    },
    JobEnded {
        key: EffectKey,
        result: JobResult,
    },
    Applied {
        key: EffectKey,
        applied: Applied,
    },
    RolledOut {
        key: EffectKey,
    },
    Checked {
        key: EffectKey,
        results: Vec<CheckResult>,
    },
    /// The metrics of a bake, measured once, and the state of the workload at that time.
    Measured {
        key: EffectKey,
        measurements: Vec<Measurement>,
        verdict: Verdict,
    },
    Evidence {
        key: EffectKey,
        evidence: Vec<PodEvidence>,
    },
    /// The steps of the canary that the deployment is about to roll out.
    StepsKnown {
        key: EffectKey,
        steps: Steps,
    },
    /// What is being waited for; `human`: it is a person.
    Progress {
        key: EffectKey,
        message: String,
        human: bool,
    },
    /// What a person should know although the rollout does well.
    Warn {
        key: EffectKey,
        warnings: Vec<String>,
    },
    /// The remote system cannot be asked, and is asked repeatedly.
    Away {
        key: EffectKey,
        reason: Reason,
    },
    /// The remote system rejected it.
    Refused {
        key: EffectKey,
        reason: Reason,
    },
    /// The remote system could not be asked. It is asked again after a pause.
    Stumbled {
        key: EffectKey,
        reason: Reason,
    },
    /// Lets a paused rollout continue; `full`: past all further steps.
    Promote {
        full: bool,
    },
    /// Lets the stable version serve everything again, and the deployment fail.
    Abort {
        message: String,
    },
    /// The rollout was told what was requested; or not, for this reason.
    Told {
        key: EffectKey,
        declined: Option<String>,
    },
    /// What is not waited for any more has stopped, as far as that can be determined.
    Stopped {
        key: EffectKey,
    },
    LaneLeft,
    Wake,
}

impl DeploymentCommand {
    /// The key of the effect or poll that it comes from.
    fn key(&self) -> Option<&EffectKey> {
        match self {
            Self::Reverting { key, .. }
            | Self::Reverted { key, .. }
            | Self::JobEnded { key, .. }
            | Self::Applied { key, .. }
            | Self::RolledOut { key }
            | Self::Checked { key, .. }
            | Self::Measured { key, .. }
            | Self::Evidence { key, .. }
            | Self::StepsKnown { key, .. }
            | Self::Progress { key, .. }
            | Self::Warn { key, .. }
            | Self::Away { key, .. }
            | Self::Refused { key, .. }
            | Self::Stumbled { key, .. }
            | Self::Told { key, .. }
            | Self::Stopped { key } => Some(key),
            Self::Request(_)
            | Self::Cancel { .. }
            | Self::Promote { .. }
            | Self::Abort { .. }
            | Self::LaneLeft
            | Self::Wake => None,
        }
    }
}

/// What has happened to a deployment. The JSON form is pinned by golden files; events that have a newer form are still
/// read in the old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DeploymentEvent {
    #[serde(rename = "requested")]
    RequestedV1 {
        request: Box<v1::Request>,
        deadline: Timestamp,
    },
    #[serde(rename = "requested.v2")]
    Requested {
        request: Box<DeploymentRequest>,
        deadline: Timestamp,
    },
    /// The change in gitops-svc that reverts it.
    Reverting {
        change: Id,
    },
    Reverted {
        commit: CommitSha,
    },
    JobEnded {
        result: JobResult,
    },
    Applied {
        applied: Applied,
    },
    RolledOut {},
    Checked {
        results: Vec<CheckResult>,
    },
    Measured {
        measurements: Vec<Measurement>,
        /// Why the workload was not complete meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unwell: Option<String>,
        /// When it is measured next; absent if that was the last time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_at: Option<Timestamp>,
    },
    /// It has until then, because of the rollout's steps; or the time that the catalog gives it will not suffice.
    DeadlineSet {
        deadline: Timestamp,
        basis: String,
    },
    Progressed {
        message: String,
        /// The remote system cannot be asked, which is what the message is about.
        #[serde(default)]
        fault: bool,
        /// Of the fault; empty in events from before faults had codes.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        code: String,
        /// It is waiting for a person.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        human: bool,
    },
    /// What a person should know although the rollout does well; it replaces what was said before.
    Warned {
        warnings: Vec<String>,
    },
    Stumbled {
        step: DeploymentStep,
        attempt: u32,
        /// Empty in events from before faults had codes.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        code: String,
        message: String,
        retry_at: Timestamp,
    },
    Resumed {
        step: DeploymentStep,
        attempt: u32,
    },
    /// A person asked for a paused rollout to continue, or to be aborted.
    Asked {
        ask: Ask,
    },
    /// It goes on.
    Promoted {},
    /// What was requested of the rollout cannot be done.
    Declined {
        message: String,
    },
    /// It has failed; evidence is collected next.
    Failing {
        reason: Reason,
    },
    Succeeded {},
    Failed {
        reason: Reason,
        #[serde(default)]
        evidence: Vec<PodEvidence>,
    },
    Errored {
        reason: Reason,
    },
    /// What ran before was not restored, or that is not known.
    RollbackFailed {
        reason: Reason,
        #[serde(default)]
        evidence: Vec<PodEvidence>,
    },
    Cancelled {
        reason: Reason,
    },
    /// What was running at the end, a Job or a sync, is stopped.
    Stopped {},
    /// It gave the lane's turn back.
    LaneLeft {},
}

/// What must be running; the details are in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentEffect {
    Revert,
    /// Checks the change that reverts.
    ObserveRevert,
    Before,
    Apply,
    Rollout,
    Checks,
    After,
    Bake,
    Evidence,
    Promote,
    Abort,
    /// Stops what is not waited for any more.
    Stop,
    LeaveLane,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentRefusal {
    #[error("deployment {0} does not exist")]
    Unknown(Id),
    #[error("a {0} has no steps to promote or abort; Rollouts (Argo Rollouts) and Canaries (Flagger) have")]
    NoSteps(WorkloadKind),
    #[error("its rollout is not under way: the deployment is {0}")]
    NotRollingOut(String),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl slipway_decider::Refusal for DeploymentRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Unknown(id) => RefusalKind::NotFound {
                kind: Deployment::KIND,
                id: id.clone(),
            },
            Self::NoSteps(_) => RefusalKind::FailedPrecondition("NO_STEPS"),
            Self::NotRollingOut(_) => RefusalKind::FailedPrecondition("NOT_ROLLING_OUT"),
            Self::Impossible(_) => RefusalKind::Defect,
        }
    }
}

impl Decider for Deployment {
    const KIND: &'static str = "deployment";
    const STATE_VERSION: u32 = 5;

    type State = DeploymentState;
    type Command = DeploymentCommand;
    type Event = DeploymentEvent;
    type Effect = DeploymentEffect;
    type Refusal = DeploymentRefusal;

    fn decide(
        id: &Id,
        state: &DeploymentState,
        command: DeploymentCommand,
        now: Timestamp,
    ) -> Result<Vec<DeploymentEvent>, DeploymentRefusal> {
        decide::decide(id, state, command, now)
    }

    fn evolve(state: &mut DeploymentState, event: &DeploymentEvent, at: Timestamp) {
        evolve::evolve(state, event, at);
    }

    fn effects(_: &Id, state: &DeploymentState) -> Vec<(EffectKey, DeploymentEffect)> {
        let mut effects = Vec::new();
        if state.stray.is_some() {
            effects.push((state::stop_key(), DeploymentEffect::Stop));
        }
        if !state.active() {
            // The next holder of the lane must not run into what this one left.
            if effects.is_empty() && state.status.is_final() && state.holds_lane() {
                effects.push((EffectKey::new("leave-lane", 1), DeploymentEffect::LeaveLane));
            }
            return effects;
        }
        match state.ask {
            Some(Ask::Promote { .. }) => effects.push((state.ask_key(), DeploymentEffect::Promote)),
            Some(Ask::Abort { .. }) => effects.push((state.ask_key(), DeploymentEffect::Abort)),
            None => {}
        }
        if state.retry_at.is_some() || state.reverting.is_some() {
            return effects;
        }
        let effect = match state.step {
            DeploymentStep::Revert => DeploymentEffect::Revert,
            DeploymentStep::Before => DeploymentEffect::Before,
            DeploymentStep::Apply => DeploymentEffect::Apply,
            DeploymentStep::Rollout => DeploymentEffect::Rollout,
            DeploymentStep::Checks => DeploymentEffect::Checks,
            DeploymentStep::After => DeploymentEffect::After,
            DeploymentStep::Bake => DeploymentEffect::Bake,
            DeploymentStep::Evidence => DeploymentEffect::Evidence,
        };
        effects.push((state.key(), effect));
        effects
    }

    fn polls(_: &Id, state: &DeploymentState) -> Vec<(EffectKey, DeploymentEffect)> {
        if state.active() && state.reverting.is_some() {
            vec![(state.observe_key(), DeploymentEffect::ObserveRevert)]
        } else {
            Vec::new()
        }
    }

    fn poll_every(_: &DeploymentState) -> Duration {
        OBSERVE
    }

    fn wake_at(state: &DeploymentState) -> Option<Timestamp> {
        timing::wake_at(state)
    }

    fn wake() -> Option<DeploymentCommand> {
        Some(DeploymentCommand::Wake)
    }

    fn retry(state: &DeploymentState) -> Option<Retry> {
        Some(Retry {
            error: state.fault.clone()?,
            attempt: state.stumbles,
            next_time: state.retry_at,
        })
    }

    fn index(state: &DeploymentState) -> Index {
        let request = state.request.as_ref();
        let text = |of: fn(&DeploymentRequest) -> &str| request.map(of).unwrap_or_default().to_owned();
        Index {
            status: state.status.as_str().to_owned(),
            service: text(|request| request.service.as_str()),
            environment: text(|request| request.environment.as_str()),
            correlation: text(|request| &request.correlation_id),
            labels: request.map(|request| request.labels.clone()).unwrap_or_default(),
        }
    }

    fn is_final(state: &DeploymentState) -> bool {
        state.status.is_final() && !state.holds_lane() && state.stray.is_none()
    }
}
