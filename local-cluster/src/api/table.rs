//! The server-side Table format: the columns that `kubectl get` prints.
//!
//! Columns and cells follow `k8s.io/kubernetes/pkg/printers/internalversion`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::object::{self, at, condition, list, number, text};
use crate::resources::{Resource, TEMPLATE_GENERATION};

mod columns;

use columns::columns;

/// How much of each object a row carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Include {
    #[default]
    Metadata,
    Object,
    Nothing,
}

/// How long something is, as kubectl prints ages (`duration.HumanDuration`).
fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => pair(days / 365, "y", days % 365, "d"),
    }
}

fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(
        || "<unknown>".to_owned(),
        |t| human(now.duration_since(t).as_secs()),
    )
}

fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

fn containers(spec: &Value, field: &str) -> String {
    let values: Vec<&str> = list(spec, &["containers"])
        .iter()
        .map(|c| text(c, &[field]))
        .collect();
    values.join(",")
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "<none>" } else { value }
}

/// One row's cells, in the order of the columns.
fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = json!(object::name(object));
    let age = json!(since(object::created(object), now));
    let count = |path: &[&str]| number(object, path).unwrap_or(0);
    let template = at(object, &["spec", "template", "spec"]);
    let selector = || json!(labels(at(object, &["spec", "selector", "matchLabels"])));
    match resource.built_in() {
        "Pod" => pod(object, name, age, now),
        "Deployment" => vec![
            name,
            json!(format!(
                "{}/{}",
                count(&["status", "readyReplicas"]),
                count(&["spec", "replicas"])
            )),
            json!(count(&["status", "updatedReplicas"])),
            json!(count(&["status", "availableReplicas"])),
            age,
            json!(containers(template, "name")),
            json!(containers(template, "image")),
            selector(),
        ],
        "ReplicaSet" => vec![
            name,
            json!(count(&["spec", "replicas"])),
            json!(count(&["status", "replicas"])),
            json!(count(&["status", "readyReplicas"])),
            age,
            json!(containers(template, "name")),
            json!(containers(template, "image")),
            selector(),
        ],
        "Service" => {
            let port =
                |p: &Value| format!("{}/{}", number(p, &["port"]).unwrap_or(0), text(p, &["protocol"]));
            let ports: Vec<String> = list(object, &["spec", "ports"]).iter().map(port).collect();
            vec![
                name,
                json!(text(object, &["spec", "type"])),
                json!(or_none(text(object, &["spec", "clusterIP"]))),
                json!("<none>"),
                json!(or_none(&ports.join(","))),
                age,
                json!(labels(at(object, &["spec", "selector"]))),
            ]
        }
        "Namespace" => vec![name, json!(text(object, &["status", "phase"])), age],
        "ConfigMap" => {
            let size = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
            vec![name, json!(size("data") + size("binaryData")), age]
        }
        "StatefulSet" => vec![
            name,
            json!(format!(
                "{}/{}",
                count(&["status", "readyReplicas"]),
                count(&["spec", "replicas"])
            )),
            age,
            json!(containers(template, "name")),
            json!(containers(template, "image")),
        ],
        "DaemonSet" => vec![
            name,
            json!(count(&["status", "desiredNumberScheduled"])),
            json!(count(&["status", "currentNumberScheduled"])),
            json!(count(&["status", "numberReady"])),
            json!(count(&["status", "updatedNumberScheduled"])),
            json!(count(&["status", "numberAvailable"])),
            json!(labels(&template["nodeSelector"])),
            age,
            json!(containers(template, "name")),
            json!(containers(template, "image")),
            selector(),
        ],
        "Job" => job(object, name, age, now),
        "ControllerRevision" => {
            let owner = object::controller(object).map_or_else(
                || "<none>".to_owned(),
                |(_, kind, name)| {
                    let group = if kind == "Job" { "batch" } else { "apps" };
                    format!("{}.{group}/{name}", kind.to_lowercase())
                },
            );
            vec![name, json!(owner), json!(count(&["revision"])), age]
        }
        "Node" => node(object, name, age),
        "Secret" => {
            let keys = object["data"].as_object().map_or(0, serde_json::Map::len);
            vec![name, json!(text(object, &["type"])), json!(keys), age]
        }
        "ServiceAccount" => vec![name, json!(list(object, &["secrets"]).len()), age],
        "ResourceQuota" => {
            let hard = at(object, &["status", "hard"]).as_object().into_iter().flatten();
            let used: Vec<String> = hard
                .map(|(key, hard)| {
                    let used = text(object, &["status", "used", key]);
                    format!("{key}: {used}/{}", hard.as_str().unwrap_or(""))
                })
                .collect();
            vec![name, json!(used.join(", ")), json!(""), age]
        }
        "Event" => event(object, now),
        _ => match resource.custom {
            Some(custom) => {
                let own = custom
                    .columns
                    .iter()
                    .map(|column| column.cell(object, |time| since(Some(time), now)));
                std::iter::once(name).chain(own).collect()
            }
            None => vec![name, age],
        },
    }
}

/// What `kubectl get pods` prints under STATUS.
pub(crate) fn pod_status(pod: &Value) -> String {
    let mut status = match text(pod, &["status", "reason"]) {
        "" => text(pod, &["status", "phase"]),
        reason => reason,
    }
    .to_owned();
    let mut running_ready = false;
    for container in list(pod, &["status", "containerStatuses"]).iter().rev() {
        let waiting = text(container, &["state", "waiting", "reason"]);
        let terminated = at(container, &["state", "terminated"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut status);
        } else if terminated.is_object() {
            status = match (text(terminated, &["reason"]), number(terminated, &["signal"])) {
                ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
                ("", _) => format!("ExitCode:{}", number(terminated, &["exitCode"]).unwrap_or(0)),
                (reason, _) => reason.to_owned(),
            };
        } else if container["ready"] == true {
            running_ready = true;
        }
    }
    if status == "Completed" && running_ready {
        status = if object::is_ready(pod) {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
    if object::is_deleting(pod) {
        "Terminating".to_owned()
    } else {
        status
    }
}

fn pod(object: &Value, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let statuses = list(object, &["status", "containerStatuses"]);
    let ready = statuses.iter().filter(|c| c["ready"] == true).count();
    let total = list(object, &["spec", "containers"]).len();
    let restarts: i64 = statuses.iter().filter_map(|c| number(c, &["restartCount"])).sum();
    let last = statuses
        .iter()
        .filter_map(|c| object::time(c, &["lastState", "terminated", "finishedAt"]))
        .max();
    let restarts = match last {
        Some(last) if restarts > 0 => {
            format!("{restarts} ({} ago)", human(now.duration_since(last).as_secs()))
        }
        _ => restarts.to_string(),
    };
    vec![
        name,
        json!(format!("{ready}/{total}")),
        json!(pod_status(object)),
        json!(restarts),
        age,
        json!(or_none(text(object, &["status", "podIP"]))),
        json!(or_none(text(object, &["spec", "nodeName"]))),
        json!("<none>"),
        json!("<none>"),
    ]
}

fn job(object: &Value, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let has = |kind: &str| condition(object, kind).is_some_and(|c| c["status"] == "True");
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if object::is_deleting(object) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let succeeded = number(object, &["status", "succeeded"]).unwrap_or(0);
    let parallelism = number(object, &["spec", "parallelism"]).unwrap_or(0);
    let completions = match number(object, &["spec", "completions"]) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let end = object::time(object, &["status", "completionTime"]).unwrap_or(now);
    let duration = object::time(object, &["status", "startTime"])
        .map_or_else(String::new, |start| human(end.duration_since(start).as_secs()));
    let template = at(object, &["spec", "template", "spec"]);
    vec![
        name,
        json!(status),
        json!(completions),
        json!(duration),
        age,
        json!(containers(template, "name")),
        json!(containers(template, "image")),
        json!(labels(at(object, &["spec", "selector", "matchLabels"]))),
    ]
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let is_ready = condition(object, "Ready").is_some_and(|c| c["status"] == "True");
    let mut status = if is_ready { "Ready" } else { "NotReady" }.to_owned();
    if at(object, &["spec", "unschedulable"]) == true {
        status.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = at(object, &["metadata", "labels"])
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = list(object, &["status", "addresses"])
        .iter()
        .find(|address| address["type"] == "InternalIP")
        .map_or("", |address| text(address, &["address"]));
    let unknown = |text: &str| {
        if text.is_empty() {
            json!("<unknown>")
        } else {
            json!(text)
        }
    };
    let info = |field: &str| unknown(text(object, &["status", "nodeInfo", field]));
    vec![
        name,
        json!(status),
        json!(or_none(&roles.join(","))),
        age,
        json!(text(object, &["status", "nodeInfo", "kubeletVersion"])),
        json!(or_none(address)),
        json!("<none>"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// The component that wrote the event, and where it runs.
fn source(event: &Value) -> String {
    let either = |one: &[&str], other: &str| match text(event, one) {
        "" => text(event, &[other]).to_owned(),
        found => found.to_owned(),
    };
    let component = either(&["source", "component"], "reportingComponent");
    match either(&["source", "host"], "reportingInstance").as_str() {
        "" => component,
        host => format!("{component}, {host}"),
    }
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = object::time(object, &["firstTimestamp"]).or_else(|| object::created(object));
    let last = object::time(object, &["series", "lastObservedTime"])
        .or_else(|| object::time(object, &["lastTimestamp"]))
        .or(first);
    let about = &object["involvedObject"];
    vec![
        json!(since(last, now)),
        json!(text(object, &["type"])),
        json!(text(object, &["reason"])),
        json!(format!(
            "{}/{}",
            text(about, &["kind"]).to_lowercase(),
            text(about, &["name"])
        )),
        json!(text(about, &["fieldPath"])),
        json!(source(object)),
        json!(text(object, &["message"]).trim()),
        json!(since(first, now)),
        json!(
            number(object, &["series", "count"])
                .or_else(|| number(object, &["count"]))
                .unwrap_or(1)
        ),
        json!(object::name(object)),
    ]
}

/// The `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value, version: &str) -> Value {
    let mut metadata = object["metadata"].clone();
    // The real server makes this from its internal form, in which a DaemonSet does not have the annotation.
    if let Some(annotations) = metadata.get_mut("annotations").map(object::as_map)
        && annotations.remove(TEMPLATE_GENERATION).is_some()
        && annotations.is_empty()
    {
        object::as_map(&mut metadata).remove("annotations");
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
           "metadata": metadata})
}

/// A Table of the objects; `metadata` is the list's.
pub(crate) fn table(
    resource: &Resource,
    objects: &[&Value],
    metadata: &Value,
    version: &str,
    include: Include,
    now: Timestamp,
) -> Value {
    let own = resource.custom.into_iter().flat_map(|custom| &custom.columns);
    let definitions: Vec<Value> = columns(resource)
        .iter()
        .map(|(name, kind, shown)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": kind, "format": format, "description": "", "priority": i32::from(!shown)})
        })
        .chain(own.map(Column::definition))
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let carried = match include {
                Include::Metadata => partial(object, version),
                Include::Object => Value::clone(object),
                Include::Nothing => Value::Null,
            };
            json!({"cells": cells(resource, object, now), "object": carried})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
           "columnDefinitions": definitions, "rows": rows})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let table = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (11_000, "3h3m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
        ];
        for (seconds, expected) in table {
            assert_eq!(human(seconds), expected);
        }
    }

    #[test]
    fn a_pods_status_is_its_worst_container() {
        let pod =
            |state: Value| json!({"status": {"phase": "Running", "containerStatuses": [{"state": state}]}});
        let table = [
            (pod(json!({"running": {}})), "Running"),
            (
                pod(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
                "CrashLoopBackOff",
            ),
            (
                pod(json!({"terminated": {"exitCode": 1, "reason": "Error"}})),
                "Error",
            ),
            (pod(json!({"terminated": {"exitCode": 7}})), "ExitCode:7"),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                "Terminating",
            ),
        ];
        for (pod, expected) in table {
            assert_eq!(pod_status(&pod), expected, "{pod}");
        }
    }
}
