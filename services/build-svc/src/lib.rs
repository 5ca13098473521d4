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
mod workspace;

#[cfg(test)]
mod backends_tests;

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use slipway_ledger::Executor;
use slipway_server::{RunError, Server, ServiceConfig, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{build::Build, effects::Worker, grpc::BuildGrpc, logs::Logs, workspace::Workspace};

/// How long a replica that vanished keeps its builds from the others.
const LEASE: Duration = Duration::from_secs(15);

// The boxes keep `run`'s future `Send` for those who spawn it: the compiler cannot see that through borrows in arguments.
/// Runs the service until `shutdown`, then drains. Builds that are under way when it ends are taken up again by another
/// replica, or at the next start.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    config.check()?;
    let backends = config.backends()?;
    let replica = std::env::var("HOSTNAME").unwrap_or_else(|_| "build-svc".to_owned());
    let ledger = slipway_server::ledger::open(&config.database, "build", &replica)
        .boxed()
        .await?;
    let logs = Logs::in_folder(
        &config.logs.directory,
        config.logs.max_bytes,
        backends.redactor.clone(),
    )
    .map_err(RunError::other("logs.directory"))?;
    let workspace = Workspace::open(&config.work_directory).map_err(RunError::other("work_directory"))?;
    effects::forget_images_of_ended(&ledger, &workspace).boxed().await;

    let worker = Worker::new(
        ledger.clone(),
        backends.clone(),
        logs.clone(),
        workspace,
        wiring.telemetry.clone(),
    );
    let executor = Executor::builder(ledger.clone())
        .concurrency(config.limits.concurrency)
        .lease(LEASE)
        .register::<Build>(Arc::new(worker))
        .spawn(shutdown.clone());
    let relay = slipway_server::spawn_relay(&ledger, wiring.bus, shutdown.clone());
    let grpc =
        BuildGrpc::new(ledger.clone(), &config, backends, logs).into_server(config.server.max_message_bytes);
    let served = match Server::builder("build-svc", &config.server, slipway_proto::DESCRIPTORS) {
        Ok(server) => {
            server
                .telemetry(&wiring.telemetry)
                .service(grpc)
                .serve(wiring.listener, shutdown.clone())
                .await
        }
        Err(error) => Err(error),
    };
    // Also when the server could not serve.
    shutdown.cancel();
    executor.drain().await;
    relay.drain().await;
    ledger.close().await;
    served.map_err(Into::into)
}
