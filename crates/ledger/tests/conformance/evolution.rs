//! Old and new binaries on one database.

use futures::StreamExt as _;
use pretty_assertions::assert_eq;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_ledger::{Decider, ExecuteError, FeedFilter, Index, Ledger, LedgerError, ListFilter, Page};
use slipway_model::{Actor, Authentication, Id, Principal, Timestamp};

use crate::support::{Database, Event, Job, id, meta, record};

conformance! {
    older_states_are_folded_again,
    newer_states_are_read_and_never_written,
    events_of_the_future_are_refused,
    actors_of_before_there_were_chains_are_read,
}

/// Counts; the second version also knows the largest amount, and events that the first one does not.
struct Tally<const VERSION: u32>;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    sum: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Second {
    sum: i64,
    largest: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FirstEvent {
    Added { amount: i64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum SecondEvent {
    Added { amount: i64 },
    Cleared,
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

impl slipway_ledger::Refusal for Refused {
    fn kind(&self) -> slipway_ledger::RefusalKind {
        slipway_ledger::RefusalKind::FailedPrecondition("REFUSED")
    }
}

macro_rules! tally {
    ($version:literal, $state:ty, $event:ty) => {
        impl Decider for Tally<$version> {
            const KIND: &'static str = "tally";
            const STATE_VERSION: u32 = $version;
            type State = $state;
            type Command = $event;
            type Event = $event;
            type Effect = ();
            type Refusal = Refused;

            fn decide(_: &Id, _: &$state, command: $event, _: Timestamp) -> Result<Vec<$event>, Refused> {
                Ok(vec![command])
            }

            fn evolve(state: &mut $state, event: &$event, _: Timestamp) {
                Self::apply(state, event);
            }

            fn index(state: &$state) -> Index {
                Index {
                    status: format!("v{}-{}", $version, state.sum),
                    ..Index::default()
                }
            }

            fn is_final(_: &$state) -> bool {
                false
            }
        }
    };
}
tally!(1, First, FirstEvent);
tally!(2, Second, SecondEvent);

impl Tally<1> {
    fn apply(state: &mut First, event: &FirstEvent) {
        let FirstEvent::Added { amount } = event;
        state.sum += amount;
    }
}

impl Tally<2> {
    fn apply(state: &mut Second, event: &SecondEvent) {
        match event {
            SecondEvent::Added { amount } => {
                state.sum += amount;
                state.largest = state.largest.max(*amount);
            }
            SecondEvent::Cleared => *state = Second::default(),
        }
    }
}

async fn old(ledger: &Ledger, id: &Id, amount: i64) -> Result<u64, ExecuteError<Refused>> {
    ledger
        .execute::<Tally<1>>(id, || FirstEvent::Added { amount }, &meta())
        .await
        .map(|snapshot| snapshot.seq)
}

async fn new(ledger: &Ledger, id: &Id, event: SecondEvent) -> u64 {
    ledger
        .execute::<Tally<2>>(id, || event.clone(), &meta())
        .await
        .unwrap()
        .seq
}

async fn older_states_are_folded_again(database: Database) {
    let before = database.open().await;
    for n in 0..3 {
        let id = id(&format!("t-{n}"));
        old(&before, &id, 4).await.unwrap();
        old(&before, &id, 3).await.unwrap();
    }
    let after = database.open().await;
    let wanted = Second { sum: 7, largest: 4 };
    // On the way, when it is read before it was folded; lists too.
    assert_eq!(
        after.get::<Tally<2>>(&id("t-0")).await.unwrap().unwrap().state,
        wanted
    );
    let list = after
        .list_of::<Tally<2>>(&ListFilter::default(), &Page::default())
        .await
        .unwrap();
    assert!(list.items.iter().all(|item| item.state == wanted));

    assert_eq!(after.refold::<Tally<2>>().await.unwrap(), 3);
    assert_eq!(after.refold::<Tally<2>>().await.unwrap(), 0);
    let filter = ListFilter {
        status: vec!["v2-7".into()],
        ..ListFilter::default()
    };
    let list = after.list("tally", &filter, &Page::default()).await.unwrap();
    assert_eq!(
        (list.items.len(), &*list.items[0].state),
        (3, r#"{"sum":7,"largest":4}"#)
    );
    assert_eq!(new(&after, &id("t-1"), SecondEvent::Added { amount: 9 }).await, 3);
    assert_eq!(after.verify("tally", &id("t-1")).await.unwrap(), Some(Ok(3)));
}

async fn newer_states_are_read_and_never_written(database: Database) {
    let after = database.open().await;
    new(&after, &id("t"), SecondEvent::Added { amount: 5 }).await;
    let before = database.open().await;
    assert_eq!(
        before.get::<Tally<1>>(&id("t")).await.unwrap().unwrap().state,
        First { sum: 5 }
    );
    let refused = old(&before, &id("t"), 1).await;
    assert!(
        matches!(
            refused,
            Err(ExecuteError::Ledger(LedgerError::NewerVersion {
                found: 2,
                known: 1,
                ..
            }))
        ),
        "{refused:?}"
    );
    assert_eq!(before.refold::<Tally<1>>().await.unwrap(), 0);
    assert_eq!(new(&after, &id("t"), SecondEvent::Added { amount: 1 }).await, 2);
}

async fn events_of_the_future_are_refused(database: Database) {
    let after = database.open().await;
    new(&after, &id("t"), SecondEvent::Added { amount: 5 }).await;
    new(&after, &id("t"), SecondEvent::Cleared).await;
    let before = database.open().await;
    let found = before.get::<Tally<1>>(&id("t")).await;
    assert!(
        matches!(found, Err(LedgerError::NewerVersion { .. })),
        "{found:?}"
    );
    let mut states = std::pin::pin!(before.watch::<Tally<1>>(&id("t"), None));
    let watched = slipway_testbed::within("the watch ends", futures::StreamExt::next(&mut states)).await;
    assert!(matches!(watched, Some(Err(LedgerError::NewerVersion { .. }))));
    let history = before.history::<Tally<1>>(&id("t"), 0).await;
    assert!(
        matches!(history, Err(LedgerError::Decode { seq: 2, .. })),
        "{history:?}"
    );
}

/// The hash of a first event, as `src/chain.rs` pins it.
fn first_hash(kind: &str, id: &str, event_type: &str, actor: &str, at: Timestamp, data: &str) -> String {
    let mut hash = Sha256::new();
    let (seq, at) = (1_u64.to_be_bytes(), at.as_micros().to_be_bytes());
    let fields: [&[u8]; 9] = [
        &[0; 32],
        kind.as_bytes(),
        id.as_bytes(),
        &seq,
        event_type.as_bytes(),
        actor.as_bytes(),
        b"",
        &at,
        data.as_bytes(),
    ];
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hex::encode(hash.finalize())
}

/// A history from the time of `{"principal", "on_behalf_of"}` is read as chains, goes on, and verifies: what is stored
/// stays as it was written.
async fn actors_of_before_there_were_chains_are_read(database: Database) {
    let ledger = database.open().await;
    record(&ledger, &id("one"), vec![Event::Added { amount: 5 }]).await;
    let at = ledger.history::<Job>(&id("one"), 0).await.unwrap()[0].at;
    let old = r#"{"principal":"token/bot","on_behalf_of":"token/alice"}"#;
    let hash = first_hash("job", "one", "added", old, at, r#"{"type":"added","amount":5}"#);
    let bytes = if database.is_postgres() {
        format!(r"'\x{hash}'")
    } else {
        format!("x'{hash}'")
    };
    database
        .meddle(format!("UPDATE events SET actor = '{old}', hash = {bytes}").leak())
        .await;
    database
        .meddle(format!("UPDATE aggregates SET head_hash = {bytes}").leak())
        .await;

    let ledger = database.open().await;
    assert_eq!(ledger.verify("job", &id("one")).await.unwrap(), Some(Ok(1)));
    record(&ledger, &id("one"), vec![Event::Added { amount: 1 }]).await;
    assert_eq!(ledger.verify("job", &id("one")).await.unwrap(), Some(Ok(2)));
    let chain = Actor::direct(Principal::new("token", "bot"), Authentication::StaticToken)
        .on_behalf_of(Principal::new("token", "alice"));
    let history = ledger.history::<Job>(&id("one"), 0).await.unwrap();
    let actors: Vec<&Actor> = history.iter().map(|event| &event.actor).collect();
    assert_eq!(actors, [&chain, &meta().actor]);
    let feed = ledger.feed("", FeedFilter::default()).unwrap();
    let fed: Vec<_> = feed.take(2).map(|item| item.unwrap().event.actor).collect().await;
    assert_eq!(fed, [chain, meta().actor]);
}
