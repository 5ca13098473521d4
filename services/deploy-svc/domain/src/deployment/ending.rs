//! How steps and deployments end.

use slipway_verdict::{WorkloadKind, evidence::PodEvidence};

use super::{
    Action, DeploymentEvent as Event, DeploymentRequest, DeploymentState, Reason, tag_leads_elsewhere,
};

/// The event that ends a step, and also the end of the deployment if that step was the last.
pub(super) fn and_on(state: &DeploymentState, event: Event) -> Vec<Event> {
    let more = state
        .request
        .as_ref()
        .and_then(|request| request.next(Some(state.step)))
        .is_some();
    if more {
        vec![event]
    } else {
        vec![event, Event::Succeeded {}]
    }
}

/// The end of a deployment whose evidence was collected.
pub(super) fn collected(state: &DeploymentState, evidence: Vec<PodEvidence>) -> Event {
    let reason = state
        .failing
        .clone()
        .unwrap_or_else(|| Reason::new("INTERNAL", "failed for no reason; a defect"));
    failed(state, reason, evidence)
}

/// It did not succeed.
pub(super) fn failed(state: &DeploymentState, reason: Reason, evidence: Vec<PodEvidence>) -> Event {
    match alarm(state, &reason) {
        Some(reason) => Event::RollbackFailed { reason, evidence },
        None => Event::Failed { reason, evidence },
    }
}

/// Whether it succeeded is not known.
pub(super) fn errored(state: &DeploymentState, reason: Reason) -> Event {
    match alarm(state, &reason) {
        Some(reason) => Event::RollbackFailed {
            reason,
            evidence: Vec::new(),
        },
        None => Event::Errored { reason },
    }
}

/// For one that rolls another back: the reason with what to do now.
fn alarm(state: &DeploymentState, reason: &Reason) -> Option<Reason> {
    let request = state.request.as_ref()?;
    let rolled_back = request.rolls_back.as_ref()?;
    // It is tried again by digest.
    let restores = request.restores.as_ref();
    if restores.is_some_and(|restored| tag_leads_elsewhere(restored, reason)) {
        return None;
    }
    let target = &request.target;
    let by_hand = by_hand(request, state.applied.is_some());
    let git = match &request.source {
        Some(source) => format!(
            "; make the same change in {} of {}",
            source.path, source.repository
        ),
        None => String::new(),
    };
    Some(Reason::new(
        reason.code.clone(),
        format!(
            "{}. The rollback of {rolled_back} did not succeed, so {target} may run the version that failed, or \
             neither: look at it now; {by_hand}{git}",
            reason.message.trim_end_matches('.')
        ),
    ))
}

/// What a person can do about a rollback that did not succeed; `written`: the cluster accepted what was to be restored.
/// An undo is only advised with its revision: without one it goes back to the template before the current one, and that
/// may be the one that failed.
fn by_hand(request: &DeploymentRequest, written: bool) -> String {
    let target = &request.target;
    let (namespace, name) = (&target.namespace, &target.name);
    let undo = match (&request.action, target.kind) {
        // What was restored has a new number since, so the old one would not be found.
        (Action::Undo { .. }, _) if written => None,
        (Action::Undo { to }, WorkloadKind::Rollout) => Some(format!(
            "kubectl argo rollouts undo {name} -n {namespace} --to-revision={}",
            to.revision
        )),
        (Action::Undo { to }, kind) => Some(format!(
            "kubectl -n {namespace} rollout undo {}/{name} --to-revision={}",
            kind.as_str().to_ascii_lowercase(),
            to.revision
        )),
        _ => None,
    };
    if let Some(undo) = undo {
        return format!("`{undo}` goes back by hand, or release a commit that works");
    }
    let shows = match target.kind {
        WorkloadKind::Application => format!("`argocd app get {name}`"),
        WorkloadKind::Canary => format!("`kubectl -n {namespace} describe canary {name}`"),
        _ => format!(
            "`slipway deployment live {} {}`",
            request.service, request.environment
        ),
    };
    let so_far = request.rolls_back.as_ref().map_or_else(String::new, |lost| {
        format!(", `slipway deployment get {lost}` what was to be put back")
    });
    format!("{shows} shows what runs{so_far}; release a commit that works")
}
