//! Notifications of appends within this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{broadcast, watch};

use crate::{Committed, types::Key};

/// Appends that a slow subscriber may lag behind before it misses some.
const BACKLOG: usize = 4096;

#[derive(Debug)]
pub(crate) struct Hub {
    /// The highest seq known, for each aggregate that is watched.
    interest: Mutex<HashMap<Key, watch::Sender<u64>>>,
    all: broadcast::Sender<Committed>,
    tick: watch::Sender<u64>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            interest: Mutex::default(),
            all: broadcast::channel(BACKLOG).0,
            tick: watch::channel(0).0,
        }
    }

    pub(crate) fn publish(&self, key: &Key, seq: u64) {
        let interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = interest.get(key) {
            sender.send_if_modified(|known| {
                let newer = *known < seq;
                *known = (*known).max(seq);
                newer
            });
        }
        drop(interest);
        if self.all.receiver_count() > 0 {
            // Without a receiver there is nothing to do.
            let _ = self.all.send(Committed {
                kind: key.kind.clone(),
                id: key.id.clone(),
                seq,
            });
        }
    }

    /// Wakes the readers of the feed: once for each group.
    pub(crate) fn tick(&self) {
        self.tick.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn ticks(&self) -> watch::Receiver<u64> {
        self.tick.subscribe()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Committed> {
        self.all.subscribe()
    }

    pub(crate) fn watch(self: &Arc<Self>, key: Key) -> Interest {
        let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = interest
            .entry(key.clone())
            .or_insert_with(|| watch::channel(0).0)
            .subscribe();
        Interest {
            hub: Arc::clone(self),
            key,
            receiver: Some(receiver),
        }
    }
}

/// A subscription to one aggregate, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Interest {
    hub: Arc<Hub>,
    key: Key,
    receiver: Option<watch::Receiver<u64>>,
}

impl Interest {
    /// Resolves when a seq is known that the last call did not return.
    pub(crate) async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives as long as this subscription.
            let _ = receiver.changed().await;
        }
    }

    /// The highest seq known; marks it as seen.
    pub(crate) fn latest(&mut self) -> u64 {
        self.receiver
            .as_mut()
            .map_or(0, |receiver| *receiver.borrow_and_update())
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut interest = self.hub.interest.lock().unwrap_or_else(PoisonError::into_inner);
        self.receiver = None;
        if interest.get(&self.key).is_some_and(watch::Sender::is_closed) {
            interest.remove(&self.key);
        }
    }
}
