//! How a change is applied to a cluster: directly, through Argo CD, or progressively.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_model::duration;

/// How a change is applied to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The rendered manifests are applied server-side. Without a GitOps repository, only the image is.
    #[default]
    Apply,
    /// `kubectl rollout restart`: for targets that follow a moving tag.
    Restart,
}

/// How an Application of Argo CD is synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgoCd {
    /// Further Applications of the same namespace and environment, synced together with the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// While another operation is running.
    #[serde(default)]
    pub when_busy: Blocked,
    /// While a sync window is closed.
    #[serde(default)]
    pub when_closed: Blocked,
    /// Whether objects that were removed from git are deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Such as `ServerSideApply=true`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sync_options: Vec<String>,
    /// How long an Application that does not exist yet is waited for: an ApplicationSet makes it some time after the
    /// commit.
    #[serde(default = "a_minute", with = "duration", skip_serializing_if = "is_a_minute")]
    pub appear_within: Duration,
    /// Whether the Application must become `Synced`. Otherwise it suffices that our commit was synced and that its
    /// workloads run our image and are well; what still differs is a warning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_synced: bool,
}

impl Default for ArgoCd {
    fn default() -> Self {
        Self {
            also: Vec::new(),
            when_busy: Blocked::default(),
            when_closed: Blocked::default(),
            prune: false,
            sync_options: Vec::new(),
            appear_within: a_minute(),
            require_synced: false,
        }
    }
}

const fn a_minute() -> Duration {
    Duration::from_secs(60)
}

fn is_a_minute(time: &Duration) -> bool {
    *time == a_minute()
}

/// What a deployment that cannot begin now does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    #[default]
    Wait,
    Refuse,
}

/// What to do when Argo Rollouts or Flagger pause for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pauses {
    /// A person promotes or aborts: through this service, or with the tool's own command.
    #[default]
    Wait,
    /// This service promotes at once. For a Rollout only: in Flagger, the service that answers its webhooks decides.
    Promote,
}

/// When people are asked for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Before anything is written.
    #[default]
    BeforeCommit,
    /// After the commit, before it is applied: for targets that only this service syncs.
    BeforeSync,
}

/// What happens to a version that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// What ran before is restored and verified.
    #[default]
    RollBack,
    /// It stays for people to look at.
    Stay,
}
