//! The index behind a namespace's watches: objects by name, and by owner, so that one Deployment's are found at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{Resource, runtime::watcher::Event};

use tokio::time::Instant;

use super::{Concerns, Fault, View};
use slipway_verdict::{Observed, Workload};

#[derive(Default)]
pub(super) struct Stores {
    deployments: Store<Deployment>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    /// Watches that were interrupted and have shown nothing since, by kind.
    faults: BTreeMap<String, Fault>,
}

impl Stores {
    pub(super) fn view(&self, deployment: &str) -> View {
        let live = self.deployments.objects.get(deployment).cloned();
        let uid = live.as_ref().and_then(|live| live.metadata.uid.as_deref());
        let replica_sets: Vec<_> = self.replica_sets.of(uid).collect();
        let pods = replica_sets
            .iter()
            .flat_map(|set| self.pods.of(set.metadata.uid.as_deref()))
            .collect();
        View {
            synced: self.deployments.synced && self.replica_sets.synced && self.pods.synced,
            observed: Observed {
                workload: live.map(Workload::Deployment),
                gone: false,
                replica_sets,
                pods,
                primary: None,
            },
            fault: self.faults.values().max_by_key(|fault| fault.at).cloned(),
        }
    }

    pub(super) fn deployment(&mut self, event: Event<Deployment>) -> Concerns {
        self.deployments
            .apply(event)
            .map_or(Concerns::Everybody, |touched| match touched {
                Touched::Nothing => Concerns::Nobody,
                Touched::Object(object) => object
                    .metadata
                    .name
                    .clone()
                    .map_or(Concerns::Nobody, Concerns::One),
            })
    }

    pub(super) fn replica_set(&mut self, event: Event<ReplicaSet>) -> Concerns {
        let event = event.modify(|set| set.metadata.managed_fields = None);
        self.replica_sets
            .apply(event)
            .map_or(Concerns::Everybody, |touched| match touched {
                Touched::Nothing => Concerns::Nobody,
                Touched::Object(object) => owner_name(&*object).map_or(Concerns::Nobody, Concerns::One),
            })
    }

    pub(super) fn pod(&mut self, event: Event<Pod>) -> Concerns {
        let event = event.modify(slim);
        let touched = match self.pods.apply(event) {
            None => return Concerns::Everybody,
            Some(Touched::Nothing) => return Concerns::Nobody,
            Some(Touched::Object(pod)) => pod,
        };
        let Some(set) = owner_name(&*touched) else {
            return Concerns::Nobody;
        };
        // A pod may arrive before the ReplicaSet that explains whose it is.
        match self.replica_sets.objects.get(&set) {
            Some(set) => owner_name(&**set).map_or(Concerns::Nobody, Concerns::One),
            None => Concerns::Everybody,
        }
    }

    /// Notes that a kind cannot be watched now.
    pub(super) fn fail(&mut self, kind: &str, words: String) -> Concerns {
        match self.faults.insert(
            kind.to_owned(),
            Fault {
                words,
                at: Instant::now(),
            },
        ) {
            None => Concerns::Everybody,
            Some(_) => Concerns::Nobody,
        }
    }

    /// Notes that a kind is watched again; tells whether that is news.
    pub(super) fn heal(&mut self, kind: &str) -> bool {
        self.faults.remove(kind).is_some()
    }
}

/// Drops what nobody here looks at: it is most of a pod.
fn slim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        spec.tolerations = None;
        spec.affinity = None;
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            container.env = None;
            container.env_from = None;
            container.volume_mounts = None;
            container.args = None;
            container.command = None;
            container.resources = None;
            container.liveness_probe = None;
            container.readiness_probe = None;
            container.startup_probe = None;
        }
    }
}

/// The controller's name.
fn owner_name<K: Resource>(object: &K) -> Option<String> {
    let owners = object.meta().owner_references.as_ref()?;
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.name.clone())
}

fn owner_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_ref()?;
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

enum Touched<K> {
    Nothing,
    Object(Arc<K>),
}

struct Store<K> {
    objects: HashMap<String, Arc<K>>,
    /// Names by the uid of their controller.
    owned: HashMap<String, BTreeSet<String>>,
    /// A list that is being received, and replaces everything at its end.
    arriving: Option<Vec<K>>,
    synced: bool,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            owned: HashMap::new(),
            arriving: None,
            synced: false,
        }
    }
}

impl<K: Resource> Store<K> {
    /// What it touched; `None` when it may be anything.
    fn apply(&mut self, event: Event<K>) -> Option<Touched<K>> {
        match event {
            Event::Init => self.arriving = Some(Vec::new()),
            Event::InitApply(object) => self.arriving.get_or_insert_default().push(object),
            Event::InitDone => {
                self.objects.clear();
                self.owned.clear();
                for object in self.arriving.take().unwrap_or_default() {
                    self.insert(object);
                }
                self.synced = true;
                return None;
            }
            Event::Apply(object) => {
                return Some(self.insert(object).map_or(Touched::Nothing, Touched::Object));
            }
            Event::Delete(object) => {
                self.remove(object.meta().name.as_deref().unwrap_or_default());
                return Some(Touched::Object(Arc::new(object)));
            }
        }
        Some(Touched::Nothing)
    }

    fn insert(&mut self, object: K) -> Option<Arc<K>> {
        let name = object.meta().name.clone()?;
        self.remove(&name);
        if let Some(owner) = owner_uid(&object) {
            self.owned
                .entry(owner.to_owned())
                .or_default()
                .insert(name.clone());
        }
        let object = Arc::new(object);
        self.objects.insert(name, Arc::clone(&object));
        Some(object)
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.objects.remove(name) else {
            return;
        };
        if let Some(owner) = owner_uid(&*old)
            && let Some(names) = self.owned.get_mut(owner)
        {
            names.remove(name);
            if names.is_empty() {
                self.owned.remove(owner);
            }
        }
    }

    fn of(&self, owner: Option<&str>) -> impl Iterator<Item = Arc<K>> {
        let names = owner
            .and_then(|owner| self.owned.get(owner))
            .into_iter()
            .flatten();
        names.filter_map(|name| self.objects.get(name).cloned())
    }
}
