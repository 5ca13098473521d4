//! Effects: started, aborted, taken over, parked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pretty_assertions::assert_eq;
use slipway_ledger::{Inspected, Ledger, LedgerError, ListFilter, Page, executor::codes};
use slipway_model::{Reason, Timestamp};
use slipway_testbed::{eventually, holds};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Command, Database, Event, Hands, Job, errors_about, executor, id, meta, record, start, started, until,
};

conformance! {
    effects_run_and_their_outcome_is_recorded,
    work_left_behind_is_found_at_start,
    steps_follow_each_other_and_run_once,
    more_work_than_room_is_done,
    a_lapsed_lease_is_taken_over,
    a_result_of_an_old_attempt_changes_nothing,
    a_vanished_effect_is_cancelled_from_afar,
    timers_fire_once_and_in_time,
    a_timer_reaches_a_running_effect,
    what_panics_is_parked_and_resumed,
    what_is_tried_again_says_so,
    what_is_parked_is_listed_by_pages,
    what_is_refused_or_says_nothing_is_parked,
    an_impossible_command_is_an_error_in_the_log_and_a_stale_one_is_not,
    a_stopping_replica_hands_over,
}

async fn parked(ledger: &Ledger) -> Vec<Inspected> {
    ledger.parked(None, &Page::default()).await.unwrap().items
}

async fn effects_run_and_their_outcome_is_recorded(database: Database) {
    let ledger = database.open().await;
    let hands = Hands::quick();
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![started("build", 1), started("push", 1)]).await;
    let state = until(&ledger, &id("one"), |state| state.finished.len() == 2).await;
    assert_eq!(state.steps.len(), 0);
    stop.cancel();
    running.drain().await;
    assert_eq!(hands.count(), 2);
    let history = ledger.history::<Job>(&id("one"), 2).await.unwrap();
    assert!(
        history
            .iter()
            .all(|event| event.actor == slipway_model::Actor::system("test"))
    );
    assert_eq!(history.len(), 2);
}

async fn work_left_behind_is_found_at_start(database: Database) {
    let ledger = database.open().await;
    for n in 0..50 {
        record(&ledger, &id(&format!("job-{n}")), vec![started("build", 1)]).await;
    }
    let hands = Hands::quick();
    let (running, stop) = start(&ledger, &hands);
    for n in 0..50 {
        until(&ledger, &id(&format!("job-{n}")), |state| {
            state.finished.len() == 1
        })
        .await;
    }
    stop.cancel();
    running.drain().await;
    assert_eq!(hands.count(), 50);
}

async fn steps_follow_each_other_and_run_once(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    // Each step starts the next one, on two replicas that both run effects.
    let hands = Hands::new(|run| async move {
        let attempt = run.key.attempt;
        let mut events = vec![Event::Finished {
            step: run.key.step,
            attempt,
        }];
        if attempt < 20 {
            events.push(started("step", attempt + 1));
        }
        Some(Command::Record(events))
    });
    let (first, stop) = start(&ledger, &hands);
    let second = executor(&other)
        .register::<Job>(Arc::clone(&hands) as _)
        .spawn(stop.clone());
    for n in 0..10 {
        record(
            if n % 2 == 0 { &ledger } else { &other },
            &id(&format!("job-{n}")),
            vec![started("step", 1)],
        )
        .await;
    }
    for n in 0..10 {
        let state = until(&ledger, &id(&format!("job-{n}")), |state| {
            state.finished.len() >= 20
        })
        .await;
        assert_eq!(
            state.finished,
            (1..=20).map(|n| format!("step#{n}")).collect::<Vec<_>>()
        );
    }
    stop.cancel();
    first.drain().await;
    second.drain().await;
    assert_eq!(hands.count(), 200);
}

async fn more_work_than_room_is_done(database: Database) {
    let ledger = database.open().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let hands = Hands::new({
        let most = Arc::clone(&most);
        move |run| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Some(Command::Finish(run.key))
            }
        }
    });
    let stop = CancellationToken::new();
    let running = executor(&ledger)
        .concurrency(2)
        .register::<Job>(hands as _)
        .spawn(stop.clone());
    for n in 0..20 {
        record(&ledger, &id(&format!("job-{n}")), vec![started("build", 1)]).await;
    }
    for n in 0..20 {
        until(&ledger, &id(&format!("job-{n}")), |state| {
            state.finished.len() == 1
        })
        .await;
    }
    stop.cancel();
    running.drain().await;
    assert!(most.load(Ordering::SeqCst) <= 2);
}

/// The first replica stops dead with the lease in its hands.
async fn a_lapsed_lease_is_taken_over(database: Database) {
    let ledger = database.open().await;
    let dead = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let reached = Arc::new(Notify::new());
    let hands = Hands::new({
        let reached = Arc::clone(&reached);
        move |_| {
            let reached = Arc::clone(&reached);
            async move {
                reached.notify_one();
                std::future::pending().await
            }
        }
    });
    let config = database.config().replica("dead");
    dead.spawn(async move {
        let ledger = slipway_ledger::Ledger::open(config).await.unwrap();
        let (running, _stop) = start(&ledger, &hands);
        record(&ledger, &id("one"), vec![started("build", 1)]).await;
        running.drain().await;
    });
    reached.notified().await;
    dead.shutdown_background();

    let hands = Hands::quick();
    let (running, stop) = start(&ledger, &hands);
    until(&ledger, &id("one"), |state| state.finished == ["build#1"]).await;
    stop.cancel();
    running.drain().await;
    assert_eq!(hands.count(), 1);
    assert_eq!(ledger.get::<Job>(&id("one")).await.unwrap().unwrap().seq, 2);
}

async fn a_result_of_an_old_attempt_changes_nothing(database: Database) {
    let ledger = database.open().await;
    // The first attempt hears that it is not wanted any more, and says that it is done all the same.
    let hands = Hands::new(|run| async move {
        if run.key.attempt == 1 {
            run.cancelled.cancelled().await;
        }
        Some(Command::Finish(run.key))
    });
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![started("build", 1)]).await;
    eventually("the first attempt runs", async || {
        holds(hands.count(), |seen| *seen == 1)
    })
    .await;
    record(&ledger, &id("one"), vec![started("build", 2)]).await;
    let state = until(&ledger, &id("one"), |state| state.steps.is_empty()).await;
    assert_eq!(state.finished, ["build#2"]);
    stop.cancel();
    running.drain().await;
    assert_eq!(ledger.get::<Job>(&id("one")).await.unwrap().unwrap().seq, 3);
    assert!(parked(&ledger).await.is_empty());
}

async fn a_vanished_effect_is_cancelled_from_afar(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    let cancelled = Arc::new(AtomicUsize::new(0));
    let hands = Hands::new({
        let cancelled = Arc::clone(&cancelled);
        move |run| {
            let cancelled = Arc::clone(&cancelled);
            async move {
                run.cancelled.cancelled().await;
                cancelled.fetch_add(1, Ordering::SeqCst);
                None
            }
        }
    });
    let (running, stop) = start(&ledger, &hands);
    record(&ledger, &id("one"), vec![started("build", 1), started("scan", 1)]).await;
    eventually("both effects run", async || {
        holds(hands.count(), |seen| *seen == 2)
    })
    .await;
    // By a replica that runs nothing; the other effect goes on.
    record(&other, &id("one"), vec![Event::Stopped { step: "build".into() }]).await;
    eventually("the build is cancelled", async || {
        holds(cancelled.load(Ordering::SeqCst), |seen| *seen == 1)
    })
    .await;
    record(&ledger, &id("one"), vec![Event::Stopped { step: "scan".into() }]).await;
    eventually("the scan is cancelled", async || {
        holds(cancelled.load(Ordering::SeqCst), |seen| *seen == 2)
    })
    .await;
    stop.cancel();
    running.drain().await;
    assert_eq!(hands.count(), 2);
}

async fn timers_fire_once_and_in_time(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    let (first, stop) = start(&ledger, &Hands::quick());
    let second = executor(&other)
        .register::<Job>(Hands::quick() as _)
        .spawn(stop.clone());
    let at = ledger.now() + Duration::from_millis(300);
    for n in 0..10 {
        record(&other, &id(&format!("job-{n}")), vec![Event::Timed { at }]).await;
    }
    for n in 0..10 {
        let id = id(&format!("job-{n}"));
        until(&ledger, &id, |state| state.woken == 1).await;
        let history = ledger.history::<Job>(&id, 0).await.unwrap();
        assert_eq!(history.len(), 2);
        assert!(history[1].at >= at);
    }
    stop.cancel();
    first.drain().await;
    second.drain().await;
    let found = ledger.get::<Job>(&id("job-0")).await.unwrap().unwrap();
    assert_eq!((found.seq, found.state.wake_at), (2, None));
}

async fn a_timer_reaches_a_running_effect(database: Database) {
    let ledger = database.open().await;
    let hands = Hands::slow();
    let (running, stop) = start(&ledger, &hands);
    let at = ledger.now() + Duration::from_millis(100);
    record(
        &ledger,
        &id("one"),
        vec![started("build", 1), Event::Timed { at }],
    )
    .await;
    let state = until(&ledger, &id("one"), |state| state.woken == 1).await;
    assert_eq!(state.steps.len(), 1);
    stop.cancel();
    running.drain().await;
    assert_eq!(hands.count(), 1);
}

async fn what_panics_is_parked_and_resumed(database: Database) {
    let ledger = database.open().await;
    let mended = Arc::new(AtomicBool::new(false));
    let hands = Hands::new({
        let mended = Arc::clone(&mended);
        move |run| {
            let mended = Arc::clone(&mended);
            async move {
                assert!(mended.load(Ordering::SeqCst), "the saw is broken");
                Some(Command::Finish(run.key))
            }
        }
    });
    let stop = CancellationToken::new();
    let running = executor(&ledger)
        .max_claims(3)
        .register::<Job>(Arc::clone(&hands) as _)
        .spawn(stop.clone());
    record(&ledger, &id("one"), vec![started("build", 1)]).await;
    record(&ledger, &id("two"), vec![Event::Added { amount: 1 }]).await;
    let before = ledger.now();
    eventually("it is parked", async || {
        holds(parked(&ledger).await, |list| !list.is_empty())
    })
    .await;
    let list = parked(&ledger).await;
    assert_eq!(
        (list.len(), &list[0].id, list[0].kind.as_str()),
        (1, &id("one"), "job")
    );
    let parking = list[0].parked.clone().unwrap();
    assert_eq!(
        (parking.attempts, parking.error.code.as_str()),
        (3, codes::PANICKED)
    );
    assert!(
        parking.error.message.contains("build#1") && parking.error.message.contains("the saw is broken"),
        "{parking:?}"
    );
    assert!(
        parking.since >= before && parking.since <= ledger.now(),
        "{parking:?}"
    );
    assert_eq!(hands.count(), 3);
    let shown = ledger.get::<Job>(&id("one")).await.unwrap().unwrap();
    assert_eq!((shown.parked.as_ref(), shown.retry), (Some(&parking.error), None));
    let inspected = ledger.inspect("job", &id("one")).await.unwrap().unwrap();
    assert_eq!(inspected.parked.as_ref(), Some(&parking));
    let state: serde_json::Value = serde_json::from_str(&inspected.state).unwrap();
    assert_eq!(state["steps"], serde_json::to_value(&shown.state.steps).unwrap());
    assert!(
        ledger
            .inspect("job", &id("two"))
            .await
            .unwrap()
            .unwrap()
            .parked
            .is_none()
    );
    assert!(ledger.inspect("job", &id("three")).await.unwrap().is_none());

    mended.store(true, Ordering::SeqCst);
    assert_eq!(ledger.resume("job", &id("one")).await.unwrap(), Some(parking));
    assert_eq!(ledger.resume("job", &id("two")).await.unwrap(), None);
    until(&ledger, &id("one"), |state| state.finished.len() == 1).await;
    assert_eq!(ledger.resume("job", &id("one")).await.unwrap(), None);
    stop.cancel();
    running.drain().await;
    let done = ledger.get::<Job>(&id("one")).await.unwrap().unwrap();
    assert_eq!((done.parked, done.retry), (None, None));
}

async fn what_is_tried_again_says_so(database: Database) {
    let ledger = database.open().await;
    let mended = Arc::new(AtomicBool::new(false));
    let hands = Hands::new({
        let mended = Arc::clone(&mended);
        move |run| {
            let mended = Arc::clone(&mended);
            async move {
                assert!(mended.load(Ordering::SeqCst), "the saw is broken");
                Some(Command::Finish(run.key))
            }
        }
    });
    let stop = CancellationToken::new();
    let running = executor(&ledger)
        .max_claims(1000)
        .backoff(Duration::from_millis(100), Duration::from_millis(100))
        .register::<Job>(hands as _)
        .spawn(stop.clone());
    record(&ledger, &id("one"), vec![started("build", 1)]).await;
    eventually("it was tried three times", async || {
        let job = ledger.get::<Job>(&id("one")).await.unwrap().unwrap();
        holds(job.retry, |retry| {
            retry.as_ref().is_some_and(|retry| retry.attempt >= 3)
        })
    })
    .await;
    // Lists show it too.
    let listed = ledger
        .list_of::<Job>(&ListFilter::default(), &Page::default())
        .await
        .unwrap();
    let retry = listed.items[0].retry.clone().unwrap();
    assert_eq!(retry.error.code, codes::PANICKED);
    assert!(retry.error.message.contains("the saw is broken"), "{retry:?}");
    let next = retry.next_time.unwrap();
    assert!(next.since(ledger.now()) <= Duration::from_millis(200), "{next}");
    assert_eq!(listed.items[0].seq, 1, "nothing was recorded of it");

    mended.store(true, Ordering::SeqCst);
    until(&ledger, &id("one"), |state| state.finished.len() == 1).await;
    stop.cancel();
    running.drain().await;
    assert_eq!(ledger.get::<Job>(&id("one")).await.unwrap().unwrap().retry, None);
}

async fn what_is_parked_is_listed_by_pages(database: Database) {
    let ledger = database.open().await;
    let hands = Hands::new(|_| async move { None });
    let stop = CancellationToken::new();
    let running = executor(&ledger)
        .max_claims(1)
        .register::<Job>(hands as _)
        .spawn(stop.clone());
    for n in 0..5 {
        let labels = std::collections::BTreeMap::new();
        let service = format!("service-{n}");
        let events = vec![Event::Labelled { service, labels }, started("build", 1)];
        record(&ledger, &id(&format!("job-{n}")), events).await;
    }
    eventually("all are parked", async || {
        holds(parked(&ledger).await, |list| list.len() == 5)
    })
    .await;
    stop.cancel();
    running.drain().await;
    let all = parked(&ledger).await;
    let since: Vec<Timestamp> = all.iter().map(|one| one.parked.clone().unwrap().since).collect();
    assert!(since.is_sorted_by(|a, b| a >= b), "newest first: {since:?}");
    for one in &all {
        assert_eq!(one.service, one.id.as_str().replace("job", "service"));
        assert_eq!(one.state, "");
    }
    for size in [1, 2, 5] {
        let mut paged = Vec::new();
        let mut page = Page {
            size,
            token: String::new(),
        };
        loop {
            let list = ledger.parked(Some("job"), &page).await.unwrap();
            assert!(list.items.len() <= size as usize);
            paged.extend(list.items);
            if list.next_page_token.is_empty() {
                break;
            }
            page.token = list.next_page_token;
        }
        assert_eq!(paged, all, "pages of {size}");
    }
    let first = ledger
        .parked(
            Some("job"),
            &Page {
                size: 1,
                token: String::new(),
            },
        )
        .await
        .unwrap();
    let elsewhere = Page {
        size: 1,
        token: first.next_page_token,
    };
    assert!(matches!(
        ledger.parked(None, &elsewhere).await,
        Err(LedgerError::PageToken)
    ));
    assert!(
        ledger
            .parked(Some("other"), &Page::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

async fn what_is_refused_or_says_nothing_is_parked(database: Database) {
    let ledger = database.open().await;
    let hands = Hands::new(|run| async move { (run.key.step == "refused").then_some(Command::Refuse) });
    let stop = CancellationToken::new();
    let running = executor(&ledger)
        .max_claims(2)
        .register::<Job>(hands as _)
        .spawn(stop.clone());
    record(&ledger, &id("a"), vec![started("refused", 1)]).await;
    record(&ledger, &id("b"), vec![started("silent", 1)]).await;
    eventually("both are parked", async || {
        holds(parked(&ledger).await, |list| list.len() == 2)
    })
    .await;
    let mut errors: Vec<Reason> = parked(&ledger)
        .await
        .into_iter()
        .filter_map(|item| Some(item.parked?.error))
        .collect();
    errors.sort_by(|a, b| a.message.cmp(&b.message));
    assert!(
        errors[0].code == codes::OUTCOME_REFUSED && errors[0].message.contains("refused#1"),
        "{errors:?}"
    );
    assert!(
        errors[1].code == codes::NO_OUTCOME && errors[1].message.contains("without an outcome"),
        "{errors:?}"
    );
    // A command that changes the state is a new chance.
    record(
        &ledger,
        &id("a"),
        vec![Event::Stopped {
            step: "refused".into(),
        }],
    )
    .await;
    assert_eq!(parked(&ledger).await.len(), 1);
    stop.cancel();
    running.drain().await;
}

/// Neither a word too early or of another step, nor an outcome that changes nothing, gets lost; what comes too late may.
async fn an_impossible_command_is_an_error_in_the_log_and_a_stale_one_is_not(database: Database) {
    let ledger = database.open().await;
    let hands = Hands::new(|run| async move {
        match run.key.step.as_str() {
            "silent" => Some(Command::See(0)),
            "early" => {
                let told = run
                    .tell(Command::Take(1_000_000), slipway_model::Actor::system("test"))
                    .await;
                assert!(told.is_err());
                Some(Command::Finish(run.key))
            }
            // Only the second attempt is wanted by the time that the first one has its say.
            "stale" if run.key.attempt == 1 => {
                run.cancelled.cancelled().await;
                let told = run
                    .tell(Command::Refuse, slipway_model::Actor::system("test"))
                    .await;
                assert!(told.is_err());
                Some(Command::Refuse)
            }
            "stale" => Some(Command::Finish(run.key)),
            _ => Some(Command::Refuse),
        }
    });
    let stop = CancellationToken::new();
    let running = executor(&ledger)
        .max_claims(2)
        .register::<Job>(Arc::clone(&hands) as _)
        .spawn(stop.clone());
    // Ids of their own: all tests share one log.
    let unique = |name: &str| id(&format!("{name}-{}", fastrand::u64(..)));
    let [refused, silent, early, stale] = ["refused", "silent", "early", "stale"].map(unique);
    for (id, step) in [(&refused, "refused"), (&silent, "silent"), (&early, "early")] {
        record(&ledger, id, vec![started(step, 1)]).await;
    }
    let before = hands.count();
    record(&ledger, &stale, vec![started("stale", 1)]).await;
    eventually("the first attempt runs", async || {
        holds(hands.count(), |seen| *seen > before)
    })
    .await;
    record(&ledger, &stale, vec![started("stale", 2)]).await;
    let state = until(&ledger, &stale, |state| state.steps.is_empty()).await;
    assert_eq!(state.finished, ["stale#2"]);
    until(&ledger, &early, |state| state.steps.is_empty()).await;
    eventually("both are parked", async || {
        holds(parked(&ledger).await, |list| list.len() == 2)
    })
    .await;
    stop.cancel();
    running.drain().await;
    for (id, step, command, why) in [
        (&refused, "refused#1", "Refuse", "no"),
        (&silent, "silent#1", "See(0)", "its outcome changed nothing"),
        (&early, "early#1", "Take(1000000)", "not enough"),
    ] {
        let errors = errors_about(id);
        assert!(!errors.is_empty(), "{id}");
        for part in ["an impossible command", "kind=job", step, command, why] {
            assert!(errors[0].contains(part), "{part:?} in {errors:?}");
        }
    }
    assert_eq!(errors_about(&stale), [""; 0]);
}

async fn a_stopping_replica_hands_over(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    let leaving = Hands::slow();
    // Long leases: only if they are given back does this end in time.
    let stop = CancellationToken::new();
    let hour = Duration::from_secs(3600);
    let running = executor(&ledger)
        .lease(hour)
        .register::<Job>(Arc::clone(&leaving) as _)
        .spawn(stop.clone());
    record(&ledger, &id("one"), vec![started("build", 1)]).await;
    eventually("the effect runs", async || {
        holds(leaving.count(), |seen| *seen == 1)
    })
    .await;
    let staying = Hands::quick();
    let (running_too, stop_too) = start(&other, &staying);
    stop.cancel();
    running.drain().await;
    until(&other, &id("one"), |state| state.finished.len() == 1).await;
    // One that has stopped takes nothing new.
    ledger
        .execute::<Job>(&id("two"), || Command::Record(vec![started("build", 1)]), &meta())
        .await
        .unwrap();
    until(&other, &id("two"), |state| state.finished.len() == 1).await;
    stop_too.cancel();
    running_too.drain().await;
    assert_eq!((leaving.count(), staying.count()), (1, 2));
    assert!(ledger.now() <= Timestamp::now() + Duration::from_secs(1));
}
