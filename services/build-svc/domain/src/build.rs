//! The life of one build: requested, run, pushed, tagged.
//!
//! Two effects do the work. `image` fetches, builds and pushes by digest; `tags` tags the pushed image. The event
//! `pushed` lies between them, so that a crash after it never builds again. Phases are for people: they are recorded,
//! but decide nothing.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, EffectKey, Impossible, Index, RefusalKind};
use slipway_model::{Actor, CommitSha, Digest, Id, Name, Reason, Retry, Tag, Timestamp};

use crate::spec::Recipe;

mod decide;
mod evolve;
mod state;

pub use state::{KeptTag, Phase, State, Status};

/// The effect that fetches, builds and pushes the image.
pub const STEP_IMAGE: &str = "image";
/// The effect that tags the pushed image.
pub const STEP_TAGS: &str = "tags";

/// The longest time that a build may take, whatever a caller asks for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// A kind of aggregate: one build of one commit.
#[derive(Debug)]
pub struct Build;

/// Pinned codes of [`Reason`].
pub mod codes {
    pub const COMMIT_NOT_FOUND: &str = "COMMIT_NOT_FOUND";
    pub const REPOSITORY_REFUSED: &str = "REPOSITORY_REFUSED";
    pub const SOURCE_UNAVAILABLE: &str = "SOURCE_UNAVAILABLE";
    pub const BUILD_FAILED: &str = "BUILD_FAILED";
    pub const BASE_IMAGE_UNAVAILABLE: &str = "BASE_IMAGE_UNAVAILABLE";
    pub const BUILDER_UNAVAILABLE: &str = "BUILDER_UNAVAILABLE";
    pub const BUILDER_UNKNOWN: &str = "BUILDER_UNKNOWN";
    pub const REGISTRY_REFUSED: &str = "REGISTRY_REFUSED";
    pub const REGISTRY_UNAVAILABLE: &str = "REGISTRY_UNAVAILABLE";
    pub const TIMEOUT: &str = "TIMEOUT";
    pub const CANCELLED: &str = "CANCELLED";
}

/// How long a build may take and how often it may be tried; fixed when it is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From the first start to the end, in seconds.
    pub timeout_s: u64,
    /// Attempts in all before a transient fault ends the build.
    pub attempts: u32,
    /// Wait before the second attempt, in milliseconds; doubles with each further one.
    pub backoff_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_s: 30 * 60,
            attempts: 4,
            backoff_ms: 2_000,
        }
    }
}

/// A build as it was requested, with the configuration's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub service: Name,
    pub recipe: Recipe,
    /// The name of a configured builder.
    pub builder: String,
    pub limits: Limits,
    /// Build even if an earlier build has made the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuild: bool,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Request {
    /// Whether an earlier build did the same work, so that its image is this one's: everything that goes into the image
    /// is the same. Branch and `latest` are only tags.
    pub fn makes_image_of(&self, earlier: &Self) -> bool {
        self.service == earlier.service
            && self.builder == earlier.builder
            && self.recipe.makes_image_of(&earlier.recipe)
    }
}

/// Selects builds of one commit in lists: the label [`COMMIT_INDEX`], which is not part of a build's own labels.
pub fn of_commit(commit: &CommitSha) -> BTreeMap<String, String> {
    BTreeMap::from([(COMMIT_INDEX.to_owned(), commit.to_string())])
}

/// Callers can list by it as by any label.
pub const COMMIT_INDEX: &str = "dev.slipway.commit";

/// What callers, effects and timers tell a build.
#[derive(Debug, Clone)]
pub enum Command {
    Request(Box<Request>),
    /// The image effect begins to run.
    Begin {
        key: EffectKey,
    },
    /// The commit was fetched; these are its authors.
    Fetched {
        key: EffectKey,
        authors: Vec<String>,
    },
    /// The build reached this phase.
    Advance {
        key: EffectKey,
        phase: Phase,
    },
    /// The image is in the registry under its digest.
    Pushed {
        key: EffectKey,
        digest: Digest,
    },
    /// An earlier build made the image, which is still in the registry.
    Found {
        key: EffectKey,
        build: Id,
        digest: Digest,
        authors: Vec<String>,
    },
    /// The image has its tags.
    Tagged {
        key: EffectKey,
        tags: Vec<Tag>,
        kept: Vec<KeptTag>,
    },
    /// Pushed and tagged at once, by a builder that needs no registry.
    Finished {
        key: EffectKey,
        digest: Digest,
        tags: Vec<Tag>,
    },
    /// A permanent failure: trying again would not help.
    Fail {
        key: EffectKey,
        reason: Reason,
        log_tail: Vec<String>,
    },
    /// A transient fault: another attempt may succeed.
    Fault {
        key: EffectKey,
        reason: Reason,
        log_tail: Vec<String>,
    },
    Cancel {
        reason: String,
    },
    /// A timer is due.
    Wake,
}

impl Command {
    /// The effect that gives this command; `None` for those of callers and timers.
    fn key(&self) -> Option<&EffectKey> {
        match self {
            Self::Begin { key }
            | Self::Fetched { key, .. }
            | Self::Advance { key, .. }
            | Self::Pushed { key, .. }
            | Self::Found { key, .. }
            | Self::Tagged { key, .. }
            | Self::Finished { key, .. }
            | Self::Fail { key, .. }
            | Self::Fault { key, .. } => Some(key),
            Self::Request(_) | Self::Cancel { .. } | Self::Wake => None,
        }
    }
}

/// What happened to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    #[serde(rename = "requested.v2", alias = "requested")]
    Requested {
        request: Box<Request>,
    },
    Started {
        attempt: u32,
    },
    /// The commit was fetched: e-mail addresses of its author, committer and co-authors.
    Fetched {
        authors: Vec<String>,
    },
    PhaseReached {
        attempt: u32,
        phase: Phase,
    },
    Pushed {
        digest: Digest,
        /// The earlier build whose image it is, if it was not made again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_by: Option<Id>,
    },
    Succeeded {
        digest: Digest,
        tags: Vec<Tag>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kept_tags: Vec<KeptTag>,
    },
    /// A transient fault; the next attempt begins at `retry_at`.
    Faulted {
        attempt: u32,
        reason: Reason,
        retry_at: Timestamp,
    },
    /// The wait after a fault is over.
    Retried {
        attempt: u32,
    },
    Failed {
        reason: Reason,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log_tail: Vec<String>,
    },
    Errored {
        reason: Reason,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log_tail: Vec<String>,
    },
    Cancelled {
        reason: Reason,
    },
}

/// The work that a build's state calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch, build and push.
    Image,
    /// Tag the pushed image.
    Tags,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("build {0} does not exist")]
    NotFound(Id),
    #[error("build {0} exists already")]
    Exists(Id),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl slipway_decider::Refusal for Refusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotFound(id) => RefusalKind::NotFound {
                kind: Build::KIND,
                id: id.clone(),
            },
            Self::Exists(id) => RefusalKind::AlreadyExists {
                kind: Build::KIND,
                id: id.clone(),
            },
            Self::Impossible(_) => RefusalKind::Defect,
        }
    }
}

impl Decider for Build {
    const KIND: &'static str = "build";
    const STATE_VERSION: u32 = 3;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    fn decide(id: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        decide::decide(id, state, command, now)
    }

    fn evolve(state: &mut State, event: &Event, at: Timestamp) {
        evolve::evolve(state, event, at);
    }

    fn effects(_id: &Id, state: &State) -> Vec<(EffectKey, Effect)> {
        if state.request.is_none() || state.status.is_final() || state.retry_at.is_some() {
            return Vec::new();
        }
        match state.digest {
            None => vec![(EffectKey::new(STEP_IMAGE, state.attempt), Effect::Image)],
            Some(_) => vec![(EffectKey::new(STEP_TAGS, state.attempt), Effect::Tags)],
        }
    }

    fn wake_at(state: &State) -> Option<Timestamp> {
        if state.status.is_final() {
            return None;
        }
        match (state.retry_at, state.deadline()) {
            (Some(retry), Some(deadline)) => Some(retry.min(deadline)),
            (one, other) => one.or(other),
        }
    }

    fn wake() -> Option<Command> {
        Some(Command::Wake)
    }

    fn retry(state: &State) -> Option<Retry> {
        let error = state.fault.clone()?;
        Some(Retry {
            error,
            // The attempt under way does not count yet.
            attempt: state.attempt.saturating_sub(u32::from(state.retry_at.is_none())),
            next_time: state.retry_at,
        })
    }

    fn index(state: &State) -> Index {
        let Some(request) = &state.request else {
            return Index::default();
        };
        Index {
            status: state.status.as_str().to_owned(),
            service: request.service.to_string(),
            environment: String::new(),
            correlation: request.correlation_id.clone(),
            labels: {
                let mut labels = request.labels.clone();
                labels.extend(of_commit(&request.recipe.commit));
                labels
            },
        }
    }

    fn is_final(state: &State) -> bool {
        state.status.is_final()
    }
}

#[cfg(test)]
mod tests;
