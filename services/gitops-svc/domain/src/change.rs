//! A change: one commit that is to be pushed, or was. The decider of its life.
//!
//! A change waits until a round of its branch ([`crate::branch`]) has pushed it; only the branch's holder decides how
//! it ended. So a cancellation is only a request until the holder has seen that the change is not on the remote
//! already. A change that is made by pull request is worked on by itself; see `by_pull_request`.

mod by_pull_request;
mod request;
pub mod v1;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, EffectKey, Impossible, Index, RefusalKind};
use slipway_edit::{Difference, Edit, Folder};
use slipway_model::{BranchName, CommitSha, Id, Reason, Retry, Timestamp};

use crate::{
    pull_request::{Method, Mode, PullRequest, Stage},
    reason::Code,
};

pub use by_pull_request::News;
pub use request::{Image, Promotion, Request};

/// The label by which the waiting changes of a branch are listed. Callers cannot use it: it contains a space.
pub const BRANCH_LABEL: &str = "slipway branch";

/// How often a waiting change checks whether its branch is awake: only a crash between the two records makes this
/// necessary.
const NUDGE_EVERY: Duration = Duration::from_secs(5);

/// The id of the branch's own aggregate.
pub fn branch_id(repository: &str, branch: &BranchName) -> Id {
    Id::derived("br", &[repository, branch.as_str()])
}

/// How a change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the remote branch as this commit.
    Pushed {
        commit: CommitSha,
        differences: Vec<Difference>,
        attempts: u32,
        /// What was committed without being rendered, and why; empty if everything was that had to be.
        not_rendered: String,
    },
    /// The branch's head already contained it.
    Unchanged {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    /// It was rejected: trying again would not help.
    Failed(Reason),
    /// It had no result in time.
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
    /// It is to be withdrawn, and why.
    pub cancel: Option<String>,
    pub commit: Option<CommitSha>,
    pub no_op: bool,
    pub differences: Vec<Difference>,
    pub attempts: u32,
    /// What was committed without being rendered, and why.
    #[serde(default)]
    pub not_rendered: String,
    pub reason: Option<Reason>,
    pub ended_at: Option<Timestamp>,
    /// With [`Mode::PullRequest`], once it is open.
    pub pull_request: Option<PullRequest>,
    /// With [`Mode::PullRequest`]: its stage. Meaningless for a change that is pushed.
    pub stage: Stage,
    /// With [`Mode::PullRequest`]: the number of the effect.
    pub tries: u32,
    /// With [`Mode::PullRequest`]: failures of the remote or of GitHub in a row.
    pub failures: u32,
    /// With [`Mode::PullRequest`]: not before this time.
    pub retry_at: Option<Timestamp>,
    /// With [`Mode::PullRequest`]: why it is tried again.
    pub problem: Option<Reason>,
    /// With [`Mode::PullRequest`]: the deadline has passed, so it is taken back.
    pub expired: bool,
}

impl State {
    /// Whether it is made by pull request.
    pub fn by_pull_request(&self) -> bool {
        self.request
            .as_ref()
            .is_some_and(|request| request.mode == Mode::PullRequest)
    }

    /// The event of an outcome.
    fn ending(&self, outcome: Outcome) -> Event {
        match outcome {
            Outcome::Pushed {
                commit,
                differences,
                attempts,
                not_rendered,
            } => Event::Pushed {
                commit,
                differences,
                attempts,
                not_rendered,
            },
            Outcome::Unchanged { commit, differences } => Event::Unchanged { commit, differences },
            Outcome::Failed(reason) => Event::Failed { reason },
            Outcome::Errored(reason) => Event::Errored { reason },
            Outcome::Cancelled => {
                let why = self.cancel.clone().unwrap_or_default();
                let message = if why.is_empty() {
                    "cancelled before it was pushed".to_owned()
                } else {
                    why
                };
                Event::Cancelled {
                    reason: Reason::new(Code::Cancelled, message),
                }
            }
        }
    }

    /// What this change wrote in these files and folders; all of it if there are none.
    pub fn differences_in(&self, places: &[Folder]) -> Vec<&Difference> {
        let chosen = |difference: &&Difference| {
            places.is_empty() || places.iter().any(|place| difference.is_within(place))
        };
        self.differences.iter().filter(chosen).collect()
    }

    /// The edits that undo what this change wrote in these files and folders, or all of it; the last edit is undone
    /// first.
    pub fn undo(&self, force: bool, places: &[Folder]) -> Vec<Edit> {
        let differences = self.differences_in(places).into_iter().rev();
        differences
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
    /// The result of work on the pull request.
    PullRequest(News),
    /// It may be time to try again, or the deadline may have passed.
    Tick,
}

/// What has happened to a change. The JSON form is pinned by golden files; events that have a newer form are still read
/// in the old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    #[serde(rename = "requested")]
    RequestedV1 {
        #[serde(flatten)]
        request: Box<v1::Request>,
        deadline: Timestamp,
    },
    #[serde(rename = "requested.v2")]
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
        #[serde(default, skip_serializing_if = "String::is_empty")]
        not_rendered: String,
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
    /// The pull request is open.
    PullRequestOpened {
        number: u64,
        url: String,
        /// The pull request's own branch.
        branch: BranchName,
        commit: CommitSha,
        /// The head of the target branch when its commit was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<CommitSha>,
        differences: Vec<Difference>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        not_rendered: String,
        /// Milliseconds between checks.
        poll_ms: u64,
    },
    /// The edits were repeated on a newer head of the target branch.
    PullRequestRevised {
        commit: CommitSha,
        base: CommitSha,
        differences: Vec<Difference>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        not_rendered: String,
    },
    /// It is waiting for something else now.
    PullRequestNoted {
        message: String,
    },
    /// Followed by `pushed`.
    PullRequestMerged {
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        method: Method,
    },
    /// Followed by how the change ended.
    PullRequestClosed {
        /// Empty if it is not known, or if we closed it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// The remote or GitHub could not be reached, or asks us to wait.
    Postponed {
        reason: Reason,
        retry_at: Timestamp,
    },
    Resumed,
    /// The deadline has passed.
    Expired,
}

/// The work to be done for a change itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Wakes the branch.
    Nudge { repository: String, branch: BranchName },
    /// Pushes the pull request's branch and opens it.
    Propose,
    /// Checks the pull request, and moves it along.
    Follow,
    /// Closes the pull request, unless it is merged.
    Withdraw,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("change {0} does not exist")]
    Unknown(Id),
    #[error("change {0} exists already")]
    Exists(Id),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl slipway_decider::Refusal for Refusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Unknown(id) => RefusalKind::NotFound {
                kind: Change::KIND,
                id: id.clone(),
            },
            Self::Exists(id) => RefusalKind::AlreadyExists {
                kind: Change::KIND,
                id: id.clone(),
            },
            Self::Impossible(_) => RefusalKind::Defect,
        }
    }
}

/// The kind `change`.
#[derive(Debug)]
pub struct Change;

impl Decider for Change {
    const KIND: &'static str = "change";
    const STATE_VERSION: u32 = 3;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    fn decide(id: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        if let Command::Request { request, timeout } = command {
            return match state.request {
                None => Ok(vec![Event::Requested {
                    request,
                    deadline: now + timeout,
                }]),
                Some(_) => Err(Refusal::Exists(id.clone())),
            };
        }
        if state.request.is_none() {
            return Err(Refusal::Unknown(id.clone()));
        }
        if state.status != Status::Pending {
            // What has ended stays as it is.
            return Ok(Vec::new());
        }
        let event = match command {
            Command::Request { .. } => return Err(Refusal::Exists(id.clone())),
            Command::Cancel { .. } if state.cancel.is_some() => return Ok(Vec::new()),
            Command::Cancel { reason } => Event::CancelRequested { reason },
            Command::Settle(_) if state.by_pull_request() => {
                return Err(Impossible::new(id, "it goes by a pull request").into());
            }
            Command::Settle(outcome) => state.ending(outcome),
            Command::PullRequest(_) if !state.by_pull_request() => {
                return Err(Impossible::new(id, "it is pushed by its branch").into());
            }
            Command::PullRequest(news) => return Ok(by_pull_request::decide(id, state, news, now)?),
            Command::Tick => return Ok(by_pull_request::tick(state, now)),
        };
        Ok(vec![event])
    }

    fn evolve(state: &mut State, event: &Event, at: Timestamp) {
        let status = match event {
            Event::Requested { request, deadline } => {
                return requested(state, (**request).clone(), *deadline, at);
            }
            Event::RequestedV1 { request, deadline } => {
                return requested(state, (**request).clone().into(), *deadline, at);
            }
            Event::CancelRequested { reason } => {
                state.cancel = Some(reason.clone());
                by_pull_request::withdraw(state);
                return;
            }
            Event::Pushed {
                commit,
                differences,
                attempts,
                not_rendered,
            } => {
                state.not_rendered.clone_from(not_rendered);
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
            _ => return by_pull_request::evolve(state, event),
        };
        state.status = status;
        state.retry_at = None;
        state.ended_at = Some(at);
    }

    fn effects(_: &Id, state: &State) -> Vec<(EffectKey, Effect)> {
        by_pull_request::effect(state).into_iter().collect()
    }

    fn polls(_: &Id, state: &State) -> Vec<(EffectKey, Effect)> {
        match &state.request {
            Some(request)
                if state.status == Status::Pending
                    && request.mode == Mode::PullRequest
                    && state.stage == Stage::Follow =>
            {
                vec![(EffectKey::new("follow", 1), Effect::Follow)]
            }
            Some(request) if request.mode == Mode::PullRequest => Vec::new(),
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

    fn poll_every(state: &State) -> Duration {
        state
            .pull_request
            .as_ref()
            .map_or(NUDGE_EVERY, |pull| pull.poll_every)
    }

    fn wake_at(state: &State) -> Option<Timestamp> {
        by_pull_request::wake_at(state)
    }

    fn wake() -> Option<Command> {
        Some(Command::Tick)
    }

    fn retry(state: &State) -> Option<Retry> {
        by_pull_request::retry(state)
    }

    fn index(state: &State) -> Index {
        let Some(request) = &state.request else {
            return Index::default();
        };
        let mut labels = request.labels.clone();
        // A change by pull request is not pushed by the branch.
        if request.mode == Mode::Push {
            labels.insert(
                BRANCH_LABEL.to_owned(),
                branch_id(&request.repository, &request.branch).to_string(),
            );
        }
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

fn requested(state: &mut State, request: Request, deadline: Timestamp, at: Timestamp) {
    state.request = Some(request);
    state.requested_at = Some(at);
    state.deadline = Some(deadline);
}
