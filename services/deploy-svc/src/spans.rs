//! The trace of a release: one span for each step, exported when the step ends, under a root span exported when the
//! release ends. All ids and times come from the ledger, so that the trace is whole after any restart and a span
//! exported twice is the same span.

use async_trait::async_trait;
use slipway_ledger::{Decider, Ledger, Sink, SinkError, StoredEvent};
use slipway_model::Id;
use slipway_telemetry::{KeyValue, SpanKind, SpanRecord, Status, StepSpans, names};

use crate::{
    owners,
    release::{Reason, Release, ReleaseState, ReleaseStatus, Step, StepKind, StepStatus},
};

/// A collector does not say what it still has, so this sink never asks for spans to be published again.
const NOTHING_LOST: &str = "0-0";

/// Exports spans from the feed of this service's events, with a cursor of its own: at least once, same ids.
pub struct SpanSink {
    pub ledger: Ledger,
    pub spans: StepSpans,
}

impl std::fmt::Debug for SpanSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanSink").finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for SpanSink {
    async fn publish(&self, batch: &[StoredEvent]) -> Result<String, SinkError> {
        let mut spans = Vec::new();
        for event in batch
            .iter()
            .filter(|event| event.kind == Release::KIND && event.event_type == "advanced")
        {
            if let Some(release) = self
                .ledger
                .get::<Release>(&event.id)
                .await
                .map_err(SinkError::new)?
            {
                spans.extend(spans_of(&release.id, &release.state, event));
            }
        }
        self.spans.export(spans).await.map_err(SinkError::new)?;
        Ok(NOTHING_LOST.to_owned())
    }

    async fn last_entry(&self) -> Result<Option<String>, SinkError> {
        Ok(Some(NOTHING_LOST.to_owned()))
    }
}

/// The spans of what ended with this event.
fn spans_of(release: &Id, state: &ReleaseState, event: &StoredEvent) -> Vec<SpanRecord> {
    let ended = state.steps.iter().filter(|step| step.ended_at == Some(event.at));
    let mut spans: Vec<SpanRecord> = ended.filter_map(|step| step_span(release, state, step)).collect();
    if state.ended_at == Some(event.at) {
        spans.extend(root_span(release, state));
    }
    spans
}

fn step_span(release: &Id, state: &ReleaseState, step: &Step) -> Option<SpanRecord> {
    let trace = owners::step_trace(release, &step.name, step.attempt);
    let mut attributes = vec![
        KeyValue::new(names::CICD_PIPELINE_TASK_NAME, step.name.clone()),
        KeyValue::new(
            names::CICD_PIPELINE_TASK_RUN_ID,
            format!("{release}/{}/{}", step.name, step.attempt),
        ),
        KeyValue::new(names::CICD_PIPELINE_TASK_RUN_RESULT, result_of_step(step.status)),
        KeyValue::new(names::STEP, step.kind.as_str()),
        KeyValue::new(names::STEP_ATTEMPT, i64::from(step.attempt)),
        KeyValue::new(names::WAIT_KIND, step.party().as_str()),
    ];
    match step.kind {
        StepKind::Build => attributes.push(KeyValue::new(names::CICD_PIPELINE_TASK_TYPE, "build")),
        StepKind::Change | StepKind::Deploy | StepKind::Revert | StepKind::Redeploy => {
            attributes.push(KeyValue::new(names::CICD_PIPELINE_TASK_TYPE, "deploy"));
        }
        // The conventions have no type for these.
        StepKind::Lane | StepKind::Gate => {}
    }
    if let Some((_, planned)) = state.environment_of(step) {
        attributes.push(KeyValue::new(
            names::DEPLOYMENT_ENVIRONMENT_NAME,
            planned.name.to_string(),
        ));
        attributes.push(KeyValue::new(names::LANE, planned.target.key()));
    }
    if let Some(reference) = &step.reference {
        let name = match step.kind {
            StepKind::Build => names::BUILD_ID,
            StepKind::Gate => names::APPROVAL_ID,
            StepKind::Change | StepKind::Revert => names::CHANGE_ID,
            StepKind::Lane | StepKind::Deploy | StepKind::Redeploy => names::DEPLOYMENT_ID,
        };
        attributes.push(KeyValue::new(name, reference.to_string()));
    }
    let error = step
        .reason
        .as_ref()
        .filter(|_| step.status != StepStatus::Succeeded);
    Some(SpanRecord {
        trace_id: trace.trace_id,
        span_id: trace.span_id,
        parent: Some(owners::root_span(release)),
        name: step.name.clone(),
        kind: SpanKind::Internal,
        start: step.queued_at,
        end: step.ended_at?,
        status: status(error, &mut attributes),
        attributes,
        links: Vec::new(),
    })
}

fn root_span(release: &Id, state: &ReleaseState) -> Option<SpanRecord> {
    let plan = state.plan.as_ref()?;
    let mut attributes = vec![
        KeyValue::new(names::CICD_PIPELINE_NAME, plan.service.to_string()),
        KeyValue::new(names::CICD_PIPELINE_RUN_ID, release.to_string()),
        KeyValue::new(names::CICD_PIPELINE_RESULT, result_of_release(state.status)),
        KeyValue::new(names::VCS_REPOSITORY_URL_FULL, plan.repository_url.clone()),
        KeyValue::new(names::VCS_REF_HEAD_REVISION, plan.commit.to_string()),
        KeyValue::new(names::RELEASE_ID, release.to_string()),
    ];
    if let Some(image) = &state.image {
        attributes.push(KeyValue::new(
            names::OCI_MANIFEST_DIGEST,
            image.digest.to_string(),
        ));
    }
    let error = state
        .reason
        .as_ref()
        .filter(|_| state.status != ReleaseStatus::Succeeded);
    Some(SpanRecord {
        trace_id: owners::release_trace(release),
        span_id: owners::root_span(release),
        parent: None,
        name: format!("RUN {}", plan.service),
        kind: SpanKind::Server,
        start: state.requested_at?,
        end: state.ended_at?,
        status: status(error, &mut attributes),
        attributes,
        links: state.caller.into_iter().collect(),
    })
}

fn status(error: Option<&Reason>, attributes: &mut Vec<KeyValue>) -> Status {
    match error {
        Some(reason) => {
            attributes.push(KeyValue::new(names::ERROR_TYPE, reason.code.clone()));
            Status::error(reason.message.clone())
        }
        None => Status::Ok,
    }
}

/// Values of `cicd.pipeline.task.run.result`.
fn result_of_step(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Succeeded => "success",
        StepStatus::Failed => "failure",
        StepStatus::Cancelled => "cancellation",
        StepStatus::Skipped => "skip",
        StepStatus::Errored | StepStatus::Queued | StepStatus::Running => "error",
    }
}

/// Values of `cicd.pipeline.result`.
fn result_of_release(status: ReleaseStatus) -> &'static str {
    match status {
        ReleaseStatus::Succeeded => "success",
        ReleaseStatus::Failed | ReleaseStatus::RolledBack | ReleaseStatus::RollbackFailed => "failure",
        ReleaseStatus::Cancelled => "cancellation",
        ReleaseStatus::Superseded => "skip",
        ReleaseStatus::Errored | ReleaseStatus::Running => "error",
    }
}
