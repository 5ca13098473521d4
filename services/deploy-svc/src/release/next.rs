//! The order of things: what follows when a step has ended.

use serde::{Deserialize, Serialize};

use super::{Facts, Reason, ReleaseState, ReleaseStatus, StepKind, StepStatus, Stop};

/// What follows a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "snake_case")]
pub enum Then {
    Step {
        kind: StepKind,
        environment: Option<usize>,
    },
    End {
        status: ReleaseStatus,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
}

/// How a step ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub kind: StepKind,
    pub environment: Option<usize>,
    pub status: StepStatus,
    pub reason: Option<&'a Reason>,
    pub facts: &'a Facts,
}

/// What follows `ended`, given everything that happened before it.
pub(super) fn after(state: &ReleaseState, ended: Ended<'_>) -> Then {
    match ended.status {
        StepStatus::Succeeded | StepStatus::Skipped => after_success(state, ended),
        _ => after_failure(state, ended),
    }
}

fn after_success(state: &ReleaseState, ended: Ended<'_>) -> Then {
    let same = |kind| Then::Step {
        kind,
        environment: ended.environment,
    };
    let stop = || {
        state.stop_ending().map(|(status, reason)| Then::End {
            status,
            reason: Some(reason),
        })
    };
    match ended.kind {
        StepKind::Build => stop().unwrap_or(Then::Step {
            kind: StepKind::Lane,
            environment: Some(0),
        }),
        StepKind::Lane => stop().unwrap_or(same(StepKind::Gate)),
        StepKind::Gate => stop().unwrap_or(same(StepKind::Change)),
        StepKind::Change => match (stop(), ended.facts) {
            (None, _) => same(StepKind::Deploy),
            (Some(end), Facts::Changed(change)) if change.no_op => end,
            (Some(_), _) => same(StepKind::Revert),
        },
        StepKind::Deploy if state.stop.is_some() => put_back(state, ended),
        StepKind::Deploy => {
            let next = ended.environment.map_or(0, |index| index + 1);
            if next < state.environments.len() {
                Then::Step {
                    kind: StepKind::Lane,
                    environment: Some(next),
                }
            } else {
                Then::End {
                    status: ReleaseStatus::Succeeded,
                    reason: None,
                }
            }
        }
        StepKind::Revert => {
            let progress = ended.environment.and_then(|index| state.environments.get(index));
            let previous = progress.and_then(|progress| progress.change.as_ref()?.previous.as_ref());
            match (progress.is_some_and(|progress| progress.deployed), previous) {
                (true, Some(_)) => same(StepKind::Redeploy),
                _ => rolled_back(state, false),
            }
        }
        StepKind::Redeploy => rolled_back(state, true),
    }
}

fn after_failure(state: &ReleaseState, ended: Ended<'_>) -> Then {
    let reason = ended.reason.cloned();
    match ended.kind {
        StepKind::Revert | StepKind::Redeploy => {
            let first = state
                .failure
                .as_ref()
                .map_or("it was stopped", |failure| &failure.reason.message);
            let then = reason
                .as_ref()
                .map_or("no reason given", |reason| &reason.message);
            let code = "ROLLBACK_FAILED";
            let message = format!(
                "{first}; then putting back the previous image failed: {then}. Look at the environment, then release a good commit"
            );
            Then::End {
                status: ReleaseStatus::RollbackFailed,
                reason: Some(Reason::new(code, message)),
            }
        }
        StepKind::Deploy => put_back(state, ended),
        _ => match state.stop_ending() {
            Some((status, reason)) => Then::End {
                status,
                reason: Some(reason),
            },
            None => Then::End {
                status: ending(ended.status),
                reason,
            },
        },
    }
}

/// After a deployment that must not stay: revert the change, unless it changed nothing.
fn put_back(state: &ReleaseState, ended: Ended<'_>) -> Then {
    let progress = ended.environment.and_then(|index| state.environments.get(index));
    let no_op = progress
        .and_then(|progress| progress.change.as_ref())
        .is_none_or(|change| change.no_op);
    if !no_op {
        return Then::Step {
            kind: StepKind::Revert,
            environment: ended.environment,
        };
    }
    match state.stop_ending() {
        Some((status, reason)) => Then::End {
            status,
            reason: Some(reason),
        },
        None => Then::End {
            status: ending(ended.status),
            reason: ended.reason.cloned(),
        },
    }
}

/// The change is out of git again; `redeployed`: and the environment serves what it served before.
fn rolled_back(state: &ReleaseState, redeployed: bool) -> Then {
    let failure = state.failure.as_ref();
    // A deployment whose time was up has failed; that is not somebody's wish to stop.
    let stopped = state
        .stop_ending()
        .filter(|_| !matches!(state.stop, Some(Stop::Deadline { .. })));
    let (status, reason) = match (failure, stopped) {
        (Some(failure), None) if redeployed => (ReleaseStatus::RolledBack, Some(failure.reason.clone())),
        (Some(failure), None) => (ending(failure.status), Some(failure.reason.clone())),
        (_, Some((status, reason))) => (status, Some(reason)),
        (None, None) => (ReleaseStatus::RolledBack, None),
    };
    Then::End { status, reason }
}

fn ending(status: StepStatus) -> ReleaseStatus {
    match status {
        StepStatus::Failed => ReleaseStatus::Failed,
        StepStatus::Cancelled => ReleaseStatus::Cancelled,
        _ => ReleaseStatus::Errored,
    }
}
