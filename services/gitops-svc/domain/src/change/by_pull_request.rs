//! Changes by pull request: what such a change is doing.
//!
//! It is *proposed* (a branch of its own is pushed and a pull request opened), then *followed* until people or the
//! configured auto-merge have merged it, or others closed it. When it is cancelled or too late it is *withdrawn*. Each
//! stage can be repeated: the branch is found by its name, the pull request by its branch, and our commit is identical
//! each time it is made on the same head.

use std::time::Duration;

use slipway_decider::{EffectKey, Impossible};
use slipway_edit::Difference;
use slipway_model::{BranchName, CommitSha, Id, Reason, Retry, Timestamp};

use super::{Effect, Event, Outcome, State, Status};
use crate::{
    pull_request::{Method, PullRequest, PullState, Stage},
    reason::Code,
};

/// The first wait after a failure of the remote or of GitHub; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long to keep trying to close a pull request whose time is up.
const WITHDRAWAL: Duration = Duration::from_secs(3600);

/// The result of working on a pull request.
#[derive(Debug, Clone)]
pub enum News {
    /// It is open, or was found.
    Opened {
        number: u64,
        url: String,
        branch: BranchName,
        commit: CommitSha,
        base: Option<CommitSha>,
        differences: Vec<Difference>,
        /// What was committed without being rendered, and why.
        not_rendered: String,
        poll: Duration,
    },
    Revised {
        commit: CommitSha,
        base: CommitSha,
        differences: Vec<Difference>,
        /// What was committed without being rendered, and why.
        not_rendered: String,
    },
    /// What it waits for.
    Noted(String),
    Merged {
        commit: CommitSha,
        differences: Vec<Difference>,
        by: String,
        method: Method,
    },
    /// It is closed, by others or by us, and how the change ends.
    Closed { by: String, outcome: Outcome },
    /// What was to be withdrawn is closed, or never existed.
    Withdrawn,
    /// It ends without a result for the pull request.
    Ended(Outcome),
    /// To be tried again, after a growing wait; `jitter` from 0 to 1000 spreads it. Not before a time that GitHub gave.
    /// It names its attempt, since a repeated report would otherwise postpone the next one.
    Postponed {
        attempt: u32,
        reason: Reason,
        not_before: Option<Timestamp>,
        jitter: u16,
    },
}

/// The events that follow from a result for a change that has not ended. Most results do not name their attempt: those
/// of an earlier stage are ignored, those of a stage that was not reached are impossible.
pub(super) fn decide(id: &Id, state: &State, news: News, now: Timestamp) -> Result<Vec<Event>, Impossible> {
    Ok(match news {
        News::Revised { .. } | News::Noted(_) | News::Closed { .. } | News::Merged { .. }
            if state.stage == Stage::Propose =>
        {
            return Err(Impossible::new(id, "its pull request is not open yet"));
        }
        News::Withdrawn if state.stage != Stage::Withdraw => {
            return Err(Impossible::new(id, "its pull request is not being withdrawn"));
        }
        News::Opened { .. } if state.stage != Stage::Propose => Vec::new(),
        News::Opened {
            number,
            url,
            branch,
            commit,
            base,
            differences,
            not_rendered,
            poll,
        } => vec![Event::PullRequestOpened {
            number,
            url,
            branch,
            commit,
            base,
            differences,
            not_rendered,
            poll_ms: u64::try_from(poll.as_millis()).unwrap_or(u64::MAX),
        }],
        News::Revised {
            commit,
            base,
            differences,
            not_rendered,
        } => match &state.pull_request {
            Some(pull) if pull.commit != commit => vec![Event::PullRequestRevised {
                commit,
                base,
                differences,
                not_rendered,
            }],
            _ => Vec::new(),
        },
        News::Noted(message) => match &state.pull_request {
            Some(pull) if state.stage == Stage::Follow && pull.message != message => {
                vec![Event::PullRequestNoted { message }]
            }
            _ => Vec::new(),
        },
        News::Merged {
            commit,
            differences,
            by,
            method,
        } => vec![
            Event::PullRequestMerged { by, method },
            state.ending(Outcome::Pushed {
                commit,
                differences,
                attempts: 1 + state.pull_request.as_ref().map_or(0, |pull| pull.revisions),
                not_rendered: state.not_rendered.clone(),
            }),
        ],
        // While it is being withdrawn, it is closed by us.
        News::Closed { .. } if state.stage != Stage::Follow => Vec::new(),
        News::Closed { by, outcome } => vec![Event::PullRequestClosed { by }, state.ending(outcome)],
        News::Withdrawn => {
            let closed = state
                .pull_request
                .is_some()
                .then(|| Event::PullRequestClosed { by: String::new() });
            let outcome = if state.cancel.is_some() {
                Outcome::Cancelled
            } else {
                Outcome::Errored(too_late(state))
            };
            closed.into_iter().chain([state.ending(outcome)]).collect()
        }
        News::Ended(outcome) => vec![state.ending(outcome)],
        News::Postponed { attempt, .. }
            if attempt != state.tries || state.stage == Stage::Follow || state.retry_at.is_some() =>
        {
            Vec::new()
        }
        News::Postponed { reason, .. }
            if state.stage == Stage::Withdraw
                && state.expired
                && state
                    .deadline
                    .is_some_and(|deadline| deadline + WITHDRAWAL <= now) =>
        {
            let message = format!(
                "{}, and it could not be closed: {}",
                too_late(state).message,
                reason.message
            );
            vec![state.ending(Outcome::Errored(Reason::new(Code::DeadlineExceeded, message)))]
        }
        News::Postponed {
            reason,
            not_before,
            jitter,
            ..
        } => {
            let full = FIRST_WAIT
                .saturating_mul(2_u32.saturating_pow(state.failures.min(16)))
                .min(LONGEST_WAIT);
            let wait = full / 2 + full / 2 * u32::from(jitter.min(1000)) / 1000;
            let retry_at = (now + wait).max(not_before.unwrap_or(now));
            vec![Event::Postponed { reason, retry_at }]
        }
    })
}

fn too_late(state: &State) -> Reason {
    let last = state.problem.as_ref().map(|problem| problem.message.as_str());
    let message = match &state.pull_request {
        Some(pull) if pull.message.is_empty() => {
            format!("pull request #{} was not merged in time", pull.number)
        }
        Some(pull) => format!(
            "pull request #{} was not merged in time; it waited for {}",
            pull.number, pull.message
        ),
        None => format!(
            "no pull request could be opened in time; last: {}",
            last.unwrap_or("it was under way")
        ),
    };
    Reason::new(Code::DeadlineExceeded, message)
}

/// The events that follow when a time has come.
pub(super) fn tick(state: &State, now: Timestamp) -> Vec<Event> {
    if !state.by_pull_request() {
        return Vec::new();
    }
    let late = !state.expired && state.deadline.is_some_and(|deadline| deadline <= now);
    let mut after = state.clone();
    let mut events = Vec::new();
    if late {
        after.expired = true;
        withdraw(&mut after);
        events.push(Event::Expired);
    }
    // Both may be due at once, and the earlier of them must not stay due.
    if after.retry_at.is_some_and(|at| at <= now) {
        events.push(Event::Resumed);
    }
    events
}

/// When the next [`tick`] has an effect.
pub(super) fn wake_at(state: &State) -> Option<Timestamp> {
    if state.status != Status::Pending || !state.by_pull_request() {
        return None;
    }
    let deadline = state.deadline.filter(|_| !state.expired);
    [state.retry_at, deadline].into_iter().flatten().min()
}

/// What is being retried; the executor knows about failed checks of a pull request.
pub(super) fn retry(state: &State) -> Option<Retry> {
    let waits = state.status == Status::Pending && state.by_pull_request() && state.failures > 0;
    Some(Retry {
        error: state.problem.clone().filter(|_| waits)?,
        attempt: state.failures,
        next_time: state.retry_at,
    })
}

/// What is to be done now.
pub(super) fn effect(state: &State) -> Option<(EffectKey, Effect)> {
    if state.status != Status::Pending || !state.by_pull_request() || state.retry_at.is_some() {
        return None;
    }
    match state.stage {
        Stage::Propose => Some((EffectKey::new("propose", state.tries), Effect::Propose)),
        Stage::Follow => None,
        Stage::Withdraw => Some((EffectKey::new("withdraw", state.tries), Effect::Withdraw)),
    }
}

/// Moves on to another stage.
fn enter(state: &mut State, stage: Stage) {
    state.stage = stage;
    state.tries += 1;
    state.failures = 0;
    state.retry_at = None;
}

/// It was cancelled, or its time is up. A proposal in progress is waited for, since it may be opening the pull request
/// right now.
pub(super) fn withdraw(state: &mut State) {
    let under_way = state.stage == Stage::Propose && state.retry_at.is_none();
    if state.by_pull_request() && state.stage != Stage::Withdraw && !under_way {
        enter(state, Stage::Withdraw);
    }
}

/// Applies the events that only changes of this mode have.
pub(super) fn evolve(state: &mut State, event: &Event) {
    let unwanted = state.cancel.is_some() || state.expired;
    match event {
        Event::PullRequestOpened {
            number,
            url,
            branch,
            commit,
            base,
            differences,
            not_rendered,
            poll_ms,
        } => {
            state.not_rendered.clone_from(not_rendered);
            state.pull_request = Some(PullRequest {
                number: *number,
                url: url.clone(),
                status: PullState::Open,
                branch: branch.clone(),
                commit: commit.clone(),
                base: base.clone(),
                revisions: 0,
                message: String::new(),
                by: String::new(),
                method: None,
                poll_every: Duration::from_millis(*poll_ms),
            });
            state.differences.clone_from(differences);
            state.problem = None;
            enter(state, if unwanted { Stage::Withdraw } else { Stage::Follow });
        }
        Event::PullRequestRevised {
            commit,
            base,
            differences,
            not_rendered,
        } => {
            state.not_rendered.clone_from(not_rendered);
            state.differences.clone_from(differences);
            if let Some(pull) = &mut state.pull_request {
                pull.commit = commit.clone();
                pull.base = Some(base.clone());
                pull.revisions += 1;
            }
        }
        Event::PullRequestNoted { message } => {
            if let Some(pull) = &mut state.pull_request {
                pull.message.clone_from(message);
            }
        }
        Event::PullRequestMerged { by, method } => {
            if let Some(pull) = &mut state.pull_request {
                pull.status = PullState::Merged;
                pull.by.clone_from(by);
                pull.method = Some(*method);
                pull.message.clear();
            }
        }
        Event::PullRequestClosed { by } => {
            if let Some(pull) = &mut state.pull_request {
                pull.status = PullState::Closed;
                pull.by.clone_from(by);
                pull.message.clear();
            }
        }
        Event::Postponed { reason, retry_at } => {
            state.failures += 1;
            state.problem = Some(reason.clone());
            if unwanted && state.stage == Stage::Propose {
                enter(state, Stage::Withdraw);
            } else {
                state.retry_at = Some(*retry_at);
            }
        }
        Event::Resumed => {
            state.retry_at = None;
            state.tries += 1;
        }
        Event::Expired => {
            state.expired = true;
            withdraw(state);
        }
        // Those that every change has are applied where it is decided.
        Event::Requested { .. }
        | Event::RequestedV1 { .. }
        | Event::CancelRequested { .. }
        | Event::Pushed { .. }
        | Event::Unchanged { .. }
        | Event::Failed { .. }
        | Event::Errored { .. }
        | Event::Cancelled { .. } => {}
    }
}
