//! `slipway dev`: all four services, their own Kubernetes and an image store in one process. The same code as in
//! production, on SQLite files and an in-process bus.

mod configs;
mod home;
mod own_cluster;

use std::{fs::File, path::Path, sync::Arc};

pub(crate) use configs::Repository;
use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
pub(crate) use home::{Home, Options};
use local_cluster::Cluster;
use slipway_events::{Bus, MemoryBus};
use slipway_server::{Config, Listeners, RunError, ServerConfig, ServiceSettings, Wiring};
use slipway_telemetry::TelemetryConfig;
use tokio_util::sync::CancellationToken;

use crate::{Outcome, args::DevArgs, failure::Failure};

/// Printed when everything is serving.
pub(crate) const READY: &str = "ready";

/// A service's name, and how it ended.
type Ended = (&'static str, Result<(), RunError>);

pub(crate) async fn run(args: DevArgs) -> Result<Outcome, Failure> {
    let options = Options {
        port: args.port,
        ..Options::default()
    };
    let home = Home::open(&args.data, &options)?;
    let _lock = lock(&home)?;
    let telemetry = TelemetryConfig {
        service_name: "slipway".to_owned(),
        otlp_endpoint: args.otlp_endpoint.clone(),
        log_filter: std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
        ..TelemetryConfig::default()
    };
    let telemetry = slipway_telemetry::init(&telemetry).map_err(Failure::new)?;
    let cluster = match &args.kube_context {
        Some(context) => {
            home.use_kube_context(context)?;
            None
        }
        None => Some(start_cluster(&home, args.argo_cd).await?),
    };

    let shutdown = CancellationToken::new();
    let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(slipway_events::BusConfig::default()));
    let build: build_svc::Config = configured(&home.config("build"))?;
    let mut deploy: deploy_svc::Config = configured(&home.config("deploy"))?;
    for (name, config) in &mut deploy.settings.clusters {
        config.image_folder |= cluster.is_some() && name.as_str() == own_cluster::CLUSTER;
    }
    let needs = match &args.kube_context {
        Some(context) => Some(needs(context, &home, &build, &deploy)?),
        None => None,
    };
    let mut services: FuturesUnordered<LocalBoxFuture<'_, Ended>> = FuturesUnordered::new();
    macro_rules! spawn {
        ($service:ident, $name:literal, $config:expr) => {{
            let config: $service::Config = $config;
            let listeners = bind(&config.server, &home.config($name)).await?;
            let service = telemetry.service(concat!($name, "-svc")).map_err(Failure::new)?;
            let wiring = Wiring::new(listeners, bus.clone(), service);
            let shutdown = shutdown.clone();
            services
                .push(async move { ($name, $service::run(config, wiring, shutdown).await) }.boxed_local());
        }};
    }
    spawn!(build_svc, "build", build);
    spawn!(gitops_svc, "gitops", configured(&home.config("gitops"))?);
    spawn!(approval_svc, "approval", configured(&home.config("approval"))?);
    spawn!(deploy_svc, "deploy", deploy);

    greet(&home, cluster.as_ref(), needs.as_deref())?;
    let ended = tokio::select! {
        () = stop_signal() => Ok(()),
        ended = services.next() => Err(why(ended)),
    };
    shutdown.cancel();
    while services.next().await.is_some() {}
    if let Some(cluster) = cluster {
        cluster.shutdown().await;
    }
    telemetry.shutdown(std::time::Duration::from_secs(2)).await;
    ended.map(|()| Outcome::Happened)
}

/// What releases to the user's own cluster need.
fn needs(
    context: &str,
    home: &Home,
    build: &build_svc::Config,
    deploy: &deploy_svc::Config,
) -> Result<String, Failure> {
    let path = &deploy.settings.catalog;
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let catalog = deploy_domain::catalog::Catalog::parse(&text)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let kubeconfig = home.path("kubeconfig");
    let in_a_folder = |image: &_| build.settings.keeps_in_a_folder(image);
    Ok(own_cluster::report(context, &kubeconfig, &catalog, in_a_folder))
}

/// One process per folder: two would write the same databases.
fn lock(home: &Home) -> Result<File, Failure> {
    let file = File::create(home.path("lock"))?;
    file.try_lock().map_err(|_| {
        Failure::new(format!(
            "another slipway dev is running in {}",
            home.folder().display()
        ))
        .next("stop it, or choose another directory with --data")
    })?;
    Ok(file)
}

async fn start_cluster(home: &Home, argo_cd: bool) -> Result<Cluster, Failure> {
    let config = local_cluster::Config {
        argo_cd: argo_cd.then(local_cluster::ArgoCd::default),
        image_layouts: vec![home.path("images")],
        ..local_cluster::Config::new(home.path("cluster"))
    };
    let cluster = Cluster::start(config).await.map_err(Failure::new)?;
    std::fs::copy(cluster.kubeconfig_path(), home.path("kubeconfig"))?;
    Ok(cluster)
}

fn configured<S: ServiceSettings>(path: &Path) -> Result<Config<S>, Failure> {
    let config: Config<S> = slipway_server::config::read(path).map_err(Failure::new)?;
    config
        .check_files()
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(config)
}

async fn bind(server: &ServerConfig, config: &Path) -> Result<Listeners, Failure> {
    Listeners::bind(server).await.map_err(|error| {
        Failure::new(error).next(format!(
            "free the port, or change it in {} and the URL in context.yaml",
            config.display()
        ))
    })
}

fn why(ended: Option<Ended>) -> Failure {
    match ended {
        Some((name, Err(error))) => Failure::new(format!("{name}-svc failed: {error}")),
        Some((name, Ok(()))) => Failure::new(format!("{name}-svc stopped unexpectedly")),
        None => Failure::new("no service is running"),
    }
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn greet(home: &Home, cluster: Option<&Cluster>, needs: Option<&str>) -> Result<(), Failure> {
    let context = home.context()?;
    println!("Slipway is running in {}", home.folder().display());
    for (name, url) in [
        ("build-svc", &context.build),
        ("gitops-svc", &context.gitops),
        ("approval-svc", &context.approval),
        ("deploy-svc", &context.deploy),
    ] {
        println!("  {name:13} {url}");
    }
    if let Some(cluster) = cluster {
        println!(
            "  {:13} https://{}  KUBECONFIG={}",
            "kubernetes",
            cluster.address(),
            home.path("kubeconfig").display()
        );
    }
    if let Some(needs) = needs {
        print!("{needs}");
    }
    println!("  {:13} {}", "catalog", home.path("catalog.yaml").display());
    println!(
        "  {:13} {}  (edit it freely; it is read at the next start)",
        "configuration",
        home.path("config").display()
    );
    if home.path("platform.git").exists() {
        println!(
            "  {:13} {}  (the repository `platform`: clone it and push your overlays)",
            "gitops",
            home.path("platform.git").display()
        );
    }
    let people: Vec<&str> = context.token_files.keys().map(String::as_str).collect();
    println!(
        "  {:13} {}  (of {})",
        "tokens",
        home.path("tokens").display(),
        people.join(", ")
    );
    println!();
    println!("Continue in another terminal:");
    println!("  export SLIPWAY_CONTEXT={}", home.path("context.yaml").display());
    println!("  slipway release plan SERVICE --commit $(git rev-parse HEAD)");
    println!("  slipway release start SERVICE --commit $(git rev-parse HEAD) --wait");
    println!("  slipway --as bob approval list");
    println!("{READY}");
    Ok(())
}
