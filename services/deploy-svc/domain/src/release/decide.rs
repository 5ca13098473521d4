//! The effect of a command on a release in its current state.

use std::time::Duration;

use slipway_decider::{EffectKey, Impossible};
use slipway_model::{Id, Timestamp};

use super::{
    Advance, Facts, GRACE, Observation, Reason, ReleaseCommand, ReleaseEvent, ReleaseRefusal, ReleaseState,
    Step, StepKind, StepStatus, Stop, ended::Ended, evolve, next,
};

/// The first wait before a failed call is repeated; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait between two calls.
const RETRY_MOST: Duration = Duration::from_secs(30);

pub(super) fn decide(
    id: &Id,
    state: &ReleaseState,
    command: ReleaseCommand,
    now: Timestamp,
) -> Result<Vec<ReleaseEvent>, ReleaseRefusal> {
    if let ReleaseCommand::Request(request) = command {
        return match state.plan {
            None => Ok(vec![ReleaseEvent::Requested(request)]),
            Some(_) => Err(ReleaseRefusal::Exists(id.clone())),
        };
    }
    if state.plan.is_none() {
        return Err(ReleaseRefusal::Unknown(id.clone()));
    }
    let Some(step) = state.active_step() else {
        return Ok(Vec::new());
    };
    Ok(match command {
        ReleaseCommand::Request(_) => Vec::new(),
        ReleaseCommand::Started {
            key,
            reference,
            observation,
        } if is_try_of(&key, step) && step.status == StepStatus::Queued => {
            let started = ReleaseEvent::Started {
                step: step.name.clone(),
                attempt: step.attempt,
                reference,
            };
            let mut after = state.clone();
            evolve::evolve(&mut after, &started, now);
            let mut events = vec![started];
            if let Some(step) = after.active_step() {
                events.extend(observed(&after, step, observation, &key, now));
            }
            events
        }
        // What was not ordered cannot be pending anywhere.
        ReleaseCommand::Observed {
            key,
            observation: Observation::Pending(_),
        } if is_try_of(&key, step) && step.status == StepStatus::Queued => {
            return Err(Impossible::new(id, standing(step)).into());
        }
        ReleaseCommand::Observed { key, observation } if is_try_of(&key, step) => {
            observed(state, step, observation, &key, now)
        }
        ReleaseCommand::Recorded { key, before }
            if is_try_of(&key, step) && step.status == StepStatus::Queued && !is_recorded(state, step) =>
        {
            let step = step.name.clone();
            vec![ReleaseEvent::Recorded { step, before }]
        }
        ReleaseCommand::Stumbled { key, reason } if is_try_of(&key, step) => stumbled(step, reason, now),
        ReleaseCommand::LaneGranted { environment, epoch }
            if step.kind == StepKind::Lane && step.environment == Some(environment) =>
        {
            lane_granted(state, step, epoch, now)
        }
        ReleaseCommand::Supersede { by } => stop(state, step, Stop::Superseded { by }, now),
        ReleaseCommand::Cancel { by, reason } => stop(state, step, Stop::Cancelled { by, reason }, now),
        // It was cancelled while it waited, and takes back what was written before its turn.
        ReleaseCommand::LaneGranted { .. } if step.kind == StepKind::Revert => Vec::new(),
        // The lane's turn was granted to this release in the same transaction, so it cannot be elsewhere.
        ReleaseCommand::LaneGranted { .. } => return Err(Impossible::new(id, standing(step)).into()),
        ReleaseCommand::GiveUp { key } if is_try_of(&key, step) && step.overdue => {
            let reason = Reason::new(
                "DEADLINE_EXCEEDED",
                format!(
                    "step {} did not end in time, and its backend could not be reached to stop it",
                    step.name
                ),
            );
            vec![end(
                state,
                step,
                StepStatus::Errored,
                Some(reason),
                String::new(),
                Facts::None,
            )]
        }
        ReleaseCommand::Wake => woken(step, now),
        // From an older step or try: it changes nothing.
        _ => Vec::new(),
    })
}

/// Whether an effect key belongs to the current try of this step.
fn is_try_of(key: &EffectKey, step: &Step) -> bool {
    let name = key.step.split_once(':').map(|(name, _)| name);
    name == Some(step.name.as_str()) && key.attempt == step.tries
}

fn is_recorded(state: &ReleaseState, step: &Step) -> bool {
    let progress = step.environment.and_then(|index| state.environments.get(index));
    progress.is_none_or(|progress| progress.before.is_some())
}

fn standing(step: &Step) -> String {
    format!("at its step {}", step.name)
}

fn observed(
    state: &ReleaseState,
    step: &Step,
    observation: Observation,
    key: &EffectKey,
    now: Timestamp,
) -> Vec<ReleaseEvent> {
    let mut events = Vec::new();
    if key.step.ends_with(":stop") && !step.stop_sent {
        events.push(ReleaseEvent::Stopping {
            step: step.name.clone(),
        });
    }
    let (status, reason, result, facts) = match observation {
        Observation::Pending(waiting) => {
            let known = step
                .waiting
                .as_ref()
                .is_some_and(|before| before.says_as(&waiting));
            if !known || step.retry_at.is_some() {
                events.push(ReleaseEvent::Waiting {
                    step: step.name.clone(),
                    waiting,
                });
            }
            return events;
        }
        Observation::Succeeded { result, facts } => (StepStatus::Succeeded, None, result, facts),
        Observation::Skipped(reason) => (StepStatus::Skipped, Some(reason), String::new(), Facts::None),
        Observation::Failed(reason) => (StepStatus::Failed, Some(reason), String::new(), Facts::None),
        Observation::Errored(reason) => (StepStatus::Errored, Some(reason), String::new(), Facts::None),
        Observation::Cancelled(reason) => (StepStatus::Cancelled, Some(reason), String::new(), Facts::None),
    };
    let ended = end(state, step, status, reason, result, facts);
    events.extend(past_empty_gate(state, ended, now));
    events
}

fn stumbled(step: &Step, reason: Reason, now: Timestamp) -> Vec<ReleaseEvent> {
    let doubled = RETRY_FIRST.saturating_mul(1 << step.tries.saturating_sub(1).min(10));
    let retry_at = now + doubled.min(RETRY_MOST);
    vec![ReleaseEvent::Stumbled {
        step: step.name.clone(),
        reason,
        retry_at,
    }]
}

fn lane_granted(state: &ReleaseState, step: &Step, epoch: u64, now: Timestamp) -> Vec<ReleaseEvent> {
    let granted = end(
        state,
        step,
        StepStatus::Succeeded,
        None,
        format!("epoch {epoch}"),
        Facts::Lane { epoch },
    );
    past_empty_gate(state, granted, now)
}

/// Gates that need no approval are passed as soon as they are reached.
fn past_empty_gate(state: &ReleaseState, ended: ReleaseEvent, now: Timestamp) -> Vec<ReleaseEvent> {
    let mut after = state.clone();
    let mut events = Vec::new();
    let mut next = Some(ended);
    while let Some(event) = next {
        evolve::evolve(&mut after, &event, now);
        events.push(event);
        let gate = after.active_step().filter(|step| step.kind == StepKind::Gate);
        let empty = gate.filter(|gate| {
            let planned = after.environment_of(gate);
            planned.is_some_and(|(_, planned)| planned.requires_no_approval())
        });
        next = empty.map(|gate| {
            let result = "policy none requires no approval".to_owned();
            end(&after, gate, StepStatus::Succeeded, None, result, Facts::None)
        });
    }
    events
}

fn stop(state: &ReleaseState, step: &Step, stop: Stop, now: Timestamp) -> Vec<ReleaseEvent> {
    if state.stop.is_some() {
        return Vec::new();
    }
    let requested = ReleaseEvent::StopRequested(stop);
    let mut after = state.clone();
    evolve::evolve(&mut after, &requested, now);
    let mut events = vec![requested];
    if step.kind == StepKind::Lane
        && let Some((_, reason)) = after.stop_ending()
    {
        events.push(end(
            &after,
            step,
            StepStatus::Cancelled,
            Some(reason),
            String::new(),
            Facts::None,
        ));
    }
    events
}

fn woken(step: &Step, now: Timestamp) -> Vec<ReleaseEvent> {
    let name = step.name.clone();
    let retries = step.retry_at.is_some_and(|retry_at| retry_at <= now);
    if step.past_deadline && step.deadline + GRACE <= now {
        return if step.overdue {
            Vec::new()
        } else {
            vec![ReleaseEvent::Overdue { step: name }]
        };
    }
    if !step.past_deadline && step.deadline <= now {
        let mut events = vec![ReleaseEvent::StopRequested(Stop::Deadline { step: name.clone() })];
        if step.kind == StepKind::Lane {
            events.push(ReleaseEvent::Overdue { step: name });
        } else if retries {
            // Both are due at once, and the earlier must not stay due.
            events.push(ReleaseEvent::Retried { step: name });
        }
        return events;
    }
    if retries {
        vec![ReleaseEvent::Retried { step: name }]
    } else {
        Vec::new()
    }
}

fn end(
    state: &ReleaseState,
    step: &Step,
    status: StepStatus,
    reason: Option<Reason>,
    result: String,
    facts: Facts,
) -> ReleaseEvent {
    let ended = Ended {
        kind: step.kind,
        environment: step.environment,
        status,
        reason: reason.as_ref(),
        facts: &facts,
        ordered: step.reference.is_some(),
    };
    let then = next::after(state, ended);
    let (step, attempt) = (step.name.clone(), step.attempt);
    ReleaseEvent::Advanced(Box::new(Advance {
        step,
        attempt,
        status,
        reason,
        result,
        facts,
        then,
    }))
}
