//! What only the Redis bus can encounter: outages, foreign entries, and Redis' own bookkeeping.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::{sync::Arc, time::Duration};

use redis::{AsyncCommands, aio::MultiplexedConnection, streams::StreamInfoConsumersReply};
use slipway_events::{Bus, BusConfig, BusError, Envelope, RedisBus};
use slipway_testbed::{Redis, eventually, holds};
use support::{Running, dead, event, events, quick, recorder, reporting};

async fn bus(redis: &Redis, config: BusConfig) -> Arc<dyn Bus> {
    Arc::new(RedisBus::with_config(&redis.url(), config).unwrap())
}

async fn connection(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn consumers(connection: &mut MultiplexedConnection) -> Vec<(String, usize)> {
    let reply: StreamInfoConsumersReply = connection
        .xinfo_consumers("slipway:build", "deploy")
        .await
        .unwrap_or_default();
    reply
        .consumers
        .into_iter()
        .map(|consumer| (consumer.name, consumer.pending))
        .collect()
}

/// The relay's part: again until it is taken.
async fn publish_for_certain(bus: &Arc<dyn Bus>, batch: &[Envelope]) -> u32 {
    let mut failures = 0;
    eventually("it is published", async || {
        let published = bus.publish(batch).await;
        failures += u32::from(published.is_err());
        published
    })
    .await;
    failures
}

#[tokio::test]
async fn an_outage_is_told_to_publishers_and_outlived_by_consumers() {
    let redis = Redis::start().await.unwrap();
    let bus = bus(&redis, quick()).await;
    let (handler, mut seen) = recorder();
    let running = Running::start(&bus, "deploy", "deploy-1", handler);
    bus.publish(&[event("build", "bld-1", 1)]).await.unwrap();
    assert_eq!(seen.next().await.seq(), 1);

    redis.stop().await;
    let error = bus.publish(&[event("build", "bld-1", 2)]).await.unwrap_err();
    assert!(matches!(error, BusError::Unavailable(_)), "{error}");
    assert!(bus.last_entry("build").await.is_err());

    redis.restart_empty().await.unwrap();
    publish_for_certain(&bus, &[event("build", "bld-1", 2)]).await;
    assert_eq!(seen.next().await.seq(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_service_starts_without_redis_and_reads_when_it_comes() {
    let redis = Redis::start().await.unwrap();
    redis.stop().await;
    let bus = bus(&redis, quick()).await;
    let (handler, mut seen) = recorder();
    let running = Running::start(&bus, "deploy", "deploy-1", handler);
    assert!(bus.publish(&[event("build", "bld-1", 1)]).await.is_err());
    redis.restart_empty().await.unwrap();
    publish_for_certain(&bus, &[event("build", "bld-1", 1)]).await;
    assert_eq!(seen.next().await.seq(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_consumer_stops_also_while_redis_is_away() {
    let redis = Redis::start().await.unwrap();
    let bus = bus(&redis, quick()).await;
    let (handler, mut seen) = recorder();
    let running = Running::start(&bus, "deploy", "deploy-1", handler);
    bus.publish(&[event("build", "bld-1", 1)]).await.unwrap();
    seen.next().await;
    redis.stop().await;
    running.stop().await;
}

/// Publishing, consuming, and Redis emptied and restarted again and again under them: a relay that tries again and
/// publishes again what was lost gets everything through.
#[tokio::test]
async fn nothing_is_lost_by_a_relay_that_repeats_itself() {
    let redis = Redis::start().await.unwrap();
    let bus = bus(&redis, quick()).await;
    let (handler, mut seen) = recorder();
    let first = Running::start(&bus, "deploy", "deploy-1", handler.clone());
    let second = Running::start(&bus, "deploy", "deploy-2", handler);
    let mut remembered = None;
    for seq in 1..=60 {
        match seq % 20 {
            7 => redis.flush_all().await.unwrap(),
            14 => {
                redis.stop().await;
                assert!(bus.publish(&[event("build", "bld-1", seq)]).await.is_err());
                redis.restart_empty().await.unwrap();
            }
            _ => {}
        }
        let last = eventually("Redis answers", async || bus.last_entry("build").await).await;
        let last = last.map(|id| id.parse::<slipway_events::EntryId>().unwrap());
        // Lower than remembered: the bus lost what it had, and all is published again.
        let from = if last < remembered { 1 } else { seq };
        publish_for_certain(&bus, &events("build", "bld-1", from..=seq)).await;
        let known = bus.last_entry("build").await.unwrap();
        remembered = known.map(|id| id.parse::<slipway_events::EntryId>().unwrap());
    }
    let mut missing: std::collections::BTreeSet<u64> = (1..=60).collect();
    while !missing.is_empty() {
        missing.remove(&seen.next().await.seq());
    }
    first.stop().await;
    second.stop().await;
    assert!(bus.dead_letters(1).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_envelope_is_dead_lettered_and_names_the_field() {
    let redis = Redis::start().await.unwrap();
    let bus = bus(&redis, quick()).await;
    let mut connection = connection(&redis).await;
    let foreign = [
        ("specversion", "1.0"),
        ("type", "x"),
        ("datacontenttype", "application/json"),
    ];
    let entry: String = connection.xadd("slipway:build", "*", &foreign).await.unwrap();
    let binary: &[u8] = &[0xff, 0xfe];
    let _: String = connection
        .xadd("slipway:build", "*", &[("color", binary)])
        .await
        .unwrap();
    bus.publish(&[event("build", "bld-1", 1)]).await.unwrap();

    let (handler, mut seen) = recorder();
    let running = Running::start(&bus, "deploy", "deploy-1", handler);
    assert_eq!(seen.next().await.seq(), 1);
    dead(&bus, 2).await;
    running.stop().await;
    assert!(seen.is_empty());
    let mut dead = bus.dead_letters(9).await.unwrap();
    dead.sort_by(|a, b| a.entry.cmp(&b.entry));
    assert_eq!(dead[0].entry, entry);
    assert_eq!(dead[0].reason, "event: data is missing");
    assert!(dead[0].fields.contains(&("type".to_owned(), "x".to_owned())));
    assert_eq!(dead[1].reason, r#"event: "color" is not a field of an event"#);
}

/// An entry that ends the process that handles it, each time: the count in Redis stops it.
#[tokio::test]
async fn what_ends_its_consumers_is_dead_lettered_by_count() {
    let redis = Redis::start().await.unwrap();
    let bus = bus(&redis, quick()).await;
    bus.publish(&[event("build", "poison", 1)]).await.unwrap();
    // Under the same name, as a pod of a StatefulSet, and under new ones.
    for name in ["deploy-1", "deploy-1", "deploy-2"] {
        let (handler, mut begun) = reporting(|_| std::future::pending());
        let running = Running::start(&bus, "deploy", name, handler);
        begun.next().await;
        running.kill().await;
    }
    let (handler, mut seen) = recorder();
    let running = Running::start(&bus, "deploy", "deploy-3", handler);
    dead(&bus, 1).await;
    running.stop().await;
    assert!(seen.is_empty());
    let dead = bus.dead_letters(1).await.unwrap();
    assert_eq!(dead[0].deliveries, 4);
    assert_eq!(
        dead[0].reason,
        "delivered 4 times and never acknowledged: its consumers ended while handling it"
    );
}

#[tokio::test]
async fn consumers_are_deleted_once_nothing_is_pending_on_them() {
    let redis = Redis::start().await.unwrap();
    let config = BusConfig {
        consumer_idle: Duration::from_millis(100),
        // Claims would empty the pending list of the dead one.
        claim_idle: Duration::from_secs(60),
        ..quick()
    };
    let bus = bus(&redis, config.clone()).await;
    let mut connection = connection(&redis).await;

    // One that died holding an entry, one that died holding nothing.
    let (handler, mut begun) = reporting(|_| std::future::pending());
    let holding = Running::start(&bus, "deploy", "dead-holding", handler);
    bus.publish(&[event("build", "bld-1", 1)]).await.unwrap();
    begun.next().await;
    holding.kill().await;
    let created: usize = redis::cmd("XGROUP")
        .arg(&["CREATECONSUMER", "slipway:build", "deploy", "dead-empty"])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(created, 1);
    assert_eq!(consumers(&mut connection).await.len(), 2);

    tokio::time::sleep(config.consumer_idle * 2).await;
    let (handler, mut seen) = recorder();
    let living = Running::start(&bus, "deploy", "living", handler);
    eventually("the empty one is gone", async || {
        let left = consumers(&mut connection.clone()).await;
        holds(left, |left| left.iter().all(|(name, _)| name != "dead-empty"))
    })
    .await;
    bus.publish(&[event("build", "bld-1", 2)]).await.unwrap();
    assert_eq!(seen.next().await.seq(), 2);
    living.stop().await;
    // The living one leaves nothing behind; what the dead one holds is kept.
    assert_eq!(consumers(&mut connection).await, [("dead-holding".to_owned(), 1)]);
}

#[tokio::test]
async fn what_is_handled_is_acknowledged() {
    let redis = Redis::start().await.unwrap();
    let bus = bus(&redis, quick()).await;
    let mut connection = connection(&redis).await;
    let (handler, mut seen) = recorder();
    let running = Running::start(&bus, "deploy", "deploy-1", handler);
    for batch in events("build", "bld-1", 1..=300).chunks(50) {
        bus.publish(batch).await.unwrap();
    }
    seen.take(300).await;
    eventually("all is acknowledged", async || {
        let now = consumers(&mut connection.clone()).await;
        holds(now, |now| now.iter().all(|(_, pending)| *pending == 0))
    })
    .await;
    let length: usize = connection.xlen("slipway:build").await.unwrap();
    assert_eq!(length, 300);
    running.stop().await;
}

#[test]
fn the_url_is_never_shown() {
    let bus = RedisBus::connect("redis://user:hunter2@127.0.0.1:1/0").unwrap();
    assert!(!format!("{bus:?}").contains("hunter2"));
    let error = RedisBus::connect("http://user:hunter2@127.0.0.1").unwrap_err();
    assert!(matches!(error, BusError::Url(_)));
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
