//! The relay: sends a sink what is in the feed, in order, at least once.
//!
//! One replica at a time does it, under a named lease. The cursor is saved after the sink took a batch, so a crash in
//! between publishes that batch again. It is stored with the id of the last entry that the sink wrote: a sink whose own
//! last entry is lower has lost data (a Redis that was emptied, or restored from an older snapshot), and gets the
//! retention window again.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    Ledger, LedgerError, StoredEvent, feed,
    rows::{Position, Start},
};

/// How long the last batch may take after the shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Where events go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Writes the batch in order, and returns the id of the last entry. After an error, the batch comes again.
    async fn publish(&self, batch: &[StoredEvent]) -> Result<String, SinkError>;
    /// The id of the last entry in the stream; `None` when it is empty.
    async fn last_entry(&self) -> Result<Option<String>, SinkError>;
}

/// Why the sink did not accept it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SinkError(Box<dyn std::error::Error + Send + Sync>);

impl SinkError {
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// How the relay works.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Names the lease and the cursor: one for each sink.
    pub name: String,
    /// How far back to publish again when the sink has lost data.
    pub retention: Duration,
    /// Events in one batch, at most.
    pub batch: u32,
    /// How long a dead relay keeps the others waiting.
    pub lease: Duration,
    /// How often to check, when nothing happens, whether the sink still has its data.
    pub check_every: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            name: "relay".to_owned(),
            retention: Duration::from_secs(7 * 24 * 3600),
            batch: 256,
            lease: Duration::from_secs(10),
            check_every: Duration::from_secs(5),
        }
    }
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    task: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the sink failed: {0}")]
    Sink(#[from] SinkError),
}

impl Relay {
    /// Starts it; it ends, and gives its lease back, when `shutdown` is cancelled.
    pub fn spawn(
        ledger: Ledger,
        sink: Arc<dyn Sink>,
        config: RelayConfig,
        shutdown: CancellationToken,
    ) -> Self {
        let mut relaying = Relaying {
            ledger,
            sink,
            config,
            at: None,
        };
        Self {
            task: tokio::spawn(async move { relaying.run(&shutdown).await }),
        }
    }

    /// Waits until it has ended after the shutdown.
    pub async fn drain(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the relay failed");
        }
    }
}

struct Relaying {
    ledger: Ledger,
    sink: Arc<dyn Sink>,
    config: RelayConfig,
    /// Our position, while the lease is ours: feed position and the last entry's id.
    at: Option<(Position, Option<String>)>,
}

impl Relaying {
    async fn run(&mut self, shutdown: &CancellationToken) {
        let mut ticks = self.ledger.shared.hub.ticks();
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            ticks.mark_unchanged();
            // A batch that the sink accepted is also recorded as such, unless that takes too long.
            let too_late = async {
                shutdown.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let pause = tokio::select! {
                () = too_late => break,
                result = self.step() => match result {
                    Ok(Some(pause)) => pause,
                    Ok(None) => Duration::ZERO,
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        tracing::warn!(%error, failures, "publishing failed; retrying");
                        self.at = None;
                        let most = Duration::from_millis(100 << failures.min(6));
                        tokio::time::sleep(most.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                        continue;
                    }
                },
            };
            failures = 0;
            if !pause.is_zero() {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    _ = ticks.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        if let Err(error) = self.ledger.shared.store.unlease(&self.config.name).await {
            tracing::debug!(%error, "the relay's lease will lapse by itself");
        }
    }

    /// Publishes one batch. `Some`: nothing more to do for that long, unless something is appended.
    async fn step(&mut self) -> Result<Option<Duration>, RelayError> {
        let store = Arc::clone(&self.ledger.shared.store);
        let config = &self.config;
        if !store.lease(&config.name, config.lease).await? {
            self.at = None;
            return Ok(Some(config.lease / 3));
        }
        let (mut position, mut last) = match self.at.take() {
            Some(at) => at,
            None => {
                let (position, last) = store.relay(&config.name).await?.unwrap_or_default();
                (store.feed_resume(position).await?, last)
            }
        };
        // Asked before every batch: lost data is noticed before new entries hide it.
        if let Some(known) = &last
            && self
                .sink
                .last_entry()
                .await?
                .is_none_or(|found| compare(&found, known) == Ordering::Less)
        {
            let since = self.ledger.now().as_micros() - crate::store::micros(config.retention);
            let start = store
                .feed_start(Start::Since(slipway_model::Timestamp::from_micros(since)))
                .await?;
            tracing::info!(
                known,
                "the sink lost entries: publishing the retention window again"
            );
            (position, last) = (start.min(position), None);
            store.save_relay(&config.name, position, None).await?;
        }
        let rows = store.feed(position, config.batch).await?;
        let full = rows.len() >= config.batch as usize;
        let Some(end) = rows.last().map(|row| row.position) else {
            self.at = Some((position, last));
            return Ok(Some(
                config
                    .check_every
                    .min(config.lease / 3)
                    .min(Duration::from_secs(1)),
            ));
        };
        let batch = rows
            .into_iter()
            .map(feed::stored)
            .collect::<Result<Vec<_>, _>>()?;
        let entry = self.sink.publish(&batch).await?;
        if store.save_relay(&config.name, end, Some(&entry)).await? {
            self.at = Some((end, Some(entry)));
        }
        Ok(if full {
            None
        } else {
            Some(
                config
                    .check_every
                    .min(config.lease / 3)
                    .min(Duration::from_secs(1)),
            )
        })
    }
}

/// Entry ids are `<milliseconds>-<number>`, as Redis writes them, or compare as texts.
fn compare(a: &str, b: &str) -> Ordering {
    let parts = |id: &str| -> Option<(u64, u64)> {
        let (time, number) = id.split_once('-').unwrap_or((id, "0"));
        Some((time.parse().ok()?, number.parse().ok()?))
    };
    match (parts(a), parts(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::compare;

    #[test]
    fn entry_ids_compare_as_numbers() {
        assert_eq!(compare("9-1", "10-0"), Ordering::Less);
        assert_eq!(compare("10-2", "10-11"), Ordering::Less);
        assert_eq!(compare("7", "7-0"), Ordering::Equal);
        assert_eq!(compare("b", "a"), Ordering::Greater);
    }
}
