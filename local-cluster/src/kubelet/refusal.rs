//! Why a container cannot be made.

/// Why a container cannot be made, as its waiting reason tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `CreateContainerError` or `CreateContainerConfigError`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

pub(super) fn refuse(message: impl Into<String>) -> Refusal {
    Refusal {
        reason: "CreateContainerError",
        message: message.into(),
    }
}

pub(super) fn misconfigured(message: impl Into<String>) -> Refusal {
    Refusal {
        reason: "CreateContainerConfigError",
        message: message.into(),
    }
}
