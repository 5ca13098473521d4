//! The index behind a cluster's watches: objects by namespace and name, and by owner, so that one workload's are found
//! at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::Pod,
};
use kube::Resource;
use slipway_verdict::{
    Observed, Workload,
    application::Application,
    objects::{canary::Canary, rollout::Rollout},
};

use super::kinds::{Custom, Kind, Watched, controller, name, namespace};

#[derive(Default)]
pub(super) struct Stores {
    pub(super) deployments: Store<Deployment>,
    pub(super) stateful_sets: Store<StatefulSet>,
    pub(super) daemon_sets: Store<DaemonSet>,
    pub(super) applications: Store<Custom<Application>>,
    pub(super) rollouts: Store<Custom<Rollout>>,
    pub(super) canaries: Store<Custom<Canary>>,
    pub(super) replica_sets: Store<ReplicaSet>,
    pub(super) pods: Store<Pod>,
    pub(super) jobs: Store<Job>,
}

impl Stores {
    /// One workload and what belongs to it.
    pub(super) fn observed(&self, kind: Kind, namespace: &str, name: &str) -> Observed {
        let mut observed = Observed {
            workload: self.workload(kind, namespace, name),
            ..Observed::default()
        };
        let uid = observed
            .workload
            .as_ref()
            .and_then(|live| live.metadata().uid.as_deref());
        let (mut replica_sets, mut pods) = (Vec::new(), Vec::new());
        match kind {
            Kind::Deployment | Kind::Rollout => {
                replica_sets.extend(self.replica_sets.of(namespace, uid));
                for set in &replica_sets {
                    pods.extend(self.pods.of(namespace, set.metadata.uid.as_deref()));
                }
            }
            Kind::StatefulSet | Kind::DaemonSet => pods.extend(self.pods.of(namespace, uid)),
            Kind::Canary => {
                let canary = self.canaries.get(namespace, name);
                let named = |name: Option<String>| self.deployments.get(namespace, &name?).cloned();
                observed.primary = named(canary.and_then(|canary| canary.primary()));
                observed.tried = named(canary.and_then(|canary| canary.tried()));
            }
            Kind::Application | Kind::ReplicaSet | Kind::Pod | Kind::Job => {}
        }
        observed.replica_sets = replica_sets;
        observed.pods = pods;
        observed
    }

    fn workload(&self, kind: Kind, namespace: &str, name: &str) -> Option<Workload> {
        match kind {
            Kind::Deployment => {
                let live = self.deployments.get(namespace, name)?;
                Some(Workload::Deployment(Arc::clone(live)))
            }
            Kind::StatefulSet => {
                let live = self.stateful_sets.get(namespace, name)?;
                Some(Workload::StatefulSet(Arc::clone(live)))
            }
            Kind::DaemonSet => {
                let live = self.daemon_sets.get(namespace, name)?;
                Some(Workload::DaemonSet(Arc::clone(live)))
            }
            Kind::Application => {
                let live = self.applications.get(namespace, name)?;
                Some(Workload::Application(Arc::clone(&live.object)))
            }
            Kind::Rollout => {
                let live = self.rollouts.get(namespace, name)?;
                Some(Workload::Rollout(Arc::clone(&live.object)))
            }
            Kind::Canary => {
                let live = self.canaries.get(namespace, name)?;
                Some(Workload::Canary(Arc::clone(&live.object)))
            }
            Kind::ReplicaSet | Kind::Pod | Kind::Job => None,
        }
    }

    /// Forgets what is not watched any more: in one namespace, or in all.
    pub(super) fn forget(&mut self, kind: Kind, namespace: Option<&str>) {
        match kind {
            Kind::Deployment => self.deployments.forget(namespace),
            Kind::StatefulSet => self.stateful_sets.forget(namespace),
            Kind::DaemonSet => self.daemon_sets.forget(namespace),
            Kind::Application => self.applications.forget(namespace),
            Kind::Rollout => self.rollouts.forget(namespace),
            Kind::Canary => self.canaries.forget(namespace),
            Kind::ReplicaSet => self.replica_sets.forget(namespace),
            Kind::Pod => self.pods.forget(namespace),
            Kind::Job => self.jobs.forget(namespace),
        }
    }
}

/// The objects of one kind.
pub(super) struct Store<K> {
    namespaces: HashMap<String, Namespace<K>>,
}

struct Namespace<K> {
    objects: HashMap<String, Held<K>>,
    /// Names by the uid of their controller.
    owned: HashMap<String, BTreeSet<String>>,
}

struct Held<K> {
    object: Arc<K>,
    /// The list that showed it last, or after which it arrived.
    round: u64,
}

/// Where an object that arrives comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// A list is what the API server has, whatever was there before.
    List,
    /// Events come in order; one that is older than what is held has been overtaken by a list.
    Watch,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
        }
    }
}

impl<K> Default for Namespace<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            owned: HashMap::new(),
        }
    }
}

impl<K: Resource> Store<K> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        let held = self.namespaces.get(namespace)?.objects.get(name)?;
        Some(&held.object)
    }

    pub(super) fn all_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let found = self.namespaces.get(namespace).into_iter();
        found.flat_map(|found| found.objects.values().map(|held| &held.object))
    }

    fn of(&self, namespace: &str, owner: Option<&str>) -> impl Iterator<Item = Arc<K>> {
        let found = self.namespaces.get(namespace);
        let names = found
            .zip(owner)
            .and_then(|(found, owner)| found.owned.get(owner))
            .into_iter()
            .flatten();
        names.filter_map(move |name| found?.objects.get(name).map(|held| Arc::clone(&held.object)))
    }

    /// Inserts an object, and returns it unless it is what was stored already.
    pub(super) fn insert(&mut self, object: K, from: From, round: u64) -> Option<Arc<K>> {
        let (space, name) = (namespace(&object), name(&object).to_owned());
        if !self.namespaces.contains_key(space) {
            self.namespaces.insert(space.to_owned(), Namespace::default());
        }
        let found = self.namespaces.get_mut(space)?;
        if let Some(held) = found.objects.get_mut(&name) {
            let same = held.object.meta().uid == object.meta().uid
                && held.object.meta().resource_version == object.meta().resource_version;
            if same || (from == From::Watch && older(&object, &*held.object)) {
                held.round = round;
                return None;
            }
        }
        found.remove(&name);
        if let Some(owner) = controller(&object) {
            let names = found.owned.entry(owner.uid.clone()).or_default();
            names.insert(name.clone());
        }
        let object = Arc::new(object);
        let held = Held {
            object: Arc::clone(&object),
            round,
        };
        found.objects.insert(name, held);
        Some(object)
    }

    /// Removes an object, unless another of its name has come since.
    pub(super) fn delete(&mut self, object: &K) -> Option<Arc<K>> {
        let space = namespace(object);
        let found = self.namespaces.get_mut(space)?;
        let held = found.objects.get(name(object))?;
        if held.object.meta().uid != object.meta().uid {
            return None;
        }
        let gone = found.remove(name(object));
        if found.objects.is_empty() {
            self.namespaces.remove(space);
        }
        gone
    }

    /// Removes what the list of that round did not show.
    pub(super) fn sweep(&mut self, only: Option<&str>, round: u64) -> Vec<Arc<K>> {
        let mut gone = Vec::new();
        let mut clear = |found: &mut Namespace<K>| {
            let stale: Vec<String> = found
                .objects
                .iter()
                .filter(|(_, held)| held.round != round)
                .map(|(name, _)| name.clone())
                .collect();
            gone.extend(stale.iter().filter_map(|name| found.remove(name)));
        };
        match only {
            Some(only) => self.namespaces.get_mut(only).into_iter().for_each(&mut clear),
            None => {
                self.namespaces.values_mut().for_each(&mut clear);
                self.namespaces.retain(|_, found| !found.objects.is_empty());
            }
        }
        gone
    }

    fn forget(&mut self, namespace: Option<&str>) {
        match namespace {
            Some(namespace) => {
                self.namespaces.remove(namespace);
            }
            None => self.namespaces.clear(),
        }
    }
}

impl<K: Resource> Namespace<K> {
    fn remove(&mut self, name: &str) -> Option<Arc<K>> {
        let held = self.objects.remove(name)?;
        if let Some(owner) = controller(&*held.object)
            && let Some(names) = self.owned.get_mut(&owner.uid)
        {
            names.remove(name);
            if names.is_empty() {
                self.owned.remove(&owner.uid);
            }
        }
        Some(held.object)
    }
}

/// Versions of one resource increase; if they are not numbers, nothing is known.
pub(super) fn older<K: Resource>(one: &K, other: &K) -> bool {
    let version = |object: &K| object.meta().resource_version.as_ref()?.parse::<u64>().ok();
    matches!((version(one), version(other)), (Some(one), Some(other)) if one < other)
}

/// Inserts an object and returns the followers that it concerns.
pub(super) fn put<K: Watched>(
    stores: &mut Stores,
    object: K,
    from: From,
    round: u64,
    tell: &mut dyn FnMut(Kind, &str, &str),
) {
    if !object.matters() {
        // It may have belonged until now: an orphan, for example.
        return take(stores, &object, tell);
    }
    if let Some(object) = K::store(stores).insert(object, from, round) {
        object.concerns(stores, &mut |kind, name| tell(kind, namespace(&*object), name));
    }
}

/// Removes an object and returns the followers that it concerns.
pub(super) fn take<K: Watched>(stores: &mut Stores, object: &K, tell: &mut dyn FnMut(Kind, &str, &str)) {
    if let Some(gone) = K::store(stores).delete(object) {
        gone.concerns(stores, &mut |kind, name| tell(kind, namespace(&*gone), name));
    }
}

/// Ends a list: what it did not show does not exist, and the followers concerned are returned.
pub(super) fn sweep<K: Watched>(
    stores: &mut Stores,
    only: Option<&str>,
    round: u64,
    tell: &mut dyn FnMut(Kind, &str, &str),
) {
    for gone in K::store(stores).sweep(only, round) {
        gone.concerns(stores, &mut |kind, name| tell(kind, namespace(&*gone), name));
    }
}

#[cfg(test)]
mod tests;
