//! Errors in the form of the Kubernetes API: the `Status` object with code, reason, message and details.

use serde_json::{Value, json};

use crate::cause::Cause;
use crate::resources::Resource;

/// A refusal, ready to be sent as a `v1 Status`. The messages and reasons are those of the real API server
/// (`k8s.io/apimachinery/pkg/api/errors`), since clients match on them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    /// The HTTP status code.
    pub(crate) code: u16,
    /// `metav1.StatusReason`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    details: Value,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: json!({}),
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = details(name, resource.group, resource.plural, &[]);
        self
    }

    pub(crate) fn without_details(mut self) -> Self {
        self.details = Value::Null;
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message).without_details()
    }

    /// An error that the real server gives no status of its own.
    pub(crate) fn unclassified(message: impl Into<String>) -> Self {
        Self::new(500, "", message).without_details()
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized").without_details()
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// Nothing is created in a namespace that is ending.
    pub(crate) fn namespace_ends(resource: &Resource, name: &str, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        };
        let mut error = Self::forbidden(resource, name, why);
        error.details = details(name, resource.group, resource.plural, &[cause]);
        error
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", resource.qualified()),
        )
        .about(resource, name)
    }

    /// No such path, with a hint that says what this cluster is.
    pub(crate) fn unknown_path(hint: impl Into<String>) -> Self {
        Self::new(404, "NotFound", hint)
    }

    pub(crate) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", resource.qualified()),
        )
        .about(resource, name)
    }

    /// The object changed since it was read (a `resourceVersion` that is not the stored one).
    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                resource.qualified()
            ),
        )
        .about(resource, name)
    }

    /// A server-side apply conflict: one cause per field, as `kubectl` prints them.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let mut managers: Vec<&str> = conflicts.iter().map(|(manager, _)| manager.as_str()).collect();
        managers.sort_unstable();
        managers.dedup();
        let message = if conflicts.len() == 1 {
            format!(
                "Apply failed with 1 conflict: conflict with {}: {}",
                conflicts[0].0, conflicts[0].1
            )
        } else if managers.len() == 1 {
            let fields: Vec<String> = conflicts.iter().map(|(_, field)| format!("- {field}")).collect();
            format!(
                "Apply failed with {} conflicts: conflicts with {}:\n{}",
                conflicts.len(),
                managers[0],
                fields.join("\n")
            )
        } else {
            let mut text = format!("Apply failed with {} conflicts:", conflicts.len());
            for manager in managers {
                text.push_str(&format!(" conflicts with {manager}:"));
                for (_, field) in conflicts.iter().filter(|(m, _)| m == manager) {
                    text.push_str(&format!("\n- {field}"));
                }
            }
            text
        };
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
            })
            .collect();
        let mut error = Self::new(409, "Conflict", message);
        error.details = json!({"causes": causes});
        error
    }

    /// The watch starts before the retained history: the client must list again.
    pub(crate) fn gone(asked: u64, oldest: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
        .without_details()
    }

    /// A precondition of a deletion does not hold; the real server names the kind here, not the resource.
    pub(crate) fn precondition(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let kind = qualified_kind(resource.group, resource.kind);
        let message = format!("Operation cannot be fulfilled on {kind} \"{name}\": {why}");
        let mut error = Self::new(409, "Conflict", message);
        error.details = details(name, resource.group, resource.kind, &[]);
        error
    }

    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("limit is {limit} bytes"))
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_kind(resource.group, resource.kind, name, causes)
    }

    pub(crate) fn invalid_kind(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let text: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        let text = if let [only] = text.as_slice() {
            only.clone()
        } else {
            format!("[{}]", text.join(", "))
        };
        let qualified = qualified_kind(group, kind);
        let mut error = Self::new(
            422,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {text}"),
        );
        error.details = details(name, group, kind, causes);
        error
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// Too many requests; the client is told to wait.
    pub(crate) fn too_many_requests(seconds: u32) -> Self {
        let mut error = Self::new(
            429,
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        );
        error.details = json!({"retryAfterSeconds": seconds});
        error
    }

    /// The seconds that a client is told to wait.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.details["retryAfterSeconds"].as_u64()
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message).without_details()
    }

    /// The `v1 Status` object.
    pub(crate) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

fn qualified_kind(group: &str, kind: &str) -> String {
    if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    }
}

/// What an error is about; what is empty is omitted.
fn details(name: &str, group: &str, kind: &str, causes: &[Cause]) -> Value {
    let mut details = json!({"kind": kind});
    for (field, text) in [("name", name), ("group", group)] {
        if !text.is_empty() {
            details[field] = json!(text);
        }
    }
    let causes: Vec<Value> = causes
        .iter()
        .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
        .collect();
    if !causes.is_empty() {
        details["causes"] = json!(causes);
    }
    details
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for ApiError {}
