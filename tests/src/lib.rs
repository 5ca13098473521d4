//! What the journeys across services have in common: the four services as processes of their own, on real PostgreSQL,
//! Redis, git, image builds and a cluster, and clients with people behind them.
//!
//! Everything here is for tests and figures: it panics where a test would, with words that say what was waited for.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // helpers of tests

pub mod clients;
pub mod cluster;
pub mod configs;
pub mod embedded;
pub mod process;
pub mod programs;
pub mod scene;
pub mod suite;

use std::time::Duration;

pub use clients::{Clients, Person};
pub use scene::{Application, GitOps, Version};
pub use suite::{Options, Suite};

/// Longer than anything takes on a busy machine, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The result of `future`, or a panic that says what did not happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => panic!("{what} did not happen within {} s", PATIENCE.as_secs()),
    }
}
