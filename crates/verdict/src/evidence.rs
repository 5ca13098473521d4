//! What a person needs to see when a deployment failed.

use serde::{Deserialize, Serialize};

/// One container of a pod at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodEvidence {
    pub pod: String,
    pub container: String,
    /// Such as `CrashLoopBackOff` or `Running, not ready`.
    pub state: String,
    /// Of the last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of the present run, oldest line first.
    pub log_tail: Vec<String>,
    /// Of the run before it, oldest line first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_log_tail: Vec<String>,
    /// Oldest first.
    pub events: Vec<String>,
}
