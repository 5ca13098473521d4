//! How long a request may take and how large it may be.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::ApiError;

/// The frame header of gRPC: compression flag and length.
const FRAME_HEADER: usize = 5;

/// tonic enforces `grpc-timeout` too, further out and with another status; ours must come first by more than the
/// timer's millisecond.
const BEFORE_TONIC: Duration = Duration::from_millis(2);

#[derive(Debug, Clone)]
pub(crate) struct LimitsLayer {
    pub(crate) timeout: Duration,
    pub(crate) max_message_bytes: usize,
    /// Paths of the methods that answer with a stream: they have no time limit.
    pub(crate) streaming: Arc<HashSet<String>>,
}

impl<S> Layer<S> for LimitsLayer {
    type Service = Limits<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Limits {
            inner,
            limits: self.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Limits<S> {
    inner: S,
    limits: LimitsLayer,
}

impl<S> Service<http::Request<Body>> for Limits<S>
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

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let streaming = self.limits.streaming.contains(request.uri().path());
        let asked = grpc_timeout(request.headers());
        let left = self.limits.max_message_bytes.saturating_add(FRAME_HEADER);
        // A stream of requests (reflection) is bounded message by message, by tonic.
        let request = if streaming {
            request
        } else {
            request.map(|inner| Body::new(Bounded { inner, left }))
        };
        let asked = asked.map(|asked| asked.saturating_sub(BEFORE_TONIC));
        // A caller that waits no longer than this has given up before anything could be done: nothing is begun.
        if asked.is_some_and(|asked| asked.is_zero()) {
            let message = format!("a deadline of {BEFORE_TONIC:?} or less cannot be met: allow more time");
            return Box::pin(async { Ok(Status::from(ApiError::Deadline { message }).into_http()) });
        }
        // Counted from here, as tonic does, and not from when the answer is first looked for.
        let now = tokio::time::Instant::now();
        let answer = self.inner.call(request);
        // A stream has no time limit, unless its caller sets one.
        let timeout = match asked {
            None if streaming => return Box::pin(async move { Ok(in_our_words(answer.await?)) }),
            Some(asked) if streaming => asked,
            asked => asked.map_or(self.limits.timeout, |asked| asked.min(self.limits.timeout)),
        };
        Box::pin(async move {
            match tokio::time::timeout_at(now + timeout, answer).await {
                Ok(answer) => Ok(in_our_words(answer?)),
                Err(_) => {
                    let message = format!("the request took longer than {timeout:?}");
                    Ok(Status::from(ApiError::Deadline { message }).into_http())
                }
            }
        })
    }
}

/// tonic refuses a message by its announced length with `OUT_OF_RANGE`, which nothing of ours returns. Here it becomes
/// the same as any other limit.
fn in_our_words(response: http::Response<Body>) -> http::Response<Body> {
    let out_of_range = Code::OutOfRange as i32;
    let status = response
        .headers()
        .get("grpc-status")
        .and_then(|status| status.to_str().ok());
    if status.and_then(|status| status.parse().ok()) != Some(out_of_range) {
        return response;
    }
    let message = "the request is larger than this server accepts; send less".to_owned();
    Status::from(ApiError::Exhausted { message }).into_http()
}

/// The `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2).
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A request's body that fails when it exceeds its limit in bytes.
struct Bounded {
    inner: Body,
    left: usize,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match self.left.checked_sub(data.len()) {
                Some(left) => self.left = left,
                None => {
                    let message = "the request is larger than this server accepts; send less".to_owned();
                    return Poll::Ready(Some(Err(ApiError::Exhausted { message }.into())));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_protocol() {
        for (text, timeout) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("2H", Some(Duration::from_secs(7200))),
            ("99999999M", Some(Duration::from_secs(99_999_999 * 60))),
            ("7u", Some(Duration::from_micros(7))),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("123456789S", None),
            ("1x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(grpc_timeout(&headers), timeout, "{text:?}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }
}
