//! deploy-svc: takes commits to verified rollouts. Releases go through their environments, lanes keep them apart,
//! deployments make a cluster take a commit and find out whether it runs.

pub mod catalog;
pub mod checks;
pub mod config;
pub mod deployment;
pub mod deployment_effects;
pub mod drive;
pub mod effects;
pub mod grpc_deploy;
pub mod grpc_release;
pub mod hints;
pub mod lane;
pub mod owners;
pub mod plan;
pub mod prometheus;
pub mod reason;
pub mod release;
pub mod result;
pub mod spans;

use std::{sync::Arc, time::Duration};

use slipway_kubernetes::Clusters;
use slipway_ledger::{Executor, Relay, RelayConfig};
use slipway_proto::{
    deploy::v1::deploy_service_server::DeployServiceServer,
    release::v1::release_service_server::ReleaseServiceServer,
};
use slipway_server::{RunError, Server, ServiceConfig, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{
    catalog::CatalogStore,
    checks::Checker,
    deployment::Deployment,
    deployment_effects::DeploymentEffects,
    effects::ReleaseEffects,
    grpc_deploy::DeployApi,
    grpc_release::ReleaseApi,
    owners::{Approvals, Builds, Changes, Deployments},
    prometheus::Prometheuses,
    release::Release,
    spans::SpanSink,
};

/// How long a replica that vanished keeps its releases and deployments from the others.
const LEASE: Duration = Duration::from_secs(10);

/// Runs the service until `shutdown`, then drains. What is under way when it ends is taken up again by another
/// replica, or at the next start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    config.check()?;
    let catalog = CatalogStore::open(&config.catalog)
        .map_err(RunError::other("catalog"))?
        .within(config.configured()?)
        .map_err(RunError::other("catalog"))?;
    let catalog = Arc::new(catalog);
    let clusters = Clusters::open(&config.clusters)
        .await
        .map_err(RunError::other("clusters"))?;
    let replica = std::env::var("HOSTNAME").unwrap_or_else(|_| "deploy-svc".to_owned());
    let ledger = slipway_server::ledger::open(&config.database, "deploy", &replica).await?;
    let changes = Changes::new(config.gitops.connect("gitops")?);
    let releases = ReleaseEffects {
        ledger: ledger.clone(),
        builds: Arc::new(Builds::new(config.build.connect("build")?)),
        approvals: Arc::new(Approvals::new(config.approval.connect("approval")?)),
        changes: Arc::new(changes.clone()),
        deployments: Arc::new(Deployments::new(ledger.clone())),
        clusters: clusters.clone(),
    };
    let deployments = DeploymentEffects::new(clusters.clone(), Arc::new(changes.clone()))
        .reverts(Arc::new(changes.clone()))
        .checker(Checker::new(&config.checks))
        .prometheus(Prometheuses::open(&config.prometheus)?);

    let executor = Executor::builder(ledger.clone())
        .concurrency(config.concurrency)
        .lease(LEASE)
        .register::<Release>(Arc::new(releases))
        .register::<Deployment>(Arc::new(deployments))
        .spawn(shutdown.clone());
    let relay = slipway_server::spawn_relay(&ledger, wiring.bus.clone(), shutdown.clone());
    let spans = SpanSink {
        ledger: ledger.clone(),
        spans: wiring.telemetry.step_spans(),
        metrics: wiring.telemetry.metrics().clone(),
    };
    let spans_config = RelayConfig {
        name: "spans".to_owned(),
        ..RelayConfig::default()
    };
    let spans = Relay::spawn(ledger.clone(), Arc::new(spans), spans_config, shutdown.clone());
    let hints = tokio::spawn(hints::listen(
        ledger.clone(),
        wiring.bus,
        replica,
        shutdown.clone(),
    ));
    let reload = tokio::spawn(catalog.as_ref().clone().follow(shutdown.clone()));

    let limit = config.server.max_message_bytes;
    let release_api = ReleaseApi {
        ledger: ledger.clone(),
        catalog: catalog.clone(),
    };
    let deploy_api = DeployApi {
        ledger: ledger.clone(),
        catalog,
        clusters,
        reverts: Arc::new(changes),
    };
    let served = match Server::builder("deploy-svc", &config.server, slipway_proto::DESCRIPTORS) {
        Ok(server) => {
            let server = server
                .telemetry(&wiring.telemetry)
                .service(ReleaseServiceServer::new(release_api).max_decoding_message_size(limit))
                .service(DeployServiceServer::new(deploy_api).max_decoding_message_size(limit));
            server.serve(wiring.listener, shutdown.clone()).await
        }
        Err(error) => Err(error),
    };
    // Also when the server could not serve.
    shutdown.cancel();
    executor.drain().await;
    relay.drain().await;
    spans.drain().await;
    for task in [hints, reload] {
        if let Err(error) = task.await {
            tracing::warn!(%error, "a background task ended badly");
        }
    }
    ledger.close().await;
    served.map_err(Into::into)
}
