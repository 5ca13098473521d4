//! The cluster as a recording's watches showed it, event by event.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::recording::{Line, ReadError, WatchEvent};
use crate::{
    Managed, ManagedWorkload, Observed, Workload, WorkloadKind,
    application::{self, Application},
    objects::{canary::Canary, rollout::Rollout},
    owned_by,
};

/// Namespace and name.
pub(super) type Key = (String, String);

#[derive(Debug, Default)]
pub(super) struct Cluster {
    deployments: BTreeMap<Key, Arc<Deployment>>,
    stateful_sets: BTreeMap<Key, Arc<StatefulSet>>,
    daemon_sets: BTreeMap<Key, Arc<DaemonSet>>,
    replica_sets: BTreeMap<Key, Arc<ReplicaSet>>,
    pods: BTreeMap<Key, Arc<Pod>>,
    applications: BTreeMap<Key, Arc<Application>>,
    rollouts: BTreeMap<Key, Arc<Rollout>>,
    canaries: BTreeMap<Key, Arc<Canary>>,
    jobs: BTreeMap<Key, Arc<Job>>,
    events: BTreeMap<Key, Arc<Event>>,
    /// Versions of the objects, to distinguish repeated events from new ones.
    versions: BTreeMap<(String, Key), (String, String)>,
    /// Objects that were there and are not any more.
    deleted: BTreeSet<(String, Key)>,
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Seen before, or not about an object.
    Nothing,
    Object(Key),
    /// The recorder lost sight of this resource for a while.
    Interrupted,
}

impl Cluster {
    pub(super) fn apply(
        &mut self,
        line: &Line,
        resource: &str,
        event: &WatchEvent,
    ) -> Result<Change, ReadError> {
        let gone = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => false,
            "DELETED" => true,
            "ERROR" => return Ok(Change::Interrupted),
            _ => return Ok(Change::Nothing),
        };
        let metadata = &event.object["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        let key = (text("namespace"), text("name"));
        let whose = (resource.to_owned(), key.clone());
        let version = (text("uid"), text("resourceVersion"));
        if let Some(known) = self.versions.get(&whose) {
            // The same again, or an older one that arrived late: within one resource versions only grow.
            let number = |version: &str| version.parse::<u64>().ok();
            let old = known.0 == version.0
                && match (number(&known.1), number(&version.1)) {
                    (Some(known), Some(told)) => told < known || told == known && !gone,
                    _ => known.1 == version.1 && !version.1.is_empty() && !gone,
                };
            if old {
                return Ok(Change::Nothing);
            }
        } else if gone {
            return Ok(Change::Nothing);
        }
        let object = &event.object;
        match resource {
            "deployments" => put(&mut self.deployments, &key, object, gone),
            "statefulsets" => put(&mut self.stateful_sets, &key, object, gone),
            "daemonsets" => put(&mut self.daemon_sets, &key, object, gone),
            "replicasets" => put(&mut self.replica_sets, &key, object, gone),
            "pods" => put(&mut self.pods, &key, object, gone),
            "applications" => put(&mut self.applications, &key, object, gone),
            "rollouts" => put(&mut self.rollouts, &key, object, gone),
            "canaries" => put(&mut self.canaries, &key, object, gone),
            "jobs" => put(&mut self.jobs, &key, object, gone),
            "events" => put(&mut self.events, &key, object, gone),
            // ControllerRevisions, Nodes, Services: not used.
            _ => return Ok(Change::Nothing),
        }
        .map_err(|error| ReadError::Object {
            number: line.number,
            resource: resource.to_owned(),
            why: error.to_string(),
        })?;
        if gone {
            self.versions.remove(&whose);
            self.deleted.insert(whose);
        } else {
            self.versions.insert(whose.clone(), version);
            self.deleted.remove(&whose);
        }
        Ok(Change::Object(key))
    }

    /// The names of a kind in a namespace, or in all namespaces if none is given.
    pub(super) fn names(&self, kind: WorkloadKind, namespace: Option<&str>) -> Vec<Key> {
        fn keys<K>(map: &BTreeMap<Key, K>) -> Vec<Key> {
            map.keys().cloned().collect()
        }
        let mut names = match kind {
            WorkloadKind::StatefulSet => keys(&self.stateful_sets),
            WorkloadKind::DaemonSet => keys(&self.daemon_sets),
            WorkloadKind::Deployment => keys(&self.deployments),
            WorkloadKind::Application => keys(&self.applications),
            WorkloadKind::Rollout => keys(&self.rollouts),
            WorkloadKind::Canary => keys(&self.canaries),
        };
        names.retain(|key| namespace.is_none_or(|namespace| key.0 == namespace));
        names
    }

    /// The Job as it is.
    pub(super) fn job(&self, key: &Key) -> Option<&Arc<Job>> {
        self.jobs.get(key)
    }

    /// Whether it was there and is not any more.
    pub(super) fn is_deleted(&self, resource: &str, key: &Key) -> bool {
        self.deleted.contains(&(resource.to_owned(), key.clone()))
    }

    pub(super) fn observed(&self, kind: WorkloadKind, key: &Key) -> Observed {
        let workload = match kind {
            WorkloadKind::StatefulSet => self.stateful_sets.get(key).cloned().map(Workload::StatefulSet),
            WorkloadKind::DaemonSet => self.daemon_sets.get(key).cloned().map(Workload::DaemonSet),
            WorkloadKind::Deployment => self.deployments.get(key).cloned().map(Workload::Deployment),
            WorkloadKind::Application => self.applications.get(key).cloned().map(Workload::Application),
            WorkloadKind::Rollout => self.rollouts.get(key).cloned().map(Workload::Rollout),
            WorkloadKind::Canary => self.canaries.get(key).cloned().map(Workload::Canary),
        };
        let uid = workload.as_ref().and_then(|live| live.metadata().uid.clone());
        let replica_sets = owned(&self.replica_sets, |set| owned_by(&set.metadata, uid.as_deref()));
        let of_sets = |metadata: &ObjectMeta| {
            replica_sets
                .iter()
                .any(|set: &Arc<ReplicaSet>| owned_by(metadata, set.metadata.uid.as_deref()))
        };
        let pods = owned(&self.pods, |pod| {
            owned_by(&pod.metadata, uid.as_deref()) || of_sets(&pod.metadata)
        });
        let events = self.warnings(uid.as_deref(), &replica_sets, &pods);
        let (primary, tried) = match &workload {
            Some(Workload::Canary(canary)) => {
                let target = &canary.spec.target_ref.name;
                let named = |name: String| self.deployments.get(&(key.0.clone(), name)).cloned();
                (named(format!("{target}-primary")), named(target.clone()))
            }
            _ => (None, None),
        };
        let managed = match &workload {
            Some(Workload::Application(live)) => self.managed(live),
            _ => Managed::Unknown,
        };
        Observed {
            gone: workload.is_none() && self.is_deleted(resource(kind), key),
            workload,
            replica_sets,
            pods,
            primary,
            tried,
            events,
            managed,
        }
    }

    fn managed(&self, live: &Application) -> Managed {
        let workloads = application::workloads(live).into_iter();
        Managed::Seen(
            workloads
                .map(|(kind, namespace, name)| ManagedWorkload {
                    observed: self.observed(kind, &(namespace.clone(), name.clone())),
                    kind,
                    namespace,
                    name,
                })
                .collect(),
        )
    }

    fn warnings(
        &self,
        uid: Option<&str>,
        replica_sets: &[Arc<ReplicaSet>],
        pods: &[Arc<Pod>],
    ) -> Vec<Arc<Event>> {
        let sets = replica_sets.iter().map(|set| set.metadata.uid.as_deref());
        let pods = pods.iter().map(|pod| pod.metadata.uid.as_deref());
        let about: BTreeSet<&str> = std::iter::once(uid).chain(sets).chain(pods).flatten().collect();
        let is_about = |event: &Event| {
            event.type_.as_deref() == Some("Warning")
                && event
                    .involved_object
                    .uid
                    .as_deref()
                    .is_some_and(|uid| about.contains(uid))
        };
        owned(&self.events, is_about)
    }
}

fn owned<K>(map: &BTreeMap<Key, Arc<K>>, is: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
    map.values().filter(|object| is(object)).cloned().collect()
}

fn put<K: DeserializeOwned>(
    map: &mut BTreeMap<Key, Arc<K>>,
    key: &Key,
    object: &Value,
    gone: bool,
) -> Result<(), serde_json::Error> {
    if gone {
        map.remove(key);
    } else {
        map.insert(key.clone(), Arc::new(serde_json::from_value(object.clone())?));
    }
    Ok(())
}

/// The name in paths.
pub(super) const fn resource(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::Application => "applications",
        WorkloadKind::Rollout => "rollouts",
        WorkloadKind::Canary => "canaries",
    }
}
