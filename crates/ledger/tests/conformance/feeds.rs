//! Watches and the feed.

use std::{pin::pin, time::Duration};

use futures::{Stream, StreamExt as _};
use pretty_assertions::assert_eq;
use slipway_ledger::{FeedFilter, FeedItem, Ledger, LedgerError};
use slipway_testbed::within;

use crate::support::{Command, Database, Event, Job, id, meta, record};

conformance! {
    a_watch_sees_what_other_replicas_write,
    a_watch_resumes_and_ends,
    the_feed_is_whole_and_resumable,
    the_feed_takes_up_what_is_new,
    commits_are_told;
    postgres:
    a_late_transaction_is_not_skipped,
    a_database_from_another_cluster_is_adopted,
}

/// The next item, or a failure instead of a hang.
async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> Option<T> {
    within("something comes", stream.next()).await
}

fn added(amount: i64) -> Vec<Event> {
    vec![Event::Added { amount }]
}

async fn a_watch_sees_what_other_replicas_write(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    let mut states = pin!(ledger.watch::<Job>(&id("one"), None));
    record(&other, &id("one"), added(1)).await;
    let mut count = next(&mut states).await.unwrap().unwrap().state.count;
    assert_eq!(count, 1);
    for n in 2..=5 {
        record(if n % 2 == 0 { &ledger } else { &other }, &id("one"), added(1)).await;
        while count < n {
            let snapshot = next(&mut states).await.unwrap().unwrap();
            assert!(snapshot.state.count > count, "states only move on");
            count = snapshot.state.count;
        }
    }
}

async fn a_watch_resumes_and_ends(database: Database) {
    let ledger = database.open().await;
    record(&ledger, &id("one"), added(1)).await;
    record(&ledger, &id("one"), added(1)).await;
    let mut early = pin!(ledger.watch::<Job>(&id("one"), Some(1)));
    assert_eq!(next(&mut early).await.unwrap().unwrap().seq, 2);
    let mut current = pin!(ledger.watch::<Job>(&id("one"), Some(2)));
    assert!(futures::poll!(current.next()).is_pending());
    record(&ledger, &id("one"), vec![Event::Closed]).await;
    for states in [&mut early, &mut current] {
        assert_eq!(next(states).await.unwrap().unwrap().seq, 3);
        assert!(next(states).await.is_none());
    }
    let mut late = pin!(ledger.watch::<Job>(&id("one"), Some(3)));
    assert!(next(&mut late).await.is_none());
    let mut late = pin!(ledger.watch::<Job>(&id("one"), None));
    assert_eq!(next(&mut late).await.unwrap().unwrap().seq, 3);
    assert!(next(&mut late).await.is_none());
}

async fn take(ledger: &Ledger, cursor: &str, filter: FeedFilter, count: usize) -> Vec<FeedItem> {
    let feed = ledger
        .feed(cursor, filter)
        .unwrap()
        .take(count)
        .map(Result::unwrap)
        .collect::<Vec<_>>();
    within("the feed has all of them", feed).await
}

async fn the_feed_is_whole_and_resumable(database: Database) {
    let ledger = database.open().await;
    let tasks = (0..8).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                record(&ledger, &id(&format!("job-{n}")), added(1)).await;
            }
        })
    });
    // Read while it is written.
    let reader = tokio::spawn({
        let ledger = ledger.clone();
        async move { take(&ledger, "", FeedFilter::default(), 400).await }
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let live = reader.await.unwrap();
    assert_eq!(live, take(&ledger, "", FeedFilter::default(), 400).await);
    for n in 0..8 {
        let seqs: Vec<u64> = live
            .iter()
            .filter(|item| item.event.id == id(&format!("job-{n}")))
            .map(|item| item.event.seq)
            .collect();
        assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    }
    assert_eq!(
        take(&ledger, &live[279].cursor, FeedFilter::default(), 120).await,
        live[280..]
    );

    let filter = FeedFilter {
        ids: vec![id("job-3")],
        kinds: vec!["job".into()],
        ..FeedFilter::default()
    };
    assert_eq!(take(&ledger, "", filter, 50).await.len(), 50);
    let event = &live[0].event;
    assert_eq!(
        (&*event.kind, &*event.event_type, &*event.data),
        ("job", "added", r#"{"type":"added","amount":1}"#)
    );
    assert_eq!((&event.actor, &*event.correlation), (&meta().actor, "c-"));
    assert!(matches!(
        ledger.feed("rubbish", FeedFilter::default()).err(),
        Some(LedgerError::Cursor(_))
    ));
}

async fn the_feed_takes_up_what_is_new(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    record(&ledger, &id("old"), added(1)).await;
    let mut feed = pin!(ledger.feed("now", FeedFilter::default()).unwrap());
    // Polled once, so that it knows where now is.
    assert!(
        tokio::time::timeout(Duration::from_millis(200), feed.next())
            .await
            .is_err()
    );
    record(&other, &id("new"), added(1)).await;
    record(&ledger, &id("new"), added(1)).await;
    for seq in 1..=2 {
        let item = next(&mut feed).await.unwrap().unwrap();
        assert_eq!((item.event.id.as_str(), item.event.seq), ("new", seq));
    }
}

/// The late one drew its place in the order first, and must be read first, however late it commits. SQLite has one
/// writer: there a transaction cannot commit after a later one.
async fn a_late_transaction_is_not_skipped(database: Database) {
    use sqlx::Connection as _;
    let ledger = database.open().await;
    record(&ledger, &id("late"), added(1)).await;
    let mut conn = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut late = conn.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO events (kind, id, seq, type, data, actor, at, prev_hash, hash)
         SELECT kind, id, 2, type, data, actor, at, prev_hash, hash FROM events",
    )
    .execute(&mut *late)
    .await
    .unwrap();
    for _ in 0..3 {
        record(&ledger, &id("early"), added(1)).await;
    }
    let mut feed = pin!(ledger.feed("", FeedFilter::default()).unwrap());
    assert_eq!(next(&mut feed).await.unwrap().unwrap().event.id, id("late"));
    // What is behind the late one waits for it.
    assert!(
        tokio::time::timeout(Duration::from_millis(300), feed.next())
            .await
            .is_err()
    );
    late.commit().await.unwrap();
    let mut found = Vec::new();
    for _ in 0..4 {
        let event = next(&mut feed).await.unwrap().unwrap().event;
        found.push((event.id.to_string(), event.seq));
    }
    let wanted = [("late", 2), ("early", 1), ("early", 2), ("early", 3)];
    assert_eq!(found, wanted.map(|(id, seq)| (id.to_owned(), seq)));
}

async fn commits_are_told(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    let mut commits = ledger.subscribe_commits();
    other
        .execute::<Job>(&id("far"), || Command::Add(1), &meta())
        .await
        .unwrap();
    let far = within("the commit is told", commits.recv()).await.unwrap();
    assert_eq!((&*far.kind, far.id, far.seq), ("job", id("far"), 1));
    ledger
        .execute::<Job>(&id("near"), || Command::Add(1), &meta())
        .await
        .unwrap();
    loop {
        let near = within("the commit is told", commits.recv()).await.unwrap();
        if near.id == id("near") {
            break;
        }
    }
}

/// Dumped and restored, its events carry transaction ids that this cluster has not reached. SQLite's positions go where
/// the file goes.
async fn a_database_from_another_cluster_is_adopted(database: Database) {
    let ledger = database.open().await;
    for _ in 0..5 {
        record(&ledger, &id("one"), added(1)).await;
    }
    ledger.close().await;
    database.meddle("UPDATE events SET tx = '900000000000000'").await;

    let ledger = database.open().await;
    record(&ledger, &id("one"), added(1)).await;
    let seqs = |items: Vec<FeedItem>| items.into_iter().map(|item| item.event.seq).collect::<Vec<_>>();
    let all = take(&ledger, "", FeedFilter::default(), 6).await;
    let third = all[2].cursor.split_once('.').unwrap().1.to_owned();
    assert_eq!(seqs(all), (1..=6).collect::<Vec<_>>());
    // A cursor that a reader kept from before.
    let kept = format!("900000000000000.{third}");
    assert_eq!(
        seqs(take(&ledger, &kept, FeedFilter::default(), 3).await),
        [4, 5, 6]
    );
}
