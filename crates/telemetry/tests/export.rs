//! Spans and metrics over real OTLP/gRPC.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod collector;

use std::{sync::Arc, time::Duration};

use collector::{Collector, attribute};
use opentelemetry_proto::tonic::{
    metrics::v1::metric::Data,
    trace::v1::{span::SpanKind as WireKind, status::StatusCode},
};
use slipway_model::{SpanId, Timestamp, TraceContext, TraceId};
use slipway_telemetry::{
    KeyValue, RunResult, SpanKind, SpanRecord, Status, Telemetry, TelemetryConfig, TelemetryError, WaitKind,
    build, names,
};
use tracing::{Dispatch, dispatcher, info_span};

const TIMEOUT: Duration = Duration::from_secs(20);

fn exporting_to(collector: &Collector) -> (Telemetry, Dispatch) {
    build(&TelemetryConfig {
        service_name: "slipway".to_owned(),
        otlp_endpoint: Some(collector.endpoint()),
        log_filter: "off".to_owned(),
        ..TelemetryConfig::default()
    })
    .unwrap()
}

fn gate() -> SpanRecord {
    SpanRecord {
        trace_id: TraceId::derived(&["rel-1"]),
        span_id: SpanId::derived(&["rel-1", "staging/gate", "1"]),
        parent: Some(SpanId::derived(&["rel-1"])),
        name: "gate staging".to_owned(),
        kind: SpanKind::Internal,
        start: Timestamp::from_micros(1_700_000_000_000_001),
        end: Timestamp::from_micros(1_700_014_400_000_002),
        attributes: vec![
            KeyValue::new(names::CICD_PIPELINE_TASK_NAME, "gate"),
            KeyValue::new(names::STEP_ATTEMPT, 1),
        ],
        links: vec![caller()],
        status: Status::error("refused"),
    }
}

fn caller() -> TraceContext {
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_step_span_arrives_with_its_own_ids_and_times() {
    let collector = Collector::start().await;
    let (telemetry, _dispatch) = exporting_to(&collector);
    let spans = telemetry.service("deploy-svc").unwrap().step_spans();
    assert!(spans.is_enabled());

    spans.export(vec![gate()]).await.unwrap();
    // Once more, as after a crash: the same ids.
    spans.export(vec![gate()]).await.unwrap();

    let received = collector.received.spans();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0], received[1]);
    let (service, span) = &received[0];
    assert_eq!(service, "deploy-svc");
    assert_eq!(span.trace_id, TraceId::derived(&["rel-1"]).0);
    assert_eq!(span.span_id, SpanId::derived(&["rel-1", "staging/gate", "1"]).0);
    assert_eq!(span.parent_span_id, SpanId::derived(&["rel-1"]).0);
    assert_eq!(span.name, "gate staging");
    assert_eq!(span.kind, WireKind::Internal as i32);
    assert_eq!(span.start_time_unix_nano, 1_700_000_000_000_001_000);
    assert_eq!(span.end_time_unix_nano, 1_700_014_400_000_002_000);
    assert_eq!(
        attribute(&span.attributes, "cicd.pipeline.task.name").as_deref(),
        Some("gate")
    );
    assert_eq!(
        attribute(&span.attributes, "slipway.step.attempt").as_deref(),
        Some("1")
    );
    assert_eq!(span.links.len(), 1);
    assert_eq!(span.links[0].trace_id, caller().trace_id.0);
    assert_eq!(span.links[0].span_id, caller().span_id.0);
    let status = span.status.as_ref().unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert_eq!(status.message, "refused");
}

#[tokio::test]
async fn a_root_span_has_no_parent_and_never_a_negative_duration() {
    let collector = Collector::start().await;
    let (telemetry, _dispatch) = exporting_to(&collector);
    let spans = telemetry.service("deploy-svc").unwrap().step_spans();
    let root = SpanRecord {
        parent: None,
        kind: SpanKind::Server,
        end: Timestamp::from_micros(1),
        ..gate()
    };
    spans.record(root);
    telemetry.flush(TIMEOUT).await.unwrap();
    let (_, span) = collector.received.spans().remove(0);
    assert!(span.parent_span_id.is_empty());
    assert_eq!(span.kind, WireKind::Server as i32);
    assert_eq!(span.end_time_unix_nano, span.start_time_unix_nano);
}

#[tokio::test]
async fn what_is_recorded_while_the_collector_is_away_arrives_when_it_is_back() {
    let collector = Collector::start().await;
    let (telemetry, _dispatch) = exporting_to(&collector);
    let spans = telemetry.service("deploy-svc").unwrap().step_spans();
    spans.export(vec![gate()]).await.unwrap();
    let (address, received) = collector.stop().await;

    assert!(spans.export(vec![gate()]).await.is_err(), "the caller is told");
    for _ in 0..10 {
        spans.record(gate());
    }
    assert!(telemetry.flush(TIMEOUT).await.is_err());

    let collector = Collector::start_at(address, received).await;
    collector.received.wait_for_spans(11).await;
    spans.export(vec![gate()]).await.unwrap();
    collector.received.wait_for_spans(12).await;
}

#[tokio::test]
async fn live_spans_belong_to_the_service_whose_scope_they_are_in() {
    let collector = Collector::start().await;
    let (telemetry, dispatch) = exporting_to(&collector);
    let build = telemetry.service("build-svc").unwrap();
    let gitops = telemetry.service("gitops-svc").unwrap();
    let _default = dispatcher::set_default(&dispatch);

    {
        let outside = info_span!("outside");
        let _entered = outside.enter();
    }
    build
        .in_scope(async {
            let outer = info_span!("fetch", otel.kind = "client");
            let _entered = outer.enter();
            let _inner = info_span!("resolve").entered();
        })
        .await;
    {
        let adopted = info_span!("push");
        gitops.adopt(&adopted, Some(caller()));
        let _entered = adopted.enter();
        let _below = info_span!("pack").entered();
    }
    telemetry.flush(TIMEOUT).await.unwrap();

    let spans = collector.received.spans();
    let find = |name: &str| spans.iter().find(|(_, span)| span.name == name).cloned().unwrap();
    assert_eq!(find("outside").0, "slipway");
    assert_eq!(find("fetch").0, "build-svc");
    assert_eq!(find("resolve").0, "build-svc");
    assert_eq!(find("push").0, "gitops-svc");
    assert_eq!(find("pack").0, "gitops-svc");
    assert_eq!(find("resolve").1.parent_span_id, find("fetch").1.span_id);
    assert_eq!(find("push").1.trace_id, caller().trace_id.0);
    assert_eq!(find("push").1.parent_span_id, caller().span_id.0);
    assert_eq!(find("pack").1.trace_id, caller().trace_id.0);
    // How spans find their service is an internal detail.
    for (_, span) in &spans {
        assert_eq!(attribute(&span.attributes, "slipway.scope"), None);
    }
}

#[tokio::test]
async fn the_callers_decision_not_to_sample_is_kept() {
    let collector = Collector::start().await;
    let (telemetry, dispatch) = exporting_to(&collector);
    let service = telemetry.service("build-svc").unwrap();
    let _default = dispatcher::set_default(&dispatch);
    let unsampled = TraceContext {
        sampled: false,
        ..caller()
    };
    {
        let span = info_span!("quiet");
        service.adopt(&span, Some(unsampled));
        let _entered = span.enter();
        let current = slipway_telemetry::current_trace_context().unwrap();
        assert_eq!(current.trace_id, caller().trace_id);
        assert!(!current.sampled);
    }
    telemetry.flush(TIMEOUT).await.unwrap();
    assert!(collector.received.spans().is_empty());
}

// The exporter of metrics has a thread that waits for the runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_arrive_without_ids_of_runs() {
    let collector = Collector::start().await;
    let (telemetry, _dispatch) = exporting_to(&collector);
    let metrics = telemetry.service("deploy-svc").unwrap().metrics().clone();
    metrics.run_ended("ms-identity", RunResult::Success, Duration::from_secs(90), None);
    metrics.run_ended(
        "ms-identity",
        RunResult::Failure,
        Duration::from_secs(3),
        Some("unhealthy"),
    );
    metrics.step_ended("gate", "staging", RunResult::Success, Duration::from_secs(14_400));
    metrics.steps_waiting("gate", WaitKind::Human, 3);
    metrics.runs_active("ms-identity", 1);
    metrics.system_error("relay", "unavailable");
    metrics.events_published(7);
    telemetry.flush(TIMEOUT).await.unwrap();

    let received = collector.received.metrics();
    let find = |name: &str| {
        let found = received.iter().find(|(_, metric)| metric.name == name);
        found.unwrap_or_else(|| panic!("{name} did not arrive")).clone()
    };
    let (service, duration) = find("cicd.pipeline.run.duration");
    assert_eq!(service, "deploy-svc");
    assert_eq!(duration.unit, "s");
    let Some(Data::Histogram(histogram)) = duration.data else {
        panic!("not a histogram")
    };
    assert_eq!(histogram.data_points.len(), 2);
    for point in &histogram.data_points {
        assert_eq!(
            attribute(&point.attributes, "cicd.pipeline.name").as_deref(),
            Some("ms-identity")
        );
        assert_eq!(attribute(&point.attributes, "cicd.pipeline.run.id"), None);
        match attribute(&point.attributes, "cicd.pipeline.result").as_deref() {
            Some("success") => assert_eq!(point.sum, Some(90.0)),
            Some("failure") => {
                assert_eq!(
                    attribute(&point.attributes, "error.type").as_deref(),
                    Some("unhealthy")
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let Some(Data::Gauge(waiting)) = find("slipway.steps.waiting").1.data else {
        panic!("not a gauge")
    };
    assert_eq!(
        attribute(&waiting.data_points[0].attributes, "slipway.wait.kind").as_deref(),
        Some("human")
    );
    for name in [
        "slipway.step.duration",
        "cicd.pipeline.run.active",
        "cicd.system.errors",
        "slipway.events.published",
    ] {
        find(name);
    }
}

#[tokio::test]
async fn a_service_is_one_however_often_it_is_asked_for() {
    let collector = Collector::start().await;
    let (telemetry, _dispatch) = exporting_to(&collector);
    for _ in 0..3 {
        let spans = telemetry.service("deploy-svc").unwrap().step_spans();
        spans.record(gate());
    }
    telemetry.shutdown(TIMEOUT).await;
    assert_eq!(collector.received.spans().len(), 3);
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_done_and_context_still_passes() {
    let (telemetry, dispatch) = build(&TelemetryConfig {
        log_filter: "off".to_owned(),
        ..TelemetryConfig::default()
    })
    .unwrap();
    let service = telemetry.service("build-svc").unwrap();
    assert!(!service.step_spans().is_enabled());
    service.step_spans().record(gate());
    service.step_spans().export(vec![gate()]).await.unwrap();
    let _default = dispatcher::set_default(&dispatch);
    let span = info_span!("fetch");
    service.adopt(&span, Some(caller()));
    let _entered = span.enter();
    let current = slipway_telemetry::current_trace_context().unwrap();
    assert_eq!(current.trace_id, caller().trace_id);
    telemetry.flush(TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn spans_can_be_captured() {
    let config = TelemetryConfig::default();
    let (telemetry, _dispatch, captured) = slipway_telemetry::capture(&config).unwrap();
    let spans = telemetry.service("deploy-svc").unwrap().step_spans();
    spans.export(vec![gate()]).await.unwrap();
    let spans = captured.spans();
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].0, "deploy-svc");
    assert_eq!(spans[0].1.span_context.span_id().to_bytes(), gate().span_id.0);
}

#[tokio::test]
async fn wrong_settings_name_the_field() {
    let wrong = |config: TelemetryConfig| build(&config).map(|_| ()).unwrap_err().to_string();
    for endpoint in ["collector:4317", "ftp://collector", "http://", ""] {
        let message = wrong(TelemetryConfig {
            otlp_endpoint: Some(endpoint.to_owned()),
            ..TelemetryConfig::default()
        });
        assert!(
            message.starts_with(&format!("otlp_endpoint {endpoint:?}")),
            "{message}"
        );
    }
    let message = wrong(TelemetryConfig {
        log_filter: "info,a=b=c".to_owned(),
        ..TelemetryConfig::default()
    });
    assert!(message.starts_with("log_filter \"info,a=b=c\""), "{message}");
}

#[test]
fn an_endpoint_needs_a_runtime() {
    let config = TelemetryConfig {
        otlp_endpoint: Some("http://127.0.0.1:1".to_owned()),
        ..TelemetryConfig::default()
    };
    assert!(matches!(build(&config), Err(TelemetryError::NoRuntime)));
}

#[test]
fn handles_can_be_shared() {
    fn shared<T: Send + Sync + Clone + 'static>(_: Option<Arc<T>>) {}
    shared::<Telemetry>(None);
    shared::<slipway_telemetry::Service>(None);
    shared::<slipway_telemetry::StepSpans>(None);
}
