//! What has happened, on the wire: the [`Envelope`] (CloudEvents 1.0) and the [`Bus`] that carries it.
//!
//! # How Redis streams are used here
//!
//! A Redis stream is an append-only list of *entries*. An entry has an id `<ms>-<n>` that Redis assigns in increasing
//! order, and fields with values. Readers come in *consumer groups*: a group remembers the last id that it handed out,
//! gives each entry to one of its *consumers*, and keeps the entry on its *pending list* (with owner, idle time and
//! number of deliveries) until it is acknowledged.
//!
//! * **Streams.** One per producing service (its *origin*): `slipway:build`, `slipway:gitops` and so on. Only the
//!   relay of that service writes to it, in order per aggregate, at least once. Each write also trims what is older
//!   than the retention time (`MINID ~`).
//! * **Groups.** One per reading service, created at `0` so that a new reader sees everything that is retained; one
//!   consumer per replica. If Redis was emptied, reading returns `NOGROUP` and the group is created again.
//! * **Delivery.** At least once. Entries of one aggregate are handled one after the other in stream order, those of
//!   different aggregates concurrently, up to a limit. An entry is acknowledged after its handler returned `Ok`;
//!   acknowledgements are sent in batches.
//! * **Failure.** An entry whose handler fails, panics or takes too long stays pending and is tried again after a
//!   growing delay, while those behind it go on. After [`BusConfig::max_deliveries`] it is copied to `slipway:dead`
//!   with the reason and acknowledged, in one transaction. An entry that is not an envelope goes there at once.
//! * **Death.** A consumer keeps the idle time of the entries that it holds low. Entries of a consumer that died become
//!   idle, and after [`BusConfig::claim_idle`] another consumer of the group claims them. An entry that has killed
//!   several consumers is dead-lettered by its delivery count. Consumers that have been idle for long with nothing
//!   pending are deleted.
//! * **Outage.** Publishing reports it at once and the caller (the relay) tries again. Reading reconnects for ever,
//!   with back-off; an outage is logged once. Nothing here may keep a service from starting without Redis.
//!
//! What is on the stream is a *hint*: a reader asks the producing service for the state. So a fact that is lost, late,
//! duplicated or reordered costs one read.
//!
//! Redis 6.2 or newer is needed (`XAUTOCLAIM`, `MINID`). A reader reads all its streams with one command; on a Redis
//! Cluster that would need all of them in one slot, which these keys do not provide for: use a plain or Sentinel
//! set-up.
//!
//! [`MemoryBus`] gives the same semantics inside one process.

mod config;
mod dispatch;
mod entry;
mod envelope;
mod memory;
mod streams;

use std::sync::Arc;

use async_trait::async_trait;
pub use config::BusConfig;
pub use entry::EntryId;
pub use envelope::{Envelope, EnvelopeBuilder, EnvelopeError, MAX_DATA_BYTES, type_name};
pub use memory::MemoryBus;
use slipway_model::{Fault, Timestamp};
pub use streams::RedisBus;
pub use tokio_util::sync::CancellationToken;

/// Carries envelopes from the services' relays to the groups that read them. See the crate's documentation for the
/// semantics, which are the same for every implementation.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Appends the envelopes, all of one origin, in order, and returns the id of the last entry. Either all are
    /// appended or, on an error, an unknown part may be: publish again, since readers cope with duplicates. An empty
    /// batch writes nothing and returns the last id there is (`0-0` when there is none).
    async fn publish(&self, batch: &[Envelope]) -> Result<String, BusError>;

    /// The highest id that the origin's stream ever assigned, even if that entry has been trimmed. `None` when nothing
    /// was published, or the bus has lost it. If it is lower than what a relay remembers, the relay must publish again.
    /// Compare as [`EntryId`], not as text.
    async fn last_entry(&self, origin: &str) -> Result<Option<String>, BusError>;

    /// Reads the origins' streams as `consumer` of `group` until `shutdown`; then waits for the running handlers, and
    /// acknowledges what they handled. Ends only by shutdown: failures are retried for ever.
    async fn consume(
        &self,
        origins: &[&str],
        group: &str,
        consumer: &str,
        handler: Arc<dyn Handler>,
        shutdown: CancellationToken,
    );

    /// The newest dead letters, newest first, at most `limit`.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BusError>;
}

/// What a group does with an event.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one event, idempotently: it may come again. It is acknowledged when this returns `Ok`.
    ///
    /// # Errors
    /// The reason, in words. After a transient fault it is delivered again later; after a permanent one it goes to the
    /// dead letters.
    async fn handle(&self, event: &Envelope) -> Result<(), Fault<String>>;
}

/// An entry that a group gave up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The origin of the stream it was read from.
    pub origin: String,
    /// Its id in that stream.
    pub entry: String,
    /// The group that gave up.
    pub group: String,
    /// Why.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
    /// When it was given up.
    pub at: Timestamp,
    /// The fields as they were read, sorted by name.
    pub fields: Vec<(String, String)>,
}

/// Why the bus could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus is unreachable or refused; try again later. The text does not contain credentials.
    #[error("event bus: {0}")]
    Unavailable(String),
    /// The URL of the bus is not valid. It is not shown, since it may contain a password.
    #[error(
        "event bus: the url is not valid ({0}): write redis://[user:password@]host:port[/db], or rediss:// for TLS"
    )]
    Url(String),
    /// A batch has one origin, since it is written to one stream.
    #[error("event batch: has events of {first:?} and of {other:?}: publish one origin at a time")]
    MixedOrigins { first: String, other: String },
}
