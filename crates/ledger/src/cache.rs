//! The latest state of recently used aggregates. Optimistic: decisions based on it are checked at the append.

use std::{any::Any, fmt, sync::Arc};

use slipway_model::{Reason, Retry, Timestamp, TraceContext};

use crate::{Decider, Snapshot, rows::Hash, types::Key};

/// An aggregate at its `seq`, with its state as the decider's type.
#[derive(Clone)]
pub(crate) struct Cached {
    pub(crate) seq: u64,
    pub(crate) head: Hash,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) parked: Option<Reason>,
    pub(crate) retry: Option<Retry>,
    pub(crate) traceparent: Option<TraceContext>,
    /// The version in the database, if it is newer than this binary's: then it can only be read.
    pub(crate) newer: Option<u32>,
    pub(crate) state: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl Cached {
    /// The state. Kinds have different names, so the default is used only if two deciders share a `KIND`.
    pub(crate) fn state<D: Decider>(&self) -> Arc<D::State> {
        Arc::clone(&self.state).downcast().unwrap_or_default()
    }

    /// Why the executor does not make progress.
    pub(crate) fn fault(&self) -> Option<&Reason> {
        let retry = self.retry.as_ref().map(|retry| &retry.error);
        self.parked.as_ref().or(retry)
    }

    pub(crate) fn snapshot<D: Decider>(&self, key: &Key) -> Snapshot<D> {
        Snapshot {
            id: key.id.clone(),
            seq: self.seq,
            state: D::State::clone(&self.state::<D>()),
            created_at: self.created_at,
            updated_at: self.updated_at,
            parked: self.parked.clone(),
            retry: self.retry.clone(),
            traceparent: self.traceparent,
        }
    }
}

/// Bounded by the number of aggregates.
#[derive(Debug, Clone)]
pub(crate) struct Cache(moka::sync::Cache<Key, Arc<Cached>>);

impl Cache {
    pub(crate) fn new(entries: u64) -> Self {
        Self(moka::sync::Cache::new(entries))
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Cached>> {
        self.0.get(key)
    }

    /// Inserts it, unless a later one is there: loads and appends race each other.
    pub(crate) fn put(&self, key: &Key, cached: &Arc<Cached>) {
        self.0.entry_by_ref(key).and_upsert_with(|old| match old {
            Some(old) if old.value().seq > cached.seq => old.into_value(),
            _ => Arc::clone(cached),
        });
    }

    /// Another process wrote it: forgets anything older.
    pub(crate) fn outdated(&self, key: &Key, seq: u64) {
        if self.0.get(key).is_some_and(|cached| cached.seq < seq) {
            self.0.invalidate(key);
        }
    }

    pub(crate) fn clear(&self) {
        self.0.invalidate_all();
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.0.invalidate(key);
    }
}
