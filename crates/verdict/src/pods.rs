//! Faults of the new version's pods: which of them do not pass by themselves, and how to describe what is wrong with a
//! pod.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{ContainerStatus, Pod, PodCondition},
};
use slipway_model::Timestamp;

use crate::{Failure, FailureReason, Observed, Verdict, Verify, created, cut, fail, later, owned_by};

/// What belongs to a workload's current template.
#[derive(Debug, Default)]
pub struct Current<'a> {
    /// For a Deployment or Rollout.
    pub replica_set: Option<&'a ReplicaSet>,
    pub pods: Vec<&'a Pod>,
}

impl<'a> Current<'a> {
    pub(crate) fn of_replica_set(set: &'a ReplicaSet, observed: &'a Observed) -> Self {
        let pods = observed.pods.iter().map(AsRef::as_ref);
        Self {
            replica_set: Some(set),
            pods: pods
                .filter(|pod: &&Pod| owned_by(&pod.metadata, set.metadata.uid.as_deref()))
                .collect(),
        }
    }
}

pub(crate) fn living<'a>(pods: &[&'a Pod]) -> impl Iterator<Item = &'a Pod> {
    pods.iter()
        .copied()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
}

/// Its condition of being ready, if it is.
pub fn ready(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Living pods of older templates.
pub(crate) fn old<'a>(all: &[&'a Pod], current: &Current<'_>) -> Vec<&'a Pod> {
    living(all)
        .filter(|pod| !current.pods.iter().any(|one| std::ptr::eq(*one, *pod)))
        .collect()
}

/// The strategy leaves it to a person to delete the pods.
pub(crate) fn not_rolled_out(old: usize) -> Verdict {
    let pods = match old {
        0 => "the pods".to_owned(),
        1 => "1 pod of the version before".to_owned(),
        old => format!("{old} pods of the version before"),
    };
    fail(
        FailureReason::NotRolledOut,
        &format!(
            "updateStrategy OnDelete rolls nothing out: {pods} must be deleted by hand; set the strategy to \
             RollingUpdate, or delete them and deploy again"
        ),
    )
}

pub(crate) enum Fault {
    None,
    /// It will not pass.
    Fatal(Failure),
    /// It counts as permanent unless it is gone by then.
    FatalAt(Timestamp),
}

/// Looks for faults that do not pass by themselves, only in the current template's pods and only if configured.
pub(crate) fn judge(current: &Current<'_>, verify: &Verify, now: Timestamp) -> Fault {
    if !verify.fail_early {
        return Fault::None;
    }
    let mut soonest = None;
    for pod in living(&current.pods) {
        if let Some(failure) = containers(pod).find_map(|status| hopeless(pod, status, verify)) {
            return Fault::Fatal(failure);
        }
    }
    let waits = living(&current.pods)
        .flat_map(|pod| unscheduled(pod).into_iter().chain(uncreated(pod)))
        .chain(current.replica_set.and_then(refused));
    for wait in waits {
        let at = wait.since + verify.unschedulable_after;
        if now >= at {
            return Fault::Fatal(Failure {
                reason: wait.reason,
                message: wait.words,
            });
        }
        soonest = earlier(soonest, at);
    }
    soonest.map_or(Fault::None, Fault::FatalAt)
}

/// Faults that may pass, tolerated for a while.
pub(crate) struct Wait {
    reason: FailureReason,
    since: Timestamp,
    pub(crate) words: String,
}

/// A pod that cannot be scheduled.
fn unscheduled(pod: &Pod) -> Option<Wait> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| {
        c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
    })?;
    // A condition without a time is as old as its pod at most.
    let since = condition
        .last_transition_time
        .as_ref()
        .map(|time| later(time, Duration::ZERO))
        .or_else(|| created(&pod.metadata))?;
    let why = condition.message.as_deref().unwrap_or("no reason given");
    Some(Wait {
        reason: FailureReason::Unschedulable,
        since,
        words: format!("pod {} cannot be scheduled: {}", name(pod), cut(why)),
    })
}

/// A container that cannot be created: a missing ConfigMap, Secret, volume or command may still appear.
fn uncreated(pod: &Pod) -> Option<Wait> {
    containers(pod).find_map(|status| {
        let reason = status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()?;
        if !matches!(
            reason,
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"
        ) {
            return None;
        }
        // The state does not have a time: it began after the pod was scheduled, and after the previous run.
        let started = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref())
            .map(|time| later(time, Duration::ZERO))
            .or_else(|| created(&pod.metadata))?;
        let ended = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .and_then(|ended| ended.finished_at.as_ref())
            .map(|time| later(time, Duration::ZERO));
        Some(Wait {
            reason: FailureReason::ContainerNotCreated,
            since: ended.map_or(started, |ended| ended.max(started)),
            words: describe(pod, status),
        })
    })
}

/// A ReplicaSet whose pods are rejected, by quota or admission.
pub(crate) fn refused(set: &ReplicaSet) -> Option<Wait> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let since = condition.last_transition_time.as_ref()?;
    Some(Wait {
        reason: FailureReason::PodsNotCreated,
        since: later(since, Duration::ZERO),
        words: not_created(condition.message.as_deref()),
    })
}

pub(crate) fn not_created(message: Option<&str>) -> String {
    format!(
        "the cluster does not create pods: {}",
        cut(message.unwrap_or("no reason given"))
    )
}

fn earlier(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// A container that cannot start, however long one waits.
fn hopeless(pod: &Pod, status: &ContainerStatus, verify: &Verify) -> Option<Failure> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let words = waiting.message.as_deref().unwrap_or_default();
    let reason = match waiting.reason.as_deref()? {
        "InvalidImageName" => FailureReason::InvalidImageName,
        "ErrImageNeverPull" => FailureReason::ImageNotFound,
        // The kubelet alternates between the two; which of them carries the registry's message depends on its version.
        "ErrImagePull" | "ImagePullBackOff" if says_not_found(words) => FailureReason::ImageNotFound,
        "CrashLoopBackOff" if restarts(status) >= verify.crash_loop_restarts => FailureReason::CrashLoop,
        _ => return None,
    };
    Some(Failure {
        reason,
        message: describe(pod, status),
    })
}

/// What registries and runtimes say about an image that does not exist; if the network is down they say something else.
fn says_not_found(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    // A credential helper missing on the node is not about the image.
    if words.contains("executable file not found") {
        return false;
    }
    [
        "not found",
        "notfound",
        "manifest unknown",
        "manifest_unknown",
        "name_unknown",
        "does not exist",
        "name unknown",
    ]
    .iter()
    .any(|phrase| words.contains(phrase))
}

/// The pod that a person should look at, in words; `None` if none has a fault.
pub fn worst(pods: &[&Pod]) -> Option<String> {
    living(pods)
        .filter_map(|pod| ailing(pod).map(|(weight, words)| (weight, name(pod), words)))
        // By name among equals, so that the message does not jump from pod to pod.
        .max_by(|one, other| one.0.cmp(&other.0).then_with(|| other.1.cmp(one.1)))
        .map(|(_, _, words)| words)
}

/// How bad it is and what it is: a waiting container with a cause, an unschedulable pod, or a container that ended.
pub fn ailing(pod: &Pod) -> Option<(u32, String)> {
    let container = containers(pod).filter_map(|status| {
        let state = status.state.as_ref()?;
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let ordinary = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
            return (!ordinary).then(|| (3, describe(pod, status)));
        }
        let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
        ended.map(|_| (2, describe(pod, status)))
    });
    container.max_by_key(|(weight, _)| *weight).or_else(|| {
        let status = pod.status.as_ref()?;
        // Evicted, or rejected by its node; the controller creates another, which may fail in the same way.
        if status.phase.as_deref() == Some("Failed") {
            let reason = status.reason.as_deref().unwrap_or("it failed");
            let why = status.message.as_deref().map(|words| format!(": {}", cut(words)));
            return Some((
                1,
                format!("pod {}: {reason}{}", name(pod), why.unwrap_or_default()),
            ));
        }
        unscheduled(pod).map(|wait| (1, wait.words))
    })
}

/// A pod that is not ready, and its state, for when nothing else tells why.
pub(crate) fn unready(pods: &[&Pod]) -> Option<String> {
    let pod = living(pods)
        .filter(|pod| !is_ready(pod))
        .min_by_key(|pod| name(pod))?;
    let Some(status) = containers(pod).find(|status| !status.ready) else {
        let words = match containers(pod).next() {
            None => "has no container yet",
            Some(_) => "is not ready",
        };
        return Some(format!("pod {} {words}", name(pod)));
    };
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    Some(match (running, exit_code(status)) {
        (true, None) => format!("pod {}: it runs and is not ready", name(pod)),
        (true, Some(_)) => format!("{}, and runs again", describe(pod, status)),
        (false, _) => describe(pod, status),
    })
}

/// Such as `pod shop-7d9-abc: CrashLoopBackOff, exit code 1, 3 restarts`.
fn describe(pod: &Pod, status: &ContainerStatus) -> String {
    let mut parts = Vec::new();
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        match waiting.message.as_deref() {
            // kubelet's back-off message only counts seconds: it would change the text with every try.
            Some(words) if !words.starts_with("back-off") => parts.push(format!("{reason}: {}", cut(words))),
            _ => parts.push(reason.to_owned()),
        }
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        parts.push(ended.reason.clone().unwrap_or_else(|| "ended".to_owned()));
    }
    if let Some(code) = exit_code(status) {
        parts.push(format!("exit code {code}"));
    }
    if restarts(status) > 0 {
        parts.push(format!("{} restarts", restarts(status)));
    }
    format!("pod {}: {}", name(pod), parts.join(", "))
}

/// Of the run that ended last.
pub fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .map(|ended| ended.exit_code)
    };
    ended(&status.state).or_else(|| ended(&status.last_state))
}

fn restarts(status: &ContainerStatus) -> u32 {
    u32::try_from(status.restart_count).unwrap_or(0)
}

/// Init containers first, in the order in which they run.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status
        .and_then(|status| status.init_container_statuses.as_ref())
        .into_iter()
        .flatten();
    init.chain(
        status
            .and_then(|status| status.container_statuses.as_ref())
            .into_iter()
            .flatten(),
    )
}

/// By its condition.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
