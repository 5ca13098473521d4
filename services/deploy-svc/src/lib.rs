//! deploy-svc: takes commits to verified rollouts. Releases go through their environments, lanes keep them apart,
//! deployments apply a commit to a cluster and find out whether it runs.

mod api;
mod backends;
mod config;
mod effects;

use std::{sync::Arc, time::Duration};

use deploy_domain::{canary_watch::CanaryWatch, deployment::Deployment, release::Release};
use slipway_kubernetes::Clusters;
use slipway_ledger::Effects;
use slipway_probe::Checker;
use slipway_proto::{
    deploy::v1::deploy_service_server::DeployServiceServer,
    release::v1::release_service_server::ReleaseServiceServer,
};
use slipway_server::{RunError, ServiceHost, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{
    api::{DeployApi, ReleaseApi},
    backends::{
        catalog::CatalogStore,
        hints,
        spans::SpanSink,
        steps::{Approvals, Builds, Changes, Deployments},
    },
    effects::{canary_watches::CanaryWatchEffects, deployments::DeploymentEffects, releases::ReleaseEffects},
};

/// How long a replica that vanished keeps others from its releases and deployments.
const LEASE: Duration = Duration::from_secs(10);

/// Runs the service until `shutdown`, then drains. Work in progress is resumed by another replica, or at the next
/// start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    serve(config, wiring, shutdown, None).await
}

/// For this service's own tests, and for measurements of everything except the cluster.
#[doc(hidden)]
pub mod testing {
    use super::{Arc, CancellationToken, Config, Deployment, Effects, RunError, Wiring};
    pub use crate::{
        api::{DeployApi, ReleaseApi, Releases},
        backends::{
            catalog::CatalogStore,
            gitops::{Manifests, NoReverts, RevertOrder, RevertTarget, Revertible, Reverting, Reverts},
            steps::{Changes, Deployments, Order, StepBackend, Tags, Taken},
        },
        effects::{
            canary_watches::CanaryWatchEffects,
            deployments::{DeploymentEffects, lane, measure},
            lanes,
            releases::ReleaseEffects,
        },
    };

    /// As [`run`](super::run), with these effects of deployments instead of those on clusters.
    ///
    /// # Errors
    /// As [`run`](super::run).
    pub async fn run_with(
        effects: Arc<dyn Effects<Deployment>>,
        config: Config,
        wiring: Wiring,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        super::serve(config, wiring, shutdown, Some(effects)).await
    }
}

async fn serve(
    config: Config,
    wiring: Wiring,
    shutdown: CancellationToken,
    injected: Option<Arc<dyn Effects<Deployment>>>,
) -> Result<(), RunError> {
    let mut host = ServiceHost::open("deploy-svc", &config, wiring, shutdown).await?;
    let settings = config.settings;
    let catalog = CatalogStore::open(&settings.catalog)
        .and_then(|catalog| catalog.within(settings.configured()))
        .map_err(RunError::other("catalog"))?;
    let catalog = Arc::new(catalog);
    let clusters = Clusters::open(&settings.clusters)
        .await
        .map_err(RunError::other("clusters"))?;
    let ledger = host.ledger().clone();
    let changes = Changes::new(settings.gitops.connect("gitops")?);
    let builds = Builds::new(settings.build.connect("build")?);
    let releases = ReleaseEffects {
        ledger: ledger.clone(),
        builds: Arc::new(builds.clone()),
        tags: Arc::new(builds),
        approvals: Arc::new(Approvals::new(settings.approval.connect("approval")?)),
        changes: Arc::new(changes.clone()),
        deployments: Arc::new(Deployments::new(ledger.clone())),
        clusters: clusters.clone(),
    };
    let canary_watches = CanaryWatchEffects {
        clusters: clusters.clone(),
        reverts: Arc::new(changes.clone()),
    };
    let deployments = DeploymentEffects::new(clusters.clone(), Arc::new(changes.clone()))
        .reverts(Arc::new(changes.clone()))
        .checker(Checker::new(&settings.checks))
        .prometheus(settings.open_prometheus()?);
    let deployments = injected.unwrap_or_else(|| Arc::new(deployments));

    host.execute(|executor| {
        executor
            .concurrency(settings.concurrency)
            .lease(LEASE)
            .register::<Release>(Arc::new(releases))
            .register::<Deployment>(deployments)
            .register::<CanaryWatch>(Arc::new(canary_watches))
    });
    let spans = SpanSink {
        ledger: ledger.clone(),
        spans: host.telemetry().step_spans(),
        metrics: host.telemetry().metrics().clone(),
    };
    host.relay("spans", Arc::new(spans));
    let (bus, replica) = (host.bus().clone(), host.replica().to_owned());
    host.background("hints", |stop| hints::listen(ledger.clone(), bus, replica, stop));
    host.background("catalog", |stop| catalog.as_ref().clone().follow(stop));

    let limit = host.max_message_bytes();
    let releases = ReleaseApi::new(ledger.clone(), catalog.clone());
    let deployments = DeployApi::new(ledger, catalog, clusters, Arc::new(changes));
    host.grpc(ReleaseServiceServer::new(releases).max_decoding_message_size(limit))
        .grpc(DeployServiceServer::new(deployments).max_decoding_message_size(limit))
        .serve()
        .await
}
