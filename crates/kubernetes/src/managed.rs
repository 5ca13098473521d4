//! The workloads that an Application manages, through the shared watches of the cluster that it deploys to, and the
//! cluster's own complaints about workloads that are not ready.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::{join_all, select_all};
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use slipway_model::Name;
use slipway_verdict::{
    Managed, ManagedWorkload, Observed, Target, Workload, WorkloadKind,
    application::{self, Application},
    current, pods,
};
use tokio::time::Instant;

use crate::{Clusters, Kubernetes, evidence, watch::Subscription};

/// Kind, namespace and name.
type Key = (WorkloadKind, String, String);

/// How often events are read while something is not ready; before the first time, pods may just need to start.
const READ_EVENTS_EVERY: Duration = Duration::from_secs(10);
/// Pods whose events are read.
const MAX_PODS: usize = 3;

/// Follows the workloads of one Application.
#[derive(Debug, Default)]
pub struct ManagedWorkloads {
    followed: BTreeMap<Key, Followed>,
    /// Why they cannot be followed at all.
    elsewhere: Option<String>,
    cluster: Option<Kubernetes>,
}

#[derive(Debug)]
struct Followed {
    subscription: Subscription,
    complaints: Complaints,
}

impl ManagedWorkloads {
    /// Follows what the Application lists now, and no longer what it does not list any more.
    pub fn follow(&mut self, clusters: &Clusters, own: &Kubernetes, live: &Application) {
        let cluster = match clusters.destination(own, &live.spec.destination) {
            Ok(cluster) => cluster,
            Err(why) => {
                self.followed.clear();
                self.elsewhere = Some(why);
                return;
            }
        };
        self.elsewhere = None;
        if self
            .cluster
            .as_ref()
            .is_none_or(|known| known.name() != cluster.name())
        {
            self.followed.clear();
        }
        self.cluster = Some(cluster.clone());
        let listed = application::workloads(live);
        self.followed.retain(|key, _| listed.contains(key));
        for key in listed {
            // It becomes part of a request path.
            let Some(target) = target(cluster, &key) else {
                continue;
            };
            self.followed.entry(key).or_insert_with(|| Followed {
                subscription: cluster.follow(&target),
                complaints: Complaints::default(),
            });
        }
    }

    /// The cluster that they are in; `None` before they are followed, or if it is none of the configured ones.
    pub fn cluster(&self) -> Option<&Kubernetes> {
        self.cluster.as_ref().filter(|_| self.elsewhere.is_none())
    }

    /// As the watches show them now; `None` before the lists have arrived.
    pub fn view(&mut self) -> Option<Managed> {
        if let Some(why) = &self.elsewhere {
            return Some(Managed::Unreadable(why.clone()));
        }
        let mut seen = Vec::with_capacity(self.followed.len());
        for ((kind, namespace, name), followed) in &mut self.followed {
            let view = followed.subscription.view();
            match view.fault {
                Some(fault) if !view.synced => {
                    return Some(Managed::Unreadable(format!(
                        "{kind} {namespace}/{name}: {}",
                        fault.words
                    )));
                }
                _ if !view.synced => return None,
                _ => {}
            }
            let mut observed = view.observed;
            observed.events.clone_from(&followed.complaints.events);
            seen.push(ManagedWorkload {
                kind: *kind,
                namespace: namespace.clone(),
                name: name.clone(),
                observed,
            });
        }
        Some(Managed::Seen(seen))
    }

    /// When events are to be read again; `None` if nothing is followed.
    pub fn complaints_due(&self) -> Option<Instant> {
        self.followed
            .values()
            .map(|followed| followed.complaints.due_at())
            .min()
    }

    /// Reads the events about those that are not ready, where that is due. Returns whether there is anything new.
    pub async fn read_complaints(&mut self) -> bool {
        let Some(cluster) = self.cluster.clone() else {
            return false;
        };
        let reads = self.followed.iter_mut().map(|((_, namespace, _), followed)| {
            let observed = followed.subscription.peek();
            followed.complaints.read(&cluster, namespace, observed)
        });
        join_all(reads).await.contains(&true)
    }

    /// Waits for the next change of one of them; for ever if there is none.
    pub async fn changed(&mut self) {
        if self.followed.is_empty() {
            return std::future::pending().await;
        }
        let changes = self
            .followed
            .values_mut()
            .map(|followed| Box::pin(followed.subscription.changed()));
        select_all(changes).await;
    }

    /// Asks the API server for each of them: a watch that turns out to be behind is restarted.
    pub async fn read_again(&self) {
        let Some(cluster) = self.cluster() else { return };
        let targets: Vec<Target> = self
            .followed
            .keys()
            .filter_map(|key| target(cluster, key))
            .collect();
        for (target, read) in targets
            .iter()
            .zip(join_all(targets.iter().map(|one| cluster.read(one))).await)
        {
            if let Err(fault) = read {
                tracing::debug!(%target, %fault, "not read");
            }
        }
    }

    /// The workload as a target of its own.
    pub fn target(&self, one: &ManagedWorkload) -> Option<Target> {
        target(
            self.cluster()?,
            &(one.kind, one.namespace.clone(), one.name.clone()),
        )
    }
}

fn target(cluster: &Kubernetes, (kind, namespace, name): &Key) -> Option<Target> {
    Some(Target {
        cluster: cluster.name().clone(),
        namespace: namespace.parse::<Name>().ok()?,
        kind: *kind,
        name: name.clone(),
    })
}

/// The events about one workload, read again now and then while its pods are not ready.
#[derive(Debug)]
pub struct Complaints {
    pub events: Vec<Arc<Event>>,
    read_at: Instant,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            read_at: Instant::now(),
        }
    }
}

impl Complaints {
    /// When they are to be read again.
    pub fn due_at(&self) -> Instant {
        self.read_at + READ_EVENTS_EVERY
    }

    /// Reads them, if it is time and there is something that is not ready. What cannot be read is left out. Returns
    /// whether there is anything new.
    pub async fn read(&mut self, cluster: &Kubernetes, namespace: &str, observed: Observed) -> bool {
        if Instant::now() < self.due_at() {
            return false;
        }
        self.read_at = Instant::now();
        let mut about: Vec<(&'static str, ObjectMeta)> = Vec::new();
        if let Some(workload) = &observed.workload {
            let now = current(workload, &observed);
            let unready = now.pods.iter().filter(|pod| !pods::is_ready(pod)).take(MAX_PODS);
            about.extend(unready.map(|pod| ("Pod", pod.metadata.clone())));
            if about.is_empty() && now.pods.len() < wanted(workload) {
                about.extend(now.replica_set.map(|set| ("ReplicaSet", set.metadata.clone())));
                about.push((workload.kind().as_str(), workload.metadata().clone()));
            }
        }
        let reads = about
            .iter()
            .map(|(kind, metadata)| evidence::events_of(cluster, namespace, kind, metadata));
        let found = join_all(reads).await.into_iter().flatten();
        let warnings = found.filter(|event| event.type_.as_deref() == Some("Warning"));
        let before = std::mem::replace(&mut self.events, warnings.map(Arc::new).collect());
        self.events != before
    }
}

/// How many pods there should be.
fn wanted(workload: &Workload) -> usize {
    let replicas = match workload {
        Workload::Deployment(live) => live.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1)),
        Workload::StatefulSet(live) => live.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1)),
        Workload::DaemonSet(live) => live.status.as_ref().map(|status| status.desired_number_scheduled),
        Workload::Rollout(live) => Some(live.spec.replicas.unwrap_or(1)),
        Workload::Canary(_) | Workload::Application(_) => None,
    };
    replicas
        .and_then(|replicas| usize::try_from(replicas).ok())
        .unwrap_or(0)
}
