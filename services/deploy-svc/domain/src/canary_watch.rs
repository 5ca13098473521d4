//! A watch over the canary of a release that has ended. Pure.
//!
//! Argo Rollouts and Flagger go on where a release does not: a canary may be aborted, or its analysis fail, when the
//! release is final and git names its image. The watch begins in the transaction that ends the release, one for each
//! environment in which that can happen ([`at_end`]), and follows the target for the time that the catalog gives it.
//! When the canary fails, a deployment puts back what ran before, in git and in the cluster, under a turn of the lane
//! of its own. Nothing is put back if something else was deployed to the target since, or if git has moved on.

mod begin;
mod decide;
mod state;

use std::time::Duration;

pub use begin::at_end;
use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, EffectKey, Impossible, Index, RefusalKind};
use slipway_model::{Id, Name, Reason, Retry, Timestamp, duration};
pub use state::{CanaryWatchState, CanaryWatchStatus};

use crate::deployment::DeploymentStatus;

/// How often the lane is tried again while another one holds it.
const TRY_LANE: Duration = Duration::from_secs(5);

/// The decider of canary watches.
#[derive(Debug)]
pub enum CanaryWatch {}

/// What is watched; fixed from the release's end on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    pub release: Id,
    pub service: Name,
    pub environment: Name,
    /// The release's deployment, which brought the canary.
    pub deployment: Id,
    /// For how long.
    #[serde(with = "duration")]
    pub period: Duration,
}

impl Watched {
    /// The watch of a release's canary in one environment.
    pub fn id_of(release: &Id, environment: &Name) -> Id {
        Id::derived("watch", &[release.as_str(), environment.as_str()])
    }

    /// The watch's id.
    pub fn id(&self) -> Id {
        Self::id_of(&self.release, &self.environment)
    }
}

/// What happens to a watch. Outcomes carry the key of the attempt that they come from.
#[derive(Debug, Clone)]
pub enum CanaryWatchCommand {
    /// Repeated, it changes nothing.
    Begin(Box<Watched>),
    /// The cluster cannot be watched.
    Away { key: EffectKey, reason: Reason },
    /// It can be watched again.
    Back { key: EffectKey },
    /// The canary failed, and the version before serves.
    Failed { key: EffectKey, reason: Reason },
    /// It has not failed after all: somebody had it tried again.
    Recovered { key: EffectKey },
    /// There is nothing that could fail.
    Passed { key: EffectKey, reason: Reason },
    /// Something else was deployed to the target, or it is another one by now.
    Superseded { key: EffectKey, reason: Reason },
    /// Another one holds the target's lane.
    LaneHeld { key: EffectKey, holder: Id },
    /// The lane was taken for this deployment, which puts back what ran before.
    PuttingBack { key: EffectKey, deployment: Id },
    /// Nothing is put back: git has moved on, or what was there before is not known.
    Declined { key: EffectKey, reason: Reason },
    /// A remote system could not be asked.
    Stumbled { key: EffectKey, reason: Reason },
    /// The deployment that puts back has ended.
    DeploymentEnded {
        deployment: Id,
        status: DeploymentStatus,
        reason: Option<Reason>,
    },
    /// A timer is due.
    Wake,
}

impl CanaryWatchCommand {
    /// The key of the effect or poll that it comes from.
    fn key(&self) -> Option<&EffectKey> {
        match self {
            Self::Away { key, .. }
            | Self::Back { key }
            | Self::Failed { key, .. }
            | Self::Recovered { key }
            | Self::Passed { key, .. }
            | Self::Superseded { key, .. }
            | Self::LaneHeld { key, .. }
            | Self::PuttingBack { key, .. }
            | Self::Declined { key, .. }
            | Self::Stumbled { key, .. } => Some(key),
            Self::Begin(_) | Self::DeploymentEnded { .. } | Self::Wake => None,
        }
    }
}

/// What has happened to a watch. The JSON form is pinned by golden files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CanaryWatchEvent {
    Began {
        watched: Watched,
        until: Timestamp,
    },
    Away {
        reason: Reason,
    },
    Back {},
    /// The canary failed.
    Failed {
        reason: Reason,
    },
    Recovered {},
    /// The lane is waited for.
    LaneHeld {
        holder: Id,
    },
    Stumbled {
        reason: Reason,
        retry_at: Timestamp,
    },
    Resumed {},
    /// A deployment puts back what ran before.
    PuttingBack {
        deployment: Id,
    },
    /// The time is over, or there is nothing that could fail.
    Passed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    Superseded {
        reason: Reason,
    },
    /// What ran before runs again, and git says so.
    PutBack {},
    /// The canary failed, and what git says is as it was, or not known.
    NotPutBack {
        reason: Reason,
    },
}

/// What must be running; the details are in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryWatchEffect {
    /// Follows the target.
    Follow,
    /// Takes the lane, and starts the deployment that puts back what ran before.
    PutBack,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanaryWatchRefusal {
    #[error("canary watch {0} does not exist")]
    Unknown(Id),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl slipway_decider::Refusal for CanaryWatchRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Unknown(id) => RefusalKind::NotFound {
                kind: CanaryWatch::KIND,
                id: id.clone(),
            },
            Self::Impossible(_) => RefusalKind::Defect,
        }
    }
}

impl Decider for CanaryWatch {
    const KIND: &'static str = "canary_watch";
    const STATE_VERSION: u32 = 1;

    type State = CanaryWatchState;
    type Command = CanaryWatchCommand;
    type Event = CanaryWatchEvent;
    type Effect = CanaryWatchEffect;
    type Refusal = CanaryWatchRefusal;

    fn decide(
        id: &Id,
        state: &CanaryWatchState,
        command: CanaryWatchCommand,
        now: Timestamp,
    ) -> Result<Vec<CanaryWatchEvent>, CanaryWatchRefusal> {
        decide::decide(id, state, command, now)
    }

    fn evolve(state: &mut CanaryWatchState, event: &CanaryWatchEvent, at: Timestamp) {
        state.apply(event, at);
    }

    fn effects(_: &Id, state: &CanaryWatchState) -> Vec<(EffectKey, CanaryWatchEffect)> {
        if state.retry_at.is_some() {
            return Vec::new();
        }
        match state.status {
            CanaryWatchStatus::Watching if state.watched.is_some() => {
                vec![(state.key("follow"), CanaryWatchEffect::Follow)]
            }
            CanaryWatchStatus::Failed if state.lane_holder.is_none() => {
                vec![(state.key("put-back"), CanaryWatchEffect::PutBack)]
            }
            _ => Vec::new(),
        }
    }

    fn polls(_: &Id, state: &CanaryWatchState) -> Vec<(EffectKey, CanaryWatchEffect)> {
        let waits = state.status == CanaryWatchStatus::Failed && state.lane_holder.is_some();
        if waits && state.retry_at.is_none() {
            vec![(state.key("lane"), CanaryWatchEffect::PutBack)]
        } else {
            Vec::new()
        }
    }

    fn poll_every(_: &CanaryWatchState) -> Duration {
        TRY_LANE
    }

    fn wake_at(state: &CanaryWatchState) -> Option<Timestamp> {
        match state.status {
            CanaryWatchStatus::Watching => state.until,
            CanaryWatchStatus::Failed => state.retry_at,
            _ => None,
        }
    }

    fn wake() -> Option<CanaryWatchCommand> {
        Some(CanaryWatchCommand::Wake)
    }

    fn retry(state: &CanaryWatchState) -> Option<Retry> {
        Some(Retry {
            error: state.fault.clone()?,
            attempt: state.stumbles,
            next_time: state.retry_at,
        })
    }

    fn index(state: &CanaryWatchState) -> Index {
        let watched = state.watched.as_ref();
        let text = |of: fn(&Watched) -> &str| watched.map(of).unwrap_or_default().to_owned();
        Index {
            status: state.status.as_str().to_owned(),
            service: text(|watched| watched.service.as_str()),
            environment: text(|watched| watched.environment.as_str()),
            correlation: text(|watched| watched.release.as_str()),
            ..Index::default()
        }
    }

    fn is_final(state: &CanaryWatchState) -> bool {
        state.status.is_final()
    }
}

#[cfg(test)]
mod tests;
