//! The DaemonSet controller's decision: one pod on every node that fits, replaced node by node, and the status.
//!
//! After `k8s.io/kubernetes/pkg/controller/daemon`, without surge.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::deployment::scaled;
use crate::controllers::fit;
use crate::controllers::pods::{self, Availability, set_label};
use crate::controllers::revisions::{self, REVISION_HASH};
use crate::object::{self, at, label, list, number, text};
use crate::resources::TEMPLATE_GENERATION;

const POD_GENERATION: &str = "pod-template-generation";

/// Taints of nodes that daemons stay on (`util.AddOrUpdateDaemonPodTolerations`).
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) revision: revisions::Update,
    /// The pods to create, each for a specific node.
    pub(crate) create: Vec<Value>,
    /// Names of the pods to delete.
    pub(crate) delete: Vec<String>,
    /// Names of pods to delete because they failed, and their nodes.
    pub(crate) failed: Vec<(String, String)>,
    /// Names of revisions beyond the history limit.
    pub(crate) forget: Vec<String>,
}

/// The node a pod runs on or is intended for.
fn node_of(pod: &Value) -> &str {
    match text(pod, &["spec", "nodeName"]) {
        "" => {
            let required = [
                "spec",
                "affinity",
                "nodeAffinity",
                "requiredDuringSchedulingIgnoredDuringExecution",
                "nodeSelectorTerms",
            ];
            list(pod, &required)
                .iter()
                .flat_map(|term| list(term, &["matchFields"]))
                .find(|field| text(field, &["key"]) == "metadata.name")
                .and_then(|field| list(field, &["values"]).first()?.as_str())
                .unwrap_or("")
        }
        name => name,
    }
}

/// The pods by node, oldest first.
fn by_node(pods: &[Arc<Value>]) -> BTreeMap<&str, Vec<&Value>> {
    let mut nodes: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for pod in pods {
        nodes.entry(node_of(pod)).or_default().push(pod);
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| (object::created(pod), object::name(pod).to_owned()));
    }
    nodes
}

/// What the pods of the set tolerate beyond the template.
fn spec_of_pods(set: &Value) -> Value {
    let mut spec = at(set, &["spec", "template", "spec"]).clone();
    let mut tolerations = list(&spec, &["tolerations"]).to_vec();
    for (key, effect) in TOLERATED {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    object::as_map(&mut spec).insert("tolerations".to_owned(), Value::Array(tolerations));
    spec
}

/// Whether the set wants a pod on the node. Requests that do not fit keep a pod waiting, but do not exclude it.
fn wants(spec: &Value, node: &Value) -> bool {
    fit::is_selected(spec, node) && fit::untolerated(spec, node, fit::KEEP_AWAY).is_none()
}

/// Whether a pod that is on the node may stay there.
fn keeps(spec: &Value, node: &Value) -> bool {
    fit::is_selected(spec, node) && fit::untolerated(spec, node, fit::DRIVE_OUT).is_none()
}

fn is_updated(set: &Value, hash: &str, pod: &Value) -> bool {
    let generation = object::annotation(set, TEMPLATE_GENERATION);
    label(pod, REVISION_HASH) == hash || !generation.is_empty() && label(pod, POD_GENERATION) == generation
}

/// Decides the next step. `revisions` and `pods` are those that the set controls.
pub(crate) fn plan(
    set: &Value,
    revisions: &[Arc<Value>],
    pods: &[Arc<Value>],
    nodes: &[Arc<Value>],
    now: Timestamp,
) -> Plan {
    let collisions = number(set, &["status", "collisionCount"]).unwrap_or(0);
    let revision = revisions::update(set, revisions, collisions);
    let in_use = |known: &Value| {
        object::name(known) == revision.name
            || pods
                .iter()
                .any(|pod| label(pod, REVISION_HASH) == label(known, REVISION_HASH))
    };
    let mut plan = Plan {
        forget: revisions::beyond_limit(set, revisions, in_use),
        create: Vec::new(),
        delete: Vec::new(),
        failed: Vec::new(),
        revision,
    };
    manage(set, pods, nodes, &mut plan);
    if text(set, &["spec", "updateStrategy", "type"]) != "OnDelete" {
        roll(set, pods, nodes, now, &mut plan);
    }
    plan
}

/// Creates a pod where one is missing; deletes those that do not belong, and all but one on the same node.
fn manage(set: &Value, pods: &[Arc<Value>], nodes: &[Arc<Value>], plan: &mut Plan) {
    let spec = spec_of_pods(set);
    let mut placed = by_node(pods);
    for node in nodes {
        let here = placed.remove(object::name(node)).unwrap_or_default();
        if !keeps(&spec, node) {
            let unwanted = here.iter().filter(|pod| !object::is_deleting(pod));
            plan.delete
                .extend(unwanted.map(|pod| object::name(pod).to_owned()));
        } else if here.is_empty() {
            if wants(&spec, node) {
                let pod = pod(set, &spec, &plan.revision.hash, object::name(node));
                plan.create.push(pod);
            }
        } else {
            let mut running = 0;
            for pod in here.into_iter().filter(|pod| !object::is_deleting(pod)) {
                let name = object::name(pod).to_owned();
                if pods::is_over(pod) {
                    plan.failed.push((name, object::name(node).to_owned()));
                } else {
                    running += 1;
                    if running > 1 {
                        plan.delete.push(name);
                    }
                }
            }
        }
    }
    // What is left was on nodes that are gone.
    let orphans = placed
        .into_values()
        .flatten()
        .filter(|pod| !object::is_deleting(pod));
    plan.delete
        .extend(orphans.map(|pod| object::name(pod).to_owned()));
}

/// Replaces pods of older templates, `maxUnavailable` at a time; unavailable ones do not count.
fn roll(set: &Value, pods: &[Arc<Value>], nodes: &[Arc<Value>], now: Timestamp, plan: &mut Plan) {
    let spec = spec_of_pods(set);
    let wanted: Vec<&str> = nodes
        .iter()
        .filter(|node| wants(&spec, node))
        .map(|node| object::name(node))
        .collect();
    let most = at(
        set,
        &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"],
    );
    let most = if most.is_null() { &json!(1) } else { most };
    let desired = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let most = scaled(most, desired, true);
    let placed = by_node(pods);
    let mut availability = Availability::new(set, now);
    let (mut unavailable, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
    for name in &wanted {
        let here = placed.get(name).into_iter().flatten();
        let here = here.filter(|pod| !object::is_deleting(pod));
        let (new, old): (Vec<&&Value>, Vec<&&Value>) =
            here.partition(|pod| is_updated(set, &plan.revision.hash, pod));
        match (new.as_slice(), old.as_slice()) {
            ([new], []) => unavailable += i64::from(!availability.is_available(new)),
            ([], [old]) if availability.is_available(old) => candidates.push(object::name(old).to_owned()),
            ([], [old]) => broken.push(object::name(old).to_owned()),
            // None yet, or too many: `manage` takes care of that.
            _ => unavailable += 1,
        }
    }
    let room = usize::try_from(most - unavailable).unwrap_or(0);
    for name in broken.into_iter().chain(candidates.into_iter().take(room)) {
        if !plan.delete.contains(&name) && !plan.failed.iter().any(|(failed, _)| *failed == name) {
            plan.delete.push(name);
        }
    }
}

fn pod(set: &Value, spec: &Value, hash: &str, node: &str) -> Value {
    let mut pod = pods::from_template(set, at(set, &["spec", "template"]));
    pod["spec"] = spec.clone();
    set_label(&mut pod, REVISION_HASH, hash);
    let generation = object::annotation(set, TEMPLATE_GENERATION);
    if !generation.is_empty() {
        set_label(&mut pod, POD_GENERATION, generation);
    }
    // The scheduler binds the pod to this node and no other (`util.ReplaceDaemonSetPodNodeNameNodeAffinity`).
    let affinity = object::as_map(&mut pod["spec"])
        .entry("affinity")
        .or_insert_with(|| json!({}));
    let affinity = object::entry(affinity, "nodeAffinity");
    affinity.insert(
        "requiredDuringSchedulingIgnoredDuringExecution".to_owned(),
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}),
    );
    pod
}

/// The status, and when a pod will have been ready for long enough. `pods` as they are after the plan was carried
/// out, `hash` that of the template's revision.
pub(crate) fn status(
    set: &Value,
    hash: &str,
    pods: &[Arc<Value>],
    nodes: &[Arc<Value>],
    now: Timestamp,
) -> (Value, Option<Timestamp>) {
    let spec = spec_of_pods(set);
    let placed = by_node(pods);
    let mut availability = Availability::new(set, now);
    let (mut desired, mut current, mut ready, mut available, mut updated, mut misscheduled) =
        (0, 0, 0, 0, 0, 0);
    for node in nodes {
        let here = placed.get(object::name(node)).and_then(|pods| pods.first());
        match (wants(&spec, node), here) {
            (true, Some(pod)) => {
                desired += 1;
                current += 1;
                ready += i64::from(object::is_ready(pod));
                available += i64::from(availability.is_available(pod));
                updated += i64::from(is_updated(set, hash, pod));
            }
            (true, None) => desired += 1,
            (false, Some(_)) => misscheduled += 1,
            (false, None) => {}
        }
    }
    let mut status = json!({
        "currentNumberScheduled": current, "numberMisscheduled": misscheduled, "desiredNumberScheduled": desired,
        "numberReady": ready, "observedGeneration": object::generation(set),
    });
    for (field, value) in [
        ("updatedNumberScheduled", updated),
        ("numberAvailable", available),
        ("numberUnavailable", desired - available),
    ] {
        if value != 0 {
            status[field] = json!(value);
        }
    }
    let collisions = at(set, &["status", "collisionCount"]);
    if !collisions.is_null() {
        status["collisionCount"] = collisions.clone();
    }
    (status, availability.look_again)
}

#[cfg(test)]
mod tests;
