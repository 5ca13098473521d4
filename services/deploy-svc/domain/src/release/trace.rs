//! The trace of a release, derived from its id: the same after every restart.

use slipway_model::{Id, SpanId, TraceContext, TraceId};

/// The trace of a release.
pub fn release_trace(release: &Id) -> TraceId {
    TraceId::derived(&["release", release.as_str()])
}

/// The root span of a release.
pub fn root_span(release: &Id) -> SpanId {
    SpanId::derived(&["release", release.as_str()])
}

/// The span of one attempt of one step.
pub fn step_trace(release: &Id, step: &str, attempt: u32) -> TraceContext {
    TraceContext {
        trace_id: release_trace(release),
        span_id: SpanId::derived(&["release", release.as_str(), step, &attempt.to_string()]),
        sampled: true,
    }
}
