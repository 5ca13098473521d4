//! Facts from the stream, taken as hints: each makes due the release that it correlates with, and nothing more.
//! What a release then knows, it read from the owner itself; so a fact lost, late, doubled or forged costs one read.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_events::{Bus, Envelope, Handler, HandlerError};
use slipway_ledger::{Decider, Ledger};
use slipway_model::Id;
use tokio_util::sync::CancellationToken;

use crate::release::Release;

/// The services whose facts concern releases. This service's own deployments are among them.
const ORIGINS: [&str; 4] = ["build", "gitops", "approval", "deploy"];
/// The consumer group of all replicas of this service.
const GROUP: &str = "deploy";

struct Hints {
    ledger: Ledger,
}

#[async_trait]
impl Handler for Hints {
    async fn handle(&self, event: &Envelope) -> Result<(), HandlerError> {
        // Facts of releases and lanes carry no correlation id, and those of others may carry anything.
        let Ok(release) = event.correlation().parse::<Id>() else {
            return Ok(());
        };
        self.ledger
            .hint(Release::KIND, &release)
            .await
            .map_err(HandlerError::retry)
    }
}

/// Listens until `shutdown`.
pub async fn listen(ledger: Ledger, bus: Arc<dyn Bus>, replica: String, shutdown: CancellationToken) {
    let handler = Arc::new(Hints { ledger });
    bus.consume(&ORIGINS, GROUP, &replica, handler, shutdown).await;
}
