//! The controllers: woken by changes and timers, they ask the pure decisions and carry them out.
//!
//! One task runs them all, so that they never race each other; a kind more is a decision in a file of its own and a
//! method here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::delete::{self, Options, is_owned_by};
use crate::api::write;
use crate::custom;
use crate::object;
use crate::recorder::{self, Recorder};
use crate::resources::{DEFINITIONS, DEPLOYMENTS, EVENTS, NAMESPACES, PODS, REPLICA_SETS, Resource};
use crate::store::{Change, ChangeKind, Store};

mod conditions;
pub(crate) mod deployment;
mod replicaset;

/// How often events are looked through for old ones.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// Kind (as its plural), namespace, name.
type Key = (&'static str, String, String);

#[derive(Debug)]
pub(crate) struct Controllers {
    store: Arc<Store>,
    deployments: Recorder,
    replica_sets: Recorder,
    dirty: BTreeSet<Key>,
    timers: BTreeMap<Key, Timestamp>,
}

impl Controllers {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let recorder = |component| Recorder::new(Arc::clone(&store), component);
        Self {
            deployments: recorder("deployment-controller"),
            replica_sets: recorder("replicaset-controller"),
            store,
            dirty: BTreeSet::new(),
            timers: BTreeMap::new(),
        }
    }

    /// Works until the shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut feed = self.store.watch(self.store.version());
        self.everything();
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        loop {
            self.work();
            let timer = self.next_timer();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = timer => {}
                _ = expire.tick() => {
                    recorder::expire(&self.store, Timestamp::now());
                }
                changes = feed.next() => match changes {
                    Ok(changes) => changes.iter().for_each(|change| self.notice(change)),
                    Err(error) if error.code == 410 => {
                        feed = self.store.watch(self.store.version());
                        self.everything();
                    }
                    Err(_) => return,
                },
            }
            let now = Timestamp::now();
            let due: Vec<Key> = self
                .timers
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(k, _)| k.clone())
                .collect();
            for key in due {
                self.timers.remove(&key);
                self.dirty.insert(key);
            }
        }
    }

    fn next_timer(&self) -> impl Future<Output = ()> + use<> {
        let next = self.timers.values().min().copied();
        async move {
            match next {
                Some(at) => {
                    let wait = at.duration_since(Timestamp::now());
                    tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        }
    }

    fn mark(&mut self, resource: &Resource, namespace: &str, name: &str) {
        self.dirty
            .insert((resource.storage(), namespace.to_owned(), name.to_owned()));
    }

    /// Looks at everything, as after a start.
    fn everything(&mut self) {
        for resource in [&NAMESPACES, &DEFINITIONS, &DEPLOYMENTS, &REPLICA_SETS] {
            for object in self.store.list(resource, None).0 {
                self.mark(resource, object::namespace(&object), object::name(&object));
            }
        }
        let uids: BTreeSet<String> = self
            .store
            .find(|_| true)
            .iter()
            .map(|(_, object)| object::uid(object).to_owned())
            .collect();
        let owners = |object: &Value| -> Vec<String> {
            object::list(object, &["metadata", "ownerReferences"])
                .iter()
                .map(|owner| object::text(owner, &["uid"]).to_owned())
                .collect()
        };
        let orphans = self.store.find(|object| {
            let owners = owners(object);
            !owners.is_empty() && owners.iter().all(|uid| !uids.contains(uid))
        });
        for (resource, object) in orphans {
            self.collect(resource, &object);
        }
    }

    fn notice(&mut self, change: &Change) {
        let (resource, object) = (change.resource, change.object.as_ref());
        if resource == &EVENTS {
            return;
        }
        let namespace = object::namespace(object).to_owned();
        self.mark(resource, &namespace, object::name(object));
        if let Some((_, kind, owner)) = object::controller(object) {
            match kind {
                "Deployment" => self.mark(&DEPLOYMENTS, &namespace, owner),
                "ReplicaSet" => {
                    self.mark(&REPLICA_SETS, &namespace, owner);
                    // Recreate waits for the last old pod to be gone, which no ReplicaSet status tells.
                    if change.kind == ChangeKind::Deleted
                        && let Some(set) = self.store.get(&REPLICA_SETS, &namespace, owner)
                        && let Some((_, "Deployment", name)) = object::controller(&set)
                    {
                        self.mark(&DEPLOYMENTS, &namespace, name);
                    }
                }
                _ => {}
            }
        }
        if change.kind == ChangeKind::Deleted {
            self.timers.remove(&(
                resource.storage(),
                namespace.clone(),
                object::name(object).to_owned(),
            ));
            let owner = object::uid(object);
            for (resource, dependent) in self.store.find(|other| is_owned_by(other, owner)) {
                self.collect(resource, &dependent);
            }
            for owner in object::list(object, &["metadata", "ownerReferences"]) {
                self.release(object::text(owner, &["uid"]));
            }
            self.mark(&NAMESPACES, "", &namespace);
            if let Some(custom) = resource.custom {
                self.mark(&DEFINITIONS, "", custom.name);
            }
        } else if object::is_deleting(object) {
            self.release(object::uid(object));
        }
    }

    /// Deletes an object whose owners are gone.
    fn collect(&self, resource: &'static Resource, object: &Value) {
        let alive = object::list(object, &["metadata", "ownerReferences"])
            .iter()
            .any(|owner| {
                let uid = object::text(owner, &["uid"]);
                !self.store.find(|other| object::uid(other) == uid).is_empty()
            });
        if !alive {
            self.delete(resource, object, &Options::default());
        }
    }

    fn delete(&self, resource: &'static Resource, object: &Value, options: &Options) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        if let Err(error) = delete::delete_object(&self.store, resource, namespace, name, options) {
            tracing::debug!(%error, name, "not deleted");
        }
    }

    /// Foreground deletion: deletes the dependents of an object that is being deleted, and lets it go after them.
    fn release(&self, uid: &str) {
        let waiting = self.store.find(|object| {
            object::uid(object) == uid
                && object::is_deleting(object)
                && object::list(object, &["metadata", "finalizers"])
                    .iter()
                    .any(|f| f == "foregroundDeletion")
        });
        let Some((resource, object)) = waiting.into_iter().next() else {
            return;
        };
        let dependents = self.store.find(|other| is_owned_by(other, uid));
        for (resource, dependent) in &dependents {
            if !object::is_deleting(dependent) {
                let options = Options {
                    policy: delete::Policy::Foreground,
                    ..Options::default()
                };
                self.delete(resource, dependent, &options);
            }
        }
        if dependents.is_empty() {
            self.change(resource, &object, |new| {
                if let Some(Value::Array(finalizers)) = object::metadata(new).get_mut("finalizers") {
                    finalizers.retain(|f| f != "foregroundDeletion");
                }
            });
        }
    }

    /// Changes an object if it is still the same one.
    fn change(&self, resource: &'static Resource, object: &Value, change: impl FnOnce(&mut Value)) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        let result = self.store.update(resource, namespace, name, |old| {
            let mut new = old.clone();
            if object::uid(old) == object::uid(object) {
                change(&mut new);
            }
            Ok(new)
        });
        if let Err(error) = result {
            tracing::debug!(%error, name, "not changed");
        }
    }

    fn work(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let (plural, namespace, name) = &key;
            let look_again = match *plural {
                "replicasets" => self.replica_set(namespace, name),
                "deployments" => self.deployment(namespace, name),
                "namespaces" => {
                    self.namespace(name);
                    None
                }
                "customresourcedefinitions" => {
                    self.definition(name);
                    None
                }
                _ => None,
            };
            match look_again {
                Some(at) => self.timers.insert(key, at),
                None => self.timers.remove(&key),
            };
        }
    }

    fn controlled_by(&self, resource: &Resource, owner: &Value) -> Vec<Arc<Value>> {
        let (mut objects, _) = self.store.list(resource, Some(object::namespace(owner)));
        let uid = object::uid(owner);
        objects.retain(|object| object::controller(object).is_some_and(|(owner, ..)| owner == uid));
        objects
    }

    fn deployment(&self, namespace: &str, name: &str) -> Option<Timestamp> {
        let deployment = self.store.get(&DEPLOYMENTS, namespace, name)?;
        let sets = self.controlled_by(&REPLICA_SETS, &deployment);
        let pods: Vec<Arc<Value>> = sets
            .iter()
            .flat_map(|set| self.controlled_by(&PODS, set))
            .collect();
        let decision = deployment::reconcile(&deployment, &sets, &pods, Timestamp::now());
        let mut status = decision.status;
        if let Some(mut set) = decision.create {
            let created = write::prepare_new(&REPLICA_SETS, &mut set, Timestamp::now())
                .and_then(|()| self.store.create(&REPLICA_SETS, set));
            if let Err(error) = created {
                tracing::warn!(%error, name, "ReplicaSet not created");
                // The name is taken by another template: the next try gets another name.
                let collisions = deployment["status"]["collisionCount"].as_i64().unwrap_or(0);
                status = deployment["status"].clone();
                status["collisionCount"] = json!(collisions + 1);
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
                write::bump_generation(&REPLICA_SETS, &old, new);
            });
        }
        for set in &decision.delete {
            if let Err(error) = self.store.remove(&REPLICA_SETS, namespace, set, |_| Ok(())) {
                tracing::debug!(%error, set, "old ReplicaSet not deleted");
            }
        }
        self.change(&DEPLOYMENTS, &deployment, |new| {
            new["status"] = status;
            if let Some(revision) = &decision.revision {
                object::set_annotation(new, deployment::REVISION, revision);
            }
        });
        for message in &decision.events {
            self.deployments.normal(&deployment, "ScalingReplicaSet", message);
        }
        decision.look_again
    }

    fn replica_set(&self, namespace: &str, name: &str) -> Option<Timestamp> {
        let set = self.store.get(&REPLICA_SETS, namespace, name)?;
        let pods = self.controlled_by(&PODS, &set);
        let decision = replicaset::reconcile(&set, &pods, Timestamp::now());
        for _ in 0..decision.create {
            let mut pod = replicaset::pod(&set);
            let created = write::prepare_new(&PODS, &mut pod, Timestamp::now())
                .and_then(|()| self.store.create(&PODS, pod));
            match created {
                Ok(pod) => {
                    let message = format!("Created pod: {}", object::name(&pod));
                    self.replica_sets.normal(&set, "SuccessfulCreate", &message);
                }
                Err(error) => {
                    let message = format!("Error creating: {}", error.message);
                    self.replica_sets.warning(&set, "FailedCreate", &message);
                    break;
                }
            }
        }
        for pod in &decision.delete {
            if delete::delete_object(&self.store, &PODS, namespace, pod, &Options::default()).is_ok() {
                self.replica_sets
                    .normal(&set, "SuccessfulDelete", &format!("Deleted pod: {pod}"));
            }
        }
        self.change(&REPLICA_SETS, &set, |new| new["status"] = decision.status);
        decision.look_again
    }

    /// Deletes the objects of a definition that is being deleted, and lets it go when there are none.
    fn definition(&self, name: &str) {
        let Some(definition) = self.store.get(&DEFINITIONS, "", name) else {
            return;
        };
        if !object::is_deleting(&definition) {
            return;
        }
        if let Some(resource) = self.store.registry().by_storage(name) {
            for object in self.store.list(resource, None).0 {
                if !object::is_deleting(&object) {
                    self.delete(resource, &object, &Options::default());
                }
            }
            if !self.store.list(resource, None).0.is_empty() {
                return;
            }
        }
        self.change(&DEFINITIONS, &definition, |new| {
            if let Some(Value::Array(finalizers)) = object::metadata(new).get_mut("finalizers") {
                finalizers.retain(|finalizer| finalizer != custom::CLEANUP);
            }
        });
    }

    /// Empties a namespace that is being deleted, and lets it go when it is empty.
    fn namespace(&self, name: &str) {
        let Some(namespace) = self.store.get(&NAMESPACES, "", name) else {
            return;
        };
        if !object::is_deleting(&namespace) {
            return;
        }
        let mut content = self.store.find(|object| object::namespace(object) == name);
        for (resource, object) in &content {
            if !object::is_deleting(object) {
                self.delete(resource, object, &Options::default());
            }
        }
        content.retain(|(resource, object)| self.store.get(resource, name, object::name(object)).is_some());
        if content.is_empty() {
            self.change(&NAMESPACES, &namespace, |new| {
                new["spec"]["finalizers"] = json!([]);
            });
        }
    }
}
