//! The calls that differ between databases. Implementations know rows, but no decider, cache or retry.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use slipway_model::{ContentHash, Id, Reason, Timestamp};

use crate::{
    IdempotencyKey, Index, Inspected, LedgerError, ListFilter, Parking,
    cache::Cached,
    rows::{After, AfterParked, AggregateRow, EventRow, FeedRow, Position, RequestRow, Start},
    types::Key,
};

pub(crate) type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// The result of giving an aggregate back after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) parked: bool,
    /// Tries without progress.
    pub(crate) attempts: u32,
}

/// What the new state asks of the executor; the database turns it into `due_at` with its own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) effects: bool,
    pub(crate) wake_at: Option<Timestamp>,
    /// Jittered; `None` when nothing is polled.
    pub(crate) poll_every: Option<Duration>,
    /// This follows from a poll that began then: the next one is a whole interval later, and hints that came before it
    /// are served.
    pub(crate) polled: Option<Timestamp>,
}

/// What an append does to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    #[default]
    Leave,
    /// Take it for this long if it is free, lapsed or ours.
    Take(Duration),
    /// Give it back if it is ours.
    Release,
}

impl Wish {
    /// As the SQL statements know it.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Leave => 0,
            Self::Take(_) => 1,
            Self::Release => 2,
        }
    }

    /// Microseconds; 0 when nothing is taken.
    pub(crate) fn lease_micros(self) -> i64 {
        match self {
            Self::Take(lease) => micros(lease),
            Self::Leave | Self::Release => 0,
        }
    }
}

/// As databases count.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The next state of one aggregate, with the events that lead to it.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) key: Key,
    /// The seq that it was decided on; 0 when it did not exist.
    pub(crate) expected: u64,
    /// Empty when the aggregate was only read: then it must still be at `expected`.
    pub(crate) events: Vec<EventRow>,
    pub(crate) state_version: u32,
    pub(crate) index: Index,
    /// JSON object.
    pub(crate) labels: String,
    pub(crate) is_final: bool,
    pub(crate) state: String,
    pub(crate) schedule: Schedule,
    pub(crate) wish: Wish,
    /// What the cache stores once this is committed: times, head, trace and the typed state.
    pub(crate) next: Arc<Cached>,
}

impl Append {
    pub(crate) fn writes(&self) -> bool {
        !self.events.is_empty()
    }
}

/// Appends that are committed together or not at all.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) appends: Vec<Append>,
    /// The idempotency key, and which aggregate it stands for.
    pub(crate) request: Option<(IdempotencyKey, Key)>,
}

/// Why a batch was not written, while others of its group were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clash {
    /// Another writer changed one of its aggregates.
    Seq,
    /// Its idempotency key is taken.
    Request,
}

/// One aggregate after its append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// This process holds the lease.
    pub(crate) mine: bool,
    pub(crate) due_at: Option<Timestamp>,
}

/// How the executor identifies itself to the database, and what it can run.
#[derive(Debug, Clone)]
pub(crate) struct Claimant {
    pub(crate) lease: Duration,
    /// Kind and the newest state version that this binary knows.
    pub(crate) kinds: Vec<(String, u32)>,
}

/// An aggregate that the executor now holds.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) key: Key,
    pub(crate) attempts: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Claims {
    /// The database's time at the claim.
    pub(crate) now: Timestamp,
    pub(crate) claims: Vec<Claim>,
    /// The earliest time at which something else will be due.
    pub(crate) next_due: Option<Timestamp>,
}

/// An aggregate whose due work is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled {
    /// When there is something to do again.
    pub(crate) due_at: Option<Timestamp>,
    /// How often in a row its polls failed.
    pub(crate) faults: u32,
}

/// The result of a hint.
#[derive(Debug, Clone)]
pub(crate) enum Hinted {
    Unknown,
    /// Remembered; nothing to run here now.
    Stored,
    Claimed {
        now: Timestamp,
        attempts: u32,
    },
}

/// An append of another process.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    Committed {
        kind: String,
        id: Id,
        seq: u64,
    },
    /// Something without a lease is due at this time.
    Due(Timestamp),
    /// Messages were missed: trust nothing that is cached.
    Resync,
}

#[async_trait]
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// The database's clock.
    async fn now(&self) -> Result<Timestamp>;

    /// The aggregate; without its state if it is at seq `known`.
    async fn load(&self, key: &Key, known: u64) -> Result<Option<AggregateRow>>;
    /// Its events after `after`, in order, at most `limit`.
    async fn events(&self, key: &Key, after: u64, limit: u32) -> Result<Vec<EventRow>>;
    async fn list(
        &self,
        kind: &str,
        filter: &ListFilter,
        after: Option<&After>,
        limit: u32,
    ) -> Result<Vec<AggregateRow>>;
    async fn request(&self, key: &IdempotencyKey) -> Result<Option<RequestRow>>;

    /// Stores a body under its hash, unless it is there.
    async fn put_content(&self, hash: &ContentHash, body: &[u8]) -> Result<()>;
    /// The body as it is stored, not yet compared with its hash.
    async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>>;

    /// Writes what it can of a group in one transaction. `Err` means that it is not known what was written, if
    /// anything: the same group may be passed `again`, and what is already there then counts as written.
    async fn commit(
        &self,
        group: &[Batch],
        again: bool,
    ) -> Result<Vec<std::result::Result<Vec<Written>, Clash>>>;

    async fn feed(&self, after: Position, limit: u32) -> Result<Vec<FeedRow>>;
    async fn feed_start(&self, start: Start) -> Result<Position>;
    /// A position of a cursor, made valid for this database.
    async fn feed_resume(&self, position: Position) -> Result<Position>;

    /// Takes up to `limit` due aggregates.
    async fn claim(&self, claimant: &Claimant, limit: u32) -> Result<Claims>;
    /// Extends the leases on `keys`; returns those that are still ours.
    async fn renew(&self, keys: &[Key], lease: Duration) -> Result<Vec<Key>>;
    /// Records that everything due is done, or why polls failed. `None` when the aggregate moved on from `seq` or is
    /// not ours.
    async fn settle(
        &self,
        key: &Key,
        seq: u64,
        schedule: &Schedule,
        fault: Option<&Reason>,
        release: bool,
    ) -> Result<Option<Settled>>;
    /// Gives it back after a failure: due again after `backoff`, or parked after `limit` claims. `None` if it is not
    /// ours.
    async fn fail(&self, key: &Key, error: &Reason, backoff: Duration, limit: u32) -> Result<Option<Failed>>;
    /// Gives it back untouched, due as it was.
    async fn release(&self, keys: &[Key]) -> Result<()>;
    /// Makes it due, and claims it when there is a claimant and it has no holder.
    async fn hint(&self, key: &Key, claimant: Option<&Claimant>) -> Result<Hinted>;
    /// What is parked, of one kind or of all, newest first.
    async fn parked(
        &self,
        kind: Option<&str>,
        after: Option<&AfterParked>,
        limit: u32,
    ) -> Result<Vec<Inspected>>;
    async fn inspect(&self, key: &Key) -> Result<Option<Inspected>>;
    /// Makes a parked aggregate due now, and returns why it was parked; `None` when it was not.
    async fn resume(&self, key: &Key) -> Result<Option<Parking>>;

    /// Aggregates of an older state version, by id.
    async fn outdated(&self, kind: &str, version: u32, after: Option<&Id>, limit: u32) -> Result<Vec<Id>>;
    /// Replaces the state of an aggregate that is still at `append.expected` and of an older version.
    async fn rewrite(&self, append: &Append) -> Result<bool>;

    /// Takes or extends a named lease.
    async fn lease(&self, name: &str, ttl: Duration) -> Result<bool>;
    async fn unlease(&self, name: &str) -> Result<()>;
    async fn relay(&self, name: &str) -> Result<Option<(Position, Option<String>)>>;
    /// False when the lease of this name is not ours any more.
    async fn save_relay(&self, name: &str, position: Position, last_entry: Option<&str>) -> Result<bool>;

    /// Appends of other processes, until the receiver is dropped.
    async fn remote(&self) -> Result<tokio::sync::mpsc::Receiver<Remote>>;
    async fn close(&self);
}
