//! Facts from the stream, treated as hints: each makes the release or deployment that it correlates with due, and
//! nothing more. What that knows afterwards it has read from the service itself; so a fact that is lost, late,
//! duplicated or forged costs one read.

use std::sync::Arc;

use async_trait::async_trait;
use deploy_domain::{deployment::Deployment, release::Release};
use slipway_events::{Bus, Envelope, Handler};
use slipway_ledger::{Decider, Ledger};
use slipway_model::{Fault, Id};
use tokio_util::sync::CancellationToken;

/// The services whose facts concern releases. This service's own deployments are among them.
const ORIGINS: [&str; 4] = ["build", "gitops", "approval", "deploy"];
/// The consumer group of all replicas of this service.
const GROUP: &str = "deploy";

struct Hints {
    ledger: Ledger,
}

#[async_trait]
impl Handler for Hints {
    async fn handle(&self, event: &Envelope) -> Result<(), Fault<String>> {
        // Facts about releases and lanes do not carry a correlation id, and those of others may carry anything.
        let Ok(id) = event.correlation().parse::<Id>() else {
            return Ok(());
        };
        // What a standalone deployment orders (a revert) carries the deployment's id.
        let kind = if id.as_str().starts_with("dep-") {
            Deployment::KIND
        } else {
            Release::KIND
        };
        self.ledger
            .hint(kind, &id)
            .await
            .map_err(|error| Fault::transient(error.to_string()))
    }
}

/// Listens until `shutdown`.
pub(crate) async fn listen(ledger: Ledger, bus: Arc<dyn Bus>, replica: String, shutdown: CancellationToken) {
    let handler = Arc::new(Hints { ledger });
    bus.consume(&ORIGINS, GROUP, &replica, handler, shutdown).await;
}
