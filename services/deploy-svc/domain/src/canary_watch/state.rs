//! The state of a watch, rebuilt from its events.

use serde::{Deserialize, Serialize};
use slipway_decider::EffectKey;
use slipway_model::{Id, Reason, Timestamp};

use super::{CanaryWatchEvent as Event, Watched};

/// As the API shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryWatchStatus {
    #[default]
    Watching,
    /// The canary failed, and what ran before is about to be put back.
    Failed,
    /// A deployment puts it back.
    PuttingBack,
    /// Nothing happened.
    Passed,
    /// Something else was deployed to the target.
    Superseded,
    PutBack,
    /// The canary failed, and git was left as it is, or is not known to be put back.
    NotPutBack,
}

impl CanaryWatchStatus {
    /// It will not change any more.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Passed | Self::Superseded | Self::PutBack | Self::NotPutBack
        )
    }

    /// In lower case, as lists are filtered.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Failed => "failed",
            Self::PuttingBack => "putting_back",
            Self::Passed => "passed",
            Self::Superseded => "superseded",
            Self::PutBack => "put_back",
            Self::NotPutBack => "not_put_back",
        }
    }
}

/// The state of a watch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CanaryWatchState {
    /// `None` before it has begun.
    pub watched: Option<Watched>,
    pub status: CanaryWatchStatus,
    /// When the time is over.
    pub until: Option<Timestamp>,
    /// Why a remote system cannot be asked.
    pub fault: Option<Reason>,
    pub(super) stumbles: u32,
    pub retry_at: Option<Timestamp>,
    /// Grows with everything that happens: the attempt of its effect keys.
    pub(super) attempt: u32,
    /// Why the canary failed.
    pub failure: Option<Reason>,
    /// Who holds the lane that is waited for.
    pub lane_holder: Option<Id>,
    /// The deployment that puts back what ran before.
    pub deployment: Option<Id>,
    /// Why it ended as it did.
    pub reason: Option<Reason>,
    pub ended_at: Option<Timestamp>,
}

impl CanaryWatchState {
    pub(super) fn key(&self, step: &str) -> EffectKey {
        EffectKey::new(step, self.attempt)
    }

    /// The current state in words, for commands that come at the wrong time.
    pub(super) fn words(&self) -> &'static str {
        self.status.as_str()
    }

    pub(super) fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Began { watched, until } => {
                self.watched = Some(watched.clone());
                self.until = Some(*until);
                self.attempt += 1;
            }
            Event::Away { reason } => self.fault = Some(reason.clone()),
            Event::Back {} => self.fault = None,
            Event::Failed { reason } => {
                self.turn(CanaryWatchStatus::Failed);
                self.failure = Some(reason.clone());
            }
            Event::Recovered {} => {
                self.turn(CanaryWatchStatus::Watching);
                self.failure = None;
            }
            Event::LaneHeld { holder } => {
                self.answered();
                self.lane_holder = Some(holder.clone());
            }
            Event::Stumbled { reason, retry_at } => {
                self.fault = Some(reason.clone());
                self.stumbles += 1;
                self.retry_at = Some(*retry_at);
            }
            Event::Resumed {} => {
                self.retry_at = None;
                self.attempt += 1;
            }
            Event::PuttingBack { deployment } => {
                self.turn(CanaryWatchStatus::PuttingBack);
                self.deployment = Some(deployment.clone());
            }
            Event::Passed { reason } => self.end(CanaryWatchStatus::Passed, reason.as_ref(), at),
            Event::Superseded { reason } => self.end(CanaryWatchStatus::Superseded, Some(reason), at),
            Event::PutBack {} => self.end(CanaryWatchStatus::PutBack, None, at),
            Event::NotPutBack { reason } => self.end(CanaryWatchStatus::NotPutBack, Some(reason), at),
        }
    }

    fn turn(&mut self, status: CanaryWatchStatus) {
        self.status = status;
        self.lane_holder = None;
        self.attempt += 1;
        self.answered();
    }

    fn answered(&mut self) {
        self.fault = None;
        self.stumbles = 0;
        self.retry_at = None;
    }

    fn end(&mut self, status: CanaryWatchStatus, reason: Option<&Reason>, at: Timestamp) {
        self.turn(status);
        self.reason = reason.cloned();
        self.ended_at = Some(at);
    }
}
