//! Which canaries are watched when a release ends.

use slipway_model::Id;
use slipway_verdict::FailureReason;

use super::Watched;
use crate::{
    catalog::Strategy,
    plan::PlannedEnvironment,
    release::{EnvironmentProgress, ReleaseState, ReleaseStatus, Step, StepKind, StepStatus},
};

/// What is to be watched after the end of a release: its canary in each environment in which git names its image now.
pub fn at_end(release: &Id, state: &ReleaseState) -> Vec<Watched> {
    let Some(plan) = state.plan.as_ref().filter(|_| state.status.is_final()) else {
        return Vec::new();
    };
    let environments = plan.environments.iter().zip(&state.environments).enumerate();
    environments
        .filter_map(|(index, (planned, progress))| {
            let period = planned.watches_canary_for()?;
            // A person looks at it already, and git may be in any state.
            let unclear = state.status == ReleaseStatus::RollbackFailed && state.turn() == Some(index);
            if unclear || !git_names_it(planned, progress) {
                return None;
            }
            let deploy = last_deploy(state, index).filter(|step| !canary_had_failed(step))?;
            Some(Watched {
                release: release.clone(),
                service: plan.service.clone(),
                environment: planned.name.clone(),
                deployment: deploy.reference.clone()?,
                period,
            })
        })
        .collect()
}

/// Whether the release wrote its image, and has not taken it back.
fn git_names_it(planned: &PlannedEnvironment, progress: &EnvironmentProgress) -> bool {
    let files = planned
        .gitops
        .as_ref()
        .is_some_and(|gitops| gitops.strategy != Strategy::Marker);
    let wrote = progress.change.as_ref().is_some_and(|change| !change.no_op);
    files && wrote && progress.revert.is_none() && progress.deployed
}

fn last_deploy(state: &ReleaseState, environment: usize) -> Option<&Step> {
    let mut steps = state.steps.iter().rev();
    steps.find(|step| step.kind == StepKind::Deploy && step.environment == Some(environment))
}

/// It failed during the release, which left it there for people to look at, as the catalog says.
fn canary_had_failed(step: &Step) -> bool {
    let codes = FailureReason::OF_A_CANARY.map(FailureReason::code);
    let reason = step.reason.as_ref();
    step.status == StepStatus::Failed && reason.is_some_and(|reason| codes.contains(&reason.code.as_str()))
}
