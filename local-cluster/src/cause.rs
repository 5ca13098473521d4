//! What is wrong with a field of an object.

/// One thing that is wrong with a field of an object, as in `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Such as `FieldValueInvalid` (`metav1.CauseType`).
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// JSON path without the leading dot.
    pub(crate) field: String,
}
