//! The Deployment controller's decision, as a function of the current objects.
//!
//! After `k8s.io/kubernetes/pkg/controller/deployment`: one pass does one step (create the new ReplicaSet, scale it up,
//! scale old ones down, or clean up) and writes the status; the resulting changes cause the next pass.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::conditions::{self, Condition};
use crate::object::{self, annotation, at, label, number, text};

mod scale;
mod status;

pub(crate) const HASH_LABEL: &str = "pod-template-hash";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its ReplicaSets do not get.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
];

/// What to do, and the resulting status.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Decision {
    /// The new ReplicaSet.
    pub(crate) create: Option<Value>,
    /// ReplicaSets with a changed size or annotations.
    pub(crate) update: Vec<Value>,
    /// Names of ReplicaSets beyond the history limit.
    pub(crate) delete: Vec<String>,
    pub(crate) status: Value,
    /// The Deployment's revision annotation.
    pub(crate) revision: Option<String>,
    /// Messages of `ScalingReplicaSet` events.
    pub(crate) events: Vec<String>,
    /// When to process it again even if nothing has changed.
    pub(crate) look_again: Option<Timestamp>,
}

/// A ReplicaSet as the pass changes it.
#[derive(Debug, Clone)]
struct ReplicaSet {
    object: Value,
    changed: bool,
}

impl ReplicaSet {
    fn name(&self) -> &str {
        object::name(&self.object)
    }

    fn replicas(&self) -> i64 {
        number(&self.object, &["spec", "replicas"]).unwrap_or(1)
    }

    fn status(&self, field: &str) -> i64 {
        number(&self.object, &["status", field]).unwrap_or(0)
    }

    fn revision(&self) -> i64 {
        annotation(&self.object, REVISION).parse().unwrap_or(0)
    }

    fn created(&self) -> (Option<Timestamp>, &str) {
        (object::created(&self.object), self.name())
    }

    fn annotate(&mut self, key: &str, value: &str) {
        if annotation(&self.object, key) != value {
            object::set_annotation(&mut self.object, key, value);
            self.changed = true;
        }
    }
}

/// Decides the next step. `replica_sets` are those the Deployment controls, `pods` those of all of them.
pub(crate) fn reconcile(
    deployment: &Value,
    replica_sets: &[Arc<Value>],
    pods: &[Arc<Value>],
    now: Timestamp,
) -> Decision {
    let mut pass = Pass::new(deployment, replica_sets, now);
    if object::is_deleting(deployment) {
        pass.find_new(false);
        pass.plain_status();
    } else {
        pass.check_paused();
        if at(deployment, &["spec", "paused"]) == true || pass.is_scaling() {
            pass.find_new(false);
            pass.scale();
            if at(deployment, &["spec", "paused"]) == true {
                pass.clean_up();
            }
            pass.plain_status();
        } else if text(deployment, &["spec", "strategy", "type"]) == "Recreate" {
            pass.recreate(pods);
        } else {
            pass.roll();
        }
    }
    pass.finish()
}

struct Pass<'a> {
    deployment: &'a Value,
    now: Timestamp,
    /// In order of creation.
    sets: Vec<ReplicaSet>,
    /// Index of the one with the Deployment's template.
    new: Option<usize>,
    is_created: bool,
    conditions: Vec<Condition>,
    decision: Decision,
}

impl<'a> Pass<'a> {
    fn new(deployment: &'a Value, replica_sets: &[Arc<Value>], now: Timestamp) -> Self {
        let mut sets: Vec<ReplicaSet> = replica_sets
            .iter()
            .map(|object| ReplicaSet {
                object: Value::clone(object),
                changed: false,
            })
            .collect();
        sets.sort_by(|a, b| a.created().cmp(&b.created()));
        let conditions = conditions::read(deployment);
        let decision = Decision::default();
        Self {
            deployment,
            now,
            sets,
            new: None,
            is_created: false,
            conditions,
            decision,
        }
    }

    // ----- the Deployment's spec -----

    fn replicas(&self) -> i64 {
        number(self.deployment, &["spec", "replicas"]).unwrap_or(1)
    }

    fn is_rolling(&self) -> bool {
        text(self.deployment, &["spec", "strategy", "type"]) != "Recreate"
    }

    /// maxSurge and maxUnavailable in pods: percentages are rounded up for the one and down for the other.
    fn fences(&self) -> (i64, i64) {
        let replicas = self.replicas();
        if !self.is_rolling() || replicas == 0 {
            return (0, 0);
        }
        let rolling = at(self.deployment, &["spec", "strategy", "rollingUpdate"]);
        let surge = scaled(&rolling["maxSurge"], replicas, true);
        let unavailable = scaled(&rolling["maxUnavailable"], replicas, false);
        if surge == 0 && unavailable == 0 {
            (0, 1)
        } else {
            (surge, unavailable.min(replicas))
        }
    }

    /// Seconds; `None` when there is no deadline.
    fn deadline(&self) -> Option<i64> {
        number(self.deployment, &["spec", "progressDeadlineSeconds"]).filter(|d| *d != i64::from(i32::MAX))
    }

    // ----- ReplicaSets -----

    fn total(&self) -> i64 {
        self.sets.iter().map(ReplicaSet::replicas).sum()
    }

    fn sum(&self, field: &str) -> i64 {
        self.sets.iter().map(|set| set.status(field)).sum()
    }

    fn old(&self) -> Vec<usize> {
        (0..self.sets.len())
            .filter(|index| Some(*index) != self.new)
            .collect()
    }

    /// How large the new ReplicaSet may be now.
    fn new_size(&self, current: i64) -> i64 {
        let replicas = self.replicas();
        if !self.is_rolling() {
            return replicas;
        }
        let room = replicas + self.fences().0 - self.total();
        if room <= 0 {
            current
        } else {
            current + room.min(replicas - current)
        }
    }

    /// Finds the ReplicaSet of the template, or makes it, and brings the revision up to date.
    fn find_new(&mut self, create: bool) {
        let wanted = without_hash(at(self.deployment, &["spec", "template"]));
        self.new = self
            .sets
            .iter()
            .position(|set| without_hash(at(&set.object, &["spec", "template"])) == wanted);
        let newest_old = self
            .old()
            .into_iter()
            .map(|index| self.sets[index].revision())
            .max()
            .unwrap_or(0);
        let revision = newest_old + 1;
        if let Some(index) = self.new {
            self.annotate_new(index, revision);
            let min_ready = at(self.deployment, &["spec", "minReadySeconds"]).clone();
            if *at(&self.sets[index].object, &["spec", "minReadySeconds"]) != min_ready {
                self.sets[index].object["spec"]["minReadySeconds"] = min_ready;
                self.sets[index].changed = true;
            }
            self.decision.revision = Some(annotation(&self.sets[index].object, REVISION).to_owned());
            if self.deadline().is_some() && conditions::find(&self.conditions, "Progressing").is_none() {
                let message = format!("Found new replica set \"{}\"", self.sets[index].name());
                self.set("Progressing", "True", "FoundNewReplicaSet", &message);
            }
        } else if create {
            self.make_new(revision);
        }
    }

    fn annotate_new(&mut self, index: usize, revision: i64) {
        for (key, value) in at(self.deployment, &["metadata", "annotations"])
            .as_object()
            .into_iter()
            .flatten()
        {
            if !NOT_COPIED.contains(&key.as_str()) {
                self.sets[index].annotate(key, value.as_str().unwrap_or(""));
            }
        }
        let set = &mut self.sets[index];
        let before = annotation(&set.object, REVISION).to_owned();
        if set.revision() < revision {
            set.annotate(REVISION, &revision.to_string());
            if !before.is_empty() {
                let history = match annotation(&set.object, REVISION_HISTORY) {
                    "" => before,
                    history => format!("{history},{before}"),
                };
                set.annotate(REVISION_HISTORY, &history);
            }
        }
    }

    fn make_new(&mut self, revision: i64) {
        let deployment = self.deployment;
        let collisions = number(deployment, &["status", "collisionCount"]).unwrap_or(0);
        let template = at(deployment, &["spec", "template"]);
        let hash = template_hash(template, collisions);
        let name = format!("{}-{hash}", object::name(deployment));
        let mut template = template.clone();
        object::as_map(
            object::metadata(&mut template)
                .entry("labels")
                .or_insert_with(|| json!({})),
        )
        .insert(HASH_LABEL.to_owned(), json!(hash));
        let mut selector = at(deployment, &["spec", "selector"]).clone();
        object::entry(&mut selector, "matchLabels").insert(HASH_LABEL.to_owned(), json!(hash));
        let mut created = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "namespace": object::namespace(deployment),
                         "labels": template["metadata"]["labels"], "annotations": {},
                         "ownerReferences": [object::controller_reference(deployment)]},
            "spec": {"replicas": 0, "selector": selector, "template": template},
        });
        if let Some(seconds) = number(deployment, &["spec", "minReadySeconds"]) {
            created["spec"]["minReadySeconds"] = json!(seconds);
        }
        let size = self.new_size(0);
        created["spec"]["replicas"] = json!(size);
        self.sets.push(ReplicaSet {
            object: created,
            changed: false,
        });
        let index = self.sets.len() - 1;
        self.new = Some(index);
        self.is_created = true;
        self.annotate_new(index, revision);
        self.mark_size(index);
        self.decision.revision = Some(revision.to_string());
        if size > 0 {
            self.decision
                .events
                .push(format!("Scaled up replica set {name} from 0 to {size}"));
        }
        if self.deadline().is_some() {
            self.set(
                "Progressing",
                "True",
                "NewReplicaSetCreated",
                &format!("Created new replica set \"{name}\""),
            );
        }
    }

    fn mark_size(&mut self, index: usize) {
        let replicas = self.replicas();
        let max = replicas + self.fences().0;
        self.sets[index].annotate(DESIRED, &replicas.to_string());
        self.sets[index].annotate(MAX, &max.to_string());
    }

    fn resize(&mut self, index: usize, size: i64) -> bool {
        let before = self.sets[index].replicas();
        self.mark_size(index);
        if before == size {
            return false;
        }
        let verb = if size > before { "up" } else { "down" };
        let name = self.sets[index].name();
        self.decision.events.push(format!(
            "Scaled {verb} replica set {name} from {before} to {size}"
        ));
        self.sets[index].object["spec"]["replicas"] = json!(size);
        self.sets[index].changed = true;
        true
    }

    // ----- strategies -----

    fn roll(&mut self) {
        self.find_new(true);
        let Some(new) = self.new else { return };
        if self.size_new(new) || self.shrink_old(new) {
            return self.rollout_status();
        }
        if self.is_complete(&self.counts()) {
            self.clean_up();
        }
        self.rollout_status();
    }

    fn size_new(&mut self, new: usize) -> bool {
        let (current, replicas) = (self.sets[new].replicas(), self.replicas());
        let size = match current.cmp(&replicas) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => replicas,
            std::cmp::Ordering::Less => self.new_size(current),
        };
        self.resize(new, size)
    }

    fn shrink_old(&mut self, new: usize) -> bool {
        let old = self.old();
        if old.iter().map(|i| self.sets[*i].replicas()).sum::<i64>() == 0 {
            return false;
        }
        let least = self.replicas() - self.fences().1;
        let new_unavailable = self.sets[new].replicas() - self.sets[new].status("availableReplicas");
        let mut room = self.total() - least - new_unavailable;
        if room <= 0 {
            return false;
        }
        let mut shrunk = false;
        // Unhealthy pods are removed first: this does not reduce availability.
        for &index in &old {
            let (size, available) = (
                self.sets[index].replicas(),
                self.sets[index].status("availableReplicas"),
            );
            let count = room.min(size - available);
            if count > 0 {
                room -= count;
                shrunk |= self.resize(index, size - count);
            }
        }
        let mut room = self.sum("availableReplicas") - least;
        for &index in &old {
            let size = self.sets[index].replicas();
            let count = room.min(size);
            if count > 0 {
                room -= count;
                shrunk |= self.resize(index, size - count);
            }
        }
        shrunk
    }

    fn recreate(&mut self, pods: &[Arc<Value>]) {
        self.find_new(false);
        let mut shrunk = false;
        for index in self.old() {
            if self.sets[index].replicas() > 0 {
                shrunk |= self.resize(index, 0);
            }
        }
        if shrunk || self.old_pods_run(pods) {
            return self.rollout_status();
        }
        if self.new.is_none() {
            self.find_new(true);
        }
        if let Some(new) = self.new {
            let replicas = self.replicas();
            self.resize(new, replicas);
        }
        if self.is_complete(&self.counts()) {
            self.clean_up();
        }
        self.rollout_status();
    }

    fn old_pods_run(&self, pods: &[Arc<Value>]) -> bool {
        let new = self.new.map(|index| object::uid(&self.sets[index].object));
        self.old()
            .into_iter()
            .any(|index| self.sets[index].status("replicas") > 0)
            || pods.iter().any(|pod| {
                object::controller(pod).map(|(uid, ..)| uid) != new
                    && !matches!(text(pod, &["status", "phase"]), "Failed" | "Succeeded")
            })
    }

    /// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit`.
    fn clean_up(&mut self) {
        let Some(limit) = number(self.deployment, &["spec", "revisionHistoryLimit"]) else {
            return;
        };
        let mut old: Vec<&ReplicaSet> = self
            .old()
            .into_iter()
            .map(|i| &self.sets[i])
            .filter(|set| !object::is_deleting(&set.object))
            .collect();
        old.sort_by_key(|set| set.revision());
        let excess = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        let gone = old.into_iter().take(excess).filter(|set| {
            set.status("replicas") == 0
                && set.replicas() == 0
                && object::generation(&set.object) <= set.status("observedGeneration")
        });
        self.decision.delete = gone.map(|set| set.name().to_owned()).collect();
    }

    fn finish(mut self) -> Decision {
        if self.decision.status.is_null() {
            self.plain_status();
        }
        let conditions: Vec<Value> = self.conditions.iter().map(Condition::to_value).collect();
        if !conditions.is_empty() {
            self.decision.status["conditions"] = Value::Array(conditions);
        }
        for (index, set) in self.sets.into_iter().enumerate() {
            if self.is_created && self.new == Some(index) {
                self.decision.create = Some(set.object);
            } else if set.changed {
                self.decision.update.push(set.object);
            }
        }
        self.decision
    }
}

/// A number of pods, or a percentage of `total`.
pub(crate) fn scaled(value: &Value, total: i64, round_up: bool) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * total;
            if round_up {
                (product + 99) / 100
            } else {
                product / 100
            }
        }
        value => value.as_i64().unwrap_or(0),
    }
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if label(&template, HASH_LABEL).is_empty() {
        return template;
    }
    let metadata = object::metadata(&mut template);
    if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
        labels.remove(HASH_LABEL);
        if labels.is_empty() {
            metadata.remove("labels");
        }
    }
    template
}

/// Hash that names a template: FNV-1a over its canonical text, in the alphabet of generated names. Not the value the
/// real controller computes (that one hashes Go's memory layout), but as long-lived and as short.
pub(crate) fn template_hash(template: &Value, collisions: i64) -> String {
    let mut text = object::canonical(&without_hash(template));
    if collisions > 0 {
        text.push_str(&collisions.to_string());
    }
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    object::safe_encode(&hash.to_string())
}

#[cfg(test)]
mod tests;
