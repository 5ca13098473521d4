//! The in-process bus: the semantics of the Redis bus without Redis, in bounded memory.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use slipway_model::{Fault, Timestamp};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Bus, BusConfig, BusError, DeadLetter, EntryId, Envelope, Handler,
    dispatch::{Delivery, Dispatcher, Outcome},
};

/// An in-process [`Bus`] for `slipway dev`. Its contents end with the process; relays publish again after a start,
/// since [`Bus::last_entry`] is then `None`.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: BusConfig,
    state: Mutex<State>,
    /// Counts changes that can give a consumer something to do.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<String, Stream>,
    dead: VecDeque<DeadLetter>,
    next_session: u64,
}

#[derive(Debug, Default)]
struct Stream {
    entries: VecDeque<(EntryId, Arc<Envelope>)>,
    bytes: usize,
    last: EntryId,
    groups: HashMap<String, Group>,
}

/// What a group has read and not acknowledged.
#[derive(Debug, Default)]
struct Group {
    /// The last entry handed out for the first time.
    cursor: EntryId,
    pending: BTreeMap<EntryId, Pending>,
}

#[derive(Debug)]
struct Pending {
    deliveries: u32,
    /// The call of `consume` that holds it; `None` while it waits for its next delivery.
    holder: Option<u64>,
    due: Instant,
}

/// The key by which an entry is known while a handler has it.
#[derive(Debug, Clone)]
struct Reference {
    origin: String,
    entry: EntryId,
    deliveries: u32,
}

impl MemoryBus {
    /// An empty bus.
    pub fn new(config: BusConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                state: Mutex::default(),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// Forgets everything, like a Redis that was emptied.
    pub fn clear(&self) {
        let mut state = self.shared.lock();
        state.streams.clear();
        state.dead.clear();
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new(BusConfig::default())
    }
}

impl Shared {
    /// A poisoned lock is taken over: every change below leaves the state consistent at each step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hands out up to `room` entries to the session, and says when the next retry is due.
    fn take(
        &self,
        session: u64,
        origins: &[String],
        group: &str,
        room: usize,
    ) -> (Vec<Delivery<Reference>>, Option<Instant>) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut deliveries = Vec::new();
        let mut next_due: Option<Instant> = None;
        for origin in origins {
            let stream = state.streams.entry(origin.clone()).or_default();
            let Stream { entries, groups, .. } = stream;
            let group = groups.entry(group.to_owned()).or_default();
            let find = |id: EntryId| {
                let index = entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
                entries.get(index).map(|(_, envelope)| Arc::clone(envelope))
            };
            group.pending.retain(|&id, pending| {
                if pending.holder.is_some() {
                    return true;
                }
                if pending.due > now {
                    next_due = Some(next_due.map_or(pending.due, |due| due.min(pending.due)));
                    return true;
                }
                if deliveries.len() >= room {
                    return true;
                }
                // As in Redis, trimmed entries are not delivered again.
                let Some(envelope) = find(id) else { return false };
                pending.holder = Some(session);
                pending.deliveries += 1;
                deliveries.push(Delivery {
                    reference: Reference {
                        origin: origin.clone(),
                        entry: id,
                        deliveries: pending.deliveries,
                    },
                    envelope,
                });
                true
            });
            let start = entries.partition_point(|(id, _)| *id <= group.cursor);
            for (id, envelope) in entries.range(start..) {
                if deliveries.len() >= room {
                    break;
                }
                group.cursor = *id;
                group.pending.insert(
                    *id,
                    Pending {
                        deliveries: 1,
                        holder: Some(session),
                        due: now,
                    },
                );
                deliveries.push(Delivery {
                    reference: Reference {
                        origin: origin.clone(),
                        entry: *id,
                        deliveries: 1,
                    },
                    envelope: Arc::clone(envelope),
                });
            }
        }
        (deliveries, next_due)
    }

    fn settle(&self, group_name: &str, outcome: Outcome<Reference>) {
        let Outcome {
            reference,
            envelope,
            result,
        } = outcome;
        let mut state = self.lock();
        let State { streams, dead, .. } = &mut *state;
        let Some(pending) = streams
            .get_mut(&reference.origin)
            .and_then(|stream| stream.groups.get_mut(group_name))
            .map(|group| &mut group.pending)
        else {
            return;
        };
        let reason = match result {
            Ok(()) => {
                pending.remove(&reference.entry);
                return;
            }
            Err(Fault::Transient { .. }) if reference.deliveries < self.config.max_deliveries => {
                if let Some(entry) = pending.get_mut(&reference.entry) {
                    entry.holder = None;
                    entry.due = Instant::now() + self.config.delay_after(reference.deliveries);
                }
                drop(state);
                self.changed();
                return;
            }
            Err(error) => error.to_string(),
        };
        pending.remove(&reference.entry);
        warn!(origin = %reference.origin, entry = %reference.entry, group = group_name, event = %envelope.event_id(),
            reason, "event dead-lettered");
        let mut fields: Vec<(String, String)> = envelope
            .to_fields()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        fields.sort();
        dead.push_back(DeadLetter {
            origin: reference.origin,
            entry: reference.entry.to_string(),
            group: group_name.to_owned(),
            reason,
            deliveries: reference.deliveries,
            at: Timestamp::now(),
            fields,
        });
        while dead.len() > self.config.dead_letters {
            dead.pop_front();
        }
    }
}

/// Gives back what a session holds when its future ends, however that happens.
struct Session {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        for stream in state.streams.values_mut() {
            for group in stream.groups.values_mut() {
                for pending in group.pending.values_mut() {
                    if pending.holder == Some(self.number) {
                        pending.holder = None;
                        pending.due = now;
                    }
                }
            }
        }
        drop(state);
        self.shared.changed();
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, batch: &[Envelope]) -> Result<String, BusError> {
        let Some(origin) = common_origin(batch)? else {
            return Ok(EntryId::ZERO.to_string());
        };
        let config = &self.shared.config;
        let mut state = self.shared.lock();
        let stream = state.streams.entry(origin.to_owned()).or_default();
        let now = u64::try_from(Timestamp::now().as_micros() / 1000).unwrap_or(0);
        for envelope in batch {
            stream.last = stream.last.next(now);
            stream.bytes += envelope.weight();
            stream
                .entries
                .push_back((stream.last, Arc::new(envelope.clone())));
        }
        let retention = u64::try_from(config.retention.as_millis()).unwrap_or(u64::MAX);
        let oldest = now.saturating_sub(retention);
        while let Some((id, envelope)) = stream.entries.front() {
            let trim = id.millis < oldest
                || stream.entries.len() > config.memory_entries
                || stream.bytes > config.memory_bytes;
            if !trim {
                break;
            }
            stream.bytes -= envelope.weight();
            stream.entries.pop_front();
        }
        let last = stream.last;
        drop(state);
        self.shared.changed();
        Ok(last.to_string())
    }

    async fn last_entry(&self, origin: &str) -> Result<Option<String>, BusError> {
        let state = self.shared.lock();
        let last = state.streams.get(origin).map(|stream| stream.last);
        Ok(last.filter(|id| *id != EntryId::ZERO).map(|id| id.to_string()))
    }

    async fn consume(
        &self,
        origins: &[&str],
        group: &str,
        _consumer: &str,
        handler: Arc<dyn Handler>,
        shutdown: CancellationToken,
    ) {
        let shared = &self.shared;
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let number = {
            let mut state = shared.lock();
            state.next_session += 1;
            state.next_session
        };
        let _session = Session {
            shared: Arc::clone(shared),
            number,
        };
        let mut dispatcher = Dispatcher::new(handler, &shared.config);
        let mut changes = shared.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let (deliveries, next_due) = shared.take(number, &origins, group, dispatcher.room());
            for delivery in deliveries {
                dispatcher.push(delivery);
            }
            let next_due = async {
                match next_due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Nothing starts after shutdown.
                biased;
                () = shutdown.cancelled() => break,
                Some(outcome) = dispatcher.next() => shared.settle(group, outcome),
                // The sender lives as long as `shared`.
                _ = changes.changed(), if dispatcher.room() > 0 => {}
                () = next_due, if dispatcher.room() > 0 => {}
            }
        }
        dispatcher.stop_starting();
        while let Some(outcome) = dispatcher.next().await {
            shared.settle(group, outcome);
        }
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        Ok(self
            .shared
            .lock()
            .dead
            .iter()
            .rev()
            .take(limit)
            .cloned()
            .collect())
    }
}

/// The one origin of a batch; `None` when it is empty.
pub(crate) fn common_origin(batch: &[Envelope]) -> Result<Option<&str>, BusError> {
    let Some(first) = batch.first() else {
        return Ok(None);
    };
    match batch.iter().find(|envelope| envelope.origin() != first.origin()) {
        None => Ok(Some(first.origin())),
        Some(other) => Err(BusError::MixedOrigins {
            first: first.origin().to_owned(),
            other: other.origin().to_owned(),
        }),
    }
}
