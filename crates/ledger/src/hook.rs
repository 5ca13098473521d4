//! How the ledger reaches the executor of its own process, which it does not depend on.

use std::{fmt, sync::Arc};

use slipway_model::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    store::{Claimant, Schedule, Wish, Written},
    types::Key,
};

/// What the ledger tells the executor of its own process, and asks it.
pub(crate) trait Hook: fmt::Debug + Send + Sync {
    /// What an append with this outcome does to the lease, and the slot that it takes here.
    fn wish(&self, key: &Key, schedule: &Schedule) -> (Wish, Option<OwnedSemaphorePermit>);
    /// This process appended.
    fn committed(self: Arc<Self>, key: &Key, written: Written, permit: Option<OwnedSemaphorePermit>);
    /// Another process appended.
    fn remote(&self, key: &Key);
    /// Something will be due at this time.
    fn due(&self, at: Timestamp);
    /// True when the aggregate is held here, and so was notified.
    fn hint(&self, key: &Key) -> bool;
    /// Room for one more, if its kind is run here.
    fn room(&self, key: &Key) -> Option<(Claimant, OwnedSemaphorePermit)>;
    /// It was claimed with that slot.
    fn claimed(self: Arc<Self>, key: Key, attempts: u32, permit: OwnedSemaphorePermit);
}
