//! Jobs before and after a rollout: a database migration, integration tests.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_model::{Name, duration};

/// The Jobs of one environment, each run to its end before the next begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    /// Before anything else is changed; if one fails, the release stops there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Job>,
    /// After rollout and checks; if one fails, the deployment fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Job>,
}

impl Jobs {
    /// Whether there are no Jobs.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

/// One Job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub name: Name,
    /// The namespace it runs in; if omitted, the target's (an Application's destination).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// A PodSpec as in Kubernetes (`containers`, `serviceAccountName`, …). A container without `image` runs the
    /// released image; `restartPolicy` is `Never` unless it says otherwise.
    pub pod: serde_json::Value,
    /// How often Kubernetes retries (`backoffLimit`).
    #[serde(default)]
    pub retries: u32,
    /// From its creation to its end.
    #[serde(default = "ten_minutes", with = "duration")]
    pub timeout: Duration,
}

/// How long Jobs that run one after the other may take.
pub fn time_of(jobs: &[Job]) -> Duration {
    jobs.iter().map(|job| job.timeout).sum()
}

const fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}
