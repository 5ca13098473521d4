//! The verdict on an Application of Argo CD, and what to do with it next. Only the fields that are used are read.
//!
//! [`next`] is the whole decision, both for a sync that is to begin and for one in progress; [`judge`] is its result
//! for an observer. A sync of ours carries its id in `operation.info`, and its outcome counts only next to that id. An
//! application that syncs by itself is only asked to refresh from git: for it, the revision decides.

mod decide;
mod managed;
mod moved_on;
mod words;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};
use slipway_model::{CommitSha, Timestamp};

use crate::{
    Expected, Failure, FailureReason, Managed, Observed, Target, Verdict, annotation, fail, micros,
    objects::or_default,
    sync_window::{Subject, SyncWindow},
};

pub use decide::{next, warnings};
pub use managed::{expected_of_one, ours, steps, with_steps, workloads};

/// Annotation that makes Argo CD's controller refresh from git: `normal`, or `hard`, bypassing its cache of manifests.
/// It removes the annotation when it has refreshed.
pub const REFRESH: &str = "argocd.argoproj.io/refresh";
/// Name of the entry in `operation.info` that carries the id of a sync of ours, and the annotation that says which one
/// was requested last.
pub const OPERATION: &str = "deploy.slipway.dev/operation";
/// The initiator of syncs, in `operation.initiatedBy.username`.
pub const USERNAME: &str = "slipway";
/// The shortest interval between refreshes from git: each costs Argo CD a fetch and a rendering.
pub const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// The sync that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Our id of it, carried in `operation.info`. The same for the same deployment and application, so that asking
    /// twice has the effect of asking once.
    pub operation: String,
    /// Exactly this commit.
    pub revision: CommitSha,
    /// The key of the target whose lane granted the epoch: epochs of other lanes are irrelevant.
    pub lane: String,
    /// Commits that are known to contain `revision`: they are accepted in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descendants: Vec<CommitSha>,
    /// While another operation is running.
    #[serde(default)]
    pub when_busy: WhenBlocked,
    /// While a sync window is closed.
    #[serde(default)]
    pub when_closed: WhenBlocked,
    /// It goes back to the version before: if the sync fails before it has replaced anything, what runs counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restores: bool,
    /// The application must become `Synced`, even if our commit was synced and its workloads are well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_synced: bool,
}

/// What to do about a sync that cannot begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBlocked {
    #[default]
    Wait,
    Refuse,
}

/// What is known in addition to the object itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Situation<'a> {
    /// The windows of its project; `None` when they may not be read. Then what the controller says has to do.
    pub windows: Option<&'a [SyncWindow]>,
    /// When a refresh from git was last requested.
    pub asked: Option<Timestamp>,
    /// Its workloads; `None` is as [`Managed::Unknown`].
    pub managed: Option<&'a Managed>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Request a refresh from git.
    Refresh {
        hard: bool,
        /// Why, for people.
        message: String,
    },
    /// Write the operation.
    StartSync,
    Wait {
        message: String,
        /// The decision can change then without any change of the object.
        look_again: Option<Timestamp>,
    },
    Complete,
    Failed(Failure),
}

/// The failure if there is no application of that name; `seen`: there was one before.
pub fn not_there(target: &Target, seen: bool) -> Failure {
    let Target { namespace, name, .. } = target;
    if seen {
        return Failure {
            reason: FailureReason::Deleted,
            message: format!(
                "Application {name} in namespace {namespace} was deleted meanwhile: if nobody meant that, create it \
                 again and deploy again"
            ),
        };
    }
    Failure {
        reason: FailureReason::ApplicationNotFound,
        message: format!(
            "there is no Application {name} in namespace {namespace}: create it, or fix target in the catalog, whose \
             namespace is the Application's own, usually argocd"
        ),
    }
}

/// Judges one Application as it is, with its workloads.
pub fn judge(expected: &Expected, live: &Application, observed: &Observed, now: Timestamp) -> Verdict {
    let situation = Situation {
        managed: Some(&observed.managed),
        ..Situation::default()
    };
    verdict(next(expected, live, &situation, now))
}

/// The result of a decision for an observer, which does not act.
pub fn verdict(next: Next) -> Verdict {
    match next {
        Next::Refresh { message, .. } => Verdict::Progressing {
            message,
            look_again: None,
        },
        Next::StartSync => Verdict::Progressing {
            message: "the sync is about to be asked for".to_owned(),
            look_again: None,
        },
        Next::Wait { message, look_again } => Verdict::Progressing { message, look_again },
        Next::Complete => Verdict::Complete,
        Next::Failed(failure) => Verdict::Failed(failure),
    }
}

/// The verdict on several applications that are deployed as one: complete when all are, failed when any is.
pub fn combine(verdicts: &[(String, Verdict)]) -> Verdict {
    let several = verdicts.len() > 1;
    let named = |name: &str, message: &str| {
        if several {
            format!("{name}: {message}")
        } else {
            message.to_owned()
        }
    };
    let mut missing = Vec::new();
    let mut soonest: Option<Timestamp> = None;
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Failed(failure) => return fail(failure.reason, &named(name, &failure.message)),
            Verdict::Complete => {}
            Verdict::Progressing { message, look_again } => {
                missing.push(named(name, message));
                soonest = [soonest, *look_again].into_iter().flatten().min();
            }
        }
    }
    if missing.is_empty() {
        return Verdict::Complete;
    }
    Verdict::Progressing {
        message: missing.join("; "),
        look_again: soonest,
    }
}

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

    /// What sync windows need to know about it.
    pub fn subject(&self) -> Subject<'_> {
        let destination = &self.spec.destination;
        Subject {
            name: self.metadata.name.as_deref().unwrap_or_default(),
            namespace: &destination.namespace,
            cluster: &destination.name,
            server: &destination.server,
        }
    }

    /// Whether that sync was requested, whatever has become of it since.
    pub fn asked_for(&self, sync: &Sync) -> bool {
        let id = Some(sync.operation.as_str());
        let state = self.status.operation_state.as_ref();
        let asked = annotation(&self.metadata, OPERATION) == id
            || self.operation.as_ref().and_then(Operation::id) == id;
        asked || state.and_then(|state| state.operation.id()) == id
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

fn at(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| Timestamp::from_micros(micros(time)))
}
