//! Whether a canary failed after the release that brought it had ended.
//!
//! Judged by the rules of its own kind, as during the release, with two conditions more, since much can have happened
//! since: the canary that failed is of our image, and what serves is not. A canary that somebody started for another
//! reason, such as a changed setting, may fail while every version concerned runs our image; then nothing is to be
//! reverted.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::PodTemplateSpec};
use slipway_model::Timestamp;

use crate::{
    DEPLOYMENT, Expected, Failure, FailureReason, Managed, Observed, TARGET, Verdict, Workload, annotation,
    application::{self, Application},
    canary, epoch_of, label,
    objects::{canary::Canary, rollout::Rollout},
    rollout, running,
};

/// How a canary stands after its release has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Late {
    /// It has not failed, or what failed is not ours.
    Stands,
    /// It failed, and the version before serves.
    Failed(Failure),
    /// A later turn of the lane wrote the target, or it is another object by now.
    Superseded(Failure),
    /// There is nothing that rolls out in steps.
    NoCanary,
}

/// Judges what became of the canary of `expected`. `lane` is the key of the target whose lane granted the epoch.
pub fn late(expected: &Expected, lane: &str, observed: &Observed, now: Timestamp) -> Late {
    match &observed.workload {
        None if observed.gone => superseded(FailureReason::Deleted, "it was deleted"),
        None => Late::Stands,
        Some(Workload::Rollout(live)) => of_rollout(expected, live, observed, now),
        Some(Workload::Canary(live)) => of_canary(expected, live, observed, now),
        Some(Workload::Application(live)) => of_application(expected, lane, live, observed, now),
        Some(Workload::Deployment(_) | Workload::StatefulSet(_) | Workload::DaemonSet(_)) => Late::NoCanary,
    }
}

fn of_rollout(expected: &Expected, live: &Rollout, observed: &Observed, now: Timestamp) -> Late {
    let verdict = rollout::judge(expected, live, observed, now);
    let stable = observed.replica_sets.iter().find(|set| {
        let hash = live.status.stable_rs.as_deref();
        hash.is_some() && label(&set.metadata, rollout::POD_HASH) == hash
    });
    let serves = stable.and_then(|set| set.spec.as_ref()?.template.as_ref());
    let current = rollout::current_pods(live, observed).replica_set;
    // With a workloadRef the template is the ReplicaSet's.
    let tried = live
        .spec
        .template
        .as_ref()
        .or_else(|| current.and_then(|set| set.spec.as_ref()?.template.as_ref()));
    let canary = Trial { tried, serves };
    failed_late(verdict, || !live.is_fully_promoted() && canary.is_of(expected))
}

fn of_canary(expected: &Expected, live: &Canary, observed: &Observed, now: Timestamp) -> Late {
    let verdict = canary::judge(expected, live, observed, now);
    let canary = Trial {
        tried: template_of(observed.tried.as_deref()),
        serves: template_of(observed.primary.as_deref()),
    };
    failed_late(verdict, || canary.is_of(expected))
}

fn template_of(deployment: Option<&Deployment>) -> Option<&PodTemplateSpec> {
    deployment?.spec.as_ref().map(|spec| &spec.template)
}

/// The first canary of it that failed: Argo CD's own view of git and of health does not matter.
fn of_application(
    expected: &Expected,
    lane: &str,
    live: &Application,
    observed: &Observed,
    now: Timestamp,
) -> Late {
    let (metadata, applied) = (&live.metadata, &expected.applied);
    if !applied.uid.is_empty() && metadata.uid.as_deref() != Some(applied.uid.as_str()) {
        return superseded(FailureReason::Replaced, "it was deleted and made anew");
    }
    if metadata.deletion_timestamp.is_some() {
        return superseded(FailureReason::Deleted, "it is being deleted");
    }
    // Epochs of other lanes mean nothing here.
    if annotation(metadata, TARGET) == Some(lane) && epoch_of(metadata) > expected.epoch {
        let by = annotation(metadata, DEPLOYMENT).unwrap_or("another deployment");
        return superseded(
            FailureReason::SupersededEpoch,
            &format!("{by} has synced it since"),
        );
    }
    let Managed::Seen(all) = &observed.managed else {
        return Late::Stands;
    };
    if !all.is_empty() && !all.iter().any(|one| one.kind.has_steps()) {
        return Late::NoCanary;
    }
    let own = application::expected_of_one(expected);
    let ours = application::ours(expected, &observed.managed).into_iter();
    for one in ours.filter(|one| one.kind.has_steps()) {
        if let Late::Failed(failure) = late(&own, lane, &one.observed, now) {
            return Late::Failed(Failure {
                reason: failure.reason,
                message: format!("{one}: {}", failure.message),
            });
        }
    }
    Late::Stands
}

/// The templates of a canary.
struct Trial<'a> {
    /// The version that is tried.
    tried: Option<&'a PodTemplateSpec>,
    /// The version that serves meanwhile, and after a failure.
    serves: Option<&'a PodTemplateSpec>,
}

impl Trial<'_> {
    /// Whether our image is tried, and something else is known to serve.
    fn is_of(&self, expected: &Expected) -> bool {
        let ours = |template| !running::containers_with(Some(template), &expected.image).is_empty();
        self.tried.is_some_and(ours) && self.serves.is_some_and(|serves| !ours(serves))
    }
}

/// What the controller's word comes to. Faults of pods alone do not count: whether they end a canary is its decision.
fn failed_late(verdict: Verdict, is_ours: impl FnOnce() -> bool) -> Late {
    let Verdict::Failed(failure) = verdict else {
        return Late::Stands;
    };
    match failure.reason {
        FailureReason::SupersededEpoch | FailureReason::Replaced | FailureReason::Deleted => {
            Late::Superseded(failure)
        }
        reason if FailureReason::OF_A_CANARY.contains(&reason) && is_ours() => Late::Failed(failure),
        _ => Late::Stands,
    }
}

fn superseded(reason: FailureReason, message: &str) -> Late {
    Late::Superseded(Failure {
        reason,
        message: message.to_owned(),
    })
}
