//! The controllers: woken by changes and timers, they get pure decisions and carry them out.
//!
//! One task runs them all, so that they never race each other; another kind needs a decision in a file of its own and a
//! method in `carry_out.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::object::{self, Key};
use crate::recorder::{self, Recorder};
use crate::resources::{
    DAEMON_SETS, DEFINITIONS, DEPLOYMENTS, EVENTS, JOBS, NAMESPACES, NODES, PODS, REPLICA_SETS,
    RESOURCE_QUOTAS, Resource, STATEFUL_SETS,
};
use crate::store::{Change, ChangeKind, Store};

mod carry_out;
mod conditions;
mod daemonset;
pub(crate) mod deployment;
mod fit;
mod garbage;
mod job;
mod pods;
#[cfg(test)]
mod recordings;
mod replicaset;
mod revisions;
mod scheduler;
mod statefulset;
mod timers;

/// How often old events are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);
/// The kinds whose objects are processed after a start.
const LOOKED_AT: [&Resource; 9] = [
    &NAMESPACES,
    &DEFINITIONS,
    &RESOURCE_QUOTAS,
    &DAEMON_SETS,
    &DEPLOYMENTS,
    &JOBS,
    &REPLICA_SETS,
    &STATEFUL_SETS,
    &PODS,
];

/// The result of processing an object.
#[derive(Debug, Default)]
struct Outcome {
    /// When to process it again even if nothing has changed.
    look_again: Option<Timestamp>,
    /// Something was refused: it is retried, with growing pauses.
    failed: bool,
}

#[derive(Debug)]
pub(crate) struct Controllers {
    store: Arc<Store>,
    deployments: Recorder,
    replica_sets: Recorder,
    stateful_sets: Recorder,
    daemon_sets: Recorder,
    jobs: Recorder,
    scheduler: Recorder,
    /// The pause before a failed Job pod's successor.
    back_off: Duration,
    dirty: BTreeSet<Key>,
    timers: timers::Timers,
    /// Pods for which there is no node.
    waiting: BTreeSet<Key>,
    /// Counts the pods that were assigned to a node, so that the next one gets another.
    turn: usize,
}

impl Controllers {
    pub(crate) fn new(store: Arc<Store>, back_off: Duration) -> Self {
        let recorder = |component| Recorder::new(Arc::clone(&store), component);
        Self {
            deployments: recorder("deployment-controller"),
            replica_sets: recorder("replicaset-controller"),
            stateful_sets: recorder("statefulset-controller"),
            daemon_sets: recorder("daemonset-controller"),
            jobs: recorder("job-controller"),
            scheduler: recorder(recorder::SCHEDULER),
            store,
            back_off,
            dirty: BTreeSet::new(),
            timers: timers::Timers::default(),
            waiting: BTreeSet::new(),
            turn: 0,
        }
    }

    /// Works until shutdown.
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
            let due = self.timers.due(Timestamp::now());
            self.dirty.extend(due);
        }
    }

    fn next_timer(&self) -> impl Future<Output = ()> + use<> {
        let next = self.timers.next();
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

    fn mark_all(&mut self, resource: &Resource, namespace: Option<&str>) {
        for object in self.store.list(resource, namespace).0 {
            self.mark(resource, object::namespace(&object), object::name(&object));
        }
    }

    /// Processes everything, as after a start.
    fn everything(&mut self) {
        for resource in LOOKED_AT {
            self.mark_all(resource, None);
        }
        self.collect_orphans();
    }

    fn notice(&mut self, change: &Change) {
        let (resource, object) = (change.resource, change.object.as_ref());
        if resource == &EVENTS {
            return;
        }
        let namespace = object::namespace(object).to_owned();
        let name = object::name(object);
        self.mark(resource, &namespace, name);
        self.notice_owner(change, &namespace);
        self.notice_quota(change, &namespace);
        if resource == &NODES {
            self.notice_node(change);
        }
        if change.kind == ChangeKind::Deleted {
            let key = (resource.storage(), namespace.clone(), name.to_owned());
            self.timers.set(&key, None);
            self.waiting.remove(&key);
            self.after_deletion(object);
            self.mark(&NAMESPACES, "", &namespace);
            if let Some(custom) = resource.custom {
                self.mark(&DEFINITIONS, "", custom.name);
            }
            if resource == &DEFINITIONS {
                for other in self.store.list(&DEFINITIONS, None).0 {
                    self.mark(&DEFINITIONS, "", object::name(&other));
                }
            }
        } else if object::is_deleting(object) {
            self.release(object::uid(object));
        } else if change.kind == ChangeKind::Added {
            // What was created for an owner that is deleted must be deleted, too.
            self.release_owners(object);
        }
    }

    fn notice_owner(&mut self, change: &Change, namespace: &str) {
        let Some((_, kind, owner)) = object::controller(&change.object) else {
            return;
        };
        match kind {
            "Deployment" => self.mark(&DEPLOYMENTS, namespace, owner),
            "StatefulSet" => self.mark(&STATEFUL_SETS, namespace, owner),
            "DaemonSet" => self.mark(&DAEMON_SETS, namespace, owner),
            "Job" => self.mark(&JOBS, namespace, owner),
            "ReplicaSet" => {
                self.mark(&REPLICA_SETS, namespace, owner);
                // A rollout with Recreate waits for the last old pod to be gone, which no ReplicaSet status shows.
                if change.kind == ChangeKind::Deleted
                    && let Some(set) = self.store.get(&REPLICA_SETS, namespace, owner)
                    && let Some((_, "Deployment", name)) = object::controller(&set)
                {
                    self.mark(&DEPLOYMENTS, namespace, name);
                }
            }
            _ => {}
        }
    }

    /// A (pod) object that was added, deleted or has ended changes what quotas have used.
    fn notice_quota(&mut self, change: &Change, namespace: &str) {
        let is_over = change.resource == &PODS && pods::is_over(&change.object);
        if change.kind != ChangeKind::Modified || is_over {
            self.mark_all(&RESOURCE_QUOTAS, Some(namespace));
        }
    }

    /// A new node, or new labels on one: waiting pods may fit, daemons may be wanted.
    fn notice_node(&mut self, change: &Change) {
        self.dirty.extend(self.waiting.iter().cloned());
        self.mark_all(&DAEMON_SETS, None);
        if change.kind == ChangeKind::Deleted {
            self.mark_all(&PODS, None);
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
            let (plural, namespace, name) = (key.0, key.1.as_str(), key.2.as_str());
            let outcome = match plural {
                "daemonsets" => self.daemon_set(namespace, name),
                "deployments" => self.deployment(namespace, name),
                "jobs" => self.job(namespace, name),
                "pods" => {
                    self.pod(&key);
                    None
                }
                "replicasets" => self.replica_set(namespace, name),
                "resourcequotas" => self.quota(namespace, name),
                "statefulsets" => self.stateful_set(namespace, name),
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
            let outcome = outcome.unwrap_or_default();
            let retry = self.timers.retry(&key, outcome.failed, Timestamp::now());
            self.timers.set(&key, pods::earlier(outcome.look_again, retry));
        }
    }
}
