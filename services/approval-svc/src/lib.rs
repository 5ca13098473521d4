//! approval-svc: holds something until the right people said yes, and can say who did.

pub mod approval;
pub mod config;
pub mod effects;
mod grpc;
pub mod people;
pub mod policy;
mod watch;

use std::sync::Arc;

use slipway_ledger::Executor;
use slipway_proto::approval::v1::approval_service_server::ApprovalServiceServer;
use slipway_server::{RunError, Server, Wiring, ledger, spawn_relay};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{approval::Approval, effects::Timers, grpc::Api};

/// The service's name in events: `/slipway/approval`.
pub const ORIGIN: &str = "approval";

/// Runs until `shutdown`; then drains.
///
/// # Errors
/// A database that cannot be opened, a configuration that cannot be served.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    let Wiring {
        listener,
        bus,
        telemetry,
    } = wiring;
    let replica = format!(
        "approval-svc@{}",
        listener.local_addr().map_err(RunError::other("listener"))?
    );
    let ledger = ledger::open(&config.database, ORIGIN, &replica).await?;

    // They outlive the server, so that what its last requests decided is still timed and published.
    let background = CancellationToken::new();
    let executor = Executor::builder(ledger.clone())
        .register::<Approval>(Arc::new(Timers))
        .spawn(background.clone());
    let relay = spawn_relay(&ledger, bus, background.clone());

    let api = ApprovalServiceServer::new(Api::new(ledger.clone(), &config))
        .max_decoding_message_size(config.server.max_message_bytes);
    let served = Server::builder("approval-svc", &config.server, slipway_proto::DESCRIPTORS)?
        .telemetry(&telemetry)
        .service(api)
        .serve(listener, shutdown)
        .await;

    background.cancel();
    executor.drain().await;
    relay.drain().await;
    ledger.close().await;
    Ok(served?)
}
