//! The state of a rollout, judged from observed objects alone: no clock, no I/O.
//!
//! [`judge`] is the whole of it: what was requested ([`Expected`]), what the cluster shows ([`Observed`]) and the time
//! result in a [`Verdict`]. One file per kind of workload. The base for Deployments, StatefulSets and DaemonSets is
//! `kubectl rollout status`, which [`kubectl`] follows to the letter, checked against recordings; the additions check
//! what kubectl does not: that the object is still ours, that the running containers have our digest, faults that do
//! not pass by themselves. With the additions a rollout may fail earlier or succeed later than kubectl says, never the
//! opposite.

pub mod analysis;
pub mod application;
pub mod before;
pub mod canary;
mod complaint;
pub mod daemon_set;
pub mod deployment;
pub mod evidence;
pub mod job;
pub mod kubectl;
mod late;
mod metadata;
pub mod objects;
mod observed;
pub mod pods;
pub mod replay;
pub mod rollout;
mod running;
mod stalled;
pub mod stateful_set;
pub mod steps;
mod still_ours;
pub mod sync_window;
mod target;
mod verify;

use serde::{Deserialize, Serialize};
use slipway_model::{ImageRef, Timestamp};

pub use before::Restored;
pub use late::{Late, late};
pub use metadata::{
    COMMIT, DEPLOYMENT, EPOCH, TARGET, annotation, created, epoch_of, label, last_manager, later, micros,
    owned_by,
};
pub use observed::{Managed, ManagedWorkload, Observed, Workload};
pub use target::{Target, UnknownCluster, WorkloadKind};
pub use verify::Verify;

pub(crate) const UNSEEN: &str = "waiting to see the new version in the cluster";

/// Label that the Deployment controller, and in its own form that of Argo Rollouts, sets on the pods of one template.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// Label that the StatefulSet and DaemonSet controllers set on the pods of one revision.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// What we wrote and expect to be running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The image that must run, with its digest.
    pub image: ImageRef,
    pub epoch: u64,
    /// What the API server answered to our write.
    pub applied: Applied,
    pub verify: Verify,
    /// When the cluster had accepted the change; deadlines of our own start here.
    pub since: Timestamp,
    /// The sync that Argo CD was, or is to be, asked for; `None` for other kinds.
    pub sync: Option<application::Sync>,
    /// Whether a rollout that pauses for an approval should continue by itself (Argo Rollouts, Flagger).
    pub promotes: bool,
    /// The version that was restored, if its template names the image by tag; then it counts instead of `image`.
    pub restored: Option<Restored>,
    /// The template names the image by a tag that moves, as after a restart: only the pods can prove the digest.
    pub moving_tag: bool,
}

/// The object's identity after our write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub uid: String,
    /// `metadata.generation`: an older one that a watch still shows is not what we wrote.
    pub generation: i64,
    /// `metadata.creationTimestamp`, cut to seconds by the API server.
    pub created_at: Option<Timestamp>,
    /// What ran before, if git does not know it: the version that `rollout undo` goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// The version of a workload before a write of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// `deployment.kubernetes.io/revision`, or the number of the ControllerRevision.
    pub revision: i64,
    /// The image that its template names for the container that was changed.
    pub image: ImageRef,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not there yet.
    Progressing {
        /// What is missing, for people.
        message: String,
        /// The verdict can change then without any change of the objects.
        look_again: Option<Timestamp>,
    },
    Complete,
    Failed(Failure),
}

/// Why a rollout failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: FailureReason,
    /// For people: what, where, and, if known, what to do.
    pub message: String,
}

/// The pinned reasons of a failed rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The Deployment's own `progressDeadlineSeconds`, or ours where Kubernetes has none.
    ProgressDeadlineExceeded,
    /// Deleted while it was watched.
    Deleted,
    /// The Application that is the target does not exist, and did not before.
    ApplicationNotFound,
    /// Deleted and recreated by another client.
    Replaced,
    /// A later turn of the lane wrote it.
    SupersededEpoch,
    /// Another client changed it to another image, or synced another revision.
    Superseded,
    /// It is scaled to zero.
    ScaledToZero,
    /// Containers are running that do not have our digest.
    WrongImage,
    ImageNotFound,
    InvalidImageName,
    CrashLoop,
    Unschedulable,
    /// A container that cannot be created: a ConfigMap, Secret, volume or command does not exist.
    ContainerNotCreated,
    /// Quota or admission keeps pods from being created.
    PodsNotCreated,
    /// The update strategy leaves it to a person to delete the pods (`OnDelete`): nothing is rolled out.
    NotRolledOut,
    /// A Job ended without success.
    JobFailed,
    /// Argo CD's sync operation ended `Failed` or `Error`.
    SyncFailed,
    /// Another client's operation is running on the application, and the target does not wait for it.
    SyncBusy,
    /// A sync window of the application's project is closed, and the target does not wait for it.
    SyncWindowClosed,
    /// Argo CD cannot compare the application with git, or its spec is not valid.
    ComparisonFailed,
    /// The application's health is Degraded at our revision, or Argo Rollouts reports that of the Rollout.
    Degraded,
    /// The canary or blue-green rollout was aborted, or Flagger rolled it back.
    Aborted,
}

impl FailureReason {
    /// What a controller says of a canary that failed; the others are about pods, or about the object itself.
    pub const OF_A_CANARY: [Self; 3] = [Self::Aborted, Self::Degraded, Self::ProgressDeadlineExceeded];

    /// As used in `reason.code`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ProgressDeadlineExceeded => "PROGRESS_DEADLINE_EXCEEDED",
            Self::Deleted => "DELETED",
            Self::ApplicationNotFound => "APPLICATION_NOT_FOUND",
            Self::Replaced => "REPLACED",
            Self::SupersededEpoch => "SUPERSEDED_EPOCH",
            Self::Superseded => "SUPERSEDED",
            Self::ScaledToZero => "SCALED_TO_ZERO",
            Self::WrongImage => "WRONG_IMAGE",
            Self::ImageNotFound => "IMAGE_NOT_FOUND",
            Self::InvalidImageName => "INVALID_IMAGE_NAME",
            Self::CrashLoop => "CRASH_LOOP",
            Self::Unschedulable => "UNSCHEDULABLE",
            Self::ContainerNotCreated => "CONTAINER_NOT_CREATED",
            Self::PodsNotCreated => "PODS_NOT_CREATED",
            Self::NotRolledOut => "NOT_ROLLED_OUT",
            Self::JobFailed => "JOB_FAILED",
            Self::SyncFailed => "SYNC_FAILED",
            Self::SyncBusy => "SYNC_BUSY",
            Self::SyncWindowClosed => "SYNC_WINDOW_CLOSED",
            Self::ComparisonFailed => "COMPARISON_FAILED",
            Self::Degraded => "DEGRADED",
            Self::Aborted => "ABORTED",
        }
    }
}

/// What to do with a progressive rollout (Argo Rollouts, Flagger).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it continues by itself, or has ended.
    Wait,
    /// It waits for an approval that is ours to give.
    Promote,
    /// It waits for an approval by others. What for, for people.
    Ask(String),
    /// What was set for this run must be reverted.
    Settle,
}

/// What to do with the workload next.
pub fn next(expected: &Expected, workload: &Workload) -> Next {
    match workload {
        Workload::Rollout(live) => rollout::next(expected, live),
        Workload::Canary(live) => canary::next(expected, live),
        Workload::Deployment(_)
        | Workload::StatefulSet(_)
        | Workload::DaemonSet(_)
        | Workload::Application(_) => Next::Wait,
    }
}

/// Judges one workload.
pub fn judge(expected: &Expected, observed: &Observed, now: Timestamp) -> Verdict {
    match &observed.workload {
        None if observed.gone => fail(
            FailureReason::Deleted,
            "it was deleted while its rollout was watched",
        ),
        None => progressing(UNSEEN.to_owned()),
        Some(Workload::Deployment(live)) => deployment::judge(expected, live, observed, now),
        Some(Workload::StatefulSet(live)) => stateful_set::judge(expected, live, observed, now),
        Some(Workload::DaemonSet(live)) => daemon_set::judge(expected, live, observed, now),
        Some(Workload::Rollout(live)) => rollout::judge(expected, live, observed, now),
        Some(Workload::Canary(live)) => canary::judge(expected, live, observed, now),
        Some(Workload::Application(live)) => application::judge(expected, live, observed, now),
    }
}

/// Finds what belongs to the current template of the workload, whatever its kind. There are no pods for kinds without
/// pods of their own.
pub fn current<'a>(workload: &Workload, observed: &'a Observed) -> pods::Current<'a> {
    match workload {
        Workload::Deployment(live) => deployment::current_pods(live, observed),
        Workload::StatefulSet(live) => stateful_set::current_pods(live, observed),
        Workload::DaemonSet(live) => daemon_set::current_pods(live, observed),
        Workload::Rollout(live) => rollout::current_pods(live, observed),
        Workload::Application(_) | Workload::Canary(_) => pods::Current::default(),
    }
}

pub(crate) fn progressing(message: String) -> Verdict {
    Verdict::Progressing {
        message,
        look_again: None,
    }
}

pub(crate) fn fail(reason: FailureReason, message: &str) -> Verdict {
    Verdict::Failed(Failure {
        reason,
        message: message.to_owned(),
    })
}

/// Texts from remote systems are shortened before they are stored or shown. The middle is left out: they begin with
/// what they are about, and end with the cause.
pub fn cut(text: &str) -> String {
    const BEGINNING: usize = 350;
    const END: usize = 250;
    let count = text.chars().count();
    if count <= BEGINNING + END {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(BEGINNING).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{beginning}…{end}")
}
