//! The ledger: the durable core of every Slipway service.

mod cache;
mod chain;
mod clock;
mod commit;
mod decider;
mod decision;
mod error;
pub mod executor;
pub mod faults;
mod feed;
mod hub;
mod ledger;
mod list;
mod page;
mod postgres;
pub mod relay;
mod sqlite;
mod store;
mod turns;
mod tx;
mod types;
mod watch;

pub use chain::ChainError;
pub use decider::{Decider, EffectKey, Index};
pub use error::{ExecuteError, LedgerError, TransactError};
pub use executor::{EffectRun, Effects, Executor, ExecutorBuilder, ExecutorHandle};
pub use ledger::Ledger;
pub use relay::{Relay, RelayConfig, Sink, SinkError};
pub use tx::Tx;
pub use types::{
    Committed, Executed, FeedFilter, FeedItem, LedgerConfig, ListFilter, ListItem, ListPage, Meta, Page,
    Recorded, Request, SetAside, Snapshot, StoredEvent,
};
