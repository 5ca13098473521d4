//! What an event does to a build's state.

use slipway_model::{Reason, Timestamp};

use super::{Event, Phase, State, Status};

pub(super) fn evolve(state: &mut State, event: &Event, at: Timestamp) {
    match event {
        Event::Requested { request } => {
            state.request = Some(request.clone());
            state.requested_at = Some(at);
            state.attempt = 1;
        }
        Event::Started { .. } => {
            state.status = Status::Running;
            state.started_at.get_or_insert(at);
        }
        Event::Fetched { authors } => state.authors.clone_from(authors),
        Event::PhaseReached { phase, .. } => state.phase = *phase,
        Event::Pushed { digest, made_by } => {
            state.status = Status::Running;
            state.started_at.get_or_insert(at);
            state.digest = Some(digest.clone());
            state.made_by.clone_from(made_by);
            state.phase = Phase::Tagging;
            state.fault = None;
        }
        Event::Succeeded {
            digest,
            tags,
            kept_tags,
        } => {
            state.started_at.get_or_insert(at);
            state.digest = Some(digest.clone());
            state.tags.clone_from(tags);
            state.kept_tags.clone_from(kept_tags);
            end(state, Status::Succeeded, None, at);
        }
        Event::Faulted { reason, retry_at, .. } => {
            // A fault can come before the start is recorded: the time runs from the first attempt on.
            state.status = Status::Running;
            state.started_at.get_or_insert(at);
            state.retry_at = Some(*retry_at);
            state.fault = Some(reason.clone());
        }
        Event::Retried { attempt } => {
            state.attempt = *attempt;
            state.retry_at = None;
            state.phase = if state.digest.is_some() {
                Phase::Tagging
            } else {
                Phase::Fetching
            };
        }
        Event::Failed { reason, log_tail } => {
            state.log_tail.clone_from(log_tail);
            end(state, Status::Failed, Some(reason), at);
        }
        Event::Errored { reason, log_tail } => {
            state.log_tail.clone_from(log_tail);
            end(state, Status::Errored, Some(reason), at);
        }
        Event::Cancelled { reason } => end(state, Status::Cancelled, Some(reason), at),
    }
}

fn end(state: &mut State, status: Status, reason: Option<&Reason>, at: Timestamp) {
    state.status = status;
    state.reason = reason.cloned();
    state.ended_at = Some(at);
    state.retry_at = None;
    state.fault = None;
}
