//! build-svc: fetches one commit, builds it once, pushes the image and tags it.

mod api;
mod backends;
mod config;
mod effects;

use std::sync::Arc;

use build_domain::build::Build;
use slipway_ledger::Effects;
use slipway_proto::build::v1::build_service_server::BuildServiceServer;
use slipway_server::{ConfigError, RunError, ServiceHost, ServiceSettings, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{
    api::BuildApi,
    backends::{Backends, logs::Logs, workspace::Workspace},
    config::Settings,
    effects::Worker,
};

/// Runs the service until `shutdown`, then drains. Builds that are under way when it ends are resumed by another replica,
/// or at the next start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    serve(config, wiring, shutdown, None).await
}

/// For measurements of all that is around the builds.
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

impl ServiceSettings for Settings {
    fn check(&self) -> Result<(), ConfigError> {
        self.check_values()
    }

    fn check_files(&self) -> Result<(), ConfigError> {
        Backends::open(self).map(drop)
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
    let backends = Backends::open(&settings)?;
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
    let api = BuildApi::new(host.ledger().clone(), &settings, backends, logs);
    let api = BuildServiceServer::new(api).max_decoding_message_size(host.max_message_bytes());
    host.grpc(api).serve().await
}
