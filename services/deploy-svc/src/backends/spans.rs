//! The trace of a release: one span for each step, exported when the step ends, under a root span exported when the
//! release ends. All ids and times come from the ledger, so that the trace is complete after any restart and a span
//! exported twice is the same span.

use async_trait::async_trait;
use deploy_domain::release::{
    self, Advance, Reason, Release, ReleaseEvent, ReleaseState, ReleaseStatus, Step, StepKind, StepStatus,
    Then,
};
use slipway_ledger::{Decider, Ledger, Sink, SinkError, StoredEvent};
use slipway_model::{Id, Timestamp};
use slipway_telemetry::{KeyValue, Metrics, RunResult, SpanKind, SpanRecord, Status, StepSpans, names};

/// A collector does not report what it still has, so this sink never asks for spans to be published again.
const NOTHING_LOST: &str = "0-0";

/// Exports spans from the feed of this service's events, with a cursor of its own: at least once, same ids.
pub(crate) struct SpanSink {
    pub(crate) ledger: Ledger,
    pub(crate) spans: StepSpans,
    pub(crate) metrics: Metrics,
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
        let mut ended = Vec::new();
        for event in batch.iter().filter(|event| event.kind == Release::KIND) {
            let Some(advance) = advance_of(event) else {
                continue;
            };
            if let Some(release) = self
                .ledger
                .get::<Release>(&event.id)
                .await
                .map_err(SinkError::new)?
            {
                spans.extend(spans_of(&release.id, &release.state, &advance));
                ended.push((release.state, advance));
            }
        }
        self.spans.export(spans).await.map_err(SinkError::new)?;
        for (state, advance) in ended {
            self.measure(&state, &advance);
        }
        Ok(NOTHING_LOST.to_owned())
    }

    async fn last_entry(&self) -> Result<Option<String>, SinkError> {
        Ok(Some(NOTHING_LOST.to_owned()))
    }
}

/// The end of a step that an event reports.
fn advance_of(event: &StoredEvent) -> Option<Advance> {
    let service = event.service.parse().ok()?;
    let event: ReleaseEvent = serde_json::from_str(&event.data).ok()?;
    event.into_advance(&service)
}

impl SpanSink {
    /// Counts what ended. Batches are rarely delivered twice, and numbers that people look at may be off by one.
    fn measure(&self, state: &ReleaseState, advance: &Advance) {
        if let Some((step, ended_at)) = ended_step(state, advance) {
            let environment = state
                .environment_of(step)
                .map_or("", |(_, planned)| planned.name.as_str());
            let result = result_of_step(step.status);
            self.metrics.step_ended(
                step.kind.as_str(),
                environment,
                result,
                ended_at.since(step.queued_at),
            );
        }
        if let (Then::End { status, reason }, Some(ended_at), Some(requested_at), Some(plan)) =
            (&advance.then, state.ended_at, state.requested_at, &state.plan)
        {
            let error = reason.as_ref().filter(|_| *status != ReleaseStatus::Succeeded);
            let error = error.map(|reason| reason.code.as_str());
            let result = result_of_release(*status);
            self.metrics
                .run_ended(plan.service.as_str(), result, ended_at.since(requested_at), error);
        }
    }
}

/// The step that this event ended.
fn ended_step<'a>(state: &'a ReleaseState, advance: &Advance) -> Option<(&'a Step, Timestamp)> {
    let mut steps = state.steps.iter();
    let step = steps.find(|step| step.name == advance.step && step.attempt == advance.attempt)?;
    Some((step, step.ended_at?))
}

/// The spans of what ended with this event.
fn spans_of(release: &Id, state: &ReleaseState, advance: &Advance) -> Vec<SpanRecord> {
    let step = ended_step(state, advance).and_then(|(step, _)| step_span(release, state, step));
    let root = matches!(advance.then, Then::End { .. })
        .then(|| root_span(release, state))
        .flatten();
    step.into_iter().chain(root).collect()
}

fn step_span(release: &Id, state: &ReleaseState, step: &Step) -> Option<SpanRecord> {
    let trace = release::step_trace(release, &step.name, step.attempt);
    let mut attributes = vec![
        KeyValue::new(names::CICD_PIPELINE_TASK_NAME, step.name.clone()),
        KeyValue::new(
            names::CICD_PIPELINE_TASK_RUN_ID,
            format!("{release}/{}/{}", step.name, step.attempt),
        ),
        KeyValue::new(
            names::CICD_PIPELINE_TASK_RUN_RESULT,
            result_of_step(step.status).as_str(),
        ),
        KeyValue::new(names::STEP, step.kind.as_str()),
        KeyValue::new(names::STEP_ATTEMPT, i64::from(step.attempt)),
        KeyValue::new(names::WAIT_KIND, step.party().as_str()),
    ];
    match step.kind {
        StepKind::Build => attributes.push(KeyValue::new(names::CICD_PIPELINE_TASK_TYPE, "build")),
        StepKind::Prepare
        | StepKind::Change
        | StepKind::Deploy
        | StepKind::Revert
        | StepKind::Redeploy
        | StepKind::Pin => {
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
            StepKind::Change | StepKind::Revert | StepKind::Pin => names::CHANGE_ID,
            StepKind::Lane | StepKind::Prepare | StepKind::Deploy | StepKind::Redeploy => {
                names::DEPLOYMENT_ID
            }
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
        parent: Some(release::root_span(release)),
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
        KeyValue::new(
            names::CICD_PIPELINE_RESULT,
            result_of_release(state.status).as_str(),
        ),
        KeyValue::new(names::VCS_REPOSITORY_URL_FULL, plan.repository_url.clone()),
        KeyValue::new(names::VCS_REF_HEAD_REVISION, plan.commit.to_string()),
        KeyValue::new(names::RELEASE_ID, release.to_string()),
    ];
    if let Some(images) = &state.images {
        attributes.push(KeyValue::new(
            names::OCI_MANIFEST_DIGEST,
            images.only().digest.to_string(),
        ));
    }
    let error = state
        .reason
        .as_ref()
        .filter(|_| state.status != ReleaseStatus::Succeeded);
    Some(SpanRecord {
        trace_id: release::release_trace(release),
        span_id: release::root_span(release),
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

fn result_of_step(status: StepStatus) -> RunResult {
    match status {
        StepStatus::Succeeded => RunResult::Success,
        StepStatus::Failed => RunResult::Failure,
        StepStatus::Cancelled => RunResult::Cancellation,
        StepStatus::Skipped => RunResult::Skip,
        StepStatus::Errored | StepStatus::Queued | StepStatus::Running => RunResult::Error,
    }
}

fn result_of_release(status: ReleaseStatus) -> RunResult {
    match status {
        ReleaseStatus::Succeeded => RunResult::Success,
        ReleaseStatus::Failed | ReleaseStatus::RolledBack | ReleaseStatus::RollbackFailed => {
            RunResult::Failure
        }
        ReleaseStatus::Cancelled => RunResult::Cancellation,
        ReleaseStatus::Superseded => RunResult::Skip,
        ReleaseStatus::Errored | ReleaseStatus::Running => RunResult::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pretty_assertions::assert_eq;

    use deploy_domain::{
        catalog::Catalog,
        plan::{Plan, PlanRequest},
        release::{ChangeMade, Facts, Observation, ReleaseCommand, Request},
    };
    use slipway_model::{Actor, Image, Images};

    use super::*;

    const CATALOG: &str = r"
environments: [dev, staging]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: { repository: platform, branch: main, path: apps/shop/dev, image: shop }
        target: { cluster: local, namespace: dev, kind: Deployment, name: shop }
      - name: staging
        policy: one-of-sre
        gitops: { repository: platform, branch: main, path: apps/shop/staging, image: shop }
        target: { cluster: local, namespace: staging, kind: Deployment, name: shop }
";

    /// A release with a clock that advances by a second with every command.
    struct Run {
        id: Id,
        state: ReleaseState,
        now: Timestamp,
        /// Everything that happened.
        events: Vec<ReleaseEvent>,
    }

    impl Run {
        fn requested() -> Self {
            let request = PlanRequest {
                service: "shop".to_owned(),
                commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
                branch: None,
                git_tag: None,
                environments: Vec::new(),
            };
            let mut run = Self {
                id: "rel-1".parse().unwrap(),
                state: ReleaseState::default(),
                now: Timestamp::from_micros(0),
                events: Vec::new(),
            };
            run.tell(ReleaseCommand::Request(Box::new(Request {
                plan: Plan::make(&Catalog::parse(CATALOG).unwrap(), &request).unwrap(),
                requested_by: Actor::system("test"),
                labels: Default::default(),
                images: None,
                rebuild: false,
                caller: None,
            })));
            run
        }

        fn tell(&mut self, command: ReleaseCommand) {
            self.now = self.now + Duration::from_secs(1);
            let events = Release::decide(&self.id, &self.state, command, self.now).unwrap();
            for event in &events {
                Release::evolve(&mut self.state, event, self.now);
            }
            self.events.extend(events);
        }

        /// Ends the active step. Lanes are granted.
        fn end(&mut self, step: &str, observation: Observation) {
            let active = self.state.active_step().unwrap();
            assert_eq!(active.name, step);
            if active.kind == StepKind::Lane {
                let environment = active.environment.unwrap();
                let epoch = 1;
                return self.tell(ReleaseCommand::LaneGranted { environment, epoch });
            }
            let (key, _) = Release::effects(&self.id, &self.state).remove(0);
            self.tell(ReleaseCommand::Started {
                key,
                reference: format!("ref-{step}").parse().unwrap(),
                observation,
            });
        }

        fn succeed(&mut self, step: &str) {
            let images = |fill: &str| {
                Images::one(Image {
                    name: "shop".parse().unwrap(),
                    repository: "registry.example/shop".parse().unwrap(),
                    digest: format!("sha256:{}", fill.repeat(64)).parse().unwrap(),
                    tags: Vec::new(),
                })
            };
            let facts = match step {
                "build" => Facts::Built {
                    images: images("b"),
                    authors: Vec::new(),
                },
                "dev/change" | "dev/revert" => Facts::Changed(ChangeMade {
                    change: "chg-1".parse().unwrap(),
                    commit: "2".repeat(40).parse().unwrap(),
                    no_op: false,
                    previous: Some(images("a")),
                    previous_tag: None,
                    previous_of_others: Vec::new(),
                }),
                _ => Facts::None,
            };
            let result = String::new();
            self.end(step, Observation::Succeeded { result, facts });
        }

        fn fail(&mut self, step: &str, code: &str) {
            self.end(step, Observation::Failed(Reason::new(code, "it did not work")));
        }
    }

    /// The spans that result from the events of a release, as they are exported one after the other.
    fn trace_of(run: &Run) -> Vec<SpanRecord> {
        let advances = run.events.iter().filter_map(|event| match event {
            ReleaseEvent::Advanced(advance) => Some(advance),
            _ => None,
        });
        advances
            .flat_map(|advance| spans_of(&run.id, &run.state, advance))
            .collect()
    }

    fn value(span: &SpanRecord, key: &str) -> String {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key);
        found
            .map(|attribute| attribute.value.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn every_step_is_a_span_under_the_root_and_the_steps_cover_it() {
        let mut run = Run::requested();
        for step in ["build", "dev/lane", "dev/change"] {
            run.succeed(step);
        }
        run.fail("dev/deploy", "CHECK_FAILED");
        run.succeed("dev/revert");
        run.succeed("dev/redeploy");
        let spans = trace_of(&run);
        let (root, steps): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.parent.is_none());
        let [root] = root[..] else {
            panic!("one root, not {}", root.len())
        };
        let names: Vec<&str> = steps.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "build",
                "dev/lane",
                "dev/gate",
                "dev/change",
                "dev/deploy",
                "dev/revert",
                "dev/redeploy"
            ]
        );
        assert!(
            steps
                .iter()
                .all(|span| span.parent == Some(root.span_id) && span.trace_id == root.trace_id)
        );
        assert_eq!(steps.first().map(|span| span.start), Some(root.start));
        assert_eq!(steps.last().map(|span| span.end), Some(root.end));
        assert!(steps.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(value(root, names::CICD_PIPELINE_RESULT), "failure");
        assert_eq!(value(root, names::ERROR_TYPE), "CHECK_FAILED");
        assert_eq!(value(steps[4], names::CICD_PIPELINE_TASK_RUN_RESULT), "failure");
        assert_eq!(value(steps[0], names::CICD_PIPELINE_TASK_TYPE), "build");
    }

    #[test]
    fn exported_again_they_are_the_same_spans() {
        let mut run = Run::requested();
        run.succeed("build");
        assert_eq!(trace_of(&run), trace_of(&run));
        assert_eq!(trace_of(&run).len(), 1, "nothing is exported before it has ended");
    }
}
