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

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use slipway_model::{CommitSha, Timestamp};

use crate::{
    Expected, Failure, FailureReason, Managed, Observed, Target, Verdict, annotation, fail, micros,
    sync_window::{Subject, SyncWindow},
};

pub use crate::objects::application::*;
pub use decide::{next, warnings};
pub use managed::{expected_of_one, ours, steps, with_steps, workloads};

/// Annotation that makes Argo CD's controller refresh from git: `normal`, or `hard`, bypassing its cache of manifests.
/// It removes the annotation when it has refreshed.
pub const REFRESH: &str = "argocd.argoproj.io/refresh";
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

impl Application {
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
}

fn at(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| Timestamp::from_micros(micros(time)))
}
