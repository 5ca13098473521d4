//! The outermost layer: counts open requests, refuses new ones during a drain and ends streams, limits how many are
//! open at once, and writes one access-log line per request.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::{TaskTracker, TaskTrackerToken},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{
    ApiError, ServerConfig,
    access_log::{CallerSlot, Record},
    authentication::OPEN,
};

/// A stream that always has something ready (a long event tail) is cut off after this many further messages during a
/// drain.
const LAST_MESSAGES: u8 = 16;

/// State shared by all requests of one server.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Set when the drain begins.
    draining: CancellationToken,
    open: TaskTracker,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Paths of the methods that answer with a stream.
    streaming: HashSet<String>,
}

impl Gate {
    pub(crate) fn new(config: &ServerConfig, streaming: HashSet<String>) -> Self {
        Self(Arc::new(Shared {
            draining: CancellationToken::new(),
            open: TaskTracker::new(),
            requests: Arc::new(Semaphore::new(
                config.max_concurrent_requests.min(Semaphore::MAX_PERMITS),
            )),
            streams: Arc::new(Semaphore::new(
                config.max_concurrent_streams.min(Semaphore::MAX_PERMITS),
            )),
            streaming,
        }))
    }

    /// Refuses new requests and ends streams from now on; returns when no request is open any more.
    pub(crate) async fn drain(&self) {
        self.0.draining.cancel();
        self.0.open.close();
        self.0.open.wait().await;
    }

    /// How many requests are being answered.
    pub(crate) fn open(&self) -> usize {
        self.0.open.len()
    }

    fn admit(&self, path: &str) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if path.starts_with(OPEN) {
            return Ok(None);
        }
        if self.0.draining.is_cancelled() {
            return Err(ApiError::unavailable("the server is shutting down; try again"));
        }
        let (semaphore, what) = if self.0.streaming.contains(path) {
            (&self.0.streams, "streams")
        } else {
            (&self.0.requests, "requests")
        };
        Arc::clone(semaphore)
            .try_acquire_owned()
            .map(Some)
            .map_err(|_| ApiError::Exhausted {
                message: format!("too many {what} at once; try again later"),
            })
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Gated {
            inner,
            gate: self.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let shared = &self.gate.0;
        let path = request.uri().path();
        let caller = CallerSlot::default();
        let mut record = Record::begin(path, path.starts_with(OPEN), caller.clone());
        let permit = match self.gate.admit(path) {
            Ok(permit) => permit,
            Err(error) => {
                record.status = Some(error.code());
                return Box::pin(std::future::ready(Ok(Status::from(error).into_http())));
            }
        };
        let token = shared.open.token();
        let draining = shared
            .streaming
            .contains(path)
            .then(|| Box::pin(shared.draining.clone().cancelled_owned()));
        request.extensions_mut().insert(caller);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // A response without a body has its status in the headers ("Trailers-Only").
            record.status = code_of(response.headers());
            Ok(response.map(|inner| {
                Body::new(Observed {
                    inner,
                    record,
                    draining,
                    cut: false,
                    left: LAST_MESSAGES,
                    ended: false,
                    permit,
                    _token: token,
                })
            }))
        })
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(Status::GRPC_STATUS)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// A response's body as it is sent.
struct Observed {
    inner: Body,
    record: Record,
    /// Streams only: completes when the drain begins.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// The drain has begun; `left` messages may still go out if they are ready.
    cut: bool,
    left: u8,
    ended: bool,
    permit: Option<OwnedSemaphorePermit>,
    _token: TaskTrackerToken,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self
            .draining
            .as_mut()
            .is_some_and(|draining| draining.as_mut().poll(cx).is_ready())
        {
            self.draining = None;
            self.cut = true;
        }
        let cut = self.cut;
        if !cut || self.left > 0 {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(frame) => {
                    if cut {
                        self.left -= 1;
                    }
                    match &frame {
                        Some(Ok(frame)) => {
                            if let Some(trailers) = frame.trailers_ref() {
                                self.record.status = code_of(trailers);
                                // Given back before the caller can know that the response is complete.
                                self.permit = None;
                            }
                        }
                        Some(Err(status)) => self.record.status = Some(status.code()),
                        None => self.ended = true,
                    }
                    return Poll::Ready(frame);
                }
                Poll::Pending if !cut => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        self.ended = true;
        self.record.status = Some(Code::Unavailable);
        Poll::Ready(Some(Ok(Frame::trailers(shutting_down()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn shutting_down() -> HeaderMap {
    let status = Status::from(ApiError::unavailable(
        "the server is shutting down; resume where this stream ended",
    ));
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("14"));
    }
    trailers
}
