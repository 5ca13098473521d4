//! What an RPC can return instead of a result: one small set of errors, mapped once to gRPC status codes and
//! `google.rpc` details (AIP-193).

use std::borrow::Cow;

use slipway_ledger::{Refusal, RefusalKind};
use slipway_model::{Fault, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` that Slipway sends.
pub const DOMAIN: &str = "slipway.dev";

/// Why a request failed. The text of every variant is for the caller; anything else goes through
/// [`ApiError::internal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field of the request is not well-formed: `INVALID_ARGUMENT` with the field's path.
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    /// It does not exist: `NOT_FOUND`.
    #[error("{kind} {id:?} does not exist")]
    NotFound { kind: &'static str, id: String },
    /// It exists already, with different content: `ALREADY_EXISTS`.
    #[error("{kind} {id:?} already exists; read it before you request it again")]
    Exists { kind: &'static str, id: String },
    /// The request id was used for a different request: `ALREADY_EXISTS`, reason `REQUEST_ID_REUSED`.
    #[error("request_id {request_id:?} was used for another request; use a new one")]
    AlreadyUsed { request_id: String },
    /// The state of the resource does not allow it: `FAILED_PRECONDITION` with a pinned reason in UPPER_SNAKE_CASE.
    #[error("{message}")]
    Precondition {
        reason: Cow<'static, str>,
        message: String,
    },
    /// The caller lacks a role: `PERMISSION_DENIED`.
    #[error("{message}")]
    Denied { message: String },
    /// No credential, or one that is not known: `UNAUTHENTICATED`.
    #[error("{message}")]
    Unauthenticated { message: String },
    /// A limit was reached: `RESOURCE_EXHAUSTED`.
    #[error("{message}")]
    Exhausted { message: String },
    /// Something that is needed is unreachable now; trying again may help: `UNAVAILABLE`.
    #[error("{message}")]
    Unavailable { message: String },
    /// Others changed the same resource too often meanwhile; trying again may help: `ABORTED`.
    #[error("{message}")]
    Conflict { message: String },
    /// The deadline passed: `DEADLINE_EXCEEDED`.
    #[error("{message}")]
    Deadline { message: String },
    /// An internal error: `INTERNAL`. The cause is in the log under this id and nowhere else.
    #[error("internal error; the log has it under {log_id}")]
    Internal { log_id: String },
}

// Messages are passed both as errors and as formatted texts, by value.
#[allow(clippy::needless_pass_by_value)]
impl ApiError {
    /// A field that is not valid; `field` is its path in the request, such as `subject.commit`.
    pub fn invalid(field: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid {
            field: field.into(),
            message: message.to_string(),
        }
    }

    /// Something that does not exist; `kind` in words, such as `build`.
    pub fn not_found(kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            kind,
            id: id.to_string(),
        }
    }

    /// Something that exists already, with different content; `kind` in words, such as `build`.
    pub fn exists(kind: &'static str, id: impl ToString) -> Self {
        Self::Exists {
            kind,
            id: id.to_string(),
        }
    }

    /// A state that does not allow the request; `reason` is pinned, `message` is for people.
    pub fn precondition(reason: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self::Precondition {
            reason: reason.into(),
            message: message.to_string(),
        }
    }

    /// A decider's refusal.
    pub fn refused(refusal: impl Refusal) -> Self {
        match refusal.kind() {
            RefusalKind::NotFound { kind, id } => Self::not_found(kind, id),
            RefusalKind::AlreadyExists { kind, id } => Self::exists(kind, id),
            RefusalKind::FailedPrecondition(reason) => Self::precondition(reason, refusal),
            RefusalKind::Defect => Self::internal(refusal),
        }
    }

    /// Something that is unreachable for now.
    pub fn unavailable(message: impl ToString) -> Self {
        Self::Unavailable {
            message: message.to_string(),
        }
    }

    /// Logs `cause` and its sources, and returns nothing but the id under which they are logged.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        let log_id = slipway_model::Id::generate("err").to_string();
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        tracing::error!(log_id, error = text, "internal error");
        Self::Internal { log_id }
    }

    /// The gRPC code of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::Exists { .. } | Self::AlreadyUsed { .. } => Code::AlreadyExists,
            Self::Precondition { .. } => Code::FailedPrecondition,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Conflict { .. } => Code::Aborted,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// The pinned reason, as `google.rpc.ErrorInfo` carries it.
    pub fn reason(&self) -> &str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::Exists { .. } => "ALREADY_EXISTS",
            Self::AlreadyUsed { .. } => "REQUEST_ID_REUSED",
            Self::Precondition { reason, .. } => reason.as_ref(),
            Self::Denied { .. } => "PERMISSION_DENIED",
            Self::Unauthenticated { .. } => "UNAUTHENTICATED",
            Self::Exhausted { .. } => "LIMIT_EXCEEDED",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Conflict { .. } => "CONFLICT",
            Self::Deadline { .. } => "DEADLINE_EXCEEDED",
            Self::Internal { .. } => "INTERNAL",
        }
    }
}

/// A permanent fault is the state's, with its pinned reason; a transient one is to be retried. `INTERNAL` is ours, and
/// its words are for the log alone.
impl From<Fault<Reason>> for ApiError {
    fn from(fault: Fault<Reason>) -> Self {
        match fault {
            Fault::Permanent(reason) | Fault::Transient { error: reason, .. }
                if reason.code == "INTERNAL" =>
            {
                Self::internal(reason)
            }
            Fault::Permanent(reason) => Self::precondition(reason.code, reason.message),
            Fault::Transient { error, .. } => Self::unavailable(error.message),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(error.reason(), DOMAIN, std::collections::HashMap::new());
        match &error {
            ApiError::Invalid { field, message } => {
                details.add_bad_request_violation(field, message);
            }
            ApiError::NotFound { kind, id } | ApiError::Exists { kind, id } => {
                details.set_resource_info(*kind, id, "", error.to_string());
            }
            ApiError::AlreadyUsed { request_id } => {
                details.set_resource_info("request", request_id, "", error.to_string());
            }
            ApiError::Precondition { reason, message } => {
                details.add_precondition_failure_violation(reason.as_ref(), "", message);
            }
            ApiError::Internal { log_id } => {
                details.set_request_info(log_id, "");
            }
            ApiError::Unavailable { .. } | ApiError::Conflict { .. } => {
                details.set_retry_info(Some(std::time::Duration::from_secs(1)));
            }
            ApiError::Denied { .. }
            | ApiError::Unauthenticated { .. }
            | ApiError::Exhausted { .. }
            | ApiError::Deadline { .. } => {}
        }
        Status::with_error_details(error.code(), error.to_string(), details)
    }
}

/// What a client reads from a `Status`: the counterpart of [`ApiError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorView {
    pub code: Code,
    pub message: String,
    /// The pinned reason; empty when the status does not have an `ErrorInfo` of ours.
    pub reason: String,
    /// The offending field of an `INVALID_ARGUMENT`; otherwise empty.
    pub field: String,
    /// The name of the affected thing: what was not found, the request id, the id in the log; otherwise empty.
    pub resource: String,
}

impl ErrorView {
    /// Reads the code, the message and, if present, the details. Never fails: a status that another program made has
    /// empty details.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .filter(|info| info.domain == DOMAIN)
            .map(|info| info.reason.clone())
            .unwrap_or_default();
        let field = details
            .bad_request()
            .and_then(|bad| bad.field_violations.first())
            .map(|violation| violation.field.clone())
            .unwrap_or_default();
        let resource = details
            .resource_info()
            .map(|info| info.resource_name.clone())
            .or_else(|| details.request_info().map(|info| info.request_id.clone()))
            .unwrap_or_default();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason,
            field,
            resource,
        }
    }

    /// Whether the same request may succeed later without a change.
    pub fn retryable(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable
                | Code::Aborted
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::ResourceExhausted
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each variant; the match makes the compiler ask for a line here when one is added.
    fn all() -> Vec<(ApiError, ErrorView)> {
        let text = || "words".to_owned();
        let errors = vec![
            ApiError::invalid("subject.commit", "words"),
            ApiError::not_found("build", "bld-1"),
            ApiError::exists("build", "bld-1"),
            ApiError::AlreadyUsed {
                request_id: "r1".to_owned(),
            },
            ApiError::precondition("SELF_APPROVAL", "words"),
            ApiError::Denied { message: text() },
            ApiError::Unauthenticated { message: text() },
            ApiError::Exhausted { message: text() },
            ApiError::Unavailable { message: text() },
            ApiError::Conflict { message: text() },
            ApiError::Deadline { message: text() },
            ApiError::Internal {
                log_id: "err-1".to_owned(),
            },
        ];
        errors
            .into_iter()
            .map(|error| {
                let (code, reason, field, resource) = match &error {
                    ApiError::Invalid { .. } => {
                        (Code::InvalidArgument, "INVALID_FIELD", "subject.commit", "")
                    }
                    ApiError::NotFound { .. } => (Code::NotFound, "NOT_FOUND", "", "bld-1"),
                    ApiError::Exists { .. } => (Code::AlreadyExists, "ALREADY_EXISTS", "", "bld-1"),
                    ApiError::AlreadyUsed { .. } => (Code::AlreadyExists, "REQUEST_ID_REUSED", "", "r1"),
                    ApiError::Precondition { .. } => (Code::FailedPrecondition, "SELF_APPROVAL", "", ""),
                    ApiError::Denied { .. } => (Code::PermissionDenied, "PERMISSION_DENIED", "", ""),
                    ApiError::Unauthenticated { .. } => (Code::Unauthenticated, "UNAUTHENTICATED", "", ""),
                    ApiError::Exhausted { .. } => (Code::ResourceExhausted, "LIMIT_EXCEEDED", "", ""),
                    ApiError::Unavailable { .. } => (Code::Unavailable, "UNAVAILABLE", "", ""),
                    ApiError::Conflict { .. } => (Code::Aborted, "CONFLICT", "", ""),
                    ApiError::Deadline { .. } => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "", ""),
                    ApiError::Internal { .. } => (Code::Internal, "INTERNAL", "", "err-1"),
                };
                let view = ErrorView {
                    code,
                    message: error.to_string(),
                    reason: reason.to_owned(),
                    field: field.to_owned(),
                    resource: resource.to_owned(),
                };
                (error, view)
            })
            .collect()
    }

    #[test]
    fn every_error_reads_back_from_its_status() {
        let all = all();
        for (error, view) in &all {
            let status = Status::from(error.clone());
            // Through the wire form: the client's library sees headers.
            let headers = status.into_http::<tonic::body::Body>().into_parts().0.headers;
            let status = Status::from_header_map(&headers).expect("a status");
            assert_eq!(&ErrorView::of(&status), view);
        }
        let reasons: std::collections::BTreeSet<&str> = all.iter().map(|(error, _)| error.reason()).collect();
        assert_eq!(reasons.len(), all.len(), "each error has its own reason");
    }

    #[test]
    fn faults_keep_their_reasons() {
        let no = ApiError::from(Fault::refused("FILE_NOT_FOUND", "there is no such file"));
        assert_eq!(
            no,
            ApiError::precondition("FILE_NOT_FOUND", "there is no such file")
        );
        let away = ApiError::from(Fault::unavailable("REMOTE_UNREACHABLE", "no route"));
        assert_eq!(away, ApiError::unavailable("no route"));
        for fault in [
            Fault::refused("INTERNAL", "hunter2"),
            Fault::unavailable("INTERNAL", "hunter2"),
        ] {
            let ours = ApiError::from(fault);
            assert_eq!(ours.code(), Code::Internal);
            assert!(!ours.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn internal_errors_do_not_show_their_cause() {
        let error = ApiError::internal("password=hunter2");
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("hunter2"));
    }
}
