//! The StatefulSet controller's decision: which numbered pods to create and to delete, in which order, and the status.
//!
//! After `k8s.io/kubernetes/pkg/controller/statefulset`. Like the real one it never replaces a pod that does not become
//! ready under `OrderedReady`, even if the template that broke it has been fixed.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::pods::{self, Availability, is_over, is_running_and_ready, set_label};
use crate::controllers::revisions::{self, REVISION_HASH};
use crate::object::{self, at, label, number, text};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) revision: revisions::Update,
    /// The pods to create, in order.
    pub(crate) create: Vec<Value>,
    /// Names of the pods to delete.
    pub(crate) delete: Vec<String>,
    /// Names of revisions beyond the history limit.
    pub(crate) forget: Vec<String>,
}

/// The number in a pod's name, if the name is one of the set's.
fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    let rest = object::name(pod)
        .strip_prefix(object::name(set))?
        .strip_prefix('-')?;
    rest.parse()
        .ok()
        .filter(|n: &i64| *n >= 0 && n.to_string() == rest)
}

/// First number and how many.
fn range(set: &Value) -> (i64, i64) {
    (
        number(set, &["spec", "ordinals", "start"]).unwrap_or(0),
        number(set, &["spec", "replicas"]).unwrap_or(1),
    )
}

fn is_rolling(set: &Value) -> bool {
    text(set, &["spec", "updateStrategy", "type"]) != "OnDelete"
}

fn partition(set: &Value) -> i64 {
    number(set, &["spec", "updateStrategy", "rollingUpdate", "partition"]).unwrap_or(0)
}

/// The name of the revision that pods had before this update.
fn current_revision<'a>(set: &'a Value, revisions: &[Arc<Value>], update: &'a str) -> &'a str {
    let current = text(set, &["status", "currentRevision"]);
    if revisions.iter().any(|known| object::name(known) == current) {
        current
    } else {
        update
    }
}

/// Decides the next step. `revisions` and `pods` are those that the set controls.
pub(crate) fn plan(set: &Value, revisions: &[Arc<Value>], pods: &[Arc<Value>], now: Timestamp) -> Plan {
    let collisions = number(set, &["status", "collisionCount"]).unwrap_or(0);
    let revision = revisions::update(set, revisions, collisions);
    let current = current_revision(set, revisions, &revision.name);
    let in_use = |known: &Value| {
        let name = object::name(known);
        name == revision.name || name == current || pods.iter().any(|pod| label(pod, REVISION_HASH) == name)
    };
    let forget = revisions::beyond_limit(set, revisions, in_use);
    let (mut create, mut delete) = (Vec::new(), Vec::new());
    let step = Step {
        set,
        revisions,
        current,
        update: &revision.name,
        monotonic: text(set, &["spec", "podManagementPolicy"]) != "Parallel",
        available: Availability::new(set, now),
        create: &mut create,
        delete: &mut delete,
    };
    step.run(pods);
    Plan {
        revision,
        create,
        delete,
        forget,
    }
}

struct Step<'a> {
    set: &'a Value,
    revisions: &'a [Arc<Value>],
    /// Names of revisions.
    current: &'a str,
    update: &'a str,
    /// One pod at a time (`OrderedReady`).
    monotonic: bool,
    available: Availability,
    create: &'a mut Vec<Value>,
    delete: &'a mut Vec<String>,
}

impl Step<'_> {
    fn run(mut self, pods: &[Arc<Value>]) {
        let (start, count) = range(self.set);
        let find = |n: i64| {
            let found = pods.iter().find(|pod| ordinal(self.set, pod) == Some(n));
            found.map(AsRef::as_ref)
        };
        let replicas: Vec<(i64, Option<&Value>)> = (start..start + count).map(|n| (n, find(n))).collect();
        // Those beyond the number of replicas, highest number first.
        let mut condemned: Vec<(i64, &Value)> = pods
            .iter()
            .filter_map(|pod| Some((ordinal(self.set, pod)?, pod.as_ref())))
            .filter(|(n, _)| !(start..start + count).contains(n))
            .collect();
        condemned.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
        if self.living(&replicas) || self.condemned(&replicas, &condemned) || !is_rolling(self.set) {
            return;
        }
        self.roll(&replicas);
    }

    fn is_healthy(&mut self, pod: &Value) -> bool {
        is_running_and_ready(pod) && !object::is_deleting(pod) && self.available.is_available(pod)
    }

    /// Creates what is missing; true if the step ends here.
    fn living(&mut self, replicas: &[(i64, Option<&Value>)]) -> bool {
        for (n, pod) in replicas {
            let waits = match pod {
                None => {
                    let pod = self.pod(*n);
                    self.create.push(pod);
                    true
                }
                Some(pod) if is_over(pod) => {
                    if !object::is_deleting(pod) {
                        self.delete.push(object::name(pod).to_owned());
                    }
                    true
                }
                Some(pod) => !self.is_healthy(pod),
            };
            if waits && self.monotonic {
                return true;
            }
        }
        false
    }

    /// Deletes what is too much; true if the step ends here.
    fn condemned(&mut self, replicas: &[(i64, Option<&Value>)], condemned: &[(i64, &Value)]) -> bool {
        let living = replicas.iter().filter_map(|(_, pod)| *pod);
        let all: Vec<&Value> = living
            .chain(condemned.iter().rev().map(|(_, pod)| *pod))
            .collect();
        let first_unhealthy = all
            .into_iter()
            .find(|pod| !self.is_healthy(pod))
            .map(object::name);
        for (_, pod) in condemned {
            if object::is_deleting(pod) {
                if self.monotonic {
                    return true;
                }
                continue;
            }
            if self.monotonic && !self.is_healthy(pod) && first_unhealthy != Some(object::name(pod)) {
                return true;
            }
            self.delete.push(object::name(pod).to_owned());
            if self.monotonic {
                return true;
            }
        }
        false
    }

    /// Deletes the highest pod of another revision, once those above it are healthy.
    fn roll(&mut self, replicas: &[(i64, Option<&Value>)]) {
        let (start, _) = range(self.set);
        let least = start + partition(self.set);
        for (_, pod) in replicas.iter().rev().take_while(|(n, _)| *n >= least) {
            let Some(pod) = pod else { return };
            if label(pod, REVISION_HASH) != self.update && !object::is_deleting(pod) {
                self.delete.push(object::name(pod).to_owned());
                return;
            }
            if !self.is_healthy(pod) {
                return;
            }
        }
    }

    /// The pod with that number: of the old revision below the partition, otherwise of the new one.
    fn pod(&self, n: i64) -> Value {
        let (start, _) = range(self.set);
        let is_old = is_rolling(self.set) && n < start + partition(self.set) && self.current != self.update;
        let old = self
            .revisions
            .iter()
            .find(|revision| is_old && object::name(revision) == self.current);
        let (revision, template) = match old {
            Some(old) => (self.current, revisions::template(old)),
            None => (self.update, at(self.set, &["spec", "template"]).clone()),
        };
        let mut pod = pods::from_template(self.set, &template);
        let name = format!("{}-{n}", object::name(self.set));
        pod["metadata"]["name"] = json!(name);
        set_label(&mut pod, REVISION_HASH, revision);
        set_label(&mut pod, POD_NAME, &name);
        set_label(&mut pod, POD_INDEX, &n.to_string());
        pod["spec"]["hostname"] = json!(name);
        if let Some(service) = self.set["spec"].get("serviceName") {
            pod["spec"]["subdomain"] = service.clone();
        }
        pod
    }
}

/// The status, and when a pod will have been ready for long enough. `revisions` and `pods` as they are after the
/// plan was carried out, `update` the name of the template's revision.
pub(crate) fn status(
    set: &Value,
    revisions: &[Arc<Value>],
    update: &str,
    pods: &[Arc<Value>],
    now: Timestamp,
) -> (Value, Option<Timestamp>) {
    let mut current = current_revision(set, revisions, update);
    let mut available = Availability::new(set, now);
    let (mut replicas, mut ready, mut available_replicas, mut of_current, mut updated) = (0, 0, 0, 0, 0);
    for pod in pods.iter().filter(|pod| ordinal(set, pod).is_some()) {
        replicas += 1;
        if is_running_and_ready(pod) {
            ready += 1;
            available_replicas += i64::from(available.is_available(pod));
        }
        if !object::is_deleting(pod) {
            of_current += i64::from(label(pod, REVISION_HASH) == current);
            updated += i64::from(label(pod, REVISION_HASH) == update);
        }
    }
    if is_rolling(set) && updated == replicas && ready == replicas {
        (current, of_current) = (update, updated);
    }
    let mut status = json!({
        "observedGeneration": object::generation(set), "replicas": replicas, "availableReplicas": available_replicas,
        "currentRevision": current, "updateRevision": update,
        "collisionCount": number(set, &["status", "collisionCount"]).unwrap_or(0),
    });
    for (field, value) in [
        ("readyReplicas", ready),
        ("currentReplicas", of_current),
        ("updatedReplicas", updated),
    ] {
        if value != 0 {
            status[field] = json!(value);
        }
    }
    (status, available.look_again)
}

#[cfg(test)]
mod tests;
