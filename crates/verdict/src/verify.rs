//! How strictly a rollout is judged: the thresholds beyond `kubectl rollout status`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_model::duration;

/// How the rollout is judged beyond what `kubectl rollout status` checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Fail as soon as a pod of the new template has a fault that does not pass by itself.
    #[serde(default = "yes")]
    pub fail_early: bool,
    /// How often a container may have restarted before a crash loop counts as such a fault.
    #[serde(default = "three")]
    pub crash_loop_restarts: u32,
    /// How long a fault that may pass by itself may last before it counts as such a fault: a pod that cannot be
    /// scheduled, a container that cannot be created (a missing ConfigMap, Secret, volume or command), pods that quota
    /// or admission keeps from being created. Has no effect with `fail_early: false`.
    #[serde(default = "five_minutes", with = "duration")]
    pub unschedulable_after: Duration,
    /// Require that our image runs: the running containers' digest is the one deployed (`WRONG_IMAGE`); the template
    /// still names our image (`SUPERSEDED`); something runs at all (`SCALED_TO_ZERO`); a StatefulSet's partition
    /// does not hold back every pod (`NOT_ROLLED_OUT`). False turns all of these off.
    #[serde(default = "yes")]
    pub digest: bool,
    /// How long there may be no newly ready pod before the rollout of a workload that has no deadline in Kubernetes
    /// (StatefulSet, DaemonSet) has failed. If omitted, only the deployment's own time limit applies.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration::option")]
    pub progress_deadline: Option<Duration>,
}

impl Verify {
    /// Only what kubectl checks.
    pub const AS_KUBECTL: Self = Self {
        fail_early: false,
        crash_loop_restarts: u32::MAX,
        unschedulable_after: Duration::MAX,
        digest: false,
        progress_deadline: None,
    };

    /// Whether more is checked than kubectl does.
    pub(crate) const fn beyond_kubectl(&self) -> bool {
        self.fail_early || self.digest
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            fail_early: yes(),
            crash_loop_restarts: three(),
            unschedulable_after: five_minutes(),
            digest: yes(),
            progress_deadline: None,
        }
    }
}

const fn yes() -> bool {
    true
}
const fn three() -> u32 {
    3
}
const fn five_minutes() -> Duration {
    Duration::from_secs(300)
}
