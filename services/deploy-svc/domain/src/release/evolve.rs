//! What an event does to a release's state. Total: events of older versions apply as they did.

use slipway_model::Timestamp;

use super::{
    Advance, ChangeMade, EnvironmentProgress, Facts, ReleaseEvent, ReleaseState, Request, StepKind,
    StepStatus, Stop, Then, state::Failure,
};

pub(super) fn evolve(state: &mut ReleaseState, event: &ReleaseEvent, at: Timestamp) {
    match event {
        ReleaseEvent::Requested(request) => requested(state, request, at),
        ReleaseEvent::RequestedV1(old) => requested(state, &(**old).clone().into(), at),
        ReleaseEvent::Started { step, reference, .. } => {
            if let Some(step) = state.active_mut(step) {
                step.status = StepStatus::Running;
                step.started_at = step.started_at.or(Some(at));
                step.reference = Some(reference.clone());
                step.answered();
            }
        }
        ReleaseEvent::Waiting { step, waiting } => {
            if let Some(until) = waiting.until {
                state.prolong(step, until);
            }
            if let Some(step) = state.active_mut(step) {
                if step.waiting.as_ref().map(|before| before.kind) != Some(waiting.kind) {
                    step.human = step.human_time(at);
                    step.waiting_since = Some(at);
                }
                step.waiting = Some(waiting.clone());
                step.retry_at = None;
            }
        }
        ReleaseEvent::Stumbled {
            step,
            reason,
            retry_at,
        } => {
            if let Some(step) = state.active_mut(step) {
                step.tries += 1;
                step.retry_at = Some(*retry_at);
                step.fault = Some(reason.clone());
                step.faults += 1;
            }
        }
        ReleaseEvent::Retried { step } => {
            if let Some(step) = state.active_mut(step) {
                step.retry_at = None;
            }
        }
        ReleaseEvent::StopRequested(stop) => {
            if let Stop::Deadline { step } = stop
                && let Some(step) = state.active_mut(step)
            {
                step.past_deadline = true;
            }
            // The first cause stays, but a deadline must still stop what a cancel leaves alone.
            if state.stop.is_none() || matches!(stop, Stop::Deadline { .. }) {
                state.stop = Some(stop.clone());
            }
        }
        ReleaseEvent::Stopping { step } => {
            if let Some(step) = state.active_mut(step) {
                step.stop_sent = true;
                step.answered();
            }
        }
        ReleaseEvent::Overdue { step } => {
            if let Some(step) = state.active_mut(step) {
                step.overdue = true;
            }
        }
        ReleaseEvent::Recorded { step, before } => {
            let index = state.active_mut(step).and_then(|step| step.environment);
            if let Some(progress) = index.and_then(|index| state.environments.get_mut(index)) {
                progress.before = Some(before.clone());
            }
        }
        ReleaseEvent::Advanced(advance) => advanced(state, advance, at),
        ReleaseEvent::AdvancedV1(old) => {
            if let Some(service) = state.plan.as_ref().map(|plan| plan.service.clone()) {
                advanced(state, &(**old).clone().of(&service), at);
            }
        }
    }
}

/// Why the release rolls back: what the step's backend reported, or that its time was up.
fn failure_of(state: &ReleaseState, advance: &Advance) -> Option<Failure> {
    let (status, reason) = match &state.stop {
        Some(Stop::Deadline { .. }) => (StepStatus::Errored, state.stop_ending()?.1),
        _ => (advance.status, advance.reason.clone()?),
    };
    Some(Failure { status, reason })
}

/// The environments that were written with the current one have the same change, with what was there before.
fn wrote_others(state: &mut ReleaseState, change: &ChangeMade) {
    let (Some(plan), Some(turn)) = (&state.plan, state.turn()) else {
        return;
    };
    let Some(current) = plan.environments.get(turn) else {
        return;
    };
    let others: Vec<usize> = plan.written_by(&current.name).map(|(index, _)| index).collect();
    for (place, index) in others.into_iter().enumerate() {
        if let Some(progress) = state.environments.get_mut(index) {
            progress.change = Some(ChangeMade {
                previous: change.previous_of_others.get(place).cloned().flatten(),
                previous_of_others: Vec::new(),
                ..change.clone()
            });
        }
    }
}

fn requested(state: &mut ReleaseState, request: &Request, at: Timestamp) {
    state.environments = vec![EnvironmentProgress::default(); request.plan.environments.len()];
    state.plan = Some(request.plan.clone());
    state.requested_by = Some(request.requested_by.clone());
    state.labels.clone_from(&request.labels);
    state.caller = request.caller;
    state.requested_at = Some(at);
    state.images.clone_from(&request.images);
    state.rebuild = request.rebuild;
    match request.images {
        Some(_) => state.push_step(StepKind::Lane, Some(0), at),
        None => state.push_step(StepKind::Build, None, at),
    }
}

fn advanced(state: &mut ReleaseState, advance: &Advance, at: Timestamp) {
    let mut environment = None;
    if let Some(step) = state.active_mut(&advance.step) {
        step.human = step.human_time(at);
        step.status = advance.status;
        step.started_at = step.started_at.or(Some(at));
        step.ended_at = Some(at);
        step.reason.clone_from(&advance.reason);
        step.result.clone_from(&advance.result);
        step.waiting = None;
        step.waiting_since = None;
        step.answered();
        environment = step.environment.map(|index| (index, step.kind));
    }
    let progress = environment.and_then(|(index, kind)| Some((state.environments.get_mut(index)?, kind)));
    match (&advance.facts, progress) {
        (Facts::Built { images, authors }, _) => {
            state.images = Some(images.clone());
            state.authors = Some(authors.clone());
        }
        (Facts::Lane { epoch }, Some((progress, _))) => progress.epoch = Some(*epoch),
        (Facts::Changed(change), Some((progress, StepKind::Revert))) => {
            progress.revert = Some(change.clone());
        }
        (Facts::Changed(change), Some((progress, StepKind::Pin))) => progress.pin = Some(change.clone()),
        (Facts::Changed(change), Some((progress, _))) => {
            progress.change = Some(change.clone());
            wrote_others(state, change);
        }
        _ => {}
    }
    match &advance.then {
        Then::Step { kind, environment } => {
            if *kind == StepKind::Deploy
                && let Some(progress) = environment.and_then(|index| state.environments.get_mut(index))
            {
                progress.deployed = true;
            }
            if matches!(kind, StepKind::Revert | StepKind::Redeploy) && state.failure.is_none() {
                state.failure = failure_of(state, advance);
            }
            state.push_step(*kind, *environment, at);
        }
        Then::End { status, reason } => {
            state.status = *status;
            state.reason.clone_from(reason);
            state.ended_at = Some(at);
        }
    }
}
