//! What all calls to the other services share: deadlines, trace context, and what their errors mean.

use std::time::Duration;

use slipway_model::{Fault, Reason, TraceContext};
use slipway_server::ErrorView;
use tonic::{Code, Request, Status};

/// An owner answers from its ledger; longer means that something is wrong with it.
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

/// A refusal ends the step; whatever may be otherwise in a minute is asked again.
pub(super) fn failed(owner: &'static str) -> impl Fn(Status) -> Fault<Reason> {
    move |status| {
        let view = ErrorView::of(&status);
        let code = if view.reason.is_empty() {
            screaming(status.code())
        } else {
            view.reason
        };
        let reason = Reason::new(code, format!("{owner}: {}", status.message()));
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

/// An answer that breaks the owner's own contract; a newer version may mend it.
pub(super) fn malformed(owner: &'static str, what: impl std::fmt::Display) -> Fault<Reason> {
    Fault::unavailable("MALFORMED_ANSWER", format!("{owner} answered with {what}"))
}

/// What an owner says that it tries again.
pub(super) fn retry(given: Option<slipway_proto::common::v1::Retry>) -> Option<Reason> {
    given?.error.map(|error| Reason::new(error.code, error.message))
}

/// The reason that an owner gave for an end, or one that says that it gave none.
pub(super) fn reason(given: Option<slipway_proto::common::v1::Reason>, fallback: &str) -> Reason {
    match given {
        Some(reason) if !reason.code.is_empty() => Reason::new(reason.code, reason.message),
        _ => Reason::new(fallback, "no reason given"),
    }
}
