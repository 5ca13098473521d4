//! The life of one build: asked for, run, pushed, tagged. Pure: no clock, no I/O.
//!
//! Two effects do the work. `image` fetches, builds and pushes by digest; `tags` gives the pushed image its names.
//! Between them stands the event `pushed`, so that a crash after it never builds again. Phases are for people: they
//! are recorded, but decide nothing.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, EffectKey, Impossible, Index, RefusalKind};
use slipway_model::{Actor, Digest, Id, Name, Reason, Retry, Tag, Timestamp};

use crate::spec::Recipe;

/// Effect that ends with an image in the registry.
pub const STEP_IMAGE: &str = "image";
/// Effect that ends with the image's tags.
pub const STEP_TAGS: &str = "tags";

/// Longest wait between two tries, in milliseconds.
const MAX_BACKOFF_MS: u64 = 5 * 60 * 1000;

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

/// Where a build stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Queued,
    Running,
    Succeeded,
    /// The answer is no.
    Failed,
    /// We could not tell.
    Errored,
    Cancelled,
}

impl Status {
    /// As lists filter by it.
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

/// What is being done while a build runs.
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

/// How long and how often a build may try; fixed when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From the first start to the end, in seconds.
    pub timeout_s: u64,
    /// Tries in all before a passing fault becomes the end.
    pub attempts: u32,
    /// Wait before the second try, in milliseconds; doubles with each further one.
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

/// A build as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub service: Name,
    pub recipe: Recipe,
    /// Name of the configured builder.
    pub builder: String,
    pub limits: Limits,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A tag that stayed with the image that had it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTag {
    pub tag: Tag,
    /// What it names.
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
    /// The try that is under way, from 1.
    pub attempt: u32,
    /// When the next try begins, after a passing fault.
    pub retry_at: Option<Timestamp>,
    /// The passing fault that is waited out, or tried again just now.
    pub fault: Option<Reason>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// E-mail addresses of who made the commit; empty until it is fetched.
    #[serde(default)]
    pub authors: Vec<String>,
    /// What was pushed.
    pub digest: Option<Digest>,
    pub tags: Vec<Tag>,
    pub kept_tags: Vec<KeptTag>,
    pub reason: Option<Reason>,
    pub log_tail: Vec<String>,
}

impl State {
    /// When the time is up; only known once the build runs.
    pub fn deadline(&self) -> Option<Timestamp> {
        let request = self.request.as_ref()?;
        Some(self.started_at? + Duration::from_secs(request.limits.timeout_s))
    }

    fn current(&self, key: &EffectKey) -> bool {
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

/// What is told to a build.
#[derive(Debug, Clone)]
pub enum Command {
    Request(Box<Request>),
    /// The image step begins to run.
    Begin {
        key: EffectKey,
    },
    /// The commit is here, and these people made it.
    Fetched {
        key: EffectKey,
        authors: Vec<String>,
    },
    /// It got as far as this phase.
    Advance {
        key: EffectKey,
        phase: Phase,
    },
    /// The image is in the registry under its digest.
    Pushed {
        key: EffectKey,
        digest: Digest,
    },
    /// The image has its names.
    Tagged {
        key: EffectKey,
        tags: Vec<Tag>,
        kept: Vec<KeptTag>,
    },
    /// Both at once, by a builder that needs no registry.
    Finished {
        key: EffectKey,
        digest: Digest,
        tags: Vec<Tag>,
    },
    /// The answer is no.
    Fail {
        key: EffectKey,
        reason: Reason,
        log_tail: Vec<String>,
    },
    /// Something that may pass.
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
    /// Of the effect that says it.
    fn key(&self) -> Option<&EffectKey> {
        match self {
            Self::Begin { key }
            | Self::Fetched { key, .. }
            | Self::Advance { key, .. }
            | Self::Pushed { key, .. }
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
    },
    Succeeded {
        digest: Digest,
        tags: Vec<Tag>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kept_tags: Vec<KeptTag>,
    },
    /// A passing fault; the next try begins at `retry_at`.
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

/// What must be going on for a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch, build and push.
    Image,
    /// Tag what was pushed.
    Tags,
}

/// Why a command was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("build {0} does not exist")]
    NotFound(Id),
    #[error("build {0} exists already")]
    Exists(Id),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl slipway_ledger::Refusal for Refusal {
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
        let Some(request) = &state.request else {
            return match command {
                Command::Request(request) => Ok(vec![Event::Requested { request }]),
                _ => Err(Refusal::NotFound(id.clone())),
            };
        };
        if let Command::Request(_) = command {
            return Err(Refusal::Exists(id.clone()));
        }
        // A final build stays as it is; the result of an older try changes nothing.
        if state.status.is_final() || command.key().is_some_and(|key| !state.current(key)) {
            return Ok(Vec::new());
        }
        Ok(match (command, &state.digest) {
            (Command::Begin { .. }, None) if state.started_at.is_none() => {
                vec![Event::Started {
                    attempt: state.attempt,
                }]
            }
            (Command::Begin { .. }, None) => Vec::new(),
            (Command::Fetched { authors, .. }, None) => {
                let mut events = Vec::new();
                if state.authors != authors {
                    events.push(Event::Fetched { authors });
                }
                if state.phase != Phase::Building {
                    events.push(Event::PhaseReached {
                        attempt: state.attempt,
                        phase: Phase::Building,
                    });
                }
                events
            }
            (Command::Advance { phase, .. }, None) if phase != state.phase => {
                vec![Event::PhaseReached {
                    attempt: state.attempt,
                    phase,
                }]
            }
            (Command::Advance { .. }, None) => Vec::new(),
            (Command::Pushed { digest, .. }, None) => vec![Event::Pushed { digest }],
            (Command::Tagged { tags, kept, .. }, Some(digest)) => {
                vec![Event::Succeeded {
                    digest: digest.clone(),
                    tags,
                    kept_tags: kept,
                }]
            }
            (Command::Finished { digest, tags, .. }, None) => {
                vec![Event::Succeeded {
                    digest,
                    tags,
                    kept_tags: Vec::new(),
                }]
            }
            (Command::Fail { reason, log_tail, .. }, _) => vec![Event::Failed { reason, log_tail }],
            (Command::Fault { reason, log_tail, .. }, _) => {
                if state.attempt >= request.limits.attempts {
                    vec![Event::Errored { reason, log_tail }]
                } else {
                    let retry_at = now + backoff(id, &request.limits, state.attempt);
                    vec![Event::Faulted {
                        attempt: state.attempt,
                        reason,
                        retry_at,
                    }]
                }
            }
            (Command::Cancel { reason }, _) => vec![Event::Cancelled {
                reason: Reason::new(codes::CANCELLED, reason),
            }],
            (Command::Wake, _) => wake(state, request, now),
            // Tags of what was not pushed, or an image beside the one that was.
            (
                Command::Request(_)
                | Command::Begin { .. }
                | Command::Fetched { .. }
                | Command::Advance { .. }
                | Command::Pushed { .. }
                | Command::Tagged { .. }
                | Command::Finished { .. },
                _,
            ) => return Err(Impossible::new(id, state.phase.as_str()).into()),
        })
    }

    fn evolve(state: &mut State, event: &Event, at: Timestamp) {
        match event {
            Event::Requested { request } => {
                state.request = Some(request.clone());
                state.requested_at = Some(at);
                state.attempt = 1;
            }
            Event::Started { .. } => {
                state.status = Status::Running;
                state.started_at.get_or_insert(at);
            }
            Event::Fetched { authors } => state.authors.clone_from(authors),
            Event::PhaseReached { phase, .. } => state.phase = *phase,
            Event::Pushed { digest } => {
                state.status = Status::Running;
                state.started_at.get_or_insert(at);
                state.digest = Some(digest.clone());
                state.phase = Phase::Tagging;
                state.fault = None;
            }
            Event::Succeeded {
                digest,
                tags,
                kept_tags,
            } => {
                state.started_at.get_or_insert(at);
                state.digest = Some(digest.clone());
                state.tags.clone_from(tags);
                state.kept_tags.clone_from(kept_tags);
                end(state, Status::Succeeded, None, at);
            }
            Event::Faulted { reason, retry_at, .. } => {
                // A fault can come before the start was told: the time runs from the first try on.
                state.status = Status::Running;
                state.started_at.get_or_insert(at);
                state.retry_at = Some(*retry_at);
                state.fault = Some(reason.clone());
            }
            Event::Retried { attempt } => {
                state.attempt = *attempt;
                state.retry_at = None;
                state.phase = if state.digest.is_some() {
                    Phase::Tagging
                } else {
                    Phase::Fetching
                };
            }
            Event::Failed { reason, log_tail } => {
                state.log_tail.clone_from(log_tail);
                end(state, Status::Failed, Some(reason), at);
            }
            Event::Errored { reason, log_tail } => {
                state.log_tail.clone_from(log_tail);
                end(state, Status::Errored, Some(reason), at);
            }
            Event::Cancelled { reason } => end(state, Status::Cancelled, Some(reason), at),
        }
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
            // The one that is under way does not count yet.
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
            labels: request.labels.clone(),
        }
    }

    fn is_final(state: &State) -> bool {
        state.status.is_final()
    }
}

fn wake(state: &State, request: &Request, now: Timestamp) -> Vec<Event> {
    if state.deadline().is_some_and(|deadline| deadline <= now) {
        let waited = state
            .fault
            .as_ref()
            .map(|fault| format!("; last fault: {}", fault.message));
        let message = format!(
            "not done after {} s, while {}{}",
            request.limits.timeout_s,
            state.phase.as_str(),
            waited.unwrap_or_default()
        );
        return vec![Event::Errored {
            reason: Reason::new(codes::TIMEOUT, message),
            log_tail: Vec::new(),
        }];
    }
    match state.retry_at {
        Some(retry_at) if retry_at <= now => vec![Event::Retried {
            attempt: state.attempt + 1,
        }],
        _ => Vec::new(),
    }
}

fn end(state: &mut State, status: Status, reason: Option<&Reason>, at: Timestamp) {
    state.status = status;
    state.reason = reason.cloned();
    state.ended_at = Some(at);
    state.retry_at = None;
    state.fault = None;
}

/// Doubles from try to try, up to [`MAX_BACKOFF_MS`], spread over the last quarter by the build's id, so that builds
/// which failed together do not come back together.
fn backoff(id: &Id, limits: &Limits, attempt: u32) -> Duration {
    let whole = limits
        .backoff_ms
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(MAX_BACKOFF_MS);
    let seed = id.as_str().bytes().fold(u64::from(attempt), |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let spread = whole / 4;
    Duration::from_millis(whole - spread + if spread == 0 { 0 } else { seed % spread })
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
