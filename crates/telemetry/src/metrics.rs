//! The instruments of a service. Attributes have few values each; ids of runs are never among them.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, MeterProvider, NoopMeterProvider, UpDownCounter},
};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
};

use crate::{ExportError, names};

/// Between two exports.
const INTERVAL: Duration = Duration::from_secs(30);

/// Bounds of histograms of runs and steps, in seconds: machine steps take seconds, gates take hours.
const RUN_BOUNDS: [f64; 15] = [
    0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
];
/// Bounds of histograms of calls, in seconds: those that the conventions advise.
const CALL_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// How a run or a step ended: `cicd.pipeline.result` and `cicd.pipeline.task.run.result` of the conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunResult {
    Success,
    Failure,
    Error,
    Timeout,
    Cancellation,
    Skip,
}

impl RunResult {
    /// The conventions' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancellation => "cancellation",
            Self::Skip => "skip",
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitKind {
    Machine,
    Human,
    Lane,
}

impl WaitKind {
    /// As on spans and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Human => "human",
            Self::Lane => "lane",
        }
    }
}

/// One service's instruments. Cheap to clone; they do nothing if nothing is exported.
#[derive(Debug, Clone)]
pub struct Metrics {
    provider: Option<SdkMeterProvider>,
    run_duration: Histogram<f64>,
    runs_active: UpDownCounter<i64>,
    step_duration: Histogram<f64>,
    steps_waiting: Gauge<u64>,
    call_duration: Histogram<f64>,
    system_errors: Counter<u64>,
    events_published: Counter<u64>,
    events_dead: Counter<u64>,
}

impl Metrics {
    pub(crate) fn disabled() -> Self {
        Self::new(&NoopMeterProvider::new(), None)
    }

    /// Exports from a thread of its own, which needs the runtime in which the exporter's connection was created.
    pub(crate) fn exporting(exporter: MetricExporter, resource: Resource) -> Self {
        let provider = SdkMeterProvider::builder()
            .with_reader(PeriodicReader::builder(exporter).with_interval(INTERVAL).build())
            .with_resource(resource)
            .build();
        Self::new(&provider.clone(), Some(provider))
    }

    fn new(meters: &impl MeterProvider, provider: Option<SdkMeterProvider>) -> Self {
        let meter = meters.meter("slipway");
        let seconds = |name: &'static str, description: &'static str, bounds: &[f64]| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(bounds.to_vec())
                .build()
        };
        Self {
            run_duration: seconds(
                names::CICD_PIPELINE_RUN_DURATION,
                "Duration of releases, grouped by pipeline, state and result",
                &RUN_BOUNDS,
            ),
            step_duration: seconds(
                names::STEP_DURATION,
                "Duration of the steps of releases, waiting included",
                &RUN_BOUNDS,
            ),
            call_duration: seconds(
                names::RPC_SERVER_CALL_DURATION,
                "Duration of inbound remote procedure calls",
                &CALL_BOUNDS,
            ),
            runs_active: meter
                .i64_up_down_counter(names::CICD_PIPELINE_RUN_ACTIVE)
                .with_unit("{run}")
                .with_description("Releases that are under way")
                .build(),
            steps_waiting: meter
                .u64_gauge(names::STEPS_WAITING)
                .with_unit("{step}")
                .with_description("Steps that wait now, by what they wait for")
                .build(),
            system_errors: meter
                .u64_counter(names::CICD_SYSTEM_ERRORS)
                .with_unit("{error}")
                .with_description("Errors inside Slipway; failed releases are not counted")
                .build(),
            events_published: meter
                .u64_counter(names::EVENTS_PUBLISHED)
                .with_unit("{event}")
                .with_description("Events that were published to the bus")
                .build(),
            events_dead: meter
                .u64_counter(names::EVENTS_DEAD)
                .with_unit("{event}")
                .with_description("Events that a group gave up on")
                .build(),
            provider,
        }
    }

    /// A run (a release) of the pipeline (the released service) has ended. `error_type` is the reason of an
    /// unsuccessful one, from a small set.
    pub fn run_ended(&self, pipeline: &str, result: RunResult, duration: Duration, error_type: Option<&str>) {
        let mut attributes = vec![
            KeyValue::new(names::CICD_PIPELINE_NAME, pipeline.to_owned()),
            KeyValue::new(names::CICD_PIPELINE_RUN_STATE, "executing"),
            KeyValue::new(names::CICD_PIPELINE_RESULT, result.as_str()),
        ];
        attributes.extend(error_type.map(|kind| KeyValue::new(names::ERROR_TYPE, kind.to_owned())));
        self.run_duration.record(duration.as_secs_f64(), &attributes);
    }

    /// Runs of the pipeline have begun (positive) or ended (negative) in this process.
    pub fn runs_active(&self, pipeline: &str, change: i64) {
        let attributes = [
            KeyValue::new(names::CICD_PIPELINE_NAME, pipeline.to_owned()),
            KeyValue::new(names::CICD_PIPELINE_RUN_STATE, "executing"),
        ];
        self.runs_active.add(change, &attributes);
    }

    /// A step of this kind (`build`, `gate`, …) has ended.
    pub fn step_ended(&self, step: &str, environment: &str, result: RunResult, duration: Duration) {
        let attributes = [
            KeyValue::new(names::CICD_PIPELINE_TASK_NAME, step.to_owned()),
            KeyValue::new(names::DEPLOYMENT_ENVIRONMENT_NAME, environment.to_owned()),
            KeyValue::new(names::CICD_PIPELINE_TASK_RUN_RESULT, result.as_str()),
        ];
        self.step_duration.record(duration.as_secs_f64(), &attributes);
    }

    /// How many steps of this kind are waiting for that now.
    pub fn steps_waiting(&self, step: &str, wait: WaitKind, count: u64) {
        let attributes = [
            KeyValue::new(names::CICD_PIPELINE_TASK_NAME, step.to_owned()),
            KeyValue::new(names::WAIT_KIND, wait.as_str()),
        ];
        self.steps_waiting.record(count, &attributes);
    }

    /// A part of the service (`relay`, `executor`, …) had an error of the given type.
    pub fn system_error(&self, component: &'static str, error_type: &str) {
        let attributes = [
            KeyValue::new(names::CICD_SYSTEM_COMPONENT, component),
            KeyValue::new(names::ERROR_TYPE, error_type.to_owned()),
        ];
        self.system_errors.add(1, &attributes);
    }

    /// Events were published.
    pub fn events_published(&self, count: u64) {
        self.events_published.add(count, &[]);
    }

    /// A group gave up on an event of that origin.
    pub fn event_dead(&self, origin: &str) {
        self.events_dead
            .add(1, &[KeyValue::new("slipway.origin", origin.to_owned())]);
    }

    /// A call was answered. The method of calls to something that this server does not have must be given as `_OTHER`.
    pub(crate) fn call_ended(&self, method: &str, status: &'static str, duration: Duration) {
        if self.provider.is_none() {
            return;
        }
        let mut attributes = vec![
            KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(names::RPC_METHOD, method.to_owned()),
            KeyValue::new(names::RPC_RESPONSE_STATUS_CODE, status),
        ];
        if status != "OK" {
            attributes.push(KeyValue::new(names::ERROR_TYPE, status));
        }
        self.call_duration.record(duration.as_secs_f64(), &attributes);
    }

    pub(crate) async fn flush(&self, timeout: Duration) -> Result<(), ExportError> {
        let Some(provider) = self.provider.clone() else {
            return Ok(());
        };
        // It blocks the thread.
        let flush = tokio::task::spawn_blocking(move || provider.force_flush());
        match tokio::time::timeout(timeout, flush).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(ExportError::Failed(error.to_string())),
            Ok(Err(_)) => Err(ExportError::Ended),
            Err(_) => Err(ExportError::Timeout(timeout)),
        }
    }
}
