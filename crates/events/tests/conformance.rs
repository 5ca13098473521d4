//! One suite over both buses: the semantics in the crate's documentation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use slipway_events::{Bus, BusConfig, BusError, EntryId, Envelope, MemoryBus, RedisBus};
use slipway_model::Fault;
use slipway_testbed::{Redis, within};
use support::{Run, Running, dead, event, events, quick, recorder, reporting};
use tokio::sync::{Notify, Semaphore};

/// A bus, and what keeps it.
struct Fixture {
    bus: Arc<dyn Bus>,
    redis: Option<Redis>,
    memory: Option<MemoryBus>,
}

impl Fixture {
    fn memory(config: BusConfig) -> Self {
        let bus = MemoryBus::new(config);
        Self {
            bus: Arc::new(bus.clone()),
            redis: None,
            memory: Some(bus),
        }
    }

    async fn redis(config: BusConfig) -> Self {
        let redis = Redis::start().await.unwrap();
        Self {
            bus: Arc::new(RedisBus::with_config(&redis.url(), config).unwrap()),
            redis: Some(redis),
            memory: None,
        }
    }

    async fn lose_everything(&self) {
        if let Some(redis) = &self.redis {
            redis.flush_all().await.unwrap();
        }
        if let Some(memory) = &self.memory {
            memory.clear();
        }
    }

    async fn publish(&self, batch: &[Envelope]) -> EntryId {
        self.bus.publish(batch).await.unwrap().parse().unwrap()
    }
}

macro_rules! on_both {
    ($($name:ident with $config:expr;)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                super::$name(Fixture::memory($config)).await;
            })*
        }
        mod redis {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                super::$name(Fixture::redis($config).await).await;
            })*
        }
    };
}

on_both! {
    each_group_gets_each_event_once_over_its_consumers with quick();
    events_of_an_aggregate_are_handled_in_order with quick();
    a_new_group_sees_what_is_retained with quick();
    several_streams_are_read_together with quick();
    a_failure_is_delivered_again_and_holds_nothing_up with quick();
    what_keeps_failing_is_dead_lettered_with_the_reason with quick();
    a_rejection_is_dead_lettered_at_once with quick();
    a_panic_is_a_failure with quick();
    a_handler_that_takes_too_long_has_failed with BusConfig { handler_timeout: Duration::from_millis(50), ..quick() };
    the_entries_of_a_killed_consumer_are_claimed with quick();
    a_slow_handler_stalls_nobody with BusConfig { concurrency: 4, buffer: 16, ..quick() };
    no_more_handlers_run_than_allowed with BusConfig { concurrency: 3, ..quick() };
    shutdown_waits_for_what_runs_and_acknowledges_it with quick();
    what_is_held_is_not_claimed_from_the_living with quick();
    entries_are_trimmed_by_age with BusConfig { retention: Duration::from_millis(200), ..quick() };
    the_last_entry_is_known_until_it_is_lost with quick();
    a_batch_has_one_origin with quick();
    losing_everything_is_survived with quick();
}

async fn each_group_gets_each_event_once_over_its_consumers(on: Fixture) {
    let (one, mut by_one) = recorder();
    let (two, mut by_two) = recorder();
    let first = Running::start(&on.bus, "deploy", "deploy-1", one.clone());
    let second = Running::start(&on.bus, "deploy", "deploy-2", one);
    let other = Running::start(&on.bus, "bots", "bots-1", two);

    let mut all = HashSet::new();
    for aggregate in 0..20 {
        let batch = events("build", &format!("bld-{aggregate}"), 1..=10);
        all.extend(batch.iter().map(Envelope::event_id));
        on.publish(&batch).await;
    }

    for seen in [&mut by_one, &mut by_two] {
        let ids: HashSet<String> = seen.take(200).await.iter().map(Envelope::event_id).collect();
        assert_eq!(ids, all);
    }
    for running in [first, second, other] {
        running.stop().await;
    }
    assert!(by_one.is_empty() && by_two.is_empty());
}

async fn events_of_an_aggregate_are_handled_in_order(on: Fixture) {
    let (handler, mut seen) = reporting(|event: Envelope| async move {
        // Others overtake in between.
        for _ in 0..event.seq() % 3 {
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    for seq in 1..=50 {
        let batch: Vec<Envelope> = (0..5).map(|n| event("build", &format!("bld-{n}"), seq)).collect();
        on.publish(&batch).await;
    }

    let mut by_aggregate: HashMap<String, Vec<u64>> = HashMap::new();
    for event in seen.take(250).await {
        by_aggregate.entry(event.subject()).or_default().push(event.seq());
    }
    running.stop().await;
    assert_eq!(by_aggregate.len(), 5);
    for (aggregate, seqs) in by_aggregate {
        assert_eq!(seqs, (1..=50).collect::<Vec<u64>>(), "{aggregate}");
    }
}

async fn a_new_group_sees_what_is_retained(on: Fixture) {
    on.publish(&events("build", "bld-1", 1..=5)).await;
    let (handler, mut seen) = recorder();
    let running = Running::start(&on.bus, "late", "late-1", handler);
    assert_eq!(seen.seqs(5).await, [1, 2, 3, 4, 5]);
    on.publish(&[event("build", "bld-1", 6)]).await;
    assert_eq!(seen.next().await, event("build", "bld-1", 6));
    running.stop().await;
}

async fn several_streams_are_read_together(on: Fixture) {
    let (handler, mut seen) = recorder();
    let running = Running::of(
        &on.bus,
        &["build", "gitops", "approval"],
        "deploy",
        "deploy-1",
        handler,
    );
    for origin in ["build", "gitops", "approval", "deploy"] {
        on.publish(&[event(origin, "x", 1)]).await;
    }
    let events = seen.take(3).await;
    let origins: HashSet<&str> = events.iter().map(Envelope::origin).collect();
    assert_eq!(origins, HashSet::from(["build", "gitops", "approval"]));
    running.stop().await;
    assert!(seen.is_empty());
}

async fn a_failure_is_delivered_again_and_holds_nothing_up(on: Fixture) {
    let tries = Arc::new(AtomicU32::new(0));
    let (handler, mut seen) = reporting({
        let tries = Arc::clone(&tries);
        move |event: Envelope| {
            let tries = Arc::clone(&tries);
            async move {
                if event.seq() == 1 && tries.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(Fault::transient("database is away".to_owned()));
                }
                Ok(())
            }
        }
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "bld-1", 1..=3)).await;

    let mut seqs = seen.seqs(5).await;
    assert_eq!(seqs[0], 1);
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 1, 1, 2, 3]);
    running.stop().await;
    assert!(on.bus.dead_letters(10).await.unwrap().is_empty());

    // All of it is acknowledged: the group's next consumer gets nothing but what is new.
    let (handler, mut seen) = recorder();
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&[event("build", "bld-1", 4)]).await;
    assert_eq!(seen.next().await.seq(), 4);
    running.stop().await;
    assert!(seen.is_empty());
}

async fn what_keeps_failing_is_dead_lettered_with_the_reason(on: Fixture) {
    let (handler, mut seen) = reporting(|event: Envelope| async move {
        if event.seq() == 1 {
            Err(Fault::transient("no such column: color".to_owned()))
        } else {
            Ok(())
        }
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    let entry = on.publish(&[event("build", "bld-1", 1)]).await;
    on.publish(&[event("build", "bld-1", 2)]).await;

    let mut seqs = seen.seqs(4).await;
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 1, 1, 2]);
    dead(&on.bus, 1).await;
    running.stop().await;
    assert!(seen.is_empty());

    let dead = on.bus.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].origin, "build");
    assert_eq!(dead[0].entry, entry.to_string());
    assert_eq!(dead[0].group, "deploy");
    assert_eq!(dead[0].reason, "no such column: color");
    assert_eq!(dead[0].deliveries, 3);
    assert!(dead[0].at.as_micros() > 0);
    let again = Envelope::from_fields(dead[0].fields.iter().map(|(name, value)| (name, value.as_str())));
    assert_eq!(again.unwrap(), event("build", "bld-1", 1));
}

async fn a_rejection_is_dead_lettered_at_once(on: Fixture) {
    let (handler, mut seen) = reporting(|event: Envelope| async move {
        if event.seq() < 3 {
            Err(Fault::Permanent(format!("no. {} is not for us", event.seq())))
        } else {
            Ok(())
        }
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "bld-1", 1..=3)).await;
    assert_eq!(seen.seqs(3).await, [1, 2, 3]);
    dead(&on.bus, 2).await;
    running.stop().await;
    assert!(seen.is_empty());
    let dead = on.bus.dead_letters(10).await.unwrap();
    let reasons: HashSet<(&str, u32)> = dead
        .iter()
        .map(|letter| (letter.reason.as_str(), letter.deliveries))
        .collect();
    assert_eq!(
        reasons,
        HashSet::from([("no. 1 is not for us", 1), ("no. 2 is not for us", 1)])
    );
    assert_eq!(on.bus.dead_letters(1).await.unwrap().len(), 1);
}

async fn a_panic_is_a_failure(on: Fixture) {
    let (handler, mut seen) = reporting(|event: Envelope| async move {
        assert!(event.seq() != 1, "seq is {}", event.seq());
        Ok(())
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "bld-1", 1..=2)).await;
    let mut seqs = seen.seqs(4).await;
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 1, 1, 2]);
    dead(&on.bus, 1).await;
    let dead = on.bus.dead_letters(1).await.unwrap();
    assert_eq!(dead[0].reason, "handler panicked: seq is 1");
    running.stop().await;
}

async fn a_handler_that_takes_too_long_has_failed(on: Fixture) {
    let handler = Run(|event: Envelope| async move {
        if event.seq() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "bld-1", 1..=2)).await;
    dead(&on.bus, 1).await;
    let dead = on.bus.dead_letters(9).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "handler took longer than 50ms");
    running.stop().await;
}

async fn the_entries_of_a_killed_consumer_are_claimed(on: Fixture) {
    // The first consumer takes all and finishes nothing.
    let (stuck, mut begun) = reporting(|_| std::future::pending());
    let first = Running::start(&on.bus, "deploy", "deploy-1", stuck);
    on.publish(&events("build", "bld-1", 1..=3)).await;
    on.publish(&events("build", "bld-2", 1..=3)).await;
    begun.take(2).await;
    first.kill().await;

    let (handler, mut seen) = recorder();
    let second = Running::start(&on.bus, "deploy", "deploy-2", handler);
    let mut ids: Vec<String> = seen.take(6).await.iter().map(Envelope::event_id).collect();
    ids.sort_unstable();
    let expected = [
        "build/bld-1/1",
        "build/bld-1/2",
        "build/bld-1/3",
        "build/bld-2/1",
        "build/bld-2/2",
        "build/bld-2/3",
    ];
    assert_eq!(ids, expected);
    second.stop().await;
    assert!(seen.is_empty() && on.bus.dead_letters(1).await.unwrap().is_empty());
}

async fn a_slow_handler_stalls_nobody(on: Fixture) {
    let gate = Arc::new(Notify::new());
    let (handler, mut seen) = reporting({
        let gate = Arc::clone(&gate);
        move |event: Envelope| {
            let gate = Arc::clone(&gate);
            async move {
                if event.id().as_str() == "slow" {
                    gate.notified().await;
                }
                Ok(())
            }
        }
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "slow", 1..=2)).await;
    assert_eq!(seen.next().await.event_id(), "build/slow/1");
    for n in 0..100 {
        on.publish(&[event("build", &format!("bld-{n}"), 1)]).await;
    }
    assert!(
        seen.take(100)
            .await
            .iter()
            .all(|event| event.id().as_str() != "slow")
    );
    gate.notify_one();
    assert_eq!(seen.next().await.event_id(), "build/slow/2");
    gate.notify_one();
    running.stop().await;
}

async fn no_more_handlers_run_than_allowed(on: Fixture) {
    let gate = Arc::new(Semaphore::new(0));
    let (handler, mut seen) = reporting({
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    });
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    let batch: Vec<Envelope> = (0..10).map(|n| event("build", &format!("bld-{n}"), 1)).collect();
    on.publish(&batch).await;
    seen.take(3).await;
    // A fourth would have begun in the same turn as the third.
    tokio::task::yield_now().await;
    assert!(seen.is_empty());
    gate.add_permits(1);
    seen.next().await;
    assert!(seen.is_empty());
    gate.add_permits(100);
    seen.take(6).await;
    running.stop().await;
}

async fn shutdown_waits_for_what_runs_and_acknowledges_it(on: Fixture) {
    let gate = Arc::new(Notify::new());
    let (handler, mut begun) = reporting({
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                Ok(())
            }
        }
    });
    let first = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "bld-1", 1..=2)).await;
    begun.next().await;
    first.shutdown.cancel();
    gate.notify_one();
    within("the consumer ends", first.task).await.unwrap();
    assert!(begun.is_empty(), "nothing begins after shutdown");

    // What had not begun is still there, and only that.
    let (handler, mut seen) = recorder();
    let second = Running::start(&on.bus, "deploy", "deploy-2", handler);
    assert_eq!(seen.next().await.seq(), 2);
    second.stop().await;
    assert!(seen.is_empty());
}

async fn what_is_held_is_not_claimed_from_the_living(on: Fixture) {
    let gate = Arc::new(Notify::new());
    let (handler, mut begun) = reporting({
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                Ok(())
            }
        }
    });
    let first = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&[event("build", "bld-1", 1)]).await;
    begun.next().await;
    let (handler, mut seen) = recorder();
    let second = Running::start(&on.bus, "deploy", "deploy-2", handler);
    // Several times as long as what makes an entry claimable.
    tokio::time::sleep(quick().claim_idle * 4).await;
    assert!(seen.is_empty());
    gate.notify_one();
    first.stop().await;
    second.stop().await;
    assert!(seen.is_empty());
}

async fn entries_are_trimmed_by_age(on: Fixture) {
    for batch in events("build", "bld-1", 1..=500).chunks(100) {
        on.publish(batch).await;
    }
    // The passing of time is what this is about.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let last = on.publish(&events("build", "bld-1", 501..=502)).await;

    let (handler, mut seen) = recorder();
    let running = Running::start(&on.bus, "late", "late-1", handler);
    let first = seen.next().await.seq();
    // Redis trims whole blocks of 100 entries.
    assert!(first > 400, "{first}");
    let rest = seen.seqs(usize::try_from(502 - first).unwrap()).await;
    assert_eq!(rest.last().copied().unwrap_or(first), 502);
    running.stop().await;
    let known: EntryId = on
        .bus
        .last_entry("build")
        .await
        .unwrap()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(known, last);
}

async fn the_last_entry_is_known_until_it_is_lost(on: Fixture) {
    assert_eq!(on.bus.last_entry("build").await.unwrap(), None);
    let first = on.publish(&events("build", "bld-1", 1..=3)).await;
    let second = on.publish(&events("build", "bld-1", 4..=4)).await;
    assert!(first < second);
    assert_eq!(
        on.bus.last_entry("build").await.unwrap(),
        Some(second.to_string())
    );
    assert_eq!(on.bus.last_entry("gitops").await.unwrap(), None);
    on.lose_everything().await;
    assert_eq!(on.bus.last_entry("build").await.unwrap(), None);
}

async fn a_batch_has_one_origin(on: Fixture) {
    let mixed = [event("build", "a", 1), event("gitops", "b", 1)];
    let error = on.bus.publish(&mixed).await.unwrap_err();
    assert!(matches!(error, BusError::MixedOrigins { .. }), "{error}");
    assert_eq!(on.bus.last_entry("build").await.unwrap(), None);
    assert_eq!(on.bus.publish(&[]).await.unwrap(), "0-0");
}

async fn losing_everything_is_survived(on: Fixture) {
    let (handler, mut seen) = recorder();
    let running = Running::start(&on.bus, "deploy", "deploy-1", handler);
    on.publish(&events("build", "bld-1", 1..=2)).await;
    assert_eq!(seen.seqs(2).await, [1, 2]);
    on.lose_everything().await;
    // As the relay does when it sees that the last entry is gone.
    on.publish(&events("build", "bld-1", 1..=3)).await;
    assert_eq!(seen.seqs(3).await, [1, 2, 3]);
    running.stop().await;
}
