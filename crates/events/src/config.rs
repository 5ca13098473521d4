//! Timing and size limits of a bus.

use std::time::Duration;

/// Timing and bounds of a bus. The defaults suit production; tests make them small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// Entries older than this are trimmed when new ones are written. Readers that were away for longer miss events,
    /// which delays them until their timers fire.
    pub retention: Duration,
    /// How often an entry is delivered before it is dead-lettered.
    pub max_deliveries: u32,
    /// The delay before a failed entry's second delivery; it doubles with each further one.
    pub retry_delay: Duration,
    /// The longest delay between deliveries.
    pub max_retry_delay: Duration,
    /// Entries that their consumer has not touched for this long can be claimed by others.
    pub claim_idle: Duration,
    /// Consumers that have not read for this long and have nothing pending are deleted.
    pub consumer_idle: Duration,
    /// Handlers that run at once, per call of `consume`.
    pub concurrency: usize,
    /// Entries held in memory, running or waiting, per call of `consume`.
    pub buffer: usize,
    /// A handler that takes longer counts as failed.
    pub handler_timeout: Duration,
    /// Dead letters that are kept.
    pub dead_letters: usize,
    /// In-process bus only: entries kept per stream.
    pub memory_entries: usize,
    /// In-process bus only: bytes of envelopes kept per stream.
    pub memory_bytes: usize,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 3600),
            max_deliveries: 8,
            retry_delay: Duration::from_millis(200),
            max_retry_delay: Duration::from_secs(15),
            claim_idle: Duration::from_secs(30),
            consumer_idle: Duration::from_secs(3600),
            concurrency: 32,
            buffer: 256,
            handler_timeout: Duration::from_secs(30),
            dead_letters: 10_000,
            memory_entries: 4096,
            memory_bytes: 8 << 20,
        }
    }
}

impl BusConfig {
    /// The delay before the next delivery of an entry that was delivered `deliveries` times.
    pub(crate) fn delay_after(&self, deliveries: u32) -> Duration {
        let doublings = deliveries.saturating_sub(1).min(16);
        self.retry_delay
            .saturating_mul(1 << doublings)
            .min(self.max_retry_delay)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::BusConfig;

    #[test]
    fn delays_double_up_to_the_longest() {
        let config = BusConfig {
            retry_delay: Duration::from_millis(200),
            max_retry_delay: Duration::from_secs(1),
            ..BusConfig::default()
        };
        let delays: Vec<u128> = [1, 2, 3, 4, 1000]
            .iter()
            .map(|&n| config.delay_after(n).as_millis())
            .collect();
        assert_eq!(delays, [200, 400, 800, 1000, 1000]);
    }
}
