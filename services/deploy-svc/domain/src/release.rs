//! The release: one commit of one service on its way through its environments. Pure: no clock, no I/O.
//!
//! At every moment exactly one step is active, the last of [`ReleaseState::steps`]. A step is queued, started (its step
//! backend accepted the order; its id is the step's `ref`), observed until its backend reports that it is final, and
//! ended by an event that also queues the next one ([`next::after`]), so that the steps' times sum to the release's. A
//! step backend's reports enter only as an [`Observation`]; hints do not carry data.
//!
//! A command that can end a step is carried out in one transaction with its consequences for lanes, since these are
//! taken and given back with it.

mod decide;
mod ended;
mod evolve;
mod explain;
mod limit;
mod next;
mod state;
mod time;
mod trace;
pub mod v1;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use next::Then;
use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, EffectKey, Impossible, Index, RefusalKind};
use slipway_model::{Actor, Id, Images, Name, Retry, Timestamp, TraceContext};
use slipway_verdict::before::Before;
pub use state::{
    ChangeMade, EnvironmentProgress, Reason, ReleaseState, ReleaseStatus, Step, StepKind, StepStatus, Stop,
    Waiting, WaitingKind,
};
pub use time::{Party, TimeSpent};
pub use trace::{release_trace, root_span, step_trace};

use crate::plan::Plan;

/// How long the backend of a step is given to end it after the step's deadline, before the release gives up on it.
const GRACE: Duration = Duration::from_secs(60);

/// The decider of releases.
#[derive(Debug)]
pub enum Release {}

#[derive(Debug, Clone)]
pub enum ReleaseCommand {
    Request(Box<Request>),
    /// The step backend accepted the order under this id, and reports its state.
    Started {
        key: EffectKey,
        reference: Id,
        observation: Observation,
    },
    /// What the step backend reports now.
    Observed {
        key: EffectKey,
        observation: Observation,
    },
    /// What the target runs, before anything is changed.
    Recorded {
        key: EffectKey,
        before: Before,
    },
    /// A call failed or was not answered; it is repeated.
    Stumbled {
        key: EffectKey,
        reason: Reason,
    },
    /// The lane of the environment was granted.
    LaneGranted {
        environment: usize,
        epoch: u64,
    },
    /// A newer release superseded this one in a lane.
    Supersede {
        by: Id,
    },
    Cancel {
        by: Actor,
        reason: String,
    },
    /// The grace after a deadline is over.
    GiveUp {
        key: EffectKey,
    },
    /// A timer is due.
    Wake,
}

/// What a release begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub plan: Plan,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Images that were built already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// Build even if the commit's image exists already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuild: bool,
    /// The span of the caller; linked to the release's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<TraceContext>,
}

/// The state of a step, as reported by its backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    Pending(Waiting),
    Succeeded {
        result: String,
        facts: Facts,
    },
    /// There was nothing to do, for this reason.
    Skipped(Reason),
    Failed(Reason),
    Errored(Reason),
    Cancelled(Reason),
}

/// What a successful step passes on to later ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Facts {
    #[default]
    None,
    Built {
        images: Images,
        authors: Vec<String>,
    },
    Lane {
        epoch: u64,
    },
    Changed(ChangeMade),
}

/// What has happened to a release. The JSON form is pinned by golden files; events that have a newer form are still
/// read in the old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReleaseEvent {
    #[serde(rename = "requested")]
    RequestedV1(Box<v1::Request>),
    #[serde(rename = "requested.v2")]
    Requested(Box<Request>),
    Started {
        step: String,
        attempt: u32,
        reference: Id,
    },
    /// What the target of the step ran before anything was changed.
    Recorded {
        step: String,
        before: Before,
    },
    Waiting {
        step: String,
        waiting: Waiting,
    },
    Stumbled {
        step: String,
        reason: Reason,
        retry_at: Timestamp,
    },
    /// The time to try again has come.
    Retried {
        step: String,
    },
    #[serde(rename = "stop_requested.v2", alias = "stop_requested")]
    StopRequested(Stop),
    /// The step backend was asked to stop.
    Stopping {
        step: String,
    },
    /// The grace period after the deadline is over and the step backend has not reported how the step ended.
    Overdue {
        step: String,
    },
    #[serde(rename = "advanced")]
    AdvancedV1(Box<v1::Advance>),
    /// A step ended, and the next one is queued or the release is over.
    #[serde(rename = "advanced.v2")]
    Advanced(Box<Advance>),
}

impl ReleaseEvent {
    /// The end of a step, in whichever form it was recorded, of a release of this service.
    pub fn into_advance(self, service: &Name) -> Option<Advance> {
        match self {
            Self::Advanced(advance) => Some(*advance),
            Self::AdvancedV1(old) => Some(old.of(service)),
            _ => None,
        }
    }
}

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

/// What must be running: calls to the backend of the active step.
#[derive(Debug, Clone, PartialEq)]
pub enum ReleaseEffect {
    /// Give the order; the step backend answers with the id under which it accepted it.
    Start,
    /// Read its state.
    Observe { reference: Id },
    /// Ask the step backend to stop it.
    Stop { reference: Id },
    /// End the step without an answer from its backend.
    GiveUp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseRefusal {
    #[error("release {0} exists already")]
    Exists(Id),
    #[error("release {0} does not exist")]
    Unknown(Id),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl slipway_decider::Refusal for ReleaseRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Unknown(id) => RefusalKind::NotFound {
                kind: Release::KIND,
                id: id.clone(),
            },
            Self::Exists(id) => RefusalKind::AlreadyExists {
                kind: Release::KIND,
                id: id.clone(),
            },
            Self::Impossible(_) => RefusalKind::Defect,
        }
    }
}

impl Decider for Release {
    const KIND: &'static str = "release";
    const STATE_VERSION: u32 = 4;

    type State = ReleaseState;
    type Command = ReleaseCommand;
    type Event = ReleaseEvent;
    type Effect = ReleaseEffect;
    type Refusal = ReleaseRefusal;

    fn decide(
        id: &Id,
        state: &ReleaseState,
        command: ReleaseCommand,
        now: Timestamp,
    ) -> Result<Vec<ReleaseEvent>, ReleaseRefusal> {
        decide::decide(id, state, command, now)
    }

    fn evolve(state: &mut ReleaseState, event: &ReleaseEvent, at: Timestamp) {
        evolve::evolve(state, event, at);
    }

    fn effects(_: &Id, state: &ReleaseState) -> Vec<(EffectKey, ReleaseEffect)> {
        let Some(step) = state.active_step() else {
            return Vec::new();
        };
        let key = |verb: &str| EffectKey::new(format!("{}:{verb}", step.name), step.tries);
        if step.overdue {
            return vec![(key("give-up"), ReleaseEffect::GiveUp)];
        }
        match (step.kind, step.status, &step.reference) {
            (StepKind::Lane, ..) => Vec::new(),
            _ if step.retry_at.is_some() => Vec::new(),
            (_, StepStatus::Queued, _) => vec![(key("start"), ReleaseEffect::Start)],
            (_, StepStatus::Running, Some(reference)) if state.stops(step) && !step.stop_sent => {
                vec![(
                    key("stop"),
                    ReleaseEffect::Stop {
                        reference: reference.clone(),
                    },
                )]
            }
            _ => Vec::new(),
        }
    }

    fn polls(_: &Id, state: &ReleaseState) -> Vec<(EffectKey, ReleaseEffect)> {
        match state.active_step() {
            Some(Step {
                kind: StepKind::Lane, ..
            })
            | None => Vec::new(),
            Some(Step {
                name,
                tries,
                status: StepStatus::Running,
                reference: Some(reference),
                ..
            }) => {
                let key = EffectKey::new(format!("{name}:observe"), *tries);
                vec![(
                    key,
                    ReleaseEffect::Observe {
                        reference: reference.clone(),
                    },
                )]
            }
            Some(_) => Vec::new(),
        }
    }

    /// People take longer than machines.
    fn poll_every(state: &ReleaseState) -> Duration {
        let for_people = |step: &Step| {
            let waiting = step.waiting.as_ref();
            step.kind == StepKind::Gate || waiting.is_some_and(|waiting| waiting.kind == WaitingKind::Human)
        };
        match state.active_step() {
            Some(step) if for_people(step) => Duration::from_secs(15),
            _ => Duration::from_secs(3),
        }
    }

    fn wake_at(state: &ReleaseState) -> Option<Timestamp> {
        let step = state.active_step()?;
        if step.overdue {
            return None;
        }
        let end = if step.past_deadline {
            step.deadline + GRACE
        } else {
            step.deadline
        };
        Some(step.retry_at.map_or(end, |retry| retry.min(end)))
    }

    fn wake() -> Option<ReleaseCommand> {
        Some(ReleaseCommand::Wake)
    }

    fn retry(state: &ReleaseState) -> Option<Retry> {
        state.active_step()?.retry()
    }

    fn index(state: &ReleaseState) -> Index {
        Index {
            status: state.status.as_str().to_owned(),
            service: state
                .plan
                .as_ref()
                .map(|plan| plan.service.to_string())
                .unwrap_or_default(),
            environment: String::new(),
            correlation: String::new(),
            labels: state.labels.clone(),
        }
    }

    fn is_final(state: &ReleaseState) -> bool {
        state.status.is_final()
    }
}
