//! The order of steps: what follows when one has ended.

use serde::{Deserialize, Serialize};

use super::{Facts, Reason, ReleaseState, ReleaseStatus, StepKind, StepStatus, Stop, ended::Ended, explain};
use crate::{
    catalog::{Gate, Strategy},
    deployment::tag_leads_elsewhere,
    plan::{Plan, PlannedEnvironment},
};

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

/// The steps of one environment, in their order. The place of reverts, redeployments and pins is in
/// [`after`].
pub(super) fn order(planned: &PlannedEnvironment) -> impl Iterator<Item = StepKind> {
    use StepKind::{Change, Deploy, Gate as People, Lane, Prepare};
    // An image that was written with an earlier environment's is approved before that commit, or before its sync.
    let written = planned.written_with.is_some();
    let (prepares, commits) = (
        !planned.jobs.before.is_empty(),
        planned.gitops.is_some() && !written,
    );
    let asks = !written || planned.gate == Gate::BeforeSync;
    let steps = match planned.gate {
        Gate::BeforeCommit => [Lane, People, Prepare, Change, Deploy],
        Gate::BeforeSync => [Lane, Change, People, Prepare, Deploy],
    };
    let needed = move |kind: &StepKind| match kind {
        Prepare => prepares,
        Change => commits,
        People => asks,
        _ => true,
    };
    steps.into_iter().filter(needed)
}

/// The steps of one environment's turn. Before the first of them that changes something, people approve the other
/// environments that its commit writes as well, unless they are asked before the sync.
fn turn(plan: &Plan, index: usize) -> Vec<(StepKind, usize)> {
    let Some(planned) = plan.environments.get(index) else {
        return Vec::new();
    };
    let mut up_front: Vec<_> = plan
        .written_by(&planned.name)
        .filter(|(_, other)| other.gate == Gate::BeforeCommit)
        .map(|(other, _)| (StepKind::Gate, other))
        .collect();
    let mut steps = Vec::new();
    for kind in order(planned) {
        if matches!(kind, StepKind::Prepare | StepKind::Change) {
            steps.append(&mut up_front);
        }
        steps.push((kind, index));
    }
    steps
}

/// What follows `ended`, given everything that happened before it.
pub(super) fn after(state: &ReleaseState, ended: Ended<'_>) -> Then {
    let good = matches!(ended.status, StepStatus::Succeeded | StepStatus::Skipped);
    match ended.kind {
        // The second marker only records that nothing was restarted; nothing depends on it.
        StepKind::Revert if is_marker(state, ended) => is_back(state, ended, false),
        StepKind::Revert if good && redeploys(state, ended) => same(ended, StepKind::Redeploy),
        StepKind::Revert if good => is_back(state, ended, false),
        StepKind::Redeploy if good => is_back(state, ended, ended.status == StepStatus::Succeeded),
        StepKind::Redeploy if pins(state, ended) => same(ended, StepKind::Pin),
        StepKind::Pin if good => same(ended, StepKind::Redeploy),
        StepKind::Revert | StepKind::Redeploy | StepKind::Pin => Then::End {
            status: ReleaseStatus::RollbackFailed,
            reason: Some(explain::rollback_failed(state, ended)),
        },
        _ if good && state.stop.is_none() => onward(state, ended),
        _ => back(state, ended),
    }
}

/// A further step of the same environment.
fn same(ended: Ended<'_>, kind: StepKind) -> Then {
    let environment = ended.environment;
    Then::Step { kind, environment }
}

/// The next step of the environment, the next environment, or the successful end.
fn onward(state: &ReleaseState, ended: Ended<'_>) -> Then {
    let (Some(plan), Some(environment), Some(index)) = (&state.plan, ended.environment, state.turn()) else {
        let (kind, environment) = (StepKind::Lane, Some(0));
        return Then::Step { kind, environment };
    };
    let steps = turn(plan, index).into_iter();
    let mut rest = steps
        .skip_while(|step| *step != (ended.kind, environment))
        .skip(1);
    match rest.next() {
        Some((kind, environment)) => Then::Step {
            kind,
            environment: Some(environment),
        },
        None if index + 1 < state.environments.len() => Then::Step {
            kind: StepKind::Lane,
            environment: Some(index + 1),
        },
        None => Then::End {
            status: ReleaseStatus::Succeeded,
            reason: None,
        },
    }
}

/// The release stops here. What it changed in this environment is reverted, and then it ends.
fn back(state: &ReleaseState, ended: Ended<'_>) -> Then {
    let progress = ended.environment.and_then(|index| state.environments.get(index));
    let change = match ended.facts {
        Facts::Changed(change) => Some(change),
        _ => progress.and_then(|progress| progress.change.as_ref()),
    };
    let Some(planned) = state.planned(ended.environment) else {
        return over(state, ended, None);
    };
    let deploying = ended.kind == StepKind::Deploy;
    // What was written with it and has not had its turn goes back all the same.
    if deploying && state.leaves(planned) && state.to_take_back().is_empty() {
        return over(state, ended, Some(explain::stays(state, planned)));
    }
    match &planned.gitops {
        // Git only records when the tag was deployed, and moving the tag back is not up to this service.
        Some(gitops) if gitops.strategy == Strategy::Marker && deploying && reached_cluster(ended) => {
            over(state, ended, Some(explain::restarted(planned)))
        }
        Some(_) if change.is_some_and(|change| !change.no_op) => same(ended, StepKind::Revert),
        // The deployment knows whether the cluster was changed at all.
        None if deploying && reached_cluster(ended) => same(ended, StepKind::Redeploy),
        _ => over(state, ended, None),
    }
}

/// Whether a deployment that has ended may have changed something.
fn reached_cluster(ended: Ended<'_>) -> bool {
    ended.ordered || ended.status == StepStatus::Errored
}

/// Whether the environment's change is a commit that only records what is done.
fn is_marker(state: &ReleaseState, ended: Ended<'_>) -> bool {
    let planned = state.planned(ended.environment);
    let gitops = planned.and_then(|planned| planned.gitops.as_ref());
    gitops.is_some_and(|gitops| gitops.strategy == Strategy::Marker)
}

/// Whether what ran before should be deployed again after the revert in git, and is known.
fn redeploys(state: &ReleaseState, ended: Ended<'_>) -> bool {
    let progress = ended.environment.and_then(|index| state.environments.get(index));
    let stays = state
        .planned(ended.environment)
        .is_some_and(|planned| state.leaves(planned));
    progress.is_some_and(|progress| {
        let change = progress.change.as_ref();
        let by_digest = change.is_some_and(|change| change.previous.is_some());
        progress.deployed && !stays && (by_digest || state.restored(ended.environment).is_some())
    })
}

/// Whether a redeploy failed because the tag in git leads to another image than the one that ran before, or to none.
fn pins(state: &ReleaseState, ended: Ended<'_>) -> bool {
    let progress = ended.environment.and_then(|index| state.environments.get(index));
    progress.is_some_and(|progress| progress.pin.is_none())
        && state
            .restored(ended.environment)
            .zip(ended.reason)
            .is_some_and(|(restored, reason)| tag_leads_elsewhere(&restored, reason))
}

/// The end of a release that changed nothing here, or leaves it as it is.
fn over(state: &ReleaseState, ended: Ended<'_>, add: Option<String>) -> Then {
    let (status, reason) = match state.stop_ending() {
        Some((status, reason)) => (status, Some(reason)),
        None => (ending(ended.status), ended.reason.cloned()),
    };
    let reason = reason.map(|reason| explain::with(reason, add));
    Then::End { status, reason }
}

/// The change is reverted in git; `redeployed`: and the environment serves what it served before.
fn is_back(state: &ReleaseState, ended: Ended<'_>, redeployed: bool) -> Then {
    // A step whose time was up has failed; that is not a request to stop.
    let wish = state
        .stop_ending()
        .filter(|_| !matches!(state.stop, Some(Stop::Deadline { .. })));
    let (status, reason) = match (wish, state.failure.as_ref()) {
        (Some((status, reason)), _) => (status, Some(reason)),
        (None, Some(failure)) if redeployed => (ReleaseStatus::RolledBack, Some(failure.reason.clone())),
        (None, Some(failure)) => (ending(failure.status), Some(failure.reason.clone())),
        (None, None) => (ReleaseStatus::RolledBack, None),
    };
    let left = state
        .planned(ended.environment)
        .filter(|planned| state.leaves(planned));
    let add = match (redeployed, left) {
        (true, _) => explain::redeployed_by_tag(state, ended),
        (false, Some(planned)) => Some(explain::stays(state, planned)),
        (false, None) if is_marker(state, ended) => explain::not_recorded(ended),
        (false, None) => explain::not_redeployed(state, ended),
    };
    let reason = reason.map(|reason| explain::with(reason, add));
    Then::End { status, reason }
}

fn ending(status: StepStatus) -> ReleaseStatus {
    match status {
        StepStatus::Failed => ReleaseStatus::Failed,
        StepStatus::Cancelled => ReleaseStatus::Cancelled,
        _ => ReleaseStatus::Errored,
    }
}
