//! The clusters: their configuration, how a change is applied to one, and how its state is read.
//!
//! [`apply`] writes, [`watch`] holds one shared view per cluster and kind, which `slipway-verdict` judges without I/O,
//! and [`evidence`] collects what a person needs to see. Apart from local-cluster, only this crate depends on kube.

pub mod apply;
pub mod argo_cd;
pub mod before;
mod client;
pub mod evidence;
pub mod fault;
mod forbidden;
pub mod jobs;
mod live;
pub mod managed;
pub mod namespace;
mod observe;
pub mod promotion;
pub mod proxy;
mod race;
mod remedy;
pub mod restart;
mod revisions;
pub mod set_image;
pub mod steps;
pub mod stuck;
pub mod undo;
pub mod watch;
pub mod workload;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use kube::{Api, api::DynamicObject};
use serde::Deserialize;
use slipway_model::{Fault, Name, Reason};
pub use slipway_verdict::UnknownCluster;
use slipway_verdict::{
    Target, Workload,
    application::{Destination, DestinationCluster},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::fault::{fault_of, unavailable};

/// How long a call to an API server may take, watches excepted.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Objects written concurrently on one cluster. A slow cluster uses up only its own slots.
const WRITES: usize = 32;

/// `clusters:` of the service's configuration, by the names that the catalog's targets use.
pub type ClusterConfigs = BTreeMap<Name, ClusterConfig>;

/// One entry of `clusters:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// A kubeconfig file.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// A context of that file; left out, its current one.
    #[serde(default)]
    pub context: Option<String>,
    /// Uses the service account of the pod that this service runs in, instead of a file.
    #[serde(default)]
    pub in_cluster: bool,
    /// The scope of its watches.
    #[serde(default)]
    pub watch: watch::Scope,
    /// It runs images without a registry host from the folder into which build-svc puts them: a cluster on this machine,
    /// made for that. Others pull each image from a registry.
    #[serde(default)]
    pub image_folder: bool,
}

impl ClusterConfig {
    /// Checks the keys of all of them: reads no file.
    ///
    /// # Errors
    /// [`ClusterConfigError`], naming the cluster.
    pub fn check_all(configs: &ClusterConfigs) -> Result<(), ClusterConfigError> {
        configs.iter().try_for_each(|(name, config)| config.check(name))
    }

    /// Checks the kubeconfigs too, without connecting to a cluster.
    ///
    /// # Errors
    /// [`ClusterConfigError`], naming the cluster.
    pub fn check_files(configs: &ClusterConfigs) -> Result<(), ClusterConfigError> {
        Self::check_all(configs)?;
        configs
            .iter()
            .try_for_each(|(name, config)| client::check_file(name, config))
    }

    fn check(&self, name: &Name) -> Result<(), ClusterConfigError> {
        if self.kubeconfig.is_some() == self.in_cluster {
            return Err(ClusterConfigError::Source(name.clone()));
        }
        if self.context.is_some() && self.kubeconfig.is_none() {
            return Err(ClusterConfigError::Context(name.clone()));
        }
        Ok(())
    }
}

/// Why a configured cluster cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ClusterConfigError {
    #[error("clusters.{0}: give either kubeconfig or in_cluster: true")]
    Source(Name),
    #[error("clusters.{0}: context belongs to a kubeconfig")]
    Context(Name),
    #[error("clusters.{name}: {error}")]
    Kubeconfig {
        name: Name,
        error: Box<kube::config::KubeconfigError>,
    },
    #[error("clusters.{name}: {error}")]
    InCluster {
        name: Name,
        error: Box<kube::config::InClusterError>,
    },
    #[error("clusters.{name}: {error}")]
    Client { name: Name, error: Box<kube::Error> },
}

/// The configured clusters by name. Cheap to clone; opening connects to none of them.
#[derive(Debug, Clone, Default)]
pub struct Clusters(Arc<BTreeMap<Name, Kubernetes>>);

/// The client of one API server, and the shared watches on it.
#[derive(Clone)]
pub struct Kubernetes {
    name: Name,
    /// The address of its API server; empty if it is not known.
    server: String,
    client: kube::Client,
    watches: watch::Watches,
    kinds: apply::Kinds,
    writes: Arc<Semaphore>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Wraps an existing client; it watches the whole cluster.
    pub fn new(name: Name, client: kube::Client) -> Self {
        Self::scoped(name, client, watch::Scope::default())
    }

    /// Wraps an existing client, with watches of that scope.
    pub fn scoped(name: Name, client: kube::Client, watch: watch::Scope) -> Self {
        Self {
            watches: watch::Watches::new(name.clone(), client.clone(), watch),
            name,
            server: String::new(),
            client,
            kinds: apply::Kinds::default(),
            writes: Arc::new(Semaphore::new(WRITES)),
        }
    }

    /// With the address of its API server, by which Applications name it.
    #[must_use]
    pub fn at(mut self, server: String) -> Self {
        self.server = server;
        self
    }

    /// As the catalog's targets name it.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The client, for what this module does not do.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Follows one workload through the shared watches. Must be called within a tokio runtime.
    pub fn follow(&self, target: &Target) -> watch::Subscription {
        self.watches.follow(target)
    }

    /// Follows one Job in the same way.
    pub fn follow_job(&self, namespace: &str, name: &str) -> watch::JobSubscription {
        self.watches.follow_job(namespace, name)
    }

    /// The workload as the API server has it now, bypassing every watch and as slim as they show it; `None` if it does
    /// not exist. A watch that turns out to show an older version is restarted.
    ///
    /// # Errors
    /// When the API server cannot be asked or refuses.
    pub async fn read(&self, target: &Target) -> Result<Option<Workload>, Fault<Reason>> {
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            target.namespace.as_str(),
            &workload::resource(target.kind),
        );
        let asked = Instant::now();
        let found = call(&format!("read the {}", target.kind), api.get_opt(&target.name)).await?;
        let typed = |object| workload::typed(target.kind, object);
        let mut found = found.map(typed).transpose()?;
        if let Some(found) = &mut found {
            watch::slim_workload(found);
        }
        self.watches.compare(target, found.as_ref(), asked);
        Ok(found)
    }

    /// How many watches are open on this cluster now.
    pub fn watches(&self) -> usize {
        self.watches.open()
    }

    /// Waits for one of the slots for writes; the slot is freed when the permit is dropped.
    ///
    /// # Errors
    /// A transient fault when none becomes free in time: the API server is slow, or unreachable.
    pub async fn write_permit(&self) -> Result<OwnedSemaphorePermit, Fault<Reason>> {
        let busy = || {
            unavailable(format!(
                "{WRITES} writes are under way and none has ended within {} s",
                CALL_TIMEOUT.as_secs()
            ))
        };
        let permit = Arc::clone(&self.writes).acquire_owned();
        match tokio::time::timeout(CALL_TIMEOUT, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

impl Clusters {
    /// Reads kubeconfigs and creates clients.
    ///
    /// # Errors
    /// [`ClusterConfigError`], naming the cluster.
    pub async fn open(configs: &ClusterConfigs) -> Result<Self, ClusterConfigError> {
        ClusterConfig::check_all(configs)?;
        let mut clusters = BTreeMap::new();
        for (name, config) in configs {
            clusters.insert(name.clone(), client::open(name, config).await?);
        }
        Ok(Self(Arc::new(clusters)))
    }

    /// The given ones, for tests.
    pub fn of(clusters: impl IntoIterator<Item = (Name, Kubernetes)>) -> Self {
        Self(Arc::new(clusters.into_iter().collect()))
    }

    /// The cluster of that name.
    ///
    /// # Errors
    /// [`UnknownCluster`], which lists the configured ones.
    pub fn get(&self, name: &Name) -> Result<&Kubernetes, UnknownCluster> {
        self.0.get(name).ok_or_else(|| UnknownCluster {
            name: name.clone(),
            known: self.0.keys().cloned().collect(),
        })
    }

    /// The cluster that an Application of `own` deploys to.
    ///
    /// # Errors
    /// Why it is none of the configured ones, for people.
    pub fn destination<'a>(
        &'a self,
        own: &'a Kubernetes,
        destination: &Destination,
    ) -> Result<&'a Kubernetes, String> {
        match destination.cluster() {
            DestinationCluster::Own => Ok(own),
            DestinationCluster::Server(server) => {
                let same = |one: &&Kubernetes| is_same_server(&one.server, server);
                // The Application's own cluster may be configured under other names too.
                let known = std::iter::once(own).chain(self.0.values()).find(same);
                known.ok_or_else(|| {
                    format!("it deploys to {server}, which is the address of none of the clusters in the configuration")
                })
            }
            DestinationCluster::Named(name) => Err(format!(
                "it deploys to the cluster that Argo CD calls {name}, whose address is not in the Application: give \
                 destination.server instead of destination.name"
            )),
        }
    }
}

/// Whether two addresses are the same but for how they are written.
fn is_same_server(one: &str, other: &str) -> bool {
    fn plain(address: &str) -> String {
        let address = address.trim_end_matches('/').to_ascii_lowercase();
        let (scheme, rest) = address.split_once("://").unwrap_or(("https", &address));
        let port = if scheme == "http" { ":80" } else { ":443" };
        format!("{scheme}://{}", rest.strip_suffix(port).unwrap_or(rest))
    }
    !one.is_empty() && plain(one) == plain(other)
}

/// Runs a call with the common time limit.
pub async fn call<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Fault<Reason>> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault_of(what, &error)),
        Err(_) => Err(unavailable(format!(
            "{what}: no answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::is_same_server;

    #[test]
    fn addresses_that_are_the_same() {
        for (one, other, same) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443/", true),
            ("https://API.example", "https://api.example:443", true),
            ("https://api.example:443/", "https://api.example", true),
            ("https://10.0.0.1:6443", "https://10.0.0.1:6444", false),
            ("http://10.0.0.1", "https://10.0.0.1", false),
            (
                "https://api.example/k8s/clusters/a",
                "https://api.example/k8s/clusters/b",
                false,
            ),
            ("", "", false),
        ] {
            assert_eq!(is_same_server(one, other), same, "{one} {other}");
        }
    }
}
