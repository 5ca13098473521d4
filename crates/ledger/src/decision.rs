//! From a command to the rows of an append. Pure: the caller loads, and the committer writes.

use std::{any::Any, sync::Arc, time::Duration};

use serde::Deserialize;
use slipway_model::Timestamp;

use crate::{
    Decider, ExecuteError, LedgerError, Meta, Snapshot,
    cache::Cached,
    chain::{self, GENESIS},
    rows::{EventRow, Hash},
    store::{Append, Schedule, Wish},
    types::Key,
};

/// One aggregate between what was loaded and what will be appended.
#[derive(Debug)]
pub(crate) struct Decision<D: Decider> {
    key: Key,
    base: Option<Arc<Cached>>,
    state: D::State,
    events: Vec<EventRow>,
    seq: u64,
    head: Hash,
    updated_at: Timestamp,
    traceparent: Option<slipway_model::TraceContext>,
}

/// Internally tagged events carry their type in their JSON.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(rename = "type", borrow)]
    tag: std::borrow::Cow<'a, str>,
}

impl<D: Decider> Decision<D> {
    pub(crate) fn on(key: Key, base: Option<Arc<Cached>>) -> Self {
        let (state, seq, head, updated_at, traceparent) = match &base {
            Some(base) => (
                D::State::clone(&base.state::<D>()),
                base.seq,
                base.head,
                base.updated_at,
                base.traceparent,
            ),
            None => (D::State::default(), 0, GENESIS, Timestamp::from_micros(0), None),
        };
        Self {
            key,
            base,
            state,
            events: Vec::new(),
            seq,
            head,
            updated_at,
            traceparent,
        }
    }

    /// Decides, and applies the result. Returns the number of new events.
    pub(crate) fn decide(
        &mut self,
        command: D::Command,
        now: Timestamp,
        meta: &Meta,
        max_event_bytes: usize,
    ) -> Result<usize, ExecuteError<D::Refusal>> {
        if let Some(found) = self.base.as_ref().and_then(|base| base.newer) {
            return Err(self.newer(found).into());
        }
        // An aggregate's time never runs backwards, whatever the clocks of its writers say.
        let at = now.max(self.updated_at);
        let events = D::decide(&self.key.id, &self.state, command, at).map_err(ExecuteError::Refused)?;
        if events.is_empty() {
            return Ok(0);
        }
        let actor = self.json(&meta.actor)?;
        let traceparent = meta.traceparent.map(|context| context.to_string());
        for event in &events {
            let data = self.json(event)?;
            if data.len() > max_event_bytes {
                return Err(ExecuteError::TooLarge {
                    kind: D::KIND.to_owned(),
                    id: self.key.id.clone(),
                    size: data.len(),
                    limit: max_event_bytes,
                });
            }
            let event_type = serde_json::from_str::<Tag<'_>>(&data)
                .map_err(|error| self.encode(format!("the event has no tag `type`: {error}")))?
                .tag
                .into_owned();
            let mut row = EventRow {
                seq: self.seq + 1,
                event_type,
                data,
                actor: actor.clone(),
                traceparent: traceparent.clone(),
                at,
                prev_hash: self.head,
                hash: GENESIS,
            };
            row.hash = chain::hash(D::KIND, self.key.id.as_str(), &row);
            (self.seq, self.head) = (row.seq, row.hash);
            self.events.push(row);
            D::evolve(&mut self.state, event, at);
        }
        self.updated_at = at;
        self.traceparent = meta.traceparent.or(self.traceparent);
        Ok(events.len())
    }

    pub(crate) fn snapshot(&self) -> Snapshot<D> {
        // An append gives the executor a fresh set of tries.
        let base = self.base.as_ref().filter(|_| self.events.is_empty());
        Snapshot {
            id: self.key.id.clone(),
            seq: self.seq,
            state: self.state.clone(),
            created_at: self.created_at(),
            updated_at: self.updated_at,
            parked: base.and_then(|base| base.parked.clone()),
            retry: base.and_then(|base| base.retry.clone()),
            traceparent: self.traceparent,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.seq > 0
    }

    fn created_at(&self) -> Timestamp {
        match (&self.base, self.events.first()) {
            (Some(base), _) => base.created_at,
            (None, Some(first)) => first.at,
            (None, None) => self.updated_at,
        }
    }

    /// The rows to write. `polled`: when the poll that this follows from began.
    pub(crate) fn append(self, polled: Option<Timestamp>) -> Result<Append, LedgerError> {
        let mut index = D::index(&self.state);
        let labels = std::mem::take(&mut index.labels);
        let next = Cached {
            seq: self.seq,
            head: self.head,
            created_at: self.created_at(),
            updated_at: self.updated_at,
            parked: None,
            retry: None,
            traceparent: self.traceparent,
            newer: None,
            state: Arc::new(()),
        };
        let state = self.json(&self.state)?;
        let labels = self.json(&labels)?;
        Ok(Append {
            expected: self.base.as_ref().map_or(0, |base| base.seq),
            state_version: D::STATE_VERSION,
            index,
            labels,
            is_final: D::is_final(&self.state),
            state,
            schedule: schedule::<D>(&self.key, &self.state, polled),
            wish: Wish::Leave,
            events: self.events,
            next: Arc::new(Cached {
                state: Arc::new(self.state),
                ..next
            }),
            key: self.key,
        })
    }

    fn json(&self, value: &impl serde::Serialize) -> Result<String, LedgerError> {
        serde_json::to_string(value).map_err(|error| self.encode(error.to_string()))
    }

    fn encode(&self, why: String) -> LedgerError {
        LedgerError::Encode {
            kind: D::KIND.to_owned(),
            id: self.key.id.clone(),
            why,
        }
    }

    fn newer(&self, found: u32) -> LedgerError {
        LedgerError::NewerVersion {
            kind: D::KIND.to_owned(),
            id: self.key.id.clone(),
            found,
            known: D::STATE_VERSION,
        }
    }
}

/// A decision whose type is known only to the caller of the transaction.
pub(crate) trait AnyDecision: Any + Send + Sync {
    fn append(self: Box<Self>) -> Result<Append, LedgerError>;
}

impl<D: Decider> AnyDecision for Decision<D> {
    fn append(self: Box<Self>) -> Result<Append, LedgerError> {
        Decision::append(*self, None)
    }
}

/// What a state asks of the executor.
pub(crate) fn schedule<D: Decider>(key: &Key, state: &D::State, polled: Option<Timestamp>) -> Schedule {
    Schedule {
        effects: !D::effects(&key.id, state).is_empty(),
        wake_at: D::wake_at(state),
        poll_every: (!D::polls(&key.id, state).is_empty()).then(|| jittered(D::poll_every(state))),
        polled,
    }
}

/// Within ten percent either way, so that polls that began together do not stay together for ever.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
