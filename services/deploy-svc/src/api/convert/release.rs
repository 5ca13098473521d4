//! Releases and plans as the API shows them.

use deploy_domain::{
    canary_watch::{CanaryWatch, CanaryWatchStatus},
    catalog::{Gate, Job, Strategy, Tier},
    plan::{Plan, PlannedEnvironment},
    release::{Release, ReleaseStatus, Step, StepKind, StepStatus, WaitingKind, release_trace, step_trace},
};
use slipway_ledger::Snapshot;
use slipway_model::{Id, ServiceImage, Timestamp};
use slipway_proto::release::v1 as proto;
use slipway_server::convert;

use super::target_proto;

pub(in crate::api) fn plan_proto(plan: &Plan) -> proto::Plan {
    proto::Plan {
        service: plan.service.to_string(),
        commit: plan.commit.to_string(),
        branch: plan.branch.as_ref().map(ToString::to_string).unwrap_or_default(),
        repository_url: plan.repository_url.clone(),
        images: plan.images.as_slice().iter().map(planned_image).collect(),
        environments: plan.environments.iter().map(environment_proto).collect(),
        catalog_hash: plan.catalog_hash.clone(),
        hash: plan.hash.clone(),
        git_tag: plan.git_tag.as_ref().map(ToString::to_string).unwrap_or_default(),
        version: plan.version.clone(),
        tag_latest: plan.is_latest(),
    }
}

/// An image that is not built yet: its name and repository.
fn planned_image(image: &ServiceImage) -> slipway_proto::common::v1::Image {
    slipway_proto::common::v1::Image {
        name: image.name.to_string(),
        repository: image.repository.to_string(),
        ..Default::default()
    }
}

fn environment_proto(planned: &PlannedEnvironment) -> proto::PlannedEnvironment {
    let gitops = planned.gitops.as_ref();
    let names = |jobs: &[Job]| jobs.iter().map(|job| job.name.to_string()).collect();
    proto::PlannedEnvironment {
        name: planned.name.to_string(),
        policy: planned.policy.to_string(),
        target: Some(target_proto(&planned.target)),
        gitops_repository: gitops
            .map(|gitops| gitops.repository.to_string())
            .unwrap_or_default(),
        gitops_branch: gitops
            .and_then(|gitops| gitops.branch.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        gitops_path: gitops.map(|gitops| gitops.path.clone()).unwrap_or_default(),
        gate: gate_proto(planned.gate).into(),
        jobs_before: names(&planned.jobs.before),
        jobs_after: names(&planned.jobs.after),
        bake: planned.bake.as_ref().map(|bake| convert::duration(bake.period)),
        gitops_strategy: strategy_proto(gitops.map(|gitops| &gitops.strategy)).into(),
        tier: tier_proto(planned.tier).into(),
        requires: planned.requires.iter().map(ToString::to_string).collect(),
        shares_with: planned.shared.services().map(ToString::to_string).collect(),
        written_with: planned
            .written_with
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

const fn gate_proto(gate: Gate) -> proto::planned_environment::Gate {
    use proto::planned_environment::Gate as Proto;
    match gate {
        Gate::BeforeCommit => Proto::BeforeCommit,
        Gate::BeforeSync => Proto::BeforeSync,
    }
}

const fn strategy_proto(strategy: Option<&Strategy>) -> proto::planned_environment::Strategy {
    use proto::planned_environment::Strategy as Proto;
    match strategy {
        None => Proto::Unspecified,
        Some(Strategy::Kustomize) => Proto::Kustomize,
        Some(Strategy::Helm { .. }) => Proto::Helm,
        Some(Strategy::Manifest { .. }) => Proto::Manifest,
        Some(Strategy::Marker) => Proto::Marker,
    }
}

const fn tier_proto(tier: Option<Tier>) -> proto::planned_environment::Tier {
    use proto::planned_environment::Tier as Proto;
    match tier {
        None => Proto::Unspecified,
        Some(Tier::Development) => Proto::Development,
        Some(Tier::Test) => Proto::Test,
        Some(Tier::Staging) => Proto::Staging,
        Some(Tier::Production) => Proto::Production,
    }
}

pub(in crate::api) fn release_proto(snapshot: &Snapshot<Release>) -> proto::Release {
    let state = &snapshot.state;
    let spent = state.time_spent(Timestamp::now());
    let duration = |length| Some(convert::duration(length));
    let mut step_protos: Vec<proto::Step> = state
        .steps
        .iter()
        .map(|step| step_proto(&snapshot.id, step))
        .collect();
    if let Some(step) = state.active_step().and(step_protos.last_mut()) {
        step.retry = snapshot.retrying().as_ref().map(convert::retry);
    }
    let waiting_on = state
        .active_step()
        .and(step_protos.last())
        .and_then(|step| step.waiting_on.clone());
    proto::Release {
        id: snapshot.id.to_string(),
        etag: snapshot.etag(),
        labels: state.labels.clone().into_iter().collect(),
        plan: state.plan.as_ref().map(plan_proto),
        status: status_proto(state.status).into(),
        reason: state.reason.as_ref().map(convert::reason),
        waiting_on,
        steps: step_protos,
        images: state.images.as_ref().map(convert::images).unwrap_or_default(),
        requested_by: state.requested_by.as_ref().map(convert::actor),
        trace_id: release_trace(&snapshot.id).to_string(),
        create_time: Some(convert::timestamp(
            state.requested_at.unwrap_or(snapshot.created_at),
        )),
        end_time: state.ended_at.map(convert::timestamp),
        time_spent: Some(proto::TimeSpent {
            total: duration(spent.total),
            machine: duration(spent.machine),
            human: duration(spent.human),
            lane: duration(spent.lane),
        }),
        evidence: Vec::new(),
        cancelling: state.stop.is_some() && !state.status.is_final(),
        canary_watches: Vec::new(),
    }
}

pub(in crate::api) fn canary_watch_proto(snapshot: &Snapshot<CanaryWatch>) -> proto::CanaryWatch {
    let state = &snapshot.state;
    let text = |id: &Option<Id>| id.as_ref().map(ToString::to_string).unwrap_or_default();
    let watched = state.watched.as_ref();
    proto::CanaryWatch {
        environment: watched
            .map(|watched| watched.environment.to_string())
            .unwrap_or_default(),
        status: watch_status_proto(state.status).into(),
        until_time: state.until.map(convert::timestamp),
        failure: state.failure.as_ref().map(convert::reason),
        deployment_id: text(&state.deployment),
        waits_for: text(&state.lane_holder),
        reason: state.reason.as_ref().map(convert::reason),
        end_time: state.ended_at.map(convert::timestamp),
        retry: snapshot.retrying().as_ref().map(convert::retry),
    }
}

const fn watch_status_proto(status: CanaryWatchStatus) -> proto::canary_watch::Status {
    use proto::canary_watch::Status as Proto;
    match status {
        CanaryWatchStatus::Watching => Proto::Watching,
        CanaryWatchStatus::Failed => Proto::Failed,
        CanaryWatchStatus::PuttingBack => Proto::PuttingBack,
        CanaryWatchStatus::Passed => Proto::Passed,
        CanaryWatchStatus::Superseded => Proto::Superseded,
        CanaryWatchStatus::PutBack => Proto::PutBack,
        CanaryWatchStatus::NotPutBack => Proto::NotPutBack,
    }
}

fn step_proto(release: &Id, step: &Step) -> proto::Step {
    use slipway_proto::common::v1::waiting_on::Kind;
    let waiting_on = (!step.status.is_final()).then(|| {
        let (kind, message) = match &step.waiting {
            Some(waiting) => (waiting.kind, waiting.message.as_str()),
            None => (WaitingKind::Machine, ""),
        };
        let kind = match kind {
            WaitingKind::Machine => Kind::Machine,
            WaitingKind::Human => Kind::Human,
            WaitingKind::Lane => Kind::Lane,
        };
        let reference = step
            .reference
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        convert::waiting_on(
            kind,
            reference,
            step.waiting_since.unwrap_or(step.queued_at),
            message,
        )
    });
    proto::Step {
        name: step.name.clone(),
        kind: kind_proto(step.kind).into(),
        environment: step
            .environment
            .and_then(|_| step.name.split_once('/'))
            .map(|(name, _)| name.to_owned())
            .unwrap_or_default(),
        attempt: step.attempt,
        status: step_status_proto(step.status).into(),
        queue_time: Some(convert::timestamp(step.queued_at)),
        start_time: step.started_at.map(convert::timestamp),
        end_time: step.ended_at.map(convert::timestamp),
        waiting_on,
        r#ref: step
            .reference
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        reason: step.reason.as_ref().map(convert::reason),
        span_id: step_trace(release, &step.name, step.attempt).span_id.to_string(),
        result: step.result.clone(),
        retry: None,
    }
}

fn status_proto(status: ReleaseStatus) -> proto::release::Status {
    use proto::release::Status as Proto;
    match status {
        ReleaseStatus::Running => Proto::Running,
        ReleaseStatus::Succeeded => Proto::Succeeded,
        ReleaseStatus::Failed => Proto::Failed,
        ReleaseStatus::RolledBack => Proto::RolledBack,
        ReleaseStatus::RollbackFailed => Proto::RollbackFailed,
        ReleaseStatus::Errored => Proto::Errored,
        ReleaseStatus::Cancelled => Proto::Cancelled,
        ReleaseStatus::Superseded => Proto::Superseded,
    }
}

fn kind_proto(kind: StepKind) -> proto::step::Kind {
    use proto::step::Kind as Proto;
    match kind {
        StepKind::Build => Proto::Build,
        StepKind::Lane => Proto::Lane,
        StepKind::Gate => Proto::Gate,
        StepKind::Prepare => Proto::Prepare,
        StepKind::Change => Proto::Change,
        StepKind::Deploy => Proto::Deploy,
        StepKind::Revert => Proto::Revert,
        StepKind::Redeploy => Proto::Redeploy,
        StepKind::Pin => Proto::Pin,
    }
}

fn step_status_proto(status: StepStatus) -> proto::step::Status {
    use proto::step::Status as Proto;
    match status {
        StepStatus::Queued => Proto::Queued,
        StepStatus::Running => Proto::Running,
        StepStatus::Succeeded => Proto::Succeeded,
        StepStatus::Failed => Proto::Failed,
        StepStatus::Errored => Proto::Errored,
        StepStatus::Cancelled => Proto::Cancelled,
        StepStatus::Skipped => Proto::Skipped,
    }
}
