//! build-svc: fetches one commit, builds it once, pushes the image and gives it its names.

mod backends;
pub mod build;
mod builders;
pub mod config;
mod effects;
mod git;
mod grpc;
mod layout;
mod logs;
mod process;
mod redact;
mod registries;
pub mod repository;
pub mod spec;
mod stop;
mod workspace;

#[cfg(test)]
mod backends_tests;

use std::sync::Arc;

use slipway_ledger::Effects;
use slipway_proto::build::v1::build_service_server::BuildServiceServer;
use slipway_server::{RunError, ServiceHost, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{build::Build, effects::Worker, grpc::BuildGrpc, logs::Logs, workspace::Workspace};

/// Runs the service until `shutdown`, then drains. Builds that are under way when it ends are taken up again by another
/// replica, or at the next start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    serve(config, wiring, shutdown, None).await
}

/// For measurements of what is around the builds.
#[doc(hidden)]
pub mod testing {
    use super::{Arc, Build, CancellationToken, Config, Effects, RunError, Wiring};

    /// As [`run`](super::run), with these effects in place of fetching, building and pushing.
    ///
    /// # Errors
    /// As [`run`](super::run).
    pub async fn run_with(
        effects: Arc<dyn Effects<Build>>,
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
    injected: Option<Arc<dyn Effects<Build>>>,
) -> Result<(), RunError> {
    let mut host = ServiceHost::open("build-svc", &config, wiring, shutdown).await?;
    let settings = config.settings;
    let backends = settings.backends()?;
    let logs = Logs::in_folder(
        &settings.logs.directory,
        settings.logs.max_bytes,
        backends.redactor.clone(),
    )
    .map_err(RunError::other("logs.directory"))?;
    let workspace = Workspace::open(&settings.data_dir).map_err(RunError::other("data_dir"))?;
    effects::forget_images_of_ended(host.ledger(), &workspace).await;
    let effects = injected.unwrap_or_else(|| {
        Arc::new(Worker::new(
            host.ledger().clone(),
            backends.clone(),
            logs.clone(),
            workspace,
            host.telemetry().clone(),
        ))
    });
    host.execute(|executor| {
        executor
            .concurrency(settings.limits.concurrency)
            .register::<Build>(effects)
    });
    let api = BuildGrpc::new(host.ledger().clone(), &settings, backends, logs);
    let api = BuildServiceServer::new(api).max_decoding_message_size(host.max_message_bytes());
    host.grpc(api).serve().await
}
