//! Conversion between `slipway_model::TraceContext`, OpenTelemetry's contexts and `tracing` spans.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use slipway_model::TraceContext;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header and metadata key of W3C Trace Context.
pub(crate) const TRACEPARENT: &str = "traceparent";

pub(crate) fn to_span_context(context: TraceContext) -> SpanContext {
    let flags = if context.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NOT_SAMPLED
    };
    SpanContext::new(
        TraceId::from_bytes(context.trace_id.0),
        SpanId::from_bytes(context.span_id.0),
        flags,
        true,
        TraceState::NONE,
    )
}

pub(crate) fn from_span_context(context: &SpanContext) -> Option<TraceContext> {
    context.is_valid().then(|| TraceContext {
        trace_id: slipway_model::TraceId(context.trace_id().to_bytes()),
        span_id: slipway_model::SpanId(context.span_id().to_bytes()),
        sampled: context.is_sampled(),
    })
}

pub(crate) fn with_remote_parent(context: Context, parent: Option<TraceContext>) -> Context {
    match parent {
        Some(parent) => context.with_remote_span_context(to_span_context(parent)),
        None => context,
    }
}

/// Gives a span that was not entered yet a parent from another process.
pub fn set_parent(span: &tracing::Span, parent: impl Into<ParentContext>) {
    // Fails only without our subscriber, when there is nothing to set.
    let _ = span.set_parent(parent.into().0);
}

/// The argument of [`set_parent`]: a [`TraceContext`].
#[derive(Debug)]
pub struct ParentContext(Context);

impl From<TraceContext> for ParentContext {
    fn from(parent: TraceContext) -> Self {
        Self(with_remote_parent(Context::current(), Some(parent)))
    }
}

impl From<Context> for ParentContext {
    fn from(context: Context) -> Self {
        Self(context)
    }
}

/// The context of the current span: what to record with an event, or pass on. `None` outside of any span.
pub fn current_trace_context() -> Option<TraceContext> {
    let span = tracing::Span::current();
    if span.is_none() {
        return from_span_context(Context::current().span().span_context());
    }
    from_span_context(span.context().span().span_context())
}

/// Trace context on a gRPC request.
pub trait WithTraceContext {
    /// Sends this context with the request, instead of the current span's. `None` changes nothing.
    #[must_use]
    fn with_trace_context(self, context: Option<TraceContext>) -> Self;

    /// On a server: the caller's context or, if it did not send one, that of the span that [`crate::TraceServerLayer`]
    /// began for this request.
    fn trace_context(&self) -> Option<TraceContext>;
}

impl<T> WithTraceContext for tonic::Request<T> {
    fn with_trace_context(mut self, context: Option<TraceContext>) -> Self {
        if let Some(context) = context
            && let Ok(value) = context.to_string().parse()
        {
            self.metadata_mut().insert(TRACEPARENT, value);
        }
        self
    }

    fn trace_context(&self) -> Option<TraceContext> {
        self.extensions()
            .get::<TraceContext>()
            .copied()
            .or_else(|| self.metadata().get(TRACEPARENT)?.to_str().ok()?.parse().ok())
    }
}
