//! Argo CD's Application.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::or_default;

/// Name of the entry in `operation.info` that carries the id of a sync of ours, and the annotation that says which one
/// was requested last.
pub const OPERATION: &str = "deploy.slipway.dev/operation";

/// `argoproj.io/v1alpha1` Application.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Application {
    pub metadata: ObjectMeta,
    pub spec: ApplicationSpec,
    /// The operation that the controller has been asked to do, or is doing.
    pub operation: Option<Operation>,
    #[serde(deserialize_with = "or_default")]
    pub status: ApplicationStatus,
}

/// The cluster that an application deploys to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationCluster<'a> {
    /// The one that has the Application itself.
    Own,
    /// By the address of its API server.
    Server(&'a str),
    /// By the name that Argo CD has for it.
    Named(&'a str),
}

impl Destination {
    /// Which cluster it is.
    pub fn cluster(&self) -> DestinationCluster<'_> {
        let server = self.server.trim_end_matches('/');
        match (server, self.name.as_str()) {
            ("https://kubernetes.default.svc" | "https://kubernetes.default.svc.cluster.local", _)
            | ("", "" | "in-cluster") => DestinationCluster::Own,
            ("", name) => DestinationCluster::Named(name),
            (server, _) => DestinationCluster::Server(server),
        }
    }
}

impl Application {
    /// Whether Argo CD syncs it by itself.
    pub fn automated(&self) -> bool {
        let policy = self.spec.sync_policy.as_ref();
        policy
            .and_then(|policy| policy.automated.as_ref())
            .is_some_and(|automated| automated.enabled != Some(false))
    }

    /// Whether the operation in `.operation` has run already, and was left there (argo-cd#29741).
    pub fn leftover(&self) -> bool {
        let state = self.status.operation_state.as_ref();
        state.is_some_and(|state| state.phase.ended() && Some(&state.operation) == self.operation.as_ref())
    }
}

/// What is wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSpec {
    pub project: String,
    pub source: Option<ApplicationSource>,
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<ApplicationSource>,
    pub destination: Destination,
    pub sync_policy: Option<SyncPolicy>,
}

/// Where the manifests come from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSource {
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    pub path: String,
    pub target_revision: String,
}

/// Where they go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Destination {
    pub name: String,
    pub namespace: String,
    pub server: String,
}

/// How it is synced.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncPolicy {
    pub automated: Option<Automated>,
}

/// It syncs by itself, unless `enabled` is false.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Automated {
    pub enabled: Option<bool>,
}

/// An operation as requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    #[serde(deserialize_with = "or_default")]
    pub info: Vec<Info>,
    pub initiated_by: Initiator,
    pub sync: Option<SyncOperation>,
}

impl Operation {
    /// The id of a sync of ours.
    pub fn id(&self) -> Option<&str> {
        let ours = self.info.iter().find(|info| info.name == OPERATION);
        ours.map(|info| info.value.as_str())
    }
}

/// One entry of an operation's `info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Info {
    pub name: String,
    pub value: String,
}

/// Who requested an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Initiator {
    pub username: String,
    pub automated: bool,
}

/// What is to be synced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncOperation {
    pub revision: String,
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
    pub dry_run: bool,
}

/// The controller's report.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationStatus {
    /// Where Argo CD itself is installed, and with it the projects.
    pub controller_namespace: String,
    pub operation_state: Option<OperationState>,
    pub sync: SyncStatus,
    pub health: Health,
    /// When git and cluster were last compared; truncated to seconds.
    pub reconciled_at: Option<Time>,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    pub resources: Vec<ResourceStatus>,
    pub summary: Summary,
}

/// The operation that runs, or ran last.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationState {
    pub operation: Operation,
    pub phase: Phase,
    pub message: String,
    pub started_at: Option<Time>,
    /// Together with `Running`: it failed, and will be retried.
    pub finished_at: Option<Time>,
    pub sync_result: Option<SyncResult>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Phase {
    Running,
    Terminating,
    Failed,
    Error,
    Succeeded,
    /// Not one that is known.
    #[default]
    #[serde(other)]
    Other,
}

impl Phase {
    /// It is final.
    pub const fn ended(self) -> bool {
        matches!(self, Self::Failed | Self::Error | Self::Succeeded)
    }
}

/// What a sync did.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SyncResult {
    pub revision: String,
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub resources: Vec<ResourceResult>,
}

/// The result for one object or hook.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceResult {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// `Synced`, `SyncFailed`, `Pruned` or `PruneSkipped`.
    pub status: String,
    pub message: String,
    pub hook_type: String,
    pub hook_phase: String,
}

/// How the cluster compares with git.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SyncStatus {
    /// `Synced`, `OutOfSync` or `Unknown`.
    pub status: String,
    pub revision: String,
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
}

/// How it does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `Healthy`, `Progressing`, `Degraded`, `Suspended`, `Missing` or `Unknown`.
    pub status: String,
    pub message: String,
}

/// What is wrong with an application.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    pub last_transition_time: Option<Time>,
}

/// One object of the application.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceStatus {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub status: String,
    pub health: Option<Health>,
    pub requires_pruning: bool,
}

/// What runs in it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The images of its pods.
    #[serde(deserialize_with = "or_default")]
    pub images: Vec<String>,
}
