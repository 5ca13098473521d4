//! Idempotency keys and lists.

use std::collections::BTreeMap;

use futures::future::join_all;
use pretty_assertions::assert_eq;
use slipway_ledger::{
    ExecuteError, IdempotencyKey, LedgerError, ListFilter, Page, ReplayError, TransactError,
};
use slipway_model::Id;

use crate::support::{Command, Database, Event, Job, Refusal, id, meta, record};

conformance! {
    a_repeated_request_does_nothing_twice,
    the_same_request_at_the_same_time,
    transactions_remember_requests,
    the_same_transaction_at_the_same_time,
    what_was_carried_out_before_can_be_asked,
    lists_are_paged_and_filtered,
}

fn request(request_id: &str, command: &str) -> IdempotencyKey {
    IdempotencyKey::new("token/alice", "Create", request_id, &command)
}

async fn a_repeated_request_does_nothing_twice(database: Database) {
    let ledger = database.open().await;
    let create = async |request: IdempotencyKey, name: &str| {
        ledger
            .execute_once::<Job>(&request, &id(name), || Command::Add(1), &meta())
            .await
    };
    let first = create(request("r1", "add"), "a").await.unwrap();
    assert_eq!((first.snapshot.id.as_str(), first.replayed), ("a", false));
    record(&ledger, &id("a"), vec![Event::Added { amount: 5 }]).await;

    let again = create(request("r1", "add"), "b").await.unwrap();
    assert_eq!(
        (
            again.snapshot.id.as_str(),
            again.snapshot.state.count,
            again.replayed
        ),
        ("a", 6, true)
    );
    assert!(ledger.get::<Job>(&id("b")).await.unwrap().is_none());

    let reused = create(request("r1", "other"), "c").await;
    assert!(
        matches!(reused, Err(ExecuteError::RequestIdReused { .. })),
        "{reused:?}"
    );
    // Another caller's key, another method's, and none at all.
    let other = IdempotencyKey {
        principal: "token/bob".into(),
        ..request("r1", "other")
    };
    assert!(!create(other, "d").await.unwrap().replayed);
    let other = IdempotencyKey {
        method: "Cancel".into(),
        ..request("r1", "other")
    };
    assert!(!create(other, "e").await.unwrap().replayed);
    assert!(!create(request("", "add"), "f").await.unwrap().replayed);
    assert!(!create(request("", "add"), "g").await.unwrap().replayed);

    // What was refused may be tried again.
    let refused = ledger
        .execute_once::<Job>(&request("r2", "x"), &id("h"), || Command::Refuse, &meta())
        .await;
    assert!(matches!(refused, Err(ExecuteError::Refused(_))));
    assert!(!create(request("r2", "x"), "h").await.unwrap().replayed);
}

async fn the_same_request_at_the_same_time(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let tasks = (0..24).map(|n| {
        let ledger = replicas[n % 2].clone();
        tokio::spawn(async move {
            let id = id(&format!("new-{n}"));
            ledger
                .execute_once::<Job>(&request("r", "add"), &id, || Command::Add(1), &meta())
                .await
                .unwrap()
        })
    });
    let results: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|executed| !executed.replayed).count(), 1);
    assert!(
        results
            .iter()
            .all(|executed| executed.snapshot.id == results[0].snapshot.id)
    );
    let all = replicas[0]
        .list("job", &ListFilter::default(), &Page::default())
        .await
        .unwrap();
    assert_eq!(all.items.len(), 1);
}

async fn transactions_remember_requests(database: Database) {
    let ledger = database.open().await;
    let run = async |key: &IdempotencyKey| {
        ledger
            .transact_once::<Job, _, _, _>(key, &meta(), |tx| async move {
                let first = tx.decide::<Job>(&id("first"), Command::Add(1)).await?;
                tx.decide::<Job>(&id("second"), Command::Add(1)).await?;
                Ok::<_, ExecuteError<Refusal>>(first)
            })
            .await
    };
    for replayed in [false, true] {
        let done = run(&request("r", "both")).await.unwrap();
        assert_eq!((done.snapshot.id.as_str(), done.replayed), ("first", replayed));
    }
    let reused = run(&request("r", "else")).await;
    assert!(matches!(reused, Err(TransactError::RequestIdReused { .. })));
    assert_eq!(ledger.get::<Job>(&id("second")).await.unwrap().unwrap().seq, 1);

    // Without a request id nothing is remembered.
    assert!(!run(&request("", "both")).await.unwrap().replayed);
    assert!(!run(&request("", "both")).await.unwrap().replayed);
    assert_eq!(ledger.get::<Job>(&id("second")).await.unwrap().unwrap().seq, 3);
}

async fn the_same_transaction_at_the_same_time(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let tasks = (0..24).map(|n| {
        let ledger = replicas[n % 2].clone();
        tokio::spawn(async move {
            let (own, shared) = (id(&format!("new-{n}")), id("shared"));
            ledger
                .transact_once::<Job, _, _, _>(&request("r", "add"), &meta(), |tx| {
                    let (own, shared) = (own.clone(), shared.clone());
                    async move {
                        let made = tx.decide::<Job>(&own, Command::Add(1)).await?;
                        tx.decide::<Job>(&shared, Command::Add(1)).await?;
                        Ok::<_, ExecuteError<Refusal>>(made)
                    }
                })
                .await
                .unwrap()
        })
    });
    let results: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|executed| !executed.replayed).count(), 1);
    let made = &results[0].snapshot.id;
    assert!(results.iter().all(|executed| executed.snapshot.id == *made));
    let shared = replicas[0].get::<Job>(&id("shared")).await.unwrap().unwrap();
    assert_eq!(shared.seq, 1, "the losers wrote nothing");
}

async fn what_was_carried_out_before_can_be_asked(database: Database) {
    let ledger = database.open().await;
    let key = request("r1", "add");
    assert!(ledger.replayed::<Job>(&key).await.unwrap().is_none());
    ledger
        .execute_once::<Job>(&key, &id("a"), || Command::Add(1), &meta())
        .await
        .unwrap();
    record(&ledger, &id("a"), vec![Event::Added { amount: 5 }]).await;
    let known = ledger.replayed::<Job>(&key).await.unwrap().unwrap();
    assert_eq!((known.id.as_str(), known.state.count), ("a", 6), "as it is now");

    let reused = ledger.replayed::<Job>(&request("r1", "other")).await;
    assert!(
        matches!(&reused, Err(ReplayError::RequestIdReused { request_id }) if request_id == "r1"),
        "{reused:?}"
    );
    assert!(
        ledger
            .replayed::<Job>(&request("", "add"))
            .await
            .unwrap()
            .is_none()
    );
}

async fn lists_are_paged_and_filtered(database: Database) {
    let ledger = database.open().await;
    for n in 0..25 {
        let service = if n % 2 == 0 { "even" } else { "odd" }.to_owned();
        let labels = BTreeMap::from([
            ("third".to_owned(), (n % 3).to_string()),
            ("team".to_owned(), "a".to_owned()),
        ]);
        let mut events = vec![Event::Labelled { service, labels }];
        if n % 5 == 0 {
            events.push(Event::Closed);
        }
        record(&ledger, &id(&format!("job-{n:02}")), events).await;
    }
    let everything = async |filter: &ListFilter, size: u32| {
        let (mut ids, mut page): (Vec<Id>, _) = (
            vec![],
            Page {
                size,
                token: String::new(),
            },
        );
        loop {
            let list = ledger.list_of::<Job>(filter, &page).await.unwrap();
            assert!(list.items.len() <= size as usize);
            ids.extend(list.items.into_iter().map(|item| item.id));
            page.token = list.next_page_token;
            if page.token.is_empty() {
                return ids;
            }
        }
    };
    let newest_first = |wanted: &dyn Fn(u32) -> bool| -> Vec<Id> {
        (0..25)
            .rev()
            .filter(|n| wanted(*n))
            .map(|n| id(&format!("job-{n:02}")))
            .collect()
    };
    let all = ListFilter::default();
    for size in [1, 7, 25, 100] {
        assert_eq!(everything(&all, size).await, newest_first(&|_| true));
    }
    let odd = ListFilter {
        service: Some("odd".into()),
        ..all.clone()
    };
    assert_eq!(everything(&odd, 4).await, newest_first(&|n| n % 2 == 1));
    let correlated = ListFilter {
        correlation: Some("c-odd".into()),
        ..all.clone()
    };
    assert_eq!(everything(&correlated, 4).await, newest_first(&|n| n % 2 == 1));
    let open = ListFilter {
        not_final: true,
        ..all.clone()
    };
    assert_eq!(everything(&open, 4).await, newest_first(&|n| n % 5 != 0));
    let closed = ListFilter {
        status: vec!["closed".into(), "no such".into()],
        ..all.clone()
    };
    assert_eq!(everything(&closed, 2).await, newest_first(&|n| n % 5 == 0));
    let labels = BTreeMap::from([("third".into(), "1".into()), ("team".into(), "a".into())]);
    let labelled = ListFilter {
        labels,
        not_final: true,
        ..all.clone()
    };
    assert_eq!(
        everything(&labelled, 2).await,
        newest_first(&|n| n % 3 == 1 && n % 5 != 0)
    );
    let nowhere = ListFilter {
        environment: Some("prod".into()),
        ..all.clone()
    };
    assert_eq!(everything(&nowhere, 2).await, Vec::<Id>::new());

    let first = ledger
        .list(
            "job",
            &all,
            &Page {
                size: 3,
                token: String::new(),
            },
        )
        .await
        .unwrap();
    let elsewhere = ledger
        .list(
            "job",
            &odd,
            &Page {
                size: 3,
                token: first.next_page_token,
            },
        )
        .await;
    assert!(matches!(elsewhere, Err(LedgerError::PageToken)));
    let wrong = ledger
        .list(
            "job",
            &all,
            &Page {
                size: 3,
                token: "x".into(),
            },
        )
        .await;
    assert!(matches!(wrong, Err(LedgerError::PageToken)));
}
