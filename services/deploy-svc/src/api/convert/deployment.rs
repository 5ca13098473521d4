//! Deployments as the API shows them.

use deploy_domain::{
    catalog::{Metric, Target},
    deployment::{
        Ask, Deployment, DeploymentRequest, DeploymentState, DeploymentStatus, DeploymentStep, limits,
    },
    result::{CheckResult, JobResult},
};
use slipway_ledger::Snapshot;
use slipway_proto::{common::v1::waiting_on::Kind, deploy::v1 as proto};
use slipway_server::convert;
use slipway_verdict::analysis::{Tally, Verdict};

/// A target as the API shows it.
pub(in crate::api) fn target_proto(target: &Target) -> proto::Target {
    proto::Target {
        cluster: target.cluster.to_string(),
        namespace: target.namespace.to_string(),
        kind: target.kind.to_string(),
        name: target.name.clone(),
    }
}

/// The pods at fault of a failed deployment as the API shows them.
pub(in crate::api) fn evidence_proto(state: &DeploymentState) -> Vec<proto::PodEvidence> {
    let one = |evidence: &slipway_verdict::evidence::PodEvidence| proto::PodEvidence {
        pod: evidence.pod.clone(),
        container: evidence.container.clone(),
        state: evidence.state.clone(),
        exit_code: evidence.exit_code,
        log_tail: evidence.log_tail.clone(),
        previous_log_tail: evidence.previous_log_tail.clone(),
        events: evidence.events.clone(),
        others: evidence.others,
        other_pods: evidence.other_pods.clone(),
        telling: evidence.telling.clone(),
        log_missing: evidence.log_missing.clone(),
    };
    state.evidence.iter().map(one).collect()
}

/// A deployment as the API shows it.
pub(in crate::api) fn deployment_proto(snapshot: &Snapshot<Deployment>) -> proto::Deployment {
    let state = &snapshot.state;
    let request = state.request.as_ref();
    let text = |of: fn(&DeploymentRequest) -> String| request.map(of).unwrap_or_default();
    let check = |result: &CheckResult| proto::CheckResult {
        name: result.name.to_string(),
        passed: result.passed,
        attempts: result.attempts,
        last_answer: result.last_answer.clone(),
    };
    let reason = state.reason.as_ref().or(state.failing.as_ref());
    let waiting_on = (!state.status.is_final()).then(|| {
        let target = text(|request| request.target.key());
        // The person has answered: the cluster is being told.
        let human = state.human && state.ask.is_none();
        convert::waiting_on(
            if human { Kind::Human } else { Kind::Machine },
            target,
            state.since.unwrap_or(snapshot.created_at),
            state.progress_words(),
        )
    });
    proto::Deployment {
        id: snapshot.id.to_string(),
        etag: snapshot.etag(),
        labels: request
            .map(|request| request.labels.clone().into_iter().collect())
            .unwrap_or_default(),
        correlation_id: text(|request| request.correlation_id.clone()),
        service: text(|request| request.service.to_string()),
        environment: text(|request| request.environment.to_string()),
        target: request.map(|request| target_proto(&request.target)),
        images: request
            .map(|request| convert::images(&request.images))
            .unwrap_or_default(),
        commit: text(|request| {
            let source = request.source.as_ref();
            source.map(|source| source.commit.to_string()).unwrap_or_default()
        }),
        epoch: request.map(|request| request.epoch).unwrap_or_default(),
        status: status_proto(state.status).into(),
        reason: reason.map(convert::reason),
        progress: state.progress_words(),
        checks: state.checks.iter().map(check).collect(),
        evidence: evidence_proto(state),
        waiting_on,
        requested_by: request.map(|request| convert::actor(&request.requested_by)),
        create_time: Some(convert::timestamp(
            state.requested_at.unwrap_or(snapshot.created_at),
        )),
        apply_time: state.applied_at.map(convert::timestamp),
        end_time: state.ended_at.map(convert::timestamp),
        deadline: state.deadline.map(convert::timestamp),
        deadline_basis: state.deadline_basis.clone(),
        step: step_proto(state.step).into(),
        jobs: state.jobs.iter().map(job_proto).collect(),
        metrics: metrics_proto(state),
        rolls_back: text(|request| {
            let rolled_back = request.rolls_back.as_ref();
            rolled_back.map(ToString::to_string).unwrap_or_default()
        }),
        bake_end_time: state.bake_until.map(convert::timestamp),
        asked: ask_proto(state.ask.as_ref()).into(),
        declined: state.declined.clone().unwrap_or_default(),
        retry: snapshot.retrying().as_ref().map(convert::retry),
        warnings: state.warnings.clone(),
    }
}

const fn ask_proto(ask: Option<&Ask>) -> proto::deployment::Ask {
    use proto::deployment::Ask as Proto;
    match ask {
        None => Proto::Unspecified,
        Some(Ask::Promote { .. }) => Proto::Promote,
        Some(Ask::Abort { .. }) => Proto::Abort,
    }
}

const fn step_proto(step: DeploymentStep) -> proto::deployment::Step {
    use proto::deployment::Step as Proto;
    match step {
        DeploymentStep::Revert => Proto::Revert,
        DeploymentStep::Before => Proto::Before,
        DeploymentStep::Apply => Proto::Apply,
        DeploymentStep::Rollout => Proto::Rollout,
        DeploymentStep::Checks => Proto::Checks,
        DeploymentStep::After => Proto::After,
        DeploymentStep::Bake => Proto::Bake,
        DeploymentStep::Evidence => Proto::Evidence,
    }
}

/// The Jobs that have ended, as the API shows them.
fn job_proto(result: &JobResult) -> proto::JobResult {
    proto::JobResult {
        name: result.name.to_string(),
        job: result.job.clone(),
        succeeded: result.succeeded,
        message: result.message.clone(),
        log_tail: result.log_tail.clone(),
    }
}

/// The metrics of a bake that has begun, with their results so far.
fn metrics_proto(state: &DeploymentState) -> Vec<proto::MetricResult> {
    if state.bake_until.is_none() {
        return Vec::new();
    }
    let ended = state.status.is_final() || state.step != DeploymentStep::Bake;
    state
        .measured()
        .map(|(metric, tally)| metric_proto(metric, &tally, ended))
        .collect()
}

fn metric_proto(metric: &Metric, tally: &Tally, ended: bool) -> proto::MetricResult {
    use proto::metric_result::Verdict as Proto;
    let (verdict, message) = match tally.judge(metric.name.as_str(), &limits(metric), ended) {
        Verdict::Measuring(words) => (Proto::Measuring, words),
        Verdict::Passed => (Proto::Passed, String::new()),
        Verdict::Failed(words) => (Proto::Failed, words),
        Verdict::Inconclusive(words) => (Proto::Inconclusive, words),
    };
    proto::MetricResult {
        name: metric.name.to_string(),
        verdict: verdict.into(),
        measurements: tally.count(),
        failures: tally.bad,
        inconclusive: tally.inconclusive,
        value: tally.last,
        min: metric.min,
        max: metric.max,
        message,
    }
}

fn status_proto(status: DeploymentStatus) -> proto::deployment::Status {
    use proto::deployment::Status as Proto;
    match status {
        DeploymentStatus::Pending => Proto::Unspecified,
        DeploymentStatus::Applying => Proto::Applying,
        DeploymentStatus::Verifying => Proto::Verifying,
        DeploymentStatus::Succeeded => Proto::Succeeded,
        DeploymentStatus::Failed => Proto::Failed,
        DeploymentStatus::Errored => Proto::Errored,
        DeploymentStatus::Cancelled => Proto::Cancelled,
        DeploymentStatus::RollbackFailed => Proto::RollbackFailed,
    }
}
