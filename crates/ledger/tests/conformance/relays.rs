//! The relay publishes everything, in order, whatever happens to it and to the sink.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use pretty_assertions::assert_eq;
use slipway_ledger::{Relay, RelayConfig, Sink, SinkError, StoredEvent};
use slipway_testbed::{eventually, holds};
use tokio_util::sync::CancellationToken;

use crate::support::{Database, Event, id, record};

conformance! {
    everything_is_published_once_and_in_order,
    a_failing_sink_gets_it_again,
    what_the_sink_lost_is_published_again,
}

/// A stream in memory that numbers its entries as Redis does.
#[derive(Default)]
struct Memory(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    events: Vec<StoredEvent>,
    /// Never lowered by itself, as a clock is not.
    last: Option<u64>,
    clock: u64,
    failures: u32,
}

impl Memory {
    fn seqs(&self) -> Vec<u64> {
        self.0
            .lock()
            .unwrap()
            .events
            .iter()
            .map(|event| event.seq)
            .collect()
    }
}

#[async_trait]
impl Sink for Memory {
    async fn publish(&self, batch: &[StoredEvent]) -> Result<String, SinkError> {
        let mut entries = self.0.lock().unwrap();
        if entries.failures > 0 {
            entries.failures -= 1;
            return Err(SinkError::new("away"));
        }
        entries.clock += batch.len() as u64;
        entries.last = Some(entries.clock);
        entries.events.extend_from_slice(batch);
        Ok(format!("{}-0", entries.clock))
    }

    async fn last_entry(&self) -> Result<Option<String>, SinkError> {
        Ok(self.0.lock().unwrap().last.map(|last| format!("{last}-0")))
    }
}

fn config() -> RelayConfig {
    RelayConfig {
        batch: 7,
        check_every: Duration::from_millis(50),
        lease: Duration::from_secs(3),
        ..RelayConfig::default()
    }
}

async fn everything_is_published_once_and_in_order(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let sink = Arc::new(Memory::default());
    let stop = CancellationToken::new();
    let relays: Vec<Relay> = replicas
        .iter()
        .map(|ledger| Relay::spawn(ledger.clone(), Arc::clone(&sink) as _, config(), stop.clone()))
        .collect();
    for n in 0..60 {
        record(&replicas[n % 2], &id("one"), vec![Event::Added { amount: 1 }]).await;
    }
    eventually("all is published", async || {
        holds(sink.seqs().len(), |seen| *seen >= 60)
    })
    .await;
    stop.cancel();
    for relay in relays {
        relay.drain().await;
    }
    assert_eq!(sink.seqs(), (1..=60).collect::<Vec<_>>());

    // The next one goes on where the last one ended, at once: the lease was given back.
    record(&replicas[0], &id("one"), vec![Event::Added { amount: 1 }]).await;
    let stop = CancellationToken::new();
    let relay = Relay::spawn(
        replicas[1].clone(),
        Arc::clone(&sink) as _,
        config(),
        stop.clone(),
    );
    eventually("the rest is published", async || {
        holds(sink.seqs().len(), |seen| *seen >= 61)
    })
    .await;
    stop.cancel();
    relay.drain().await;
    assert_eq!(sink.seqs(), (1..=61).collect::<Vec<_>>());
}

async fn a_failing_sink_gets_it_again(database: Database) {
    let ledger = database.open().await;
    let sink = Arc::new(Memory::default());
    sink.0.lock().unwrap().failures = 3;
    for _ in 0..10 {
        record(&ledger, &id("one"), vec![Event::Added { amount: 1 }]).await;
    }
    let stop = CancellationToken::new();
    let relay = Relay::spawn(ledger.clone(), Arc::clone(&sink) as _, config(), stop.clone());
    eventually("all is published", async || {
        holds(sink.seqs().len(), |seen| *seen >= 10)
    })
    .await;
    stop.cancel();
    relay.drain().await;
    assert_eq!(sink.seqs(), (1..=10).collect::<Vec<_>>());
}

async fn what_the_sink_lost_is_published_again(database: Database) {
    let ledger = database.open().await;
    let sink = Arc::new(Memory::default());
    for _ in 0..10 {
        record(&ledger, &id("one"), vec![Event::Added { amount: 1 }]).await;
    }
    let stop = CancellationToken::new();
    let relay = Relay::spawn(ledger.clone(), Arc::clone(&sink) as _, config(), stop.clone());
    eventually("all is published", async || {
        holds(sink.seqs().len(), |seen| *seen >= 10)
    })
    .await;

    // Emptied while nothing happens.
    {
        let mut entries = sink.0.lock().unwrap();
        entries.events.clear();
        entries.last = None;
    }
    eventually("all is published again", async || {
        holds(sink.seqs().len(), |seen| *seen >= 10)
    })
    .await;
    assert_eq!(sink.seqs(), (1..=10).collect::<Vec<_>>());

    // Restored from an older snapshot while the relay is away.
    stop.cancel();
    relay.drain().await;
    {
        let mut entries = sink.0.lock().unwrap();
        entries.events.truncate(4);
        entries.last = entries.last.map(|last| last - 6);
    }
    record(&ledger, &id("one"), vec![Event::Added { amount: 1 }]).await;
    let stop = CancellationToken::new();
    let relay = Relay::spawn(ledger, Arc::clone(&sink) as _, config(), stop.clone());
    eventually("the window is published again", async || {
        holds(sink.seqs().len(), |seen| *seen >= 15)
    })
    .await;
    stop.cancel();
    relay.drain().await;
    assert_eq!(sink.seqs()[4..], (1..=11).collect::<Vec<_>>());
}
