//! A Kubernetes API on loopback, for development and tests.
//!
//! It serves Deployments, StatefulSets, DaemonSets, Jobs, Pods, Services and what belongs to them to kubectl and other
//! clients, runs the controllers, and runs pods as plain local processes from OCI images that hold a static binary. It
//! is a development tool: there is one token, no isolation between pods and the machine, and no separate network.
//!
//! ```no_run
//! # async fn example() -> Result<(), local_cluster::Error> {
//! // First thing in main: this executable also becomes the shim of every pod.
//! local_cluster::shim::run_if_requested();
//! let mut config = local_cluster::Config::new("/var/tmp/cluster");
//! config.image_layouts.push("/var/tmp/images".into());
//! let cluster = local_cluster::Cluster::start(config).await?;
//! println!("export KUBECONFIG={}", cluster.kubeconfig_path().display());
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::kubelet::logs::Logs;
use crate::kubelet::{Context, Kubelet, image::Images, ports::Ports};
use crate::recorder::Recorder;
use crate::resources::NAMESPACES;
use crate::store::Store;

mod api;
mod argo_cd;
mod cause;
mod columns;
mod controllers;
mod credentials;
mod custom;
mod defaults;
mod faults;
mod journal;
mod kubelet;
mod metrics;
mod nodes;
mod object;
mod owners;
mod quantity;
mod quota;
mod recorder;
mod registry;
mod resources;
mod schema;
mod selector;
mod shape;
pub mod shim;
mod status;
mod store;
mod validate;

pub use crate::argo_cd::ArgoCd;
pub use crate::faults::{Faults, Throttled};

/// The settings of a cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where objects, keys, logs and unpacked images live. One cluster at a time uses a directory.
    pub data_dir: PathBuf,
    /// Where the API listens; must be a loopback address. With port 0 the last port is used if it is free, otherwise
    /// any.
    pub listen: SocketAddr,
    /// Directories that contain an OCI image layout per repository: `ROOT/<repository path>/index.json`.
    pub image_layouts: Vec<PathBuf>,
    /// Pods have no process, and are ready after a while: for tests of scale.
    pub pretend_pods: Option<PretendPods>,
    /// Installs Argo CD's kinds and an Application controller that behaves like Argo CD's.
    pub argo_cd: Option<ArgoCd>,
    /// The executable that becomes the shim of every pod; it must call [`shim::run_if_requested`] first in `main`. If
    /// not given, this executable.
    pub shim: Option<PathBuf>,
    /// The pause before a container's second restart, before an image is pulled again and before a failed Job pod's
    /// successor; it doubles, up to five minutes (Jobs: ten). Kubernetes has 10 s.
    pub back_off: Duration,
    /// How many nodes there are: `local-1`, `local-2`, … Their pods all run on this machine.
    pub nodes: usize,
}

/// How pods are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PretendPods {
    /// From a pod's creation to its readiness.
    pub ready_after: Duration,
}

impl Config {
    /// A cluster with its data in `data_dir`, on a free port, without images.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            image_layouts: Vec::new(),
            pretend_pods: None,
            argo_cd: None,
            shim: None,
            back_off: Duration::from_secs(10),
            nodes: 1,
        }
    }
}

/// Why a cluster cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another cluster runs on the same data.
    #[error("data_dir {}: in use by another cluster; stop that one or choose another directory", .0.display())]
    InUse(PathBuf),
    /// The address is not on loopback.
    #[error(
        "listen {0}: not a loopback address; this cluster runs programs for whoever reaches it, use 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("listen {address}: {source}; choose another port, or 0")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The stored objects cannot be read.
    #[error("stored objects: {0}")]
    Journal(String),
    /// Certificates or keys cannot be made or used.
    #[error(
        "tls: {0}; remove the files token, authority.crt, server.crt and server.key to have new ones made"
    )]
    Tls(String),
    /// The executable does not become a shim.
    #[error("shim {}: {why}; call local_cluster::shim::run_if_requested() first in its main, or set Config::shim", path.display())]
    Shim {
        /// The executable.
        path: PathBuf,
        /// What it did instead.
        why: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// A running cluster. Dropping it stops it without waiting; [`Cluster::shutdown`] waits.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    kubeconfig: PathBuf,
    store: Arc<Store>,
    faults: Faults,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _stop_on_drop: DropGuard,
    _lock: Flock<File>,
}

impl Cluster {
    /// Starts a cluster: reads its stored state, listens, starts its pods again.
    ///
    /// # Errors
    /// When the directory, the address or the shim cannot be used; the error says what to do.
    pub async fn start(config: Config) -> Result<Self, Error> {
        if !config.listen.ip().is_loopback() {
            return Err(Error::NotLoopback(config.listen));
        }
        let dir = prepare_dir(&config.data_dir)?;
        let lock = lock(&dir)?;
        let shim = match config.shim {
            Some(shim) => shim,
            None => std::env::current_exe().map_err(|error| Error::io(Path::new("/proc/self/exe"), error))?,
        };
        if config.pretend_pods.is_none() {
            let checked = kubelet::process::check_shim(&shim).await;
            checked.map_err(|why| Error::Shim {
                path: shim.clone(),
                why,
            })?;
        }
        let credentials = credentials::Credentials::open(&dir)?;
        let tls = TlsAcceptor::from(Arc::new(credentials.tls()?));
        let listener = listen(config.listen, &dir).await?;
        let address = listener.local_addr().map_err(|error| Error::io(&dir, error))?;
        let store =
            Store::open(&dir.join("objects.journal")).map_err(|error| Error::Journal(error.to_string()))?;
        create_default_namespace(&store);
        nodes::register(&store, config.nodes);
        let kubeconfig = dir.join("kubeconfig");
        credentials::write_private(&kubeconfig, credentials.kubeconfig(address).as_bytes())
            .map_err(|error| Error::io(&kubeconfig, error))?;

        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let logs = Logs::new(dir.join("logs"));
        let faults = Faults::new(Arc::clone(&store));
        let app = api::App {
            store: Arc::clone(&store),
            logs: Arc::clone(&logs),
            token: credentials.token,
            address,
            http: Client::builder(TokioExecutor::new()).build_http(),
            shutdown: shutdown.clone(),
            faults: faults.clone(),
            metrics: Arc::default(),
        };
        let context = Context {
            store: Arc::clone(&store),
            images: Images::new(config.image_layouts, dir.join("images")),
            logs,
            ports: Ports::default(),
            kubelet: Recorder::new(Arc::clone(&store), recorder::KUBELET),
            shim,
            back_off: config.back_off,
            pretend: config.pretend_pods.map(|pretend| pretend.ready_after),
        };
        tasks.spawn(api::serve(Arc::new(app), listener, tls, tasks.clone()));
        let controllers = controllers::Controllers::new(Arc::clone(&store), config.back_off);
        tasks.spawn(controllers.run(shutdown.clone()));
        tasks.spawn(Kubelet::new(context).run(shutdown.clone()));
        if let Some(argo_cd) = config.argo_cd {
            let controller = argo_cd::Controller::new(Arc::clone(&store), argo_cd, dir.join("argo-cd"));
            tasks.spawn(controller.run(shutdown.clone()));
        }
        tasks.close();
        tracing::info!(%address, data = %dir.display(), "cluster started");
        let stop_on_drop = shutdown.clone().drop_guard();
        Ok(Self {
            address,
            kubeconfig,
            store,
            faults,
            shutdown,
            tasks,
            _stop_on_drop: stop_on_drop,
            _lock: lock,
        })
    }

    /// A kubeconfig for this cluster, readable only by its owner.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The faults to simulate, for tests of the API's clients.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Stops the pods' processes (their objects stay, and run again after the next start) and the API.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tasks.wait().await;
        let store = Arc::clone(&self.store);
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            tracing::error!("the store was not closed");
        }
    }
}

fn prepare_dir(dir: &Path) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| dir.canonicalize())
        .map_err(|error| Error::io(dir, error))
}

fn lock(dir: &Path) -> Result<Flock<File>, Error> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::InUse(dir.to_owned()))
}

/// Listens, on the last port if any will do, so that kubeconfigs handed out stay valid.
async fn listen(address: SocketAddr, dir: &Path) -> Result<TcpListener, Error> {
    let path = dir.join("port");
    let before = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse::<u16>().ok());
    if let (0, Some(port)) = (address.port(), before)
        && let Ok(listener) = TcpListener::bind((address.ip(), port)).await
    {
        return Ok(listener);
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let port = listener
        .local_addr()
        .map_err(|source| Error::Listen { address, source })?
        .port();
    credentials::write_private(&path, port.to_string().as_bytes())
        .map_err(|error| Error::io(&path, error))?;
    Ok(listener)
}

fn create_default_namespace(store: &Store) {
    let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    let created = api::prepare::prepare_new(&NAMESPACES, &mut namespace, Timestamp::now())
        .and_then(|()| store.create(&NAMESPACES, namespace));
    if let Err(error) = created
        && error.reason != "AlreadyExists"
    {
        tracing::error!(%error, "the default namespace is missing");
    }
}
