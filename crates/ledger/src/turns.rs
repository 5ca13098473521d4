//! Turns: within one process, commands on one aggregate are decided one after the other.
//!
//! The compare-and-set at the append keeps writers from losing each other's events; turns only keep the writers of
//! one busy aggregate from deciding in vain, in order of arrival.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::types::Key;

type Slots = Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>;

#[derive(Debug, Default, Clone)]
pub(crate) struct Turns(Arc<Slots>);

impl Turns {
    pub(crate) async fn take(&self, key: &Key) -> Turn {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key.clone()).or_default())
        };
        let guard = slot.lock_owned().await;
        Turn {
            slots: Arc::clone(&self.0),
            key: key.clone(),
            guard: Some(guard),
        }
    }
}

/// Held while deciding and appending.
#[derive(Debug)]
pub(crate) struct Turn {
    slots: Arc<Slots>,
    key: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
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
