//! Nothing is lost, nothing is half written.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::join_all;
use pretty_assertions::assert_eq;
use slipway_ledger::{ChainError, ExecuteError, TransactError};
use slipway_model::{Actor, Authentication, Principal};

use crate::support::{Command, Database, Event, Job, Refusal, State, id, meta, record};

conformance! {
    no_update_is_lost,
    many_aggregates_share_transactions,
    transactions_are_atomic,
    what_a_transaction_read_is_checked,
    a_transaction_that_fails_writes_nothing,
    a_stale_no_is_asked_again,
    large_events_are_refused,
    histories_are_chained_and_kept,
    a_restart_finds_everything,
}

async fn no_update_is_lost(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let tasks = (0..40).map(|n| {
        let ledger = replicas[n % 2].clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                ledger
                    .execute::<Job>(&id("one"), || Command::Add(1), &meta())
                    .await
                    .unwrap();
            }
        })
    });
    for result in join_all(tasks).await {
        result.unwrap();
    }
    let found = replicas[0].get::<Job>(&id("one")).await.unwrap().unwrap();
    assert_eq!((found.seq, found.state.count), (400, 400));
    assert_eq!(
        replicas[1].verify("job", &id("one")).await.unwrap(),
        Some(Ok(400))
    );
}

async fn many_aggregates_share_transactions(database: Database) {
    let ledger = database.open().await;
    let tasks = (0..64).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let id = id(&format!("job-{n}"));
            for _ in 0..10 {
                ledger
                    .execute::<Job>(&id, || Command::Add(n), &meta())
                    .await
                    .unwrap();
            }
            // A refusal in a group fails only its own.
            let refused = ledger.execute::<Job>(&id, || Command::Refuse, &meta()).await;
            assert!(matches!(refused, Err(ExecuteError::Refused(Refusal(_)))));
        })
    });
    for result in join_all(tasks).await {
        result.unwrap();
    }
    for n in 0..64 {
        let id = id(&format!("job-{n}"));
        let found = ledger.get::<Job>(&id).await.unwrap().unwrap();
        assert_eq!((found.seq, found.state.count), (10, 10 * n));
        assert_eq!(ledger.verify("job", &id).await.unwrap(), Some(Ok(10)));
    }
}

async fn transactions_are_atomic(database: Database) {
    const TOTAL: i64 = 400;
    let replicas = [database.open().await, database.open().await];
    for account in 0..4 {
        record(
            &replicas[0],
            &id(&format!("a-{account}")),
            vec![Event::Added { amount: TOTAL / 4 }],
        )
        .await;
    }
    let tasks = (0..16_usize).map(|n| {
        let ledger = replicas[n % 2].clone();
        tokio::spawn(async move {
            let mut moved = 0;
            for round in 0..8 {
                let (from, to) = (
                    id(&format!("a-{}", n % 4)),
                    id(&format!("a-{}", (n + 1 + round % 3) % 4)),
                );
                let result = ledger
                    .transact(&meta(), |tx| {
                        let (from, to) = (from.clone(), to.clone());
                        async move {
                            // Given first, so that a refusal must undo it.
                            tx.decide::<Job>(&to, Command::Add(30)).await?;
                            tx.decide::<Job>(&from, Command::Take(30)).await.map(drop)
                        }
                    })
                    .await;
                match result {
                    Ok(()) => moved += 1,
                    Err(TransactError::Aborted(ExecuteError::Refused(_))) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            moved
        })
    });
    let moved: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    let (mut sum, mut events) = (0, 0);
    for account in 0..4 {
        let found = replicas[0]
            .get::<Job>(&id(&format!("a-{account}")))
            .await
            .unwrap()
            .unwrap();
        assert!(found.state.count >= 0);
        sum += found.state.count;
        events += found.seq;
    }
    assert_eq!((sum, events), (TOTAL, 4 + 2 * moved));
}

async fn what_a_transaction_read_is_checked(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    record(&ledger, &id("read"), vec![Event::Added { amount: 1 }]).await;
    let runs = AtomicU32::new(0);
    let sum = ledger
        .transact(&meta(), |tx| {
            let (runs, other) = (&runs, &other);
            async move {
                let read = tx.get::<Job>(&id("read")).await?.unwrap().state.count;
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    record(other, &id("read"), vec![Event::Added { amount: 10 }]).await;
                }
                tx.decide::<Job>(&id("written"), Command::Add(read)).await?;
                let seen = tx.get::<Job>(&id("written")).await?.unwrap();
                Ok::<_, ExecuteError<Refusal>>(seen.state.count)
            }
        })
        .await
        .unwrap();
    assert_eq!((sum, runs.into_inner()), (11, 2));
    assert_eq!(
        ledger
            .get::<Job>(&id("written"))
            .await
            .unwrap()
            .unwrap()
            .state
            .count,
        11
    );
}

async fn a_transaction_that_fails_writes_nothing(database: Database) {
    let ledger = database.open().await;
    let result: Result<(), _> = ledger
        .transact(&meta(), |tx| async move {
            tx.decide::<Job>(&id("one"), Command::Add(1)).await.unwrap();
            Err(std::fmt::Error)
        })
        .await;
    assert!(matches!(result, Err(TransactError::Aborted(_))));
    assert!(ledger.get::<Job>(&id("one")).await.unwrap().is_none());
}

async fn a_stale_no_is_asked_again(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    record(&ledger, &id("one"), vec![Event::Added { amount: 1 }]).await;
    record(&other, &id("one"), vec![Event::Added { amount: 1 }]).await;
    // Whether the first replica has heard of it or not.
    ledger
        .execute::<Job>(&id("one"), || Command::AtLeast(2), &meta())
        .await
        .unwrap();
    other
        .execute::<Job>(&id("one"), || Command::See(7), &meta())
        .await
        .unwrap();
    let seen = ledger
        .execute::<Job>(&id("one"), || Command::See(7), &meta())
        .await
        .unwrap();
    assert_eq!((seen.seq, seen.state.seen), (4, 7));
}

async fn large_events_are_refused(database: Database) {
    let ledger = slipway_ledger::Ledger::open(database.config().max_event_bytes(300))
        .await
        .unwrap();
    let event = Event::Stopped {
        step: "x".repeat(300),
    };
    let result = ledger
        .execute::<Job>(&id("one"), || Command::Record(vec![event.clone()]), &meta())
        .await;
    assert!(
        matches!(result, Err(ExecuteError::TooLarge { limit: 300, .. })),
        "{result:?}"
    );
    assert!(ledger.get::<Job>(&id("one")).await.unwrap().is_none());
}

async fn histories_are_chained_and_kept(database: Database) {
    let ledger = database.open().await;
    let traceparent: slipway_model::TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        .parse()
        .unwrap();
    let actor = Actor::direct(Principal::new("token", "bot"), Authentication::StaticToken)
        .on_behalf_of(Principal::new("token", "bob"));
    let meta = slipway_ledger::Meta::new(actor.clone(), Some(traceparent));
    let events = vec![Event::Added { amount: 5 }, started("ünï\u{1F6A2}")];
    ledger
        .execute::<Job>(&id("one"), || Command::Record(events.clone()), &meta)
        .await
        .unwrap();
    record(&ledger, &id("one"), vec![Event::Closed]).await;

    let history = ledger.history::<Job>(&id("one"), 1).await.unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(
        (history[0].seq, &history[0].event, &history[0].actor),
        (2, &events[1], &actor)
    );
    assert_eq!(
        (history[0].traceparent, history[1].traceparent),
        (Some(traceparent), None)
    );
    assert!(history[0].at <= history[1].at);
    let found = ledger.get::<Job>(&id("one")).await.unwrap().unwrap();
    assert_eq!(
        (found.traceparent, found.updated_at),
        (Some(traceparent), history[1].at)
    );

    assert_eq!(ledger.verify("job", &id("one")).await.unwrap(), Some(Ok(3)));
    database
        .meddle(r#"UPDATE events SET data = '{"type":"added","amount":50}' WHERE seq = 1"#)
        .await;
    let verdict = ledger.verify("job", &id("one")).await.unwrap();
    assert_eq!(verdict, Some(Err(ChainError::Content { seq: 1 })));
    database.meddle("DELETE FROM events WHERE seq = 1").await;
    let verdict = ledger.verify("job", &id("one")).await.unwrap();
    assert_eq!(
        verdict,
        Some(Err(ChainError::Gap {
            expected: 1,
            found: 2
        }))
    );
    assert_eq!(ledger.verify("job", &id("none")).await.unwrap(), None);
}

fn started(step: &str) -> Event {
    crate::support::started(step, 1)
}

async fn a_restart_finds_everything(database: Database) {
    let ledger = database.open().await;
    record(&ledger, &id("one"), vec![Event::Added { amount: 3 }]).await;
    ledger.close().await;
    let closed = ledger
        .execute::<Job>(&id("one"), || Command::Add(1), &meta())
        .await;
    assert!(matches!(closed, Err(ExecuteError::Ledger(_))), "{closed:?}");

    let ledger = database.open().await;
    let found = ledger
        .execute::<Job>(&id("one"), || Command::Add(4), &meta())
        .await
        .unwrap();
    assert_eq!(
        (found.seq, found.state),
        (
            2,
            State {
                count: 7,
                ..State::default()
            }
        )
    );
    assert_eq!(ledger.verify("job", &id("one")).await.unwrap(), Some(Ok(2)));
}
