//! Carries out the pure decisions, kind by kind.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::delete::{self, Options};
use crate::api::prepare;
use crate::controllers::{
    Controllers, Outcome, daemonset, deployment, job, replicaset, revisions, scheduler, statefulset,
};
use crate::object::{self, text};
use crate::quota;
use crate::recorder::Recorder;
use crate::resources::{
    CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, JOBS, NODES, PODS, REPLICA_SETS, RESOURCE_QUOTAS,
    Resource, STATEFUL_SETS,
};
use crate::status::ApiResult;

impl Controllers {
    /// The objects of one kind that the owner controls.
    fn controlled_by(&self, resource: &Resource, owner: &Value) -> Vec<Arc<Value>> {
        let uid = object::uid(owner);
        self.store
            .owned_by(uid)
            .into_iter()
            .filter(|(kind, object)| {
                *kind == resource && object::controller(object).is_some_and(|(owner, ..)| owner == uid)
            })
            .map(|(_, object)| object)
            .collect()
    }

    fn create(&self, resource: &'static Resource, mut object: Value) -> ApiResult<Arc<Value>> {
        prepare::prepare_new(resource, &mut object, Timestamp::now())?;
        self.store.create(resource, object)
    }

    /// Deletes a pod, also from `pods`, the decision's view. False if it was gone already.
    fn delete_pod(&self, pods: &mut Vec<Arc<Value>>, namespace: &str, name: &str) -> bool {
        let deleted = delete::delete_object(&self.store, &PODS, namespace, name, &Options::default());
        if let Ok((marked, false)) = &deleted {
            let known = pods.iter_mut().find(|pod| object::name(pod) == name);
            if let Some(known) = known {
                *known = Arc::clone(marked);
            }
        } else {
            pods.retain(|pod| object::name(pod) != name);
        }
        deleted.is_ok()
    }

    /// Creates pods until one is refused, which is reported in an event. Returns those created, and the refusal.
    fn create_pods(
        &self,
        owner: &Value,
        recorder: &Recorder,
        pods: impl IntoIterator<Item = Value>,
    ) -> (Vec<Arc<Value>>, Option<String>) {
        let mut made = Vec::new();
        for pod in pods {
            match self.create(&PODS, pod) {
                Ok(pod) => {
                    let message = format!("Created pod: {}", object::name(&pod));
                    recorder.normal(owner, "SuccessfulCreate", &message);
                    made.push(pod);
                }
                Err(error) => {
                    let message = format!("Error creating: {}", error.message);
                    recorder.warning(owner, "FailedCreate", &message);
                    return (made, Some(error.message));
                }
            }
        }
        (made, None)
    }

    fn delete_pods(&self, owner: &Value, recorder: &Recorder, pods: &mut Vec<Arc<Value>>, names: &[String]) {
        for name in names {
            if self.delete_pod(pods, object::namespace(owner), name) {
                recorder.normal(owner, "SuccessfulDelete", &format!("Deleted pod: {name}"));
            }
        }
    }

    pub(super) fn deployment(&self, namespace: &str, name: &str) -> Option<Outcome> {
        let deployment = self.store.get(&DEPLOYMENTS, namespace, name)?;
        let sets = self.controlled_by(&REPLICA_SETS, &deployment);
        let pods: Vec<Arc<Value>> = sets
            .iter()
            .flat_map(|set| self.controlled_by(&PODS, set))
            .collect();
        let decision = deployment::reconcile(&deployment, &sets, &pods, Timestamp::now());
        let (mut status, mut failed) = (decision.status, false);
        if let Some(set) = decision.create
            && let Err(error) = self.create(&REPLICA_SETS, set)
        {
            tracing::warn!(%error, name, "ReplicaSet not created");
            failed = true;
            status = deployment["status"].clone();
            if error.reason == "AlreadyExists" {
                // The name is taken by another template: the next try gets another name.
                let collisions = deployment["status"]["collisionCount"].as_i64().unwrap_or(0);
                status["collisionCount"] = json!(collisions + 1);
            } else {
                let message = format!("Failed to create new replica set: {}", error.message);
                self.deployments
                    .warning(&deployment, "ReplicaSetCreateError", &message);
            }
        }
        for set in &decision.update {
            self.change(&REPLICA_SETS, set, |new| {
                let old = new.clone();
                new["spec"]["replicas"] = set["spec"]["replicas"].clone();
                if let Some(seconds) = set["spec"].get("minReadySeconds").filter(|s| !s.is_null()) {
                    new["spec"]["minReadySeconds"] = seconds.clone();
                }
                new["metadata"]["annotations"] = set["metadata"]["annotations"].clone();
                prepare::bump_generation(&REPLICA_SETS, &old, new);
            });
        }
        for set in &decision.delete {
            if let Err(error) = self.store.remove(&REPLICA_SETS, namespace, set, |_| Ok(())) {
                tracing::debug!(%error, set, "old ReplicaSet not deleted");
            }
        }
        self.change(&DEPLOYMENTS, &deployment, |new| {
            new["status"] = status;
            if let Some(revision) = decision.revision.as_ref().filter(|_| !failed) {
                object::set_annotation(new, deployment::REVISION, revision);
            }
        });
        if !failed {
            for message in &decision.events {
                self.deployments.normal(&deployment, "ScalingReplicaSet", message);
            }
        }
        Some(Outcome {
            look_again: decision.look_again,
            failed,
        })
    }

    pub(super) fn replica_set(&self, namespace: &str, name: &str) -> Option<Outcome> {
        let set = self.store.get(&REPLICA_SETS, namespace, name)?;
        let mut pods = self.controlled_by(&PODS, &set);
        let now = Timestamp::now();
        let decision = replicaset::reconcile(&set, &pods, now);
        let new = std::iter::repeat_with(|| replicaset::pod(&set)).take(decision.create);
        let (_, refusal) = self.create_pods(&set, &self.replica_sets, new);
        self.delete_pods(&set, &self.replica_sets, &mut pods, &decision.delete);
        let mut status = decision.status;
        if let Some(conditions) = replicaset::failure(&set, refusal.as_deref(), now) {
            status["conditions"] = conditions;
        }
        self.change(&REPLICA_SETS, &set, |new| new["status"] = status);
        Some(Outcome {
            look_again: decision.look_again,
            failed: refusal.is_some(),
        })
    }

    /// Stores what an update of the history asks for. False if the name of the new revision is taken: the owner's next
    /// try gets another.
    fn record(&self, resource: &'static Resource, owner: &Value, update: &revisions::Update) -> bool {
        if let Some(revision) = &update.create
            && let Err(error) = self.create(&CONTROLLER_REVISIONS, revision.clone())
        {
            tracing::warn!(%error, name = object::name(owner), "ControllerRevision not created");
            if error.reason == "AlreadyExists" {
                self.change(resource, owner, |new| {
                    let collisions = new["status"]["collisionCount"].as_i64().unwrap_or(0);
                    new["status"]["collisionCount"] = json!(collisions + 1);
                });
            }
            return false;
        }
        if let Some((name, number)) = &update.renumber
            && let Some(revision) = self
                .store
                .get(&CONTROLLER_REVISIONS, object::namespace(owner), name)
        {
            self.change(&CONTROLLER_REVISIONS, &revision, |new| {
                new["revision"] = json!(number);
            });
        }
        true
    }

    fn forget(&self, namespace: &str, revisions: &[String]) {
        for name in revisions {
            if let Err(error) = self
                .store
                .remove(&CONTROLLER_REVISIONS, namespace, name, |_| Ok(()))
            {
                tracing::debug!(%error, name, "old ControllerRevision not deleted");
            }
        }
    }

    pub(super) fn stateful_set(&self, namespace: &str, name: &str) -> Option<Outcome> {
        let set = self.store.get(&STATEFUL_SETS, namespace, name)?;
        if object::is_deleting(&set) {
            // Nothing is created for it any more, not even history.
            return None;
        }
        let history = || self.controlled_by(&CONTROLLER_REVISIONS, &set);
        let mut pods = self.controlled_by(&PODS, &set);
        let now = Timestamp::now();
        let plan = statefulset::plan(&set, &history(), &pods, now);
        let mut outcome = Outcome::default();
        if !self.record(&STATEFUL_SETS, &set, &plan.revision) {
            outcome.failed = true;
            return Some(outcome);
        }
        let recorder = &self.stateful_sets;
        for pod in plan.create {
            let pod_name = object::name(&pod).to_owned();
            match self.create(&PODS, pod) {
                Ok(pod) => {
                    pods.push(pod);
                    let message = format!("create Pod {pod_name} in StatefulSet {name} successful");
                    recorder.normal(&set, "SuccessfulCreate", &message);
                }
                Err(error) => {
                    let message = format!(
                        "create Pod {pod_name} in StatefulSet {name} failed error: {}",
                        error.message
                    );
                    recorder.warning(&set, "FailedCreate", &message);
                    outcome.failed = true;
                    break;
                }
            }
        }
        for pod in &plan.delete {
            if self.delete_pod(&mut pods, namespace, pod) {
                let message = format!("delete Pod {pod} in StatefulSet {name} successful");
                recorder.normal(&set, "SuccessfulDelete", &message);
            }
        }
        let update = &plan.revision.name;
        let (status, look_again) = statefulset::status(&set, &history(), update, &pods, now);
        self.change(&STATEFUL_SETS, &set, |new| new["status"] = status);
        self.forget(namespace, &plan.forget);
        outcome.look_again = look_again;
        Some(outcome)
    }

    pub(super) fn daemon_set(&self, namespace: &str, name: &str) -> Option<Outcome> {
        let set = self.store.get(&DAEMON_SETS, namespace, name)?;
        if object::is_deleting(&set) {
            return None;
        }
        let history = self.controlled_by(&CONTROLLER_REVISIONS, &set);
        let mut pods = self.controlled_by(&PODS, &set);
        let (nodes, _) = self.store.list(&NODES, None);
        let now = Timestamp::now();
        let plan = daemonset::plan(&set, &history, &pods, &nodes, now);
        let mut outcome = Outcome::default();
        if !self.record(&DAEMON_SETS, &set, &plan.revision) {
            outcome.failed = true;
            return Some(outcome);
        }
        for (pod, node) in &plan.failed {
            let message =
                format!("Found failed daemon pod {namespace}/{pod} on node {node}, will try to kill it");
            self.daemon_sets.warning(&set, "FailedDaemonPod", &message);
            self.delete_pods(&set, &self.daemon_sets, &mut pods, std::slice::from_ref(pod));
        }
        let (made, refusal) = self.create_pods(&set, &self.daemon_sets, plan.create);
        self.delete_pods(&set, &self.daemon_sets, &mut pods, &plan.delete);
        pods.extend(made);
        let hash = &plan.revision.hash;
        let (status, look_again) = daemonset::status(&set, hash, &pods, &nodes, now);
        self.change(&DAEMON_SETS, &set, |new| new["status"] = status);
        self.forget(namespace, &plan.forget);
        outcome.look_again = look_again;
        outcome.failed = refusal.is_some();
        Some(outcome)
    }

    pub(super) fn job(&self, namespace: &str, name: &str) -> Option<Outcome> {
        let job = self.store.get(&JOBS, namespace, name)?;
        let mut pods = self.controlled_by(&PODS, &job);
        let plan = job::reconcile(&job, &pods, self.back_off, Timestamp::now());
        if plan.expired {
            let options = Options {
                policy: delete::Policy::Foreground,
                ..Options::default()
            };
            self.delete(&JOBS, &job, &options);
            return None;
        }
        let let_go = |pods: &[Arc<Value>], names: &[String]| {
            for pod in pods
                .iter()
                .filter(|pod| names.iter().any(|name| name == object::name(pod)))
            {
                self.drop_finalizer(&PODS, pod, job::TRACKING);
            }
        };
        let_go(&pods, &plan.discard);
        self.delete_pods(&job, &self.jobs, &mut pods, &plan.discard);
        self.delete_pods(&job, &self.jobs, &mut pods, &plan.delete);
        let new = std::iter::repeat_with(|| job::pod(&job)).take(plan.create);
        let (made, refusal) = self.create_pods(&job, &self.jobs, new);
        let mut status = plan.status;
        let active = plan.active + made.len();
        if active > 0 {
            status["active"] = json!(active);
        }
        self.change(&JOBS, &job, |new| new["status"] = status);
        // Their uids are in the status now.
        let_go(&pods, &plan.release);
        for (kind, reason, message) in &plan.events {
            if *kind == "Warning" {
                self.jobs.warning(&job, reason, message);
            } else {
                self.jobs.normal(&job, reason, message);
            }
        }
        Some(Outcome {
            look_again: plan.look_again,
            failed: refusal.is_some(),
        })
    }

    /// Assigns a pod to a node, releases it from a Job that is gone, deletes it when its node is gone.
    pub(super) fn pod(&mut self, key: &(&'static str, String, String)) {
        let Some(pod) = self.store.get(&PODS, &key.1, &key.2) else {
            self.waiting.remove(key);
            return;
        };
        let is_orphan =
            || object::controller(&pod).is_none_or(|(owner, ..)| self.store.by_uid(owner).is_none());
        if job::is_tracked(&pod) && is_orphan() {
            self.drop_finalizer(&PODS, &pod, job::TRACKING);
            return;
        }
        let node = text(&pod, &["spec", "nodeName"]);
        if !node.is_empty() || object::is_deleting(&pod) {
            self.waiting.remove(key);
            if !node.is_empty() && self.store.get(&NODES, "", node).is_none() {
                let options = Options {
                    grace: Some(0),
                    ..Options::default()
                };
                self.delete(&PODS, &pod, &options);
            }
            return;
        }
        let (nodes, _) = self.store.list(&NODES, None);
        let now = Timestamp::now();
        match scheduler::place(&pod, &nodes, self.turn) {
            Ok(node) => {
                self.turn = self.turn.wrapping_add(1);
                self.waiting.remove(key);
                self.change(&PODS, &pod, |new| *new = scheduler::bound(new, &node, now));
                let message = format!("Successfully assigned {}/{} to {node}", key.1, key.2);
                self.scheduler.normal(&pod, "Scheduled", &message);
            }
            Err(message) => {
                // Checked again when a node changes; its own condition is not a reason to report it again.
                let is_known = object::condition(&pod, "PodScheduled")
                    .is_some_and(|c| text(c, &["message"]) == message && self.waiting.contains(key));
                self.waiting.insert(key.clone());
                if !is_known {
                    self.change(&PODS, &pod, |new| {
                        *new = scheduler::unschedulable(new, &message, now);
                    });
                    self.scheduler.warning(&pod, "FailedScheduling", &message);
                }
            }
        }
    }

    pub(super) fn quota(&self, namespace: &str, name: &str) -> Option<Outcome> {
        let quota = self.store.get(&RESOURCE_QUOTAS, namespace, name)?;
        let status = quota::status(&quota, |resource| self.store.list(resource, Some(namespace)).0);
        self.change(&RESOURCE_QUOTAS, &quota, |new| new["status"] = status);
        None
    }
}
