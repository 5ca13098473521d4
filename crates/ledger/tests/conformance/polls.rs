//! Polls and hints.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use pretty_assertions::assert_eq;
use slipway_model::Reason;
use slipway_testbed::{eventually, holds};
use tokio::sync::Semaphore;

use crate::support::{Command, Database, Event, Hands, Job, executor, id, record, start, started, until};

conformance! {
    polls_run_until_they_learn_something,
    a_poll_that_cannot_be_answered_says_so,
    a_hint_polls_at_once,
    a_hint_during_a_poll_polls_again,
    a_hint_during_a_poll_that_learns_something,
    a_hint_at_another_replica_is_not_lost,
    a_hint_before_there_is_a_poll_is_kept,
}

/// An hour: only hints make it poll.
const NEVER: u64 = 3_600_000;

/// Sees what the remote system reports.
fn looking(far: &Arc<AtomicI64>) -> Arc<Hands> {
    let far = Arc::clone(far);
    Hands::new(move |run| {
        let value = far.load(Ordering::SeqCst);
        async move {
            Some(if run.key.step == "poll" {
                Command::See(value)
            } else {
                Command::Finish(run.key)
            })
        }
    })
}

async fn polls_run_until_they_learn_something(database: Database) {
    let ledger = database.open().await;
    let far = Arc::new(AtomicI64::new(0));
    let hands = looking(&far);
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![Event::Polling { millis: 20 }]).await;
    eventually("it polls again and again", async || {
        holds(hands.count(), |seen| *seen >= 3)
    })
    .await;
    assert_eq!(
        ledger.get::<Job>(&id("one")).await.unwrap().unwrap().seq,
        1,
        "learning nothing leaves no record"
    );
    far.store(7, Ordering::SeqCst);
    until(&ledger, &id("one"), |state| state.seen == 7).await;
    let polled = hands.count();
    eventually("it polls on", async || {
        holds(hands.count(), |seen| *seen > polled + 1)
    })
    .await;
    record(&ledger, &id("one"), vec![Event::Polling { millis: 0 }]).await;
    stop.cancel();
    running.drain().await;
    let found = ledger.get::<Job>(&id("one")).await.unwrap().unwrap();
    assert_eq!(found.seq, 3);
}

async fn a_poll_that_cannot_be_answered_says_so(database: Database) {
    let ledger = database.open().await;
    let answer = Arc::new(Mutex::new(Err(Reason::new("AWAY", "nobody answers"))));
    let hands = Hands::trying({
        let answer = Arc::clone(&answer);
        move |_| {
            let answer = answer.lock().unwrap().clone();
            async move { answer.map(|value| Some(Command::See(value))) }
        }
    });
    let (running, stop) = start(&ledger, &hands);
    let one = id("one");
    let mut watch = Box::pin(ledger.watch::<Job>(&one, None));
    let mut next = async || watch.next().await.unwrap().unwrap();
    record(&ledger, &one, vec![Event::Polling { millis: 20 }]).await;
    let told = loop {
        let job = next().await;
        if let Some(retry) = job.retry {
            assert_eq!(job.seq, 1);
            break retry;
        }
    };
    assert_eq!(told.error, Reason::new("AWAY", "nobody answers"));
    // More often than what makes no progress is tried; a poll is never parked.
    let tried = async |times: u32| {
        eventually("it is asked again and again", async || {
            let job = ledger.get::<Job>(&one).await.unwrap().unwrap();
            holds(job.retry, |retry| {
                retry.as_ref().is_some_and(|retry| retry.attempt >= times)
            })
        })
        .await;
    };
    tried(12).await;
    let job = ledger.get::<Job>(&one).await.unwrap().unwrap();
    assert_eq!((job.seq, job.parked), (1, None), "nothing is recorded of it");
    let due = job.retry.unwrap().next_time.unwrap();
    assert!(due.since(ledger.now()) <= Duration::from_millis(100), "{due}");

    // A watcher is told about another reason, and when it is over.
    *answer.lock().unwrap() = Err(Reason::new("FULL", "no room"));
    assert_eq!(next().await.retry.unwrap().error.code, "FULL");
    *answer.lock().unwrap() = Ok(0);
    let over = next().await;
    assert_eq!((over.seq, over.retry), (1, None));
    *answer.lock().unwrap() = Err(Reason::new("AWAY", "nobody answers"));
    assert_eq!(next().await.retry.unwrap().error.code, "AWAY");
    tried(3).await;
    *answer.lock().unwrap() = Ok(7);
    let state = until(&ledger, &one, |state| state.seen == 7).await;
    assert!(state.polls);
    assert_eq!(ledger.get::<Job>(&one).await.unwrap().unwrap().retry, None);
    stop.cancel();
    running.drain().await;
}

async fn a_hint_polls_at_once(database: Database) {
    let ledger = database.open().await;
    let far = Arc::new(AtomicI64::new(0));
    let hands = looking(&far);
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![Event::Polling { millis: NEVER }]).await;
    for value in 1..=5 {
        far.store(value, Ordering::SeqCst);
        ledger.hint("job", &id("one")).await.unwrap();
        until(&ledger, &id("one"), |state| state.seen == value).await;
    }
    ledger.hint("job", &id("nobody")).await.unwrap();
    ledger.hint("nothing", &id("one")).await.unwrap();
    stop.cancel();
    running.drain().await;
    assert!(ledger.get::<Job>(&id("nobody")).await.unwrap().is_none());
}

/// Polls that wait for a permit after they have looked.
fn gated(far: &Arc<AtomicI64>, gate: &Arc<Semaphore>) -> Arc<Hands> {
    let (far, gate) = (Arc::clone(far), Arc::clone(gate));
    Hands::new(move |_| {
        let (value, gate) = (far.load(Ordering::SeqCst), Arc::clone(&gate));
        async move {
            gate.acquire().await.unwrap().forget();
            Some(Command::See(value))
        }
    })
}

/// The hint comes after the poll has looked and before it ends: only a second poll can see what it is about.
async fn a_hint_during_a_poll_polls_again(database: Database) {
    let ledger = database.open().await;
    let (far, gate) = (Arc::new(AtomicI64::new(0)), Arc::new(Semaphore::new(0)));
    let hands = gated(&far, &gate);
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![Event::Polling { millis: NEVER }]).await;
    ledger.hint("job", &id("one")).await.unwrap();
    eventually("it polls", async || holds(hands.count(), |seen| *seen == 1)).await;
    far.store(9, Ordering::SeqCst);
    ledger.hint("job", &id("one")).await.unwrap();
    gate.add_permits(10);
    until(&ledger, &id("one"), |state| state.seen == 9).await;
    stop.cancel();
    running.drain().await;
}

/// As before, but the first poll's outcome gives the lease back in its append.
async fn a_hint_during_a_poll_that_learns_something(database: Database) {
    let ledger = database.open().await;
    let (far, gate) = (Arc::new(AtomicI64::new(3)), Arc::new(Semaphore::new(0)));
    let hands = gated(&far, &gate);
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![Event::Polling { millis: NEVER }]).await;
    for value in [9, 27, 81] {
        let before = hands.count();
        ledger.hint("job", &id("one")).await.unwrap();
        eventually("it polls", async || holds(hands.count(), |seen| *seen > before)).await;
        far.store(value, Ordering::SeqCst);
        ledger.hint("job", &id("one")).await.unwrap();
        gate.add_permits(2);
        until(&ledger, &id("one"), |state| state.seen == value).await;
    }
    stop.cancel();
    running.drain().await;
}

async fn a_hint_at_another_replica_is_not_lost(database: Database) {
    let (ledger, silent) = (database.open().await, database.open().await);
    let (far, gate) = (Arc::new(AtomicI64::new(1)), Arc::new(Semaphore::new(1)));
    let hands = gated(&far, &gate);
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![Event::Polling { millis: NEVER }]).await;
    // It has no holder: any process that runs effects takes it up.
    silent.hint("job", &id("one")).await.unwrap();
    until(&ledger, &id("one"), |state| state.seen == 1).await;

    // Held elsewhere, in a poll that has looked already.
    ledger.hint("job", &id("one")).await.unwrap();
    eventually("it polls", async || holds(hands.count(), |seen| *seen == 2)).await;
    far.store(2, Ordering::SeqCst);
    silent.hint("job", &id("one")).await.unwrap();
    gate.add_permits(10);
    until(&ledger, &id("one"), |state| state.seen == 2).await;
    stop.cancel();
    running.drain().await;
}

/// The fact may be faster than the answer to the call that it is about.
async fn a_hint_before_there_is_a_poll_is_kept(database: Database) {
    let (ledger, silent) = (database.open().await, database.open().await);
    let far = Arc::new(AtomicI64::new(5));
    record(&silent, &id("one"), vec![started("call", 1)]).await;
    silent.hint("job", &id("one")).await.unwrap();
    let hands = looking(&far);
    let stop = tokio_util::sync::CancellationToken::new();
    let running = executor(&ledger).register::<Job>(hands as _).spawn(stop.clone());
    until(&ledger, &id("one"), |state| state.finished.len() == 1).await;
    silent.hint("job", &id("one")).await.unwrap();
    record(&silent, &id("one"), vec![Event::Polling { millis: NEVER }]).await;
    until(&ledger, &id("one"), |state| state.seen == 5).await;
    stop.cancel();
    running.drain().await;
}
