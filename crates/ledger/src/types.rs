//! The values that go into the ledger and come out of it.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use slipway_model::{Actor, Id, Reason, Retry, Timestamp, TraceContext};

use crate::Decider;

/// An aggregate's name in the whole database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Cow<'static, str>,
    pub(crate) id: Id,
}

impl Key {
    pub(crate) fn of<D: Decider>(id: &Id) -> Self {
        Self {
            kind: Cow::Borrowed(D::KIND),
            id: id.clone(),
        }
    }

    pub(crate) fn new(kind: &str, id: &Id) -> Self {
        Self {
            kind: Cow::Owned(kind.to_owned()),
            id: id.clone(),
        }
    }
}

/// Where the ledger is stored and how much it may use.
#[derive(Clone)]
pub struct LedgerConfig {
    /// `postgres://user:password@host/database` or `sqlite:///absolute/path.db`. Secret: never printed.
    pub url: String,
    /// Connections for reads, claims and hints; the committers have two more of their own.
    pub max_connections: u32,
    /// This process's name among the replicas of its service; shown as the holder of leases.
    pub replica: String,
    /// The producing service, such as `build`: the source of its events.
    pub origin: String,
    /// Aggregates whose latest state is kept in memory.
    pub cache_entries: u64,
    /// The longest event, in bytes of JSON.
    pub max_event_bytes: usize,
    /// The most appends that share one transaction.
    pub group_size: usize,
    /// Idempotency keys are forgotten after this time.
    pub request_retention: Duration,
}

impl LedgerConfig {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 8,
            replica: "replica".to_owned(),
            origin: "slipway".to_owned(),
            cache_entries: 10_000,
            max_event_bytes: 256 * 1024,
            group_size: 128,
            request_retention: Duration::from_secs(30 * 24 * 3600),
        }
    }

    /// Sets [`LedgerConfig::origin`].
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = origin.into();
        self
    }

    /// Sets [`LedgerConfig::replica`].
    #[must_use]
    pub fn replica(mut self, replica: impl Into<String>) -> Self {
        self.replica = replica.into();
        self
    }

    /// Sets [`LedgerConfig::max_connections`].
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets [`LedgerConfig::max_event_bytes`].
    #[must_use]
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }
}

impl fmt::Debug for LedgerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerConfig")
            .field("replica", &self.replica)
            .field("origin", &self.origin)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// An aggregate at one point of its life.
pub struct Snapshot<D: Decider> {
    pub id: Id,
    /// How many events it has; 0 before the first one.
    pub seq: u64,
    pub state: D::State,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Why the executor has parked it, until a person resumes it.
    pub parked: Option<Reason>,
    /// What the executor itself is retrying; `None` when it is parked. See [`Snapshot::retrying`].
    pub retry: Option<Retry>,
    /// The trace that the latest event with a trace belongs to.
    pub traceparent: Option<TraceContext>,
}

impl<D: Decider> Snapshot<D> {
    /// What is being retried: by the executor, or according to the state.
    pub fn retrying(&self) -> Option<Retry> {
        self.retry.clone().or_else(|| D::retry(&self.state))
    }

    /// The entity tag of the resource: changes with every event.
    pub fn etag(&self) -> String {
        self.seq.to_string()
    }
}

impl<D: Decider> Clone for Snapshot<D> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            seq: self.seq,
            state: self.state.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            parked: self.parked.clone(),
            retry: self.retry.clone(),
            traceparent: self.traceparent,
        }
    }
}

impl<D: Decider> fmt::Debug for Snapshot<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("kind", &D::KIND)
            .field("id", &self.id)
            .field("seq", &self.seq)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Who gives a command, and within which trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub actor: Actor,
    pub traceparent: Option<TraceContext>,
}

impl Meta {
    pub fn new(actor: Actor, traceparent: Option<TraceContext>) -> Self {
        Self { actor, traceparent }
    }
}

impl From<Actor> for Meta {
    fn from(actor: Actor) -> Self {
        Self {
            actor,
            traceparent: None,
        }
    }
}

/// The same key with the same command means the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub principal: String,
    pub method: String,
    /// Chosen by the caller. Empty: the call is not idempotent, nothing is remembered.
    pub request_id: String,
    /// SHA-256 of the command, in hex.
    pub fingerprint: String,
}

impl IdempotencyKey {
    /// A key for `command`, which is hashed by its JSON form; use types that serialise the same every time
    /// (no hash maps). A command that cannot be written as JSON hashes its error, and so never equals another one.
    pub fn new(
        principal: impl fmt::Display,
        method: impl Into<String>,
        request_id: impl Into<String>,
        command: &impl Serialize,
    ) -> Self {
        let text = serde_json::to_vec(command).unwrap_or_else(|error| error.to_string().into_bytes());
        Self {
            principal: principal.to_string(),
            method: method.into(),
            request_id: request_id.into(),
            fingerprint: hex::encode(Sha256::digest(text)),
        }
    }
}

/// The result of an idempotent command.
pub struct Executed<D: Decider> {
    /// The aggregate as it is now; on replay it may have another id than the one that was passed.
    pub snapshot: Snapshot<D>,
    /// The request was carried out before; nothing was done now.
    pub replayed: bool,
}

impl<D: Decider> Clone for Executed<D> {
    fn clone(&self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            replayed: self.replayed,
        }
    }
}

impl<D: Decider> fmt::Debug for Executed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("snapshot", &self.snapshot)
            .field("replayed", &self.replayed)
            .finish()
    }
}

/// An event of an aggregate's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<E> {
    pub seq: u64,
    pub event: E,
    pub actor: Actor,
    pub traceparent: Option<TraceContext>,
    pub at: Timestamp,
}

/// An event as it is published: everything an event envelope needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub kind: String,
    pub id: Id,
    pub seq: u64,
    /// The event's tag in snake_case.
    pub event_type: String,
    /// JSON text, exactly as it was stored.
    pub data: String,
    pub actor: Actor,
    pub traceparent: Option<TraceContext>,
    /// These three are the aggregate's as they are now, not as they were at this event.
    pub correlation: String,
    pub service: String,
    pub environment: String,
    pub at: Timestamp,
}

/// Something was appended: by this process, or by another replica that notified us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub kind: Cow<'static, str>,
    pub id: Id,
    pub seq: u64,
}

/// Which aggregates of a kind to list. The default takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ListFilter {
    /// One of these; empty means any.
    pub status: Vec<String>,
    pub service: Option<String>,
    pub environment: Option<String>,
    pub correlation: Option<String>,
    /// All of these.
    pub labels: BTreeMap<String, String>,
    /// Leave out those that are final.
    pub not_final: bool,
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// 0 means 50; more than 1000 means 1000.
    pub size: u32,
    /// Empty for the first page.
    pub token: String,
}

/// A page of a list, newest first.
#[derive(Debug, Clone)]
pub struct ListPage<T = ListItem> {
    pub items: Vec<T>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// An aggregate whose type is not known to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListItem {
    pub id: Id,
    pub seq: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// As in [`Snapshot`].
    pub parked: Option<Reason>,
    /// As in [`Snapshot`].
    pub retry: Option<Retry>,
    pub state_version: u32,
    /// JSON text.
    pub state: String,
}

/// An aggregate of any kind, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    pub kind: String,
    pub id: Id,
    pub seq: u64,
    pub service: String,
    pub environment: String,
    pub correlation: String,
    /// `None` if it is not parked.
    pub parked: Option<Parking>,
    /// JSON text; empty in lists.
    pub state: String,
}

/// Why the executor does not retry an aggregate until a person resumes it, or a command changes its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    /// The outcome of the last try.
    pub error: Reason,
    /// Tries without progress.
    pub attempts: u32,
    pub since: Timestamp,
}

/// Which events of the feed to pass on. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedFilter {
    pub kinds: Vec<String>,
    pub ids: Vec<Id>,
    pub correlation: Option<String>,
    pub service: Option<String>,
    pub environment: Option<String>,
}

impl FeedFilter {
    pub(crate) fn takes(&self, event: &StoredEvent) -> bool {
        let same = |wanted: &Option<String>, got: &String| wanted.as_ref().is_none_or(|wanted| wanted == got);
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.ids.is_empty() || self.ids.contains(&event.id))
            && same(&self.correlation, &event.correlation)
            && same(&self.service, &event.service)
            && same(&self.environment, &event.environment)
    }
}

/// An event of the feed, and where to continue after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedItem {
    pub cursor: String,
    pub event: StoredEvent,
}
