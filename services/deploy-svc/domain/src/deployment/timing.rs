//! Deadlines and pauses of a deployment.

use std::time::Duration;

use slipway_model::{Id, Timestamp, duration};
use slipway_verdict::steps::Steps;

use super::{
    Action, DeploymentEvent as Event, DeploymentState, DeploymentStep as Step, Reason, bake,
    ending::{collected, errored, failed},
};
use crate::catalog::Timeouts;

/// How long collecting evidence may take before the deployment ends without it.
const EVIDENCE_TIME: Duration = Duration::from_secs(45);
/// The pause after a transient fault, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) fn wake_at(state: &DeploymentState) -> Option<Timestamp> {
    if !state.active() {
        return None;
    }
    let end = match state.step {
        Step::Evidence => evidence_until(state),
        Step::Bake => bake::overdue_at(state),
        _ => state.deadline,
    };
    [state.retry_at, end].into_iter().flatten().min()
}

/// The meaning of a due timer: the end of the deployment's time, of the evidence's time, or of a pause.
pub(super) fn wake(state: &DeploymentState, now: Timestamp) -> Vec<Event> {
    let due = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    match state.step {
        Step::Evidence if due(evidence_until(state)) => return vec![collected(state, Vec::new())],
        Step::Bake if due(bake::overdue_at(state)) => return vec![bake::overdue(state)],
        Step::Evidence | Step::Bake => {}
        _ if due(state.deadline) => return vec![overdue(state)],
        _ => {}
    }
    if due(state.retry_at) {
        return vec![Event::Resumed {
            step: state.step,
            attempt: state.attempt + 1,
        }];
    }
    Vec::new()
}

/// What the steps of a rollout, as far as they are known, mean for the deadline: it moves by them if the catalog does not
/// say how long a deployment may take; and otherwise it is said where that will not suffice.
pub(super) fn steps_known(state: &DeploymentState, steps: Steps) -> Option<Event> {
    let request = state.request.as_ref()?;
    let (requested_at, deadline) = (state.requested_at?, state.deadline?);
    if state.step != Step::Apply || !state.deadline_basis.is_empty() || steps.is_empty() {
        return None;
    }
    let timeout = request.timeout;
    if request.follows_steps {
        let whole = timeout.saturating_add(steps.room());
        return Some(Event::DeadlineSet {
            deadline: requested_at + whole,
            basis: format!(
                "it may take {}, since its rollout has {}; timeout.deploy in the catalog sets another time",
                duration::print(whole),
                steps.words()
            ),
        });
    }
    (steps.time > timeout).then(|| Event::DeadlineSet {
        deadline,
        basis: format!(
            "timeout.deploy gives it {}, and its rollout has {}: it will be put back unless somebody promotes it before; write at least {} in the catalog, or leave timeout.deploy out",
            duration::print(timeout),
            steps.words(),
            duration::print(Timeouts::default().deploy.saturating_add(steps.room()))
        ),
    })
}

/// The end of the deployment's time: what is known to be missing is a failure, what could not be asked is an error.
fn overdue(state: &DeploymentState) -> Event {
    let request = state.request.as_ref();
    let whole = state.deadline.zip(state.requested_at);
    let timeout = whole.map_or(Duration::ZERO, |(end, start)| end.since(start));
    let because = |words: &dyn std::fmt::Display| {
        let words = format!("not verified within {} s: {words}", timeout.as_secs());
        Reason::new("DEADLINE_EXCEEDED", words)
    };
    if let Some(fault) = &state.fault {
        return errored(state, because(fault));
    }
    // Argo CD is asked only when it may sync; the reason for waiting is known.
    let waits = request.is_some_and(|request| matches!(request.action, Action::Sync { .. }));
    match state.step {
        Step::Apply if !waits => errored(state, because(&"the manifests were not applied in time")),
        Step::Revert => errored(state, because(&state.progress)),
        Step::Before | Step::Apply => failed(state, because(&state.progress), Vec::new()),
        _ => Event::Failing {
            reason: because(&state.progress),
        },
    }
}

fn evidence_until(state: &DeploymentState) -> Option<Timestamp> {
    state.since.map(|since| since + EVIDENCE_TIME)
}

/// Exponential, with a jitter of a fifth that is the same for the same attempt.
pub(crate) fn pause(id: &Id, attempt: u32) -> Duration {
    let doubled = FIRST_PAUSE
        .saturating_mul(1 << attempt.saturating_sub(1).min(10))
        .min(LONGEST_PAUSE);
    let seed = id.as_str().bytes().fold(attempt, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    doubled.mul_f64(0.9 + f64::from(seed % 1000) / 5000.0)
}
