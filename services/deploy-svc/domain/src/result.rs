//! Results of checks, Jobs and measurements: recorded with the deployment, shown by the API.

use serde::{Deserialize, Serialize};
pub use slipway_check::CheckResult;
use slipway_model::{Name, Timestamp};

/// One Job's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// As the catalog names it.
    pub name: Name,
    /// The Job's own name in the cluster.
    pub job: String,
    pub succeeded: bool,
    /// Why it did not, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The last lines of its last pod, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// One metric measured once, while a version bakes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// As the catalog names it.
    pub metric: Name,
    pub at: Timestamp,
    /// Absent if there was no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Why there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
