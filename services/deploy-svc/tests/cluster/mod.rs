//! What tests against a cluster share: the cluster, a namespace with a ledger and an executor for each test, and a
//! runner in place of the standard one, since the executable is also the shim of local-cluster's pods.
//!
//! ```ignore
//! #[macro_use]
//! mod cluster;
//! use cluster::{Bench, World};
//!
//! cluster_tests! {
//!     configure: |config| config.nodes = 2, // of local-cluster; a real cluster is as it is
//!     tests: [                              // async fn(&Bench); several at once, each in its own namespace
//!         it_works,
//!         it_is_faulty => LocalCluster,     // skipped, and counted as such, on a real cluster
//!     ],
//!     faults: [the_api_server_restarts],    // async fn(&mut World); local-cluster only, one after the other
//! }
//! ```
//!
//! In `Cargo.toml`: `[[test]] name = "…" harness = false`.
//!
//! The cluster is local-cluster with real processes, or the real one of `SLIPWAY_TEST_KUBECONFIG`, which pulls the
//! images that are built here and pushed to `${SLIPWAY_TEST_IMAGE_PREFIX}/app`.
//!
//! No test finds out by itself that it cannot be run, for then a fault would look like a cluster that lacks something.
//! What a test needs that only local-cluster has is committed beside its name as a [`Need`].
#![allow(dead_code, reason = "each test executable uses a part of it")]

mod bench;
pub(crate) mod definitions;
mod needs;

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use serde_json::json;
use slipway_kubernetes::{ClusterConfigs, Clusters, Kubernetes};
use slipway_model::{Digest, Name};
use slipway_testbed::{Images as Layout, patience};

pub(crate) use bench::{Bench, failed, succeeded};
pub(crate) use needs::Need;

/// So many tests run at once: most of their time is waiting for probes and back-offs.
const AT_ONCE: usize = 4;

pub(crate) type Test = for<'a> fn(&'a Bench) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
/// A test's name, what it needs of the cluster, and itself.
pub(crate) type Entry = (&'static str, &'static [Need], Test);
pub(crate) type FaultTest = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Defines `main`: see the module.
macro_rules! cluster_tests {
    (
        configure: $configure:expr,
        tests: [$($test:path $(=> $need:ident)?),* $(,)?],
        faults: [$($fault:path),* $(,)?] $(,)?
    ) => {
        fn main() {
            local_cluster::shim::run_if_requested();
            let tests: &[$crate::cluster::Entry] = &[
                $((stringify!($test), &[$($crate::cluster::Need::$need)?], |bench| Box::pin($test(bench)))),*
            ];
            let faults: &[(&'static str, $crate::cluster::FaultTest)] =
                &[$((stringify!($fault), |world| Box::pin($fault(world)))),*];
            $crate::cluster::run($configure, tests, faults);
        }
    };
}

/// Runs what the command line selects, as cargo's other tests do, and exits.
pub(crate) fn run(
    configure: fn(&mut local_cluster::Config),
    tests: &[Entry],
    faults: &[(&'static str, FaultTest)],
) {
    let (mut list, mut only, mut not) = (false, Vec::new(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => list = true,
            "--skip" => not.extend(args.next()),
            _ if arg.starts_with('-') => {}
            _ => only.push(arg),
        }
    }
    let named = |parts: &[String], name: &str| parts.iter().any(|part| name.contains(part.as_str()));
    let selected = |name: &str| (only.is_empty() || named(&only, name)) && !named(&not, name);
    if list {
        let names = tests
            .iter()
            .map(|(name, ..)| name)
            .chain(faults.iter().map(|(name, _)| name));
        names.for_each(|name| println!("{name}: test"));
        return;
    }
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (outcomes, skipped) = runtime.block_on(async {
        let mut world = World::start(configure).await;
        let real = world.local.is_none();
        let mut skipped = 0;
        let mut runs = |name: &str, needs: &[Need]| {
            let lacks = needs.first().filter(|_| real);
            if let Some(need) = lacks {
                println!("test {name} ... skipped: a real cluster lacks {}", need.words());
                skipped += 1;
            }
            lacks.is_none()
        };
        let chosen: Vec<&Entry> = tests
            .iter()
            .filter(|(name, needs, _)| selected(name) && runs(name, needs))
            .collect();
        let broken: Vec<&(&str, FaultTest)> = faults
            .iter()
            .filter(|(name, _)| selected(name) && runs(name, &[Need::LocalCluster]))
            .collect();
        let mut outcomes = futures::stream::iter(chosen)
            .map(|(name, _, test)| attempt(&world, name, *test))
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<bool>>()
            .await;
        for (name, test) in broken {
            let run = tokio::time::timeout(patience(), test(&mut world));
            outcomes.push(report(name, &AssertUnwindSafe(run).catch_unwind().await));
        }
        world.end().await;
        (outcomes, skipped)
    });
    let failed = outcomes.iter().filter(|passed| !**passed).count();
    // As cargo's own tests sum up, so that whoever counts those counts these.
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {} passed; {failed} failed; {skipped} skipped; {} filtered out",
        outcomes.len() - failed,
        tests.len() + faults.len() - outcomes.len() - skipped,
    );
    std::process::exit(i32::from(failed > 0));
}

async fn attempt(world: &World, name: &str, test: Test) -> bool {
    let bench = Bench::new(world, name).await;
    let run = tokio::time::timeout(patience(), test(&bench));
    let passed = report(name, &AssertUnwindSafe(run).catch_unwind().await);
    bench.end().await;
    passed
}

type Outcome = Result<Result<(), tokio::time::error::Elapsed>, Box<dyn std::any::Any + Send>>;

fn report(name: &str, outcome: &Outcome) -> bool {
    let words = match outcome {
        Ok(Ok(())) => "ok",
        Ok(Err(_)) => "FAILED (it took too long)",
        Err(_) => "FAILED",
    };
    println!("test {name} ... {words}");
    matches!(outcome, Ok(Ok(())))
}

/// The cluster, shared by all tests of one executable.
pub(crate) struct World {
    folder: tempfile::TempDir,
    configure: fn(&mut local_cluster::Config),
    kubeconfig: PathBuf,
    /// None: the cluster is somebody else's.
    pub(crate) local: Option<local_cluster::Cluster>,
    /// Name of the application's image.
    pub(crate) image: String,
    layout: Layout,
    /// Two versions of it.
    pub(crate) a: Digest,
    pub(crate) b: Digest,
}

impl World {
    pub(crate) async fn start(configure: fn(&mut local_cluster::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = slipway_testbed::static_binary(include_str!("app.rs"), &[]).unwrap();
        // local-cluster looks for the image `…/app` in the folder `app` of a folder of layouts.
        let in_layout = folder.path().join("images/app");
        let given = std::env::var_os("SLIPWAY_TEST_KUBECONFIG");
        let image = match given {
            None => "registry.example/app".to_owned(),
            Some(_) => {
                let prefix = std::env::var("SLIPWAY_TEST_IMAGE_PREFIX")
                    .expect("SLIPWAY_TEST_IMAGE_PREFIX is needed with SLIPWAY_TEST_KUBECONFIG");
                format!("{}/app", prefix.trim_end_matches('/'))
            }
        };
        let layout = Layout::new(in_layout, given.as_ref().map(|_| image.clone()));
        let add = async |version: &str| -> Digest {
            let digest = layout.add(&program, &[("VERSION", version)]).unwrap();
            layout.tag(version, &digest).await.unwrap();
            digest.parse().unwrap()
        };
        let (a, b) = (add("a").await, add("b").await);
        let (kubeconfig, local) = match given {
            Some(kubeconfig) => (kubeconfig.into(), None),
            None => {
                let local = start_local(folder.path(), configure).await;
                (local.kubeconfig_path().to_owned(), Some(local))
            }
        };
        Self {
            folder,
            configure,
            kubeconfig,
            local,
            image,
            layout,
            a,
            b,
        }
    }

    /// The clusters of a service's configuration: this one, by the name `test`.
    pub(crate) async fn clusters(&self) -> (Clusters, Kubernetes) {
        let name: Name = "test".parse().unwrap();
        let configs = json!({"test": {"kubeconfig": self.kubeconfig}});
        let configs: ClusterConfigs = serde_json::from_value(configs).unwrap();
        let clusters = Clusters::open(&configs).await.unwrap();
        let cluster = clusters.get(&name).unwrap().clone();
        (clusters, cluster)
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The local cluster goes away, with its pods.
    pub(crate) async fn stop_local(&mut self) {
        if let Some(local) = self.local.take() {
            local.shutdown().await;
        }
    }

    /// It comes back as it was.
    pub(crate) async fn start_local(&mut self) {
        self.local = Some(start_local(self.folder.path(), self.configure).await);
    }

    async fn end(mut self) {
        self.stop_local().await;
    }
}

async fn start_local(folder: &Path, configure: fn(&mut local_cluster::Config)) -> local_cluster::Cluster {
    let mut config = local_cluster::Config::new(folder.join("cluster"));
    config.image_layouts.push(folder.join("images"));
    config.back_off = Duration::from_millis(100);
    configure(&mut config);
    local_cluster::Cluster::start(config).await.unwrap()
}
