//! approval-svc: holds a change back until the right people have approved it, and records who did.
//!
//! The crate `approval-domain` decides. [`run`] serves it: `api` is the gRPC interface, `effects` carries out what the
//! decider asks for, `config` is the configuration file. There is no outside system, and so no `backends`.

mod api;
mod config;
mod effects;

use std::sync::Arc;

use approval_domain::approval::Approval;
use slipway_proto::approval::v1::approval_service_server::ApprovalServiceServer;
use slipway_server::{RunError, ServiceHost, Wiring};
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::{api::Api, effects::Timers};

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
