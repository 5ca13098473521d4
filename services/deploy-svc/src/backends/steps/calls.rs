//! What all calls to the other services share: deadlines, trace context, and what their errors mean.

use std::{fmt::Display, str::FromStr, time::Duration};

use slipway_model::{Fault, Reason, TraceContext};
use slipway_server::ErrorView;
use tonic::{Code, Request, Response, Status};

/// A service answers from its ledger; if it takes longer, something is wrong with it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request that belongs to the step with this span.
pub(super) fn request<T>(message: T, trace: TraceContext) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    if let Ok(value) = trace.to_string().parse() {
        request.metadata_mut().insert("traceparent", value);
    }
    request.extensions_mut().insert(trace);
    request
}

/// Another service, with the name that is used in errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service(pub(super) &'static str);

impl Service {
    /// Waits for the answer to a call, and takes the resource, such as a build, from it.
    ///
    /// # Errors
    /// Permanent if the service refused; transient if it could not be asked, or answered without the resource.
    pub(super) async fn resource<A, R>(
        self,
        noun: &str,
        call: impl Future<Output = Result<Response<A>, Status>>,
        resource: impl FnOnce(A) -> Option<R>,
    ) -> Result<R, Fault<Reason>> {
        let answer = self.answer(call).await?;
        resource(answer).ok_or_else(|| self.malformed(format!("no {noun}")))
    }

    /// Waits for the answer to a call.
    ///
    /// # Errors
    /// Permanent if the service refused, which ends the step; transient for anything that may be different in a minute.
    pub(super) async fn answer<A>(
        self,
        call: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, Fault<Reason>> {
        match call.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.failed(&status)),
        }
    }

    /// Reads one field of an answer, such as an id.
    ///
    /// # Errors
    /// Transient if it is malformed: a newer version of the service may fix that.
    pub(super) fn parse<T: FromStr<Err: Display>>(self, text: &str) -> Result<T, Fault<Reason>> {
        text.parse().map_err(|error| self.malformed(error))
    }

    /// An answer that breaks the service's own contract; a newer version may fix it.
    pub(super) fn malformed(self, what: impl Display) -> Fault<Reason> {
        Fault::unavailable("MALFORMED_ANSWER", format!("{} answered with {what}", self.0))
    }

    fn failed(self, status: &Status) -> Fault<Reason> {
        let view = ErrorView::of(status);
        let code = if view.reason.is_empty() {
            screaming(status.code())
        } else {
            view.reason
        };
        let reason = Reason::new(code, format!("{}: {}", self.0, status.message()));
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented => Fault::Permanent(reason),
            _ => Fault::transient(reason),
        }
    }
}

/// The name of a gRPC code as the specification writes it.
fn screaming(code: Code) -> String {
    let mut text = String::new();
    for (index, c) in format!("{code:?}").chars().enumerate() {
        if index > 0 && c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

/// What a service reports that it is retrying.
pub(super) fn retry(given: Option<slipway_proto::common::v1::Retry>) -> Option<Reason> {
    given?.error.map(|error| Reason::new(error.code, error.message))
}

/// The reason that a service gave for an end, or a note that it gave none.
pub(super) fn reason(given: Option<slipway_proto::common::v1::Reason>, fallback: &str) -> Reason {
    match given {
        Some(reason) if !reason.code.is_empty() => Reason::new(reason.code, reason.message),
        _ => Reason::new(fallback, "no reason given"),
    }
}
