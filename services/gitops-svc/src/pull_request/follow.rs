//! What to do about an open pull request. Pure.

use serde::{Deserialize, Serialize};
use slipway_model::CommitSha;

use crate::change::Reason;

/// Whether a pull request is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    Open,
    Merged,
    /// Without being merged.
    Closed,
}

/// GitHub's `mergeable_state`.
/// <https://docs.github.com/en/graphql/reference/enums#mergestatestatus> has the meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    Clean,
    /// Mergeable, though a check that is not required fails or runs.
    Unstable,
    /// Mergeable, with hooks that GitHub Enterprise runs before.
    HasHooks,
    /// A required check or review is missing.
    Blocked,
    /// The branch's rules want it to hold the base's head.
    Behind,
    /// It conflicts.
    Dirty,
    Draft,
    /// GitHub is still finding out.
    Unknown,
}

/// A pull request, as GitHub tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    pub number: u64,
    pub url: String,
    pub state: PullState,
    /// The head of the branch it comes from.
    pub head: CommitSha,
    /// Absent while GitHub is still finding out.
    pub mergeable: Option<bool>,
    pub readiness: Readiness,
    /// The commit on the base, once it is merged.
    pub merge_commit: Option<CommitSha>,
    /// Who merged it; empty where GitHub does not say.
    pub merged_by: String,
    pub labels: Vec<String>,
    /// Whether somebody is asked for a review.
    pub reviewers: bool,
}

/// What our edits come to on the present head of the branch that the pull request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// It is where our commit was made on.
    Unmoved,
    /// Something else was changed.
    Same,
    /// What they replace is another thing now.
    Differs,
    /// Somebody else has done it already.
    Has,
    /// They cannot be made any more.
    Refuses(Reason),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record that it is merged.
    Merged,
    /// Record that somebody closed it.
    Closed,
    /// Close it: there is nothing left to change.
    Needless,
    /// Close it: the change is not possible any more.
    Impossible(Reason),
    /// Make the edits again on the present head.
    Revise,
    /// Merge it, if its head is still ours.
    Merge,
    /// GitHub is about to know more.
    LookAgain,
    /// Nothing, and what it waits for; `None` where that is as unknown as before.
    Wait(Option<&'static str>),
}

/// Decides from what GitHub says, whether the pull request's head is our own commit, and what became of the branch it
/// goes to.
///
/// Somebody else's commits on our branch are neither overwritten nor merged by us.
pub fn follow(pull: &Pull, ours: bool, base: &Base, auto_merge: bool) -> Step {
    match pull.state {
        PullState::Merged => return Step::Merged,
        // By us, before it could be recorded, when there is a reason for that.
        PullState::Closed => {
            return match base {
                Base::Has => Step::Needless,
                Base::Refuses(reason) => Step::Impossible(reason.clone()),
                _ => Step::Closed,
            };
        }
        PullState::Open => {}
    }
    if !ours {
        return Step::Wait(Some("a person, since others have pushed to its branch"));
    }
    let stale = matches!(pull.readiness, Readiness::Dirty | Readiness::Behind);
    match base {
        Base::Has => return Step::Needless,
        Base::Refuses(reason) => return Step::Impossible(reason.clone()),
        Base::Differs => return Step::Revise,
        Base::Same if stale => return Step::Revise,
        Base::Same | Base::Unmoved => {}
    }
    match (pull.readiness, pull.mergeable) {
        (Readiness::Draft, _) => Step::Wait(Some("a person to mark it as ready for review")),
        (Readiness::Blocked, _) => Step::Wait(Some("required checks or reviews")),
        // The base was read after GitHub was asked, and has not moved: GitHub has not caught up.
        (Readiness::Dirty | Readiness::Behind, _) => Step::Wait(None),
        (Readiness::Unknown, _) | (_, None) if auto_merge => Step::LookAgain,
        (Readiness::Unknown, _) | (_, None) => Step::Wait(None),
        (_, Some(false)) => Step::Wait(Some("GitHub to find it mergeable")),
        (Readiness::Clean | Readiness::Unstable | Readiness::HasHooks, Some(true)) if auto_merge => {
            Step::Merge
        }
        (Readiness::Clean | Readiness::Unstable | Readiness::HasHooks, Some(true)) => {
            Step::Wait(Some("a person to merge it"))
        }
    }
}
