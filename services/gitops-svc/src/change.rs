//! One commit to be, or that was, pushed: the decider of its life.
//!
//! A change waits until the owner of its branch ([`crate::branch`]) has written it; only that owner says how it
//! ended. So a cancellation is a wish until the owner has seen that the change is not on the remote already.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_edit::{Difference, Edit};
use slipway_ledger::{Decider, EffectKey, Index};
use slipway_model::{
    Actor, BranchName, CommitSha, Digest, Id, ImageName, Name, Tag, Timestamp, TraceContext,
};

/// The label by which the waiting changes of a branch are listed. Callers cannot use it: it holds a space.
pub const BRANCH_LABEL: &str = "slipway branch";

/// How often a waiting change looks whether its branch's owner is awake: only a crash between the two records makes
/// this necessary.
const NUDGE_EVERY: Duration = Duration::from_secs(5);

/// The id of the branch's own aggregate.
pub fn branch_id(repository: &str, branch: &BranchName) -> Id {
    Id::derived("br", &[repository, branch.as_str()])
}

/// Why something is as it is, for programs. Pinned: part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The kustomization does not list the image.
    ImageNotFound,
    /// No such folder, or no kustomization in it.
    FileNotFound,
    /// The file is not what it should be, or too large.
    FileInvalid,
    /// The edit could not be done without touching something else.
    EditUnsafe,
    /// Somebody changed the same image since.
    ChangedSince,
    BranchNotFound,
    RepositoryNotFound,
    /// The remote knows us and does not let us write.
    PermissionDenied,
    /// The remote does not know us.
    CredentialsRefused,
    BranchProtected,
    /// A hook of the remote declined.
    PushRefused,
    /// The remote has no room left.
    RemoteFull,
    RemoteUnreachable,
    DeadlineExceeded,
    Cancelled,
    /// This service's configuration no longer has the repository.
    RepositoryNotConfigured,
    /// Something here went wrong: a full disk, a damaged mirror.
    Internal,
}

impl Code {
    /// As it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageNotFound => "IMAGE_NOT_FOUND",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::FileInvalid => "FILE_INVALID",
            Self::EditUnsafe => "EDIT_UNSAFE",
            Self::ChangedSince => "CHANGED_SINCE",
            Self::BranchNotFound => "BRANCH_NOT_FOUND",
            Self::RepositoryNotFound => "REPOSITORY_NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::CredentialsRefused => "CREDENTIALS_REFUSED",
            Self::BranchProtected => "BRANCH_PROTECTED",
            Self::PushRefused => "PUSH_REFUSED",
            Self::RemoteFull => "REMOTE_FULL",
            Self::RemoteUnreachable => "REMOTE_UNREACHABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::RepositoryNotConfigured => "REPOSITORY_NOT_CONFIGURED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A code, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: Code,
    pub message: String,
}

impl Reason {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The image that a change is about, for its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub name: ImageName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Name in this service's configuration.
    pub repository: String,
    pub branch: BranchName,
    pub service: Name,
    pub environment: Name,
    pub edits: Vec<Edit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_commit: Option<CommitSha>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The commit's subject; empty for the usual one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The change that this one puts back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<Id>,
    /// Why, for the commit's body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The caller's own id for the whole that this belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub requested_by: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceContext>,
}

/// How a change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the remote branch as this commit.
    Pushed {
        commit: CommitSha,
        differences: Vec<Difference>,
        attempts: u32,
    },
    /// The branch's head had it already.
    Unchanged {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    /// The answer is no.
    Failed(Reason),
    /// We could not tell.
    Errored(Reason),
    /// It was not pushed, and will not be.
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Pending,
    Pushed,
    Failed,
    Errored,
    Cancelled,
}

impl Status {
    /// As the list index has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pushed => "pushed",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A change as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// Absent only before the first event.
    pub request: Option<Request>,
    pub requested_at: Option<Timestamp>,
    /// After this time it ends errored.
    pub deadline: Option<Timestamp>,
    /// Somebody wants it taken back; why.
    pub cancel: Option<String>,
    pub commit: Option<CommitSha>,
    pub no_op: bool,
    pub differences: Vec<Difference>,
    pub attempts: u32,
    pub reason: Option<Reason>,
    pub ended_at: Option<Timestamp>,
}

impl State {
    /// The edits that put back what this change replaced; the last edit is undone first.
    pub fn undo(&self, force: bool) -> Vec<Edit> {
        self.differences
            .iter()
            .rev()
            .filter_map(|difference| Edit::undoing(difference, force))
            .collect()
    }
}

#[derive(Debug, Clone)]
pub enum Command {
    Request {
        request: Box<Request>,
        timeout: Duration,
    },
    Cancel {
        reason: String,
    },
    Settle(Outcome),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    Requested {
        #[serde(flatten)]
        request: Box<Request>,
        deadline: Timestamp,
    },
    CancelRequested {
        reason: String,
    },
    Pushed {
        commit: CommitSha,
        differences: Vec<Difference>,
        attempts: u32,
    },
    Unchanged {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    Failed {
        reason: Reason,
    },
    Errored {
        reason: Reason,
    },
    Cancelled {
        reason: Reason,
    },
}

/// Finds the branch's owner and wakes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Nudge { repository: String, branch: BranchName },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such change")]
    Unknown,
    #[error("this change was requested already")]
    Exists,
}

/// The kind `change`.
#[derive(Debug)]
pub struct Change;

impl Decider for Change {
    const KIND: &'static str = "change";
    const STATE_VERSION: u32 = 1;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    fn decide(_: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        if let Command::Request { request, timeout } = command {
            return match state.request {
                None => Ok(vec![Event::Requested {
                    request,
                    deadline: now + timeout,
                }]),
                Some(_) => Err(Refusal::Exists),
            };
        }
        if state.request.is_none() {
            return Err(Refusal::Unknown);
        }
        if state.status != Status::Pending {
            // What has ended stays as it is, whoever asks.
            return Ok(Vec::new());
        }
        let event = match command {
            Command::Request { .. } => return Err(Refusal::Exists),
            Command::Cancel { .. } if state.cancel.is_some() => return Ok(Vec::new()),
            Command::Cancel { reason } => Event::CancelRequested { reason },
            Command::Settle(Outcome::Pushed {
                commit,
                differences,
                attempts,
            }) => Event::Pushed {
                commit,
                differences,
                attempts,
            },
            Command::Settle(Outcome::Unchanged { commit, differences }) => {
                Event::Unchanged { commit, differences }
            }
            Command::Settle(Outcome::Failed(reason)) => Event::Failed { reason },
            Command::Settle(Outcome::Errored(reason)) => Event::Errored { reason },
            Command::Settle(Outcome::Cancelled) => {
                let why = state.cancel.clone().unwrap_or_default();
                let message = if why.is_empty() {
                    "taken back before it was pushed".to_owned()
                } else {
                    why
                };
                Event::Cancelled {
                    reason: Reason::new(Code::Cancelled, message),
                }
            }
        };
        Ok(vec![event])
    }

    fn evolve(state: &mut State, event: &Event, at: Timestamp) {
        let status = match event {
            Event::Requested { request, deadline } => {
                state.request = Some((**request).clone());
                state.requested_at = Some(at);
                state.deadline = Some(*deadline);
                return;
            }
            Event::CancelRequested { reason } => {
                state.cancel = Some(reason.clone());
                return;
            }
            Event::Pushed {
                commit,
                differences,
                attempts,
            } => {
                state.commit = Some(commit.clone());
                state.differences.clone_from(differences);
                state.attempts = *attempts;
                Status::Pushed
            }
            Event::Unchanged { commit, differences } => {
                state.commit = Some(commit.clone());
                state.differences.clone_from(differences);
                state.no_op = true;
                Status::Pushed
            }
            Event::Failed { reason } => {
                state.reason = Some(reason.clone());
                Status::Failed
            }
            Event::Errored { reason } => {
                state.reason = Some(reason.clone());
                Status::Errored
            }
            Event::Cancelled { reason } => {
                state.reason = Some(reason.clone());
                Status::Cancelled
            }
        };
        state.status = status;
        state.ended_at = Some(at);
    }

    fn polls(_: &Id, state: &State) -> Vec<(EffectKey, Effect)> {
        match &state.request {
            Some(request) if state.status == Status::Pending => vec![(
                EffectKey::new("nudge", 1),
                Effect::Nudge {
                    repository: request.repository.clone(),
                    branch: request.branch.clone(),
                },
            )],
            _ => Vec::new(),
        }
    }

    fn poll_every(_: &State) -> Duration {
        NUDGE_EVERY
    }

    fn index(state: &State) -> Index {
        let Some(request) = &state.request else {
            return Index::default();
        };
        let mut labels = request.labels.clone();
        labels.insert(
            BRANCH_LABEL.to_owned(),
            branch_id(&request.repository, &request.branch).to_string(),
        );
        Index {
            status: state.status.as_str().to_owned(),
            service: request.service.to_string(),
            environment: request.environment.to_string(),
            correlation: request.correlation_id.clone(),
            labels,
        }
    }

    fn is_final(state: &State) -> bool {
        state.status != Status::Pending
    }
}
