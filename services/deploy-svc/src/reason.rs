//! Why something is as it is.

use serde::{Deserialize, Serialize};

/// A pinned code for programs, and words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Pinned, UPPER_SNAKE_CASE.
    pub code: String,
    /// For people; its wording may change.
    pub message: String,
}

impl Reason {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}
