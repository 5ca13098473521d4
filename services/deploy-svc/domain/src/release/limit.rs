//! How long each step of a release may take.

use std::time::Duration;

use slipway_model::Timestamp;

use super::StepKind;
use crate::{
    catalog::{Job, Jobs, time_of},
    plan::Plan,
};

/// A release that waits longer than this for its deploy target gives up.
const LANE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// What a step may take in addition to the time that its step backend was given, for queueing and transport.
const MARGIN: Duration = Duration::from_secs(120);
/// Builds may be queued behind others before their own time begins.
const BUILD_QUEUE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long a step of this plan may take from the moment it is queued.
pub(super) fn limit(plan: &Plan, kind: StepKind, environment: Option<usize>) -> Duration {
    let planned = environment.and_then(|index| plan.environments.get(index));
    let timeout = planned.map(|planned| planned.timeout).unwrap_or_default();
    let jobs =
        |of: fn(&Jobs) -> &Vec<Job>| planned.map_or(Duration::ZERO, |planned| time_of(of(&planned.jobs)));
    let bake = planned.and_then(|planned| planned.bake.as_ref());
    match kind {
        StepKind::Build => plan.build.timeout + BUILD_QUEUE_LIMIT + MARGIN,
        StepKind::Lane => LANE_LIMIT,
        StepKind::Gate => timeout.gate + MARGIN,
        StepKind::Change | StepKind::Revert | StepKind::Pin => timeout.change + MARGIN,
        StepKind::Prepare => jobs(|jobs| &jobs.before) + MARGIN,
        StepKind::Deploy => {
            let bake = bake.map_or(Duration::ZERO, |bake| bake.period);
            timeout.deploy + jobs(|jobs| &jobs.after) + bake + MARGIN
        }
        StepKind::Redeploy => timeout.deploy + MARGIN,
    }
}

/// The end of a step whose deployment may take until this time: the bake and some room come after it.
pub(super) fn prolonged(plan: &Plan, environment: Option<usize>, until: Timestamp) -> Timestamp {
    let planned = environment.and_then(|index| plan.environments.get(index));
    let bake = planned.and_then(|planned| planned.bake.as_ref());
    until + bake.map_or(Duration::ZERO, |bake| bake.period) + MARGIN
}
