//! The ledger: the durable core of every Slipway service.
//!
//! # The idea
//! A service keeps *aggregates*: a build, a change, an approval, a release. The life of one is a sequence of events
//! that are only ever appended. What it is now is a fold over them, and what may happen next is a pure function, the
//! [`Decider`]: it turns a command into events or a refusal, and it derives from the state what must be going on
//! (*effects*), what it waits to learn (*polls*) and when it wants to be woken (*timers*). The ledger does the rest: it
//! makes events durable, runs what the states ask for, and publishes what happened. Because work is derived from state
//! and never queued separately, nothing is lost in a crash at any point.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use slipway_ledger::{Decider, Index, Ledger, LedgerConfig, Meta};
//! # use slipway_model::{Actor, Id, Timestamp};
//! struct Door;
//!
//! #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! struct State { open: bool }
//!
//! #[derive(Debug, Clone)]
//! enum Command { Open, Close }
//!
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! #[serde(tag = "type", rename_all = "snake_case")]
//! enum Event { Opened, Closed }
//!
//! impl Decider for Door {
//!     const KIND: &'static str = "door";
//!     const STATE_VERSION: u32 = 1;
//!     type State = State;
//!     type Command = Command;
//!     type Event = Event;
//!     type Effect = ();
//!     type Refusal = std::convert::Infallible;
//!
//!     fn decide(_: &Id, state: &State, command: Command, _: Timestamp) -> Result<Vec<Event>, Self::Refusal> {
//!         Ok(match (command, state.open) {
//!             (Command::Open, false) => vec![Event::Opened],
//!             (Command::Close, true) => vec![Event::Closed],
//!             _ => vec![],
//!         })
//!     }
//!     fn evolve(state: &mut State, event: &Event, _: Timestamp) {
//!         state.open = matches!(event, Event::Opened);
//!     }
//!     fn index(_: &State) -> Index { Index::default() }
//!     fn is_final(_: &State) -> bool { false }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let url = format!("sqlite://{}/doors.db", dir.path().display());
//! let ledger = Ledger::open(LedgerConfig::new(url).origin("house")).await?;
//! let id: Id = "front".parse()?;
//! let meta = Meta::from(Actor::system("example"));
//! let door = ledger.execute::<Door>(&id, || Command::Open, &meta).await?;
//! assert!(door.state.open && door.seq == 1);
//! // Nothing to do is success, and leaves no record.
//! assert_eq!(ledger.execute::<Door>(&id, || Command::Open, &meta).await?.seq, 1);
//! # ledger.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is in the database
//! Each service has its own, on PostgreSQL or SQLite:
//! - `events`: append-only, one hash chain for each aggregate. It is the history, the audit trail and the outbox.
//!   `(kind, id, seq)` is unique, which is the optimistic lock.
//! - `aggregates`: the latest state, the columns that lists filter by, and `due_at`, the lease and the failures of the
//!   executor; written in the transaction that appends the events.
//! - `contents`: bodies too large for events, by their SHA-256 (module `content`).
//! - `requests`: idempotency keys. `leases` and `relay`: who publishes, and how far.
//!
//! # The life of a command
//! [`Ledger::execute`] takes the state from memory or the database, calls `decide`, and hands rows to the committer,
//! which writes what many tasks submit at the same time as one transaction (module `commit`). If another replica was
//! faster, only that command fails the comparison, and is decided again on the newer state. [`Ledger::transact`] does
//! the same for several aggregates at once.
//!
//! After the commit, watches and feeds of this process are notified directly, and other replicas by one NOTIFY per
//! transaction; if that gets lost, they notice by polling every second. If the new state asks for work, the append
//! itself took the lease, and the [`Executor`] starts the effects at once (module [`executor`]).
//!
//! # Two clocks and one rule
//! Due times and leases are in the database's time, and commands are decided with an estimate of it, so that replicas
//! with different clocks agree. Nothing in a decider may look at a clock itself.
//!
//! # Where to look
//! | you want | read |
//! |---|---|
//! | the contract of a kind of aggregate | [`Decider`] |
//! | how a command is carried out | `ledger`, `decision` |
//! | how an aggregate is loaded | `load` |
//! | how appends become durable and fast | `commit`, then `postgres/append`, `sqlite/append` |
//! | how effects, polls, hints, timers and leases work | [`executor`], `executor/supervisor` |
//! | why no event is skipped or published out of order | `feed`, [`relay`] |
//! | how bodies too large for events are kept | `content` |
//! | what differs between the databases | `store`, with the rows in `rows` |
//! | how tests kill a process at a chosen moment | `crates/faults` |

mod cache;
mod chain;
mod clock;
mod commit;
mod content;
mod decision;
mod error;
pub mod executor;
mod feed;
mod hook;
mod hub;
mod ledger;
mod list;
mod load;
mod page;
mod parked;
mod postgres;
mod read;
pub mod relay;
mod rows;
mod serial;
mod shared;
mod sqlite;
mod store;
mod tx;
mod types;
mod watch;

pub use chain::ChainError;
pub use content::MAX_CONTENT_BYTES;
pub use error::{ExecuteError, LedgerError, ReplayError, TransactError};
pub use executor::{EffectRun, Effects, Executor, ExecutorBuilder, ExecutorHandle};
pub use ledger::Ledger;
pub use relay::{Relay, RelayConfig, Sink, SinkError};
pub use slipway_decider::{Decider, EffectKey, Impossible, Index, Refusal, RefusalKind};
pub use tx::Tx;
pub use types::{
    Committed, Executed, FeedFilter, FeedItem, IdempotencyKey, Inspected, LedgerConfig, ListFilter, ListItem,
    ListPage, Meta, Page, Parking, Recorded, Snapshot, StoredEvent,
};
