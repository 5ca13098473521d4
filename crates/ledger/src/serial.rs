//! Within one process, commands on one aggregate are decided one after the other, in order of arrival.
//!
//! The compare-and-set at the append keeps writers from losing each other's events; this only keeps the writers of
//! one busy aggregate from deciding in vain.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::types::Key;

type Slots = Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>;

#[derive(Debug, Default, Clone)]
pub(crate) struct Serial(Arc<Slots>);

impl Serial {
    pub(crate) async fn take(&self, key: &Key) -> SerialGuard {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key.clone()).or_default())
        };
        let guard = slot.lock_owned().await;
        SerialGuard {
            slots: Arc::clone(&self.0),
            key: key.clone(),
            guard: Some(guard),
        }
    }
}

/// Held while deciding and appending.
#[derive(Debug)]
pub(crate) struct SerialGuard {
    slots: Arc<Slots>,
    key: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for SerialGuard {
    fn drop(&mut self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Clones are made only under this lock: a count of one means that no one is waiting.
        if slots
            .get(&self.key)
            .is_some_and(|slot| Arc::strong_count(slot) == 1)
        {
            slots.remove(&self.key);
        }
    }
}
