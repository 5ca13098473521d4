//! Faults of the new version's pods: which do not heal by themselves, and how to say what is wrong with a pod.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use slipway_model::Timestamp;

use crate::{Failure, FailureReason, Verify, cut, deployment::Current, later};

pub(crate) enum Fault {
    None,
    /// It will not heal.
    Fatal(Failure),
    /// It counts as such unless it is gone by then.
    FatalAt(Timestamp),
}

/// Looks for what does not heal by itself, in the present template's pods only.
pub(crate) fn judge(current: &Current<'_>, verify: &Verify, now: Timestamp) -> Fault {
    let mut soonest = None;
    for pod in current
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        if let Some(failure) = containers(pod).find_map(|status| hopeless(pod, status, verify)) {
            return Fault::Fatal(failure);
        }
        if let Some((since, words)) = unscheduled(pod) {
            match since {
                Some(since) if now >= since + verify.unschedulable_after => {
                    let message = format!("pod {} finds no node: {}", name(pod), cut(words));
                    return Fault::Fatal(Failure {
                        reason: FailureReason::Unschedulable,
                        message,
                    });
                }
                Some(since) => soonest = earlier(soonest, since + verify.unschedulable_after),
                None => {}
            }
        }
    }
    let creation = current.replica_set.and_then(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")
    });
    if let Some(condition) = creation
        && let Some(since) = &condition.last_transition_time
    {
        let at = later(since, verify.unschedulable_after);
        if now >= at {
            let words = condition.message.as_deref().unwrap_or("no reason given");
            let message = format!("the cluster creates no pods: {}", cut(words));
            return Fault::Fatal(Failure {
                reason: FailureReason::PodsNotCreated,
                message,
            });
        }
        soonest = earlier(soonest, at);
    }
    soonest.map_or(Fault::None, Fault::FatalAt)
}

fn earlier(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// A container that cannot start, whatever the time.
fn hopeless(pod: &Pod, status: &ContainerStatus, verify: &Verify) -> Option<Failure> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let words = waiting.message.as_deref().unwrap_or_default();
    let reason = match waiting.reason.as_deref()? {
        "InvalidImageName" => FailureReason::InvalidImageName,
        "ErrImageNeverPull" => FailureReason::ImageNotFound,
        // The kubelet alternates between the two; which of them carries the registry's words depends on its version.
        "ErrImagePull" | "ImagePullBackOff" if says_not_found(words) => FailureReason::ImageNotFound,
        "CrashLoopBackOff" if restarts(status) >= verify.crash_loop_restarts => FailureReason::CrashLoop,
        _ => return None,
    };
    Some(Failure {
        reason,
        message: describe(pod, status),
    })
}

/// What registries and runtimes say of an image that is not there; a network that is down says something else.
fn says_not_found(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    [
        "not found",
        "notfound",
        "manifest unknown",
        "does not exist",
        "name unknown",
    ]
    .iter()
    .any(|phrase| words.contains(phrase))
}

fn unscheduled(pod: &Pod) -> Option<(Option<Timestamp>, &str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| {
        c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
    })?;
    let since = condition
        .last_transition_time
        .as_ref()
        .map(|time| later(time, std::time::Duration::ZERO));
    Some((since, condition.message.as_deref().unwrap_or("no reason given")))
}

/// The pod that a person should look at, in words; `None` when none has a fault.
pub fn worst(pods: &[&Pod]) -> Option<String> {
    let living = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    living
        .filter_map(|pod| ailing(pod).map(|(weight, words)| (weight, name(pod), words)))
        // By name among equals, so that the words do not jump from pod to pod.
        .max_by(|one, other| one.0.cmp(&other.0).then_with(|| other.1.cmp(one.1)))
        .map(|(_, _, words)| words)
}

/// How bad it is and what it is: a waiting container with a cause, no node, or a container that ended.
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
        unscheduled(pod).map(|(_, words)| (1, format!("pod {} finds no node: {}", name(pod), cut(words))))
    })
}

/// Such as `pod shop-7d9-abc: CrashLoopBackOff, exit code 1, 3 restarts`.
fn describe(pod: &Pod, status: &ContainerStatus) -> String {
    let mut parts = Vec::new();
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        match waiting.message.as_deref() {
            // kubelet's back-off message only counts seconds: it would change the words with every try.
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

/// Init containers first, as they run.
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

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
