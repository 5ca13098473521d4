//! The calling side: sends `traceparent`.

use std::task::{Context, Poll};

use http::{HeaderValue, Request};
use slipway_model::TraceContext;
use tower::{Layer, Service};

use crate::{context::TRACEPARENT, current_trace_context};

/// Sends the trace context with each request: the one that [`crate::WithTraceContext`] gave it, else one among its
/// extensions, else that of the current span. Does not create a span of its own: polls and watches would bury the
/// trace.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceClientLayer;

impl<S> Layer<S> for TraceClientLayer {
    type Service = TraceClient<S>;

    fn layer(&self, inner: S) -> TraceClient<S> {
        TraceClient { inner }
    }
}

/// A channel wrapped by [`TraceClientLayer`].
#[derive(Debug, Clone)]
pub struct TraceClient<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for TraceClient<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if !request.headers().contains_key(TRACEPARENT) {
            let given = request.extensions().get::<TraceContext>().copied();
            if let Some(context) = given.or_else(current_trace_context)
                && let Ok(value) = HeaderValue::try_from(context.to_string())
            {
                request.headers_mut().insert(TRACEPARENT, value);
            }
        }
        self.inner.call(request)
    }
}
