//! The health of an object, by Argo CD's rules (`argoproj/gitops-engine/pkg/health` and the health scripts of
//! `argo-cd/resource_customizations`).

use serde_json::Value;

use crate::object::{self, list, number, text};

/// Better ones first, as Argo CD orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Healthy,
    Suspended,
    Progressing,
    Missing,
    Degraded,
    Unknown,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Suspended => "Suspended",
            Self::Progressing => "Progressing",
            Self::Missing => "Missing",
            Self::Degraded => "Degraded",
            Self::Unknown => "Unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) status: Status,
    pub(crate) message: String,
}

fn health(status: Status, message: impl Into<String>) -> Health {
    Health {
        status,
        message: message.into(),
    }
}

fn progressing(message: impl Into<String>) -> Health {
    health(Status::Progressing, message)
}

/// The group of an `apiVersion`.
pub(crate) fn group(object: &Value) -> &str {
    text(object, &["apiVersion"])
        .split_once('/')
        .map_or("", |(group, _)| group)
}

/// The object's health; `None` for kinds without one.
pub(crate) fn of(object: &Value) -> Option<Health> {
    if object::is_deleting(object) {
        return Some(progressing("Pending deletion"));
    }
    match (group(object), text(object, &["kind"])) {
        ("apps", "Deployment") => Some(deployment(object)),
        ("apps", "ReplicaSet") => Some(replica_set(object)),
        ("apps", "StatefulSet") => Some(stateful_set(object)),
        ("apps", "DaemonSet") => Some(daemon_set(object)),
        ("batch", "Job") => Some(job(object)),
        ("", "Pod") => Some(pod(object)),
        ("", "Service") => Some(health(Status::Healthy, "")),
        ("argoproj.io", "Rollout") => Some(rollout(object)),
        ("flagger.app", "Canary") => Some(canary(object)),
        _ => None,
    }
}

/// A field of the status.
fn count(object: &Value, field: &str) -> i64 {
    number(object, &["status", field]).unwrap_or(0)
}

fn is_observed(object: &Value) -> bool {
    object::generation(object) <= count(object, "observedGeneration")
}

fn deployment(object: &Value) -> Health {
    if object["spec"]["paused"] == true {
        return health(Status::Suspended, "Deployment is paused");
    }
    if !is_observed(object) {
        return progressing(
            "Waiting for rollout to finish: observed deployment generation less than desired generation",
        );
    }
    let (replicas, updated, available) = (
        count(object, "replicas"),
        count(object, "updatedReplicas"),
        count(object, "availableReplicas"),
    );
    let wanted = number(object, &["spec", "replicas"]);
    let stuck =
        object::condition(object, "Progressing").is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded");
    if stuck {
        let message = format!(
            "Deployment \"{}\" exceeded its progress deadline",
            object::name(object)
        );
        return health(Status::Degraded, message);
    }
    if let Some(wanted) = wanted.filter(|wanted| updated < *wanted) {
        return progressing(format!(
            "Waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated..."
        ));
    }
    if replicas > updated {
        let old = replicas - updated;
        return progressing(format!(
            "Waiting for rollout to finish: {old} old replicas are pending termination..."
        ));
    }
    if available < updated {
        return progressing(format!(
            "Waiting for rollout to finish: {available} of {updated} updated replicas are available..."
        ));
    }
    health(Status::Healthy, "")
}

fn replica_set(object: &Value) -> Health {
    if !is_observed(object) {
        return progressing(
            "Waiting for rollout to finish: observed replica set generation less than desired generation",
        );
    }
    if let Some(failure) = object::condition(object, "ReplicaFailure").filter(|c| c["status"] == "True") {
        return health(Status::Degraded, text(failure, &["message"]));
    }
    let (available, wanted) = (
        count(object, "availableReplicas"),
        number(object, &["spec", "replicas"]).unwrap_or(0),
    );
    if available < wanted {
        return progressing(format!(
            "Waiting for rollout to finish: {available} out of {wanted} new replicas are available..."
        ));
    }
    health(Status::Healthy, "")
}

fn stateful_set(object: &Value) -> Health {
    if count(object, "observedGeneration") == 0 || !is_observed(object) {
        return progressing("Waiting for statefulset spec update to be observed...");
    }
    let wanted = number(object, &["spec", "replicas"]).unwrap_or(0);
    let (ready, updated) = (count(object, "readyReplicas"), count(object, "updatedReplicas"));
    if ready < wanted {
        return progressing(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let strategy = &object["spec"]["updateStrategy"];
    if text(strategy, &["type"]) == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
        let partition = number(strategy, &["rollingUpdate", "partition"]);
        if let Some(wanted) = partition
            .map(|partition| wanted - partition)
            .filter(|wanted| updated < *wanted)
        {
            return progressing(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {wanted} new pods have been updated..."
            ));
        }
        let message = format!("partitioned roll out complete: {updated} new pods have been updated...");
        return health(Status::Healthy, message);
    }
    if text(strategy, &["type"]) == "OnDelete" {
        return health(Status::Healthy, format!("statefulset has {ready} ready pods"));
    }
    let (current, update) = (
        text(object, &["status", "currentRevision"]),
        text(object, &["status", "updateRevision"]),
    );
    if current != update {
        return progressing(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        ));
    }
    let at = count(object, "currentReplicas");
    health(
        Status::Healthy,
        format!("statefulset rolling update complete {at} pods at revision {current}..."),
    )
}

fn daemon_set(object: &Value) -> Health {
    if !is_observed(object) {
        return progressing(
            "Waiting for rollout to finish: observed daemon set generation less than desired generation",
        );
    }
    let name = object::name(object);
    let (updated, wanted, available) = (
        count(object, "updatedNumberScheduled"),
        count(object, "desiredNumberScheduled"),
        count(object, "numberAvailable"),
    );
    if text(object, &["spec", "updateStrategy", "type"]) == "OnDelete" {
        let message = format!("daemon set {updated} out of {wanted} new pods have been updated");
        return health(Status::Healthy, message);
    }
    if updated < wanted {
        return progressing(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {wanted} new pods have been updated..."
        ));
    }
    if available < wanted {
        return progressing(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {available} of {wanted} updated pods are available..."
        ));
    }
    health(Status::Healthy, "")
}

fn job(object: &Value) -> Health {
    let (mut found, mut message, mut failed, mut suspended) = (false, "", false, false);
    for condition in list(object, &["status", "conditions"])
        .iter()
        .filter(|c| c["status"] == "True")
    {
        match text(condition, &["type"]) {
            "Failed" => (found, failed, message) = (true, true, text(condition, &["message"])),
            "Complete" => (found, message) = (true, text(condition, &["message"])),
            "Suspended" => (found, suspended, message) = (true, true, text(condition, &["message"])),
            _ => {}
        }
    }
    match (found, failed, suspended) {
        (false, ..) => progressing(""),
        (_, true, _) => health(Status::Degraded, message),
        (.., true) => health(Status::Suspended, message),
        _ => health(Status::Healthy, message),
    }
}

fn pod(object: &Value) -> Health {
    let always = matches!(text(object, &["spec", "restartPolicy"]), "Always" | "");
    let containers = list(object, &["status", "containerStatuses"]);
    if always {
        let at_fault = containers.iter().find_map(|container| {
            let waiting = &container["state"]["waiting"];
            let reason = text(waiting, &["reason"]);
            let bad = reason.starts_with("Err") || reason.ends_with("Error") || reason.ends_with("BackOff");
            bad.then(|| text(waiting, &["message"]))
        });
        if let Some(message) = at_fault {
            return health(Status::Degraded, message);
        }
    }
    match text(object, &["status", "phase"]) {
        "Pending" => progressing(text(object, &["status", "message"])),
        "Succeeded" => health(Status::Healthy, text(object, &["status", "message"])),
        "Failed" => {
            let of_container = containers.iter().find_map(|container| {
                let ended = &container["state"]["terminated"];
                let code = number(ended, &["exitCode"]).filter(|code| *code != 0)?;
                let name = text(container, &["name"]);
                Some(match text(ended, &["message"]) {
                    "" => format!("container {name:?} failed with exit code {code}"),
                    message => message.to_owned(),
                })
            });
            match text(object, &["status", "message"]) {
                "" => health(Status::Degraded, of_container.unwrap_or_default()),
                message => health(Status::Degraded, message),
            }
        }
        "Running" if always && object::is_ready(object) => {
            health(Status::Healthy, text(object, &["status", "message"]))
        }
        "Running"
            if always
                && containers
                    .iter()
                    .any(|c| c["lastState"]["terminated"].is_object()) =>
        {
            health(Status::Degraded, text(object, &["status", "message"]))
        }
        "Running" => progressing(text(object, &["status", "message"])),
        _ => health(Status::Unknown, text(object, &["status", "message"])),
    }
}

/// The phase counts if it is for this generation; the observed generation is a text.
fn rollout(object: &Value) -> Health {
    let observed = text(object, &["status", "observedGeneration"]);
    let message = text(object, &["status", "message"]);
    if observed != object::generation(object).to_string() {
        return progressing("Waiting for rollout spec update to be observed");
    }
    match text(object, &["status", "phase"]) {
        "Healthy" => health(Status::Healthy, message),
        "Paused" => health(Status::Suspended, message),
        "Degraded" => health(Status::Degraded, message),
        _ => progressing(message),
    }
}

fn canary(object: &Value) -> Health {
    match text(object, &["status", "phase"]) {
        "Failed" => health(Status::Degraded, "Canary Failed"),
        phase @ ("Succeeded" | "Initialized") => health(Status::Healthy, phase),
        phase => progressing(phase),
    }
}

/// An Application's health: the worst of its resources' (`setApplicationHealth`). A missing resource shows as being out
/// of sync; only if none exists is the Application missing.
pub(crate) fn of_application(resources: &[Option<&Value>]) -> Status {
    let worst = resources
        .iter()
        .flatten()
        .filter_map(|live| of(live))
        .map(|health| health.status)
        .max()
        .unwrap_or(Status::Healthy);
    if !resources.is_empty() && resources.iter().all(Option::is_none) {
        return worst.max(Status::Missing);
    }
    worst
}

#[cfg(test)]
mod tests;
