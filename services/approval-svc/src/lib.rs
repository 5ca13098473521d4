//! approval-svc: holds something until the right people said yes, and can say who did.

pub mod approval;
pub mod config;
pub mod effects;
mod grpc;
pub mod people;
pub mod policy;
pub mod subject;

use std::sync::Arc;

use slipway_proto::approval::v1::approval_service_server::ApprovalServiceServer;
use slipway_server::{RunError, ServiceHost, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{approval::Approval, effects::Timers, grpc::Api};

/// Runs the service until `shutdown`, then drains.
///
/// # Errors
/// What keeps the service from starting, and what ends it other than `shutdown`.
pub async fn run(config: Config, wiring: Wiring, shutdown: CancellationToken) -> Result<(), RunError> {
    let mut host = ServiceHost::open("approval-svc", &config, wiring, shutdown).await?;
    host.execute(|executor| executor.register::<Approval>(Arc::new(Timers)));
    let api = Api::new(host.ledger().clone(), &config);
    let api = ApprovalServiceServer::new(api).max_decoding_message_size(host.max_message_bytes());
    host.grpc(api).serve().await
}
