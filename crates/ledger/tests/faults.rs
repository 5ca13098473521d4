//! The hooks that kill a process after an append, or at a named point, and what is left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, Index, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, Id, Timestamp};

struct Counter;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State(u64);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Counted,
}

impl Decider for Counter {
    const KIND: &'static str = "counter";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = ();
    type Event = Event;
    type Effect = ();
    type Refusal = std::convert::Infallible;

    fn decide(_: &Id, _: &State, (): (), _: Timestamp) -> Result<Vec<Event>, Self::Refusal> {
        Ok(vec![Event::Counted])
    }

    fn evolve(state: &mut State, _: &Event, _: Timestamp) {
        state.0 += 1;
    }

    fn index(_: &State) -> Index {
        Index::default()
    }

    fn is_final(_: &State) -> bool {
        false
    }
}

const URL: &str = "SLIPWAY_TEST_LEDGER_URL";

/// Not a test: what the process that is killed does.
#[tokio::test]
#[ignore = "started by a_process_dies_where_it_is_told_to"]
async fn child() {
    let url = std::env::var(URL).unwrap();
    let ledger = Ledger::open(LedgerConfig::new(url)).await.unwrap();
    for _ in 0..10 {
        slipway_faults::point("test.before");
        let id = "one".parse().unwrap();
        ledger
            .execute::<Counter>(&id, || (), &Meta::from(Actor::system("test")))
            .await
            .unwrap();
    }
}

/// Runs the child with a fault, and says whether it lived and how many of its ten appends are there.
async fn appends_of_a_child(fault: (&str, &str)) -> (bool, u64) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/ledger.db", dir.path().display());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child"])
        .env(URL, &url)
        .env(fault.0, fault.1)
        .output()
        .unwrap();
    let ledger = Ledger::open(LedgerConfig::new(url)).await.unwrap();
    let id = "one".parse().unwrap();
    let found = ledger
        .get::<Counter>(&id)
        .await
        .unwrap()
        .map_or(0, |snapshot| snapshot.state.0);
    if found > 0 {
        assert_eq!(ledger.verify("counter", &id).await.unwrap(), Some(Ok(found)));
    }
    (output.status.success(), found)
}

#[tokio::test]
async fn a_process_dies_where_it_is_told_to() {
    assert_eq!(
        appends_of_a_child(("SLIPWAY_FAULT_KILL_AFTER_APPEND", "3")).await,
        (false, 3)
    );
    assert_eq!(
        appends_of_a_child(("SLIPWAY_FAULT_KILL_AT", "test.before:3")).await,
        (false, 2)
    );
    assert_eq!(
        appends_of_a_child(("SLIPWAY_FAULT_KILL_AT", "test.other:1")).await,
        (true, 10)
    );
}
