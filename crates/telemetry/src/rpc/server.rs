//! The answering side: reads `traceparent`, and creates a SERVER span and a measurement for each call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use slipway_model::TraceContext;
use tonic::Code;
use tower::Layer;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    Metrics, Service,
    context::{TRACEPARENT, from_span_context},
};

/// Called every few seconds by machines: no spans, no measurements.
const PROBES: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// Begins a SERVER span for each call, named and attributed after the RPC conventions, as a child of the caller's
/// `traceparent`, and puts a [`TraceContext`] among the request's extensions: the caller's, or the span's own when the
/// caller sent none (or one that is malformed). The span belongs to the given service and ends with the last byte of
/// the answer.
#[derive(Debug, Clone)]
pub struct TraceServerLayer {
    service: Service,
}

impl TraceServerLayer {
    /// For the server of this service.
    pub fn new(service: &Service) -> Self {
        Self {
            service: service.clone(),
        }
    }
}

impl<S> Layer<S> for TraceServerLayer {
    type Service = TraceServer<S>;

    fn layer(&self, inner: S) -> TraceServer<S> {
        TraceServer {
            inner,
            service: self.service.clone(),
        }
    }
}

/// A server wrapped by [`TraceServerLayer`].
#[derive(Debug, Clone)]
pub struct TraceServer<S> {
    inner: S,
    service: Service,
}

impl<S, B, R> tower::Service<Request<B>> for TraceServer<S>
where
    S: tower::Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = TracedCall<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let caller: Option<TraceContext> = request
            .headers()
            .get(TRACEPARENT)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if PROBES.iter().any(|probe| path.starts_with(probe)) {
            request
                .extensions_mut()
                .extend(caller.map(extension).unwrap_or_default());
            let call = Call {
                span: Span::none(),
                measure: None,
            };
            return TracedCall {
                future: self.inner.call(request),
                call: Some(call),
            };
        }
        let method = path.trim_start_matches('/').to_owned();
        let span = tracing::info_span!(
            "rpc",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = Empty,
            error.type = Empty,
        );
        self.service.adopt(&span, caller);
        let own = || {
            use opentelemetry::trace::TraceContextExt;
            from_span_context(span.context().span().span_context())
        };
        if let Some(context) = caller.or_else(own) {
            request.extensions_mut().insert(context);
        }
        let future = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        let measure = Measure {
            method,
            metrics: self.service.metrics().clone(),
            begun: Instant::now(),
        };
        TracedCall {
            future,
            call: Some(Call {
                span,
                measure: Some(measure),
            }),
        }
    }
}

fn extension(context: TraceContext) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    extensions.insert(context);
    extensions
}

/// A call in progress. Ends when dropped, as cancelled unless it was answered.
#[derive(Debug)]
struct Call {
    span: Span,
    measure: Option<Measure>,
}

#[derive(Debug)]
struct Measure {
    method: String,
    metrics: Metrics,
    begun: Instant,
}

impl Call {
    /// The status is known: from the trailers, or from the headers of an answer without a body.
    fn end(&mut self, code: Code) {
        let Some(measure) = self.measure.take() else {
            return;
        };
        let status = status_name(code);
        self.span.record("rpc.response.status_code", status);
        if is_server_error(code) {
            self.span.record("error.type", status);
            self.span.record("otel.status_code", "ERROR");
        }
        let method = if code == Code::Unimplemented {
            "_OTHER"
        } else {
            &measure.method
        };
        measure
            .metrics
            .call_ended(method, status, measure.begun.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// The codes that the conventions count as errors on the server's side; the others are the caller's.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// As in the gRPC specification.
fn status_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

pin_project! {
    /// A call whose response is awaited.
    #[derive(Debug)]
    pub struct TracedCall<F> {
        #[pin]
        future: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for TracedCall<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<TracedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let span = this
            .call
            .as_ref()
            .map_or_else(Span::none, |call| call.span.clone());
        let result = {
            let _entered = span.enter();
            ready!(this.future.poll(cx))
        };
        let mut call = this.call.take();
        Poll::Ready(match result {
            Ok(response) => {
                if let (Some(call), Some(code)) = (&mut call, grpc_status(response.headers())) {
                    call.end(code);
                }
                Ok(response.map(|body| TracedBody { body, call }))
            }
            Err(error) => {
                if let Some(call) = &mut call {
                    call.end(Code::Internal);
                }
                Err(error)
            }
        })
    }
}

pin_project! {
    /// A response in progress; the call ends with its trailers.
    #[derive(Debug)]
    pub struct TracedBody<B> {
        #[pin]
        body: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for TracedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let span = this
            .call
            .as_ref()
            .map_or_else(Span::none, |call| call.span.clone());
        let frame = {
            let _entered = span.enter();
            ready!(this.body.poll_frame(cx))
        };
        if let Some(call) = this.call.as_mut() {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(code) = frame.trailers_ref().and_then(grpc_status) {
                        call.end(code);
                    }
                }
                Some(Err(_)) => call.end(Code::Internal),
                None => call.end(Code::Ok),
            }
        }
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            *this.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
