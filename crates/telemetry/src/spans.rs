//! Spans with given ids and times: what the ledger says happened, rather than what this process observed.

use std::time::{Duration, SystemTime};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use slipway_model::{Timestamp, TraceContext};

use crate::{ExportError, context::to_span_context, pipeline::Sink};

/// A finished span. Its ids are derived by the caller, so that the same step always gives the same span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanRecord {
    pub trace_id: slipway_model::TraceId,
    pub span_id: slipway_model::SpanId,
    /// `None` for the root.
    pub parent: Option<slipway_model::SpanId>,
    pub name: String,
    /// `Server` for a run, `Internal` for its tasks (OpenTelemetry's CICD conventions).
    pub kind: SpanKind,
    pub start: Timestamp,
    /// Not before `start`; if a clock went back, the span is empty.
    pub end: Timestamp,
    /// Named as in [`crate::names`].
    pub attributes: Vec<KeyValue>,
    /// Related spans, such as the caller's.
    pub links: Vec<TraceContext>,
    pub status: Status,
}

impl SpanRecord {
    fn into_data(self) -> SpanData {
        let mut links = SpanLinks::default();
        links.links = self
            .links
            .into_iter()
            .map(|link| Link::with_context(to_span_context(link)))
            .collect();
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(self.trace_id.0),
                SpanId::from_bytes(self.span_id.0),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: self
                .parent
                .map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
            parent_span_is_remote: false,
            span_kind: self.kind,
            name: self.name.into(),
            start_time: system_time(self.start),
            end_time: system_time(self.end.max(self.start)),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.status,
            instrumentation_scope: InstrumentationScope::builder("slipway.ledger").build(),
        }
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// Exports [`SpanRecord`]s of one service. Cheap to clone. Does nothing where nothing is exported.
#[derive(Debug, Clone)]
pub struct StepSpans {
    sink: Sink,
}

impl StepSpans {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink }
    }

    /// Whether spans are exported at all: to skip creating them.
    pub fn is_enabled(&self) -> bool {
        !self.sink.is_off()
    }

    /// Queues a span and returns at once. It is sent again while the collector is unreachable, and lost only with the
    /// process or when the queue is full; a caller that must know uses [`StepSpans::export`].
    pub fn record(&self, span: SpanRecord) {
        if self.is_enabled() {
            self.sink.offer(span.into_data());
        }
    }

    /// Sends spans and waits until the collector has taken them: at least once, when the caller repeats it after an
    /// error or a crash. The ids are the same each time.
    pub async fn export(&self, spans: Vec<SpanRecord>) -> Result<(), ExportError> {
        if spans.is_empty() || !self.is_enabled() {
            return Ok(());
        }
        let spans = spans.into_iter().map(SpanRecord::into_data).collect();
        self.sink.deliver(spans).await
    }
}
