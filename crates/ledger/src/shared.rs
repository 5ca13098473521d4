//! What the handle and its background tasks have in common.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::{LedgerConfig, cache::Cache, clock::Clock, hook::Hook, hub::Hub, serial::Serial, store::Store};

/// One open database, with everything in memory that belongs to it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Cache,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) config: LedgerConfig,
    /// SQLite: one transaction at a time.
    pub(crate) single_writer: bool,
    pub(crate) serial: Serial,
    pub(crate) hook: RwLock<Option<Weak<dyn Hook>>>,
}

impl Shared {
    pub(crate) fn hook(&self) -> Option<Arc<dyn Hook>> {
        self.hook
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(Weak::upgrade)
    }
}
