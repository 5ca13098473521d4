//! What an event does to a deployment's state. Total: events of older versions apply as they did.

use slipway_model::Timestamp;

use super::{
    Action, DeploymentEvent as Event, DeploymentRequest, DeploymentState, DeploymentStatus as Status,
    DeploymentStep as Step, Reason, bake,
};

/// The code of faults that were recorded without.
const UNAVAILABLE: &str = "UNAVAILABLE";

pub(super) fn evolve(state: &mut DeploymentState, event: &Event, at: Timestamp) {
    match event {
        Event::Requested { request, deadline } => requested(state, (**request).clone(), *deadline, at),
        Event::RequestedV1 { request, deadline } => {
            requested(state, (**request).clone().into(), *deadline, at);
        }
        Event::Reverting { change } => {
            state.reverting = Some(change.clone());
            state.fault = None;
            state.stumbles = 0;
            state.progress = format!("{change} puts the change back");
        }
        Event::Reverted { commit } => {
            if let Some(source) = state.request.as_mut().and_then(|request| request.source.as_mut()) {
                source.commit = commit.clone();
            }
            go_on(state, Some(Step::Revert), at);
        }
        Event::JobEnded { result } => job_ended(state, result, at),
        Event::Applied { applied } => {
            state.status = Status::Verifying;
            state.applied = Some(applied.clone());
            state.applied_at = Some(at);
            go_on(state, Some(Step::Apply), at);
        }
        Event::RolledOut {} => go_on(state, Some(Step::Rollout), at),
        Event::Checked { results } => {
            state.checks.clone_from(results);
            if results.iter().all(|result| result.passed) {
                go_on(state, Some(Step::Checks), at);
            }
        }
        Event::Measured {
            measurements,
            unwell,
            next_at,
        } => bake::evolve(state, measurements, unwell.as_deref(), *next_at),
        Event::DeadlineSet { deadline, basis } => {
            state.deadline = Some(*deadline);
            state.deadline_basis.clone_from(basis);
        }
        Event::Progressed {
            message,
            fault,
            code,
            human,
        } => {
            state.human = *human;
            state.progress_count += 1;
            state.fault = fault.then(|| faulty(code, message));
            // The last known progress stays visible.
            if !fault {
                state.progress.clone_from(message);
            }
        }
        Event::Warned { warnings } => state.warnings.clone_from(warnings),
        Event::Stumbled {
            code,
            message,
            retry_at,
            ..
        } => {
            state.fault = Some(faulty(code, message));
            state.stumbles += 1;
            state.retry_at = Some(*retry_at);
        }
        Event::Resumed { attempt, .. } => {
            state.attempt = *attempt;
            state.retry_at = None;
        }
        Event::Asked { ask } => {
            state.ask = Some(ask.clone());
            state.asks += 1;
            state.declined = None;
        }
        Event::Promoted {} => {
            state.ask = None;
            state.human = false;
            state.progress = "promoted; the rollout goes on".to_owned();
        }
        Event::Declined { message } => {
            state.ask = None;
            state.declined = Some(message.clone());
            state.progress.clone_from(message);
        }
        Event::Failing { reason } => {
            state.failing = Some(reason.clone());
            state.progress = "collecting evidence".to_owned();
            state.begin(Step::Evidence, at);
        }
        Event::Succeeded {} => state.end(Status::Succeeded, None, at),
        Event::Failed { reason, evidence } => {
            state.evidence.clone_from(evidence);
            state.end(Status::Failed, Some(reason), at);
        }
        Event::Errored { reason } => state.end(Status::Errored, Some(reason), at),
        Event::RollbackFailed { reason, evidence } => {
            state.evidence.clone_from(evidence);
            state.end(Status::RollbackFailed, Some(reason), at);
        }
        Event::Cancelled { reason } => state.end(Status::Cancelled, Some(reason), at),
        Event::Stopped {} => state.stray = None,
        Event::LaneLeft {} => state.lane_left = true,
    }
}

fn requested(state: &mut DeploymentState, request: DeploymentRequest, deadline: Timestamp, at: Timestamp) {
    state.request = Some(request);
    state.status = Status::Applying;
    state.requested_at = Some(at);
    state.deadline = Some(deadline);
    go_on(state, None, at);
}

fn faulty(code: &str, message: &str) -> Reason {
    let code = if code.is_empty() { UNAVAILABLE } else { code };
    Reason::new(code, message)
}

/// Begins the step after this one, or the first. After the last one comes the end, which is a separate event.
fn go_on(state: &mut DeploymentState, done: Option<Step>, at: Timestamp) {
    let Some(next) = state.request.as_ref().and_then(|request| request.next(done)) else {
        return;
    };
    state.begin(next, at);
    if next == Step::Bake {
        bake::begin(state, at);
    }
    if let Some(request) = &state.request {
        state.progress = words(request, next);
    }
}

fn job_ended(state: &mut DeploymentState, result: &crate::result::JobResult, at: Timestamp) {
    let step = state.step;
    state.jobs.push(result.clone());
    if !result.succeeded {
        return;
    }
    match state.job().map(|job| job.name.clone()) {
        Some(next) => {
            state.attempt += 1;
            state.stumbles = 0;
            state.fault = None;
            state.since = Some(at);
            state.progress = format!("job {next} is under way");
        }
        None => go_on(state, Some(step), at),
    }
}

fn words(request: &DeploymentRequest, step: Step) -> String {
    match (step, &request.source) {
        (Step::Revert, _) => "the change is taken out of git".to_owned(),
        (Step::Before | Step::After, _) => match request.jobs_of(step).first() {
            Some(job) => format!("job {} is under way", job.name),
            None => String::new(),
        },
        (Step::Apply, Some(source)) => format!("applying {}", source.commit.short()),
        (Step::Apply, None) => format!("changing {}", request.target),
        (Step::Rollout, _) => match &request.action {
            Action::Apply | Action::Nothing => "the cluster took the manifests".to_owned(),
            Action::SetImage => format!(
                "the cluster took the image {}",
                request.images.only().digest.short()
            ),
            Action::Restart => "the cluster took the restart".to_owned(),
            Action::Undo { to } => format!("the cluster took revision {} again", to.revision),
            Action::Sync { .. } => "Argo CD took the commit".to_owned(),
        },
        (Step::Checks, _) => "rolled out; checks are under way".to_owned(),
        (Step::Bake, _) => "its metrics are watched for a while".to_owned(),
        (Step::Evidence, _) => "collecting evidence".to_owned(),
    }
}
