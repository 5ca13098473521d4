//! Pull requests: how a change may be made by one, what is recorded about one, and what to do about an open one
//! ([`follow`]). What such a change is doing is decided in [`change`](crate::change).

mod follow;
pub mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_model::{BranchName, CommitSha, Id, Name};

pub use follow::{Base, Pull, PullState, Readiness, Step, follow};

/// How a change gets to its branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A commit is pushed to the branch.
    #[default]
    Push,
    /// A pull request is opened, and the change ends when it is merged or closed.
    PullRequest,
}

impl Mode {
    pub fn is_push(&self) -> bool {
        *self == Self::Push
    }
}

/// Why a change cannot be made in the requested way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeRefusal {
    /// Corresponds to `FAILED_PRECONDITION`, with [`ModeRefusal::REQUIRED`] as its reason.
    #[error("changes of {0} go by pull request here: ask for MODE_PULL_REQUEST, or leave the mode out")]
    Required(Name),
    /// Corresponds to `INVALID_ARGUMENT`, field `mode`.
    #[error(
        "pull requests are not configured for this repository: add `pull_requests`, or leave the mode out"
    )]
    NotConfigured,
}

impl ModeRefusal {
    /// The reason of [`ModeRefusal::Required`], for programs.
    pub const REQUIRED: &'static str = "PULL_REQUEST_REQUIRED";
}

/// Which changes of a repository are made by pull request, and how long those may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Changes of these are made by pull request, all others only on request. Empty means all.
    pub environments: Vec<Name>,
    /// A pull request that is not merged after this time is closed.
    pub deadline: Duration,
}

/// How a change of `environment` is made: as configured, or by pull request if that is requested; a request can only
/// make it stricter. There is no policy if pull requests are not configured.
///
/// # Errors
/// When what was requested is not allowed or not possible.
pub fn mode(policy: Option<&Policy>, environment: &Name, asked: Option<Mode>) -> Result<Mode, ModeRefusal> {
    let required = policy.is_some_and(|policy| {
        policy.environments.is_empty() || policy.environments.iter().any(|name| name == environment)
    });
    match (asked, required) {
        (Some(Mode::Push), true) => Err(ModeRefusal::Required(environment.clone())),
        (Some(Mode::PullRequest), _) if policy.is_none() => Err(ModeRefusal::NotConfigured),
        (Some(mode), _) => Ok(mode),
        (None, true) => Ok(Mode::PullRequest),
        (None, false) => Ok(Mode::Push),
    }
}

/// How long a change may take: people take longer than a push.
pub fn timeout(policy: Option<&Policy>, mode: Mode, push: Duration) -> Duration {
    match (mode, policy) {
        (Mode::PullRequest, Some(policy)) => policy.deadline,
        _ => push,
    }
}

/// The branch that a change's pull request comes from.
pub fn branch(change: &Id) -> BranchName {
    #[allow(clippy::unwrap_used)] // an id is letters, digits and `-`
    format!("slipway/{change}").parse().unwrap()
}

/// The stage of a change by pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    #[default]
    Propose,
    Follow,
    Withdraw,
}

/// How the commit got to the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Merge,
    Squash,
    Rebase,
}

/// The pull request of a change, as far as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    pub number: u64,
    pub url: String,
    pub status: PullState,
    /// Its own branch.
    pub branch: BranchName,
    /// Our commit, that branch's head unless others pushed to it.
    pub commit: CommitSha,
    /// The head of the target branch that our commit was made on.
    pub base: Option<CommitSha>,
    /// How often the edits were repeated on a newer head.
    pub revisions: u32,
    /// What it waits for, as last seen; may be empty.
    pub message: String,
    /// Who merged or closed it; empty if it is not known.
    pub by: String,
    /// How it was merged.
    pub method: Option<Method>,
    pub poll_every: Duration,
}
