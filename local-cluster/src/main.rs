//! `local-cluster`: the cluster as a program of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use local_cluster::{ArgoCd, Cluster, Config, PretendPods};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A Kubernetes API on loopback that runs pods as local processes. For development and tests only.
#[derive(Debug, Parser)]
#[command(
    version,
    after_long_help = "\
Images are OCI image layouts, one directory per repository below --images: the image
registry.example.com/team/web:1 is looked for in IMAGES/team/web (index.json, blobs/sha256). Images named
127.0.0.1:PORT/… or localhost:PORT/… are pulled from that registry. An image must hold a static binary; it gets
a free port as PORT in its environment and must listen there.

Try:
  local-cluster --data /var/tmp/cluster --images /var/tmp/images &
  export KUBECONFIG=/var/tmp/cluster/kubeconfig
  kubectl create deployment web --image=web:1 --port=8080
  kubectl rollout status deployment/web
  kubectl expose deployment web --port=80 --target-port=8080
  kubectl logs deployment/web
  kubectl get --raw /api/v1/namespaces/default/services/web/proxy/

Served: Deployments, StatefulSets, DaemonSets, Jobs, ReplicaSets, ControllerRevisions, Pods, Services, Namespaces,
Nodes, ConfigMaps, Secrets, ServiceAccounts, ResourceQuotas, Events, and custom resources. Everything else is refused
with a reason. RUST_LOG=local_cluster=debug shows every request."
)]
struct Arguments {
    /// Directory for objects, keys, logs and unpacked images; made when missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Directory that holds an OCI image layout per repository; may be given several times
    #[arg(long, value_name = "DIR")]
    images: Vec<PathBuf>,
    /// Loopback address of the API; port 0 takes the last one again, or any
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many nodes there are, all of them this machine
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    nodes: usize,
    /// Run no processes: pods are ready after so many milliseconds
    #[arg(long, value_name = "MS")]
    pretend_pods: Option<u64>,
    /// Install Argo CD's Application and AppProject, and a controller that behaves as Argo CD's
    #[arg(long)]
    argo_cd: bool,
}

fn main() -> ExitCode {
    local_cluster::shim::run_if_requested();
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("local_cluster=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let mut config = Config::new(arguments.data);
    config.listen = arguments.listen;
    config.image_layouts = arguments.images;
    config.nodes = arguments.nodes;
    config.pretend_pods = arguments.pretend_pods.map(|ms| PretendPods {
        ready_after: Duration::from_millis(ms),
    });
    config.argo_cd = arguments.argo_cd.then(ArgoCd::default);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let cluster = Cluster::start(config).await.map_err(|error| error.to_string())?;
    println!("export KUBECONFIG={}", cluster.kubeconfig_path().display());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    cluster.shutdown().await;
    Ok(())
}
