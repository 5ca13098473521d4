//! What a build's events amount to.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_decider::EffectKey;
use slipway_model::{Digest, Id, Reason, Tag, Timestamp};

use super::{Request, STEP_IMAGE, STEP_TAGS};

/// The status of a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Queued,
    Running,
    Succeeded,
    /// The build was carried out, and its result is a failure.
    Failed,
    /// The build could not be carried out: a timeout, or a fault that outlived all attempts.
    Errored,
    Cancelled,
}

impl Status {
    /// The name that lists filter by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What a running build is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Fetching,
    Building,
    Pushing,
    Tagging,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Building => "building",
            Self::Pushing => "pushing",
            Self::Tagging => "tagging",
        }
    }
}

/// A tag of the build that stayed with the image that had it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTag {
    pub tag: Tag,
    /// The image that it names.
    pub digest: Digest,
}

/// A build as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Absent before the first event.
    pub request: Option<Box<Request>>,
    pub requested_at: Option<Timestamp>,
    pub status: Status,
    pub phase: Phase,
    /// The current attempt, from 1.
    pub attempt: u32,
    /// When the next attempt begins, after a transient fault.
    pub retry_at: Option<Timestamp>,
    /// The transient fault behind the pending or current retry.
    pub fault: Option<Reason>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// E-mail addresses of the commit's authors; empty until it is fetched.
    #[serde(default)]
    pub authors: Vec<String>,
    /// The pushed image.
    pub digest: Option<Digest>,
    /// The earlier build that made it, if it was not made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Id>,
    pub tags: Vec<Tag>,
    pub kept_tags: Vec<KeptTag>,
    pub reason: Option<Reason>,
    pub log_tail: Vec<String>,
}

impl State {
    /// When the build times out; known once it runs.
    pub fn deadline(&self) -> Option<Timestamp> {
        let request = self.request.as_ref()?;
        Some(self.started_at? + Duration::from_secs(request.limits.timeout_s))
    }

    /// Whether this is the effect that the state calls for now.
    pub(super) fn is_current(&self, key: &EffectKey) -> bool {
        !self.status.is_final()
            && self.retry_at.is_none()
            && key.attempt == self.attempt
            && key.step
                == if self.digest.is_some() {
                    STEP_TAGS
                } else {
                    STEP_IMAGE
                }
    }
}
