//! The access log: one line per request, written when its answer ends, however that happens.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use slipway_model::Principal;
use tonic::Code;

/// Where the authentication layer leaves the caller for the access log, which is written by an outer layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallerSlot(Arc<OnceLock<Principal>>);

impl CallerSlot {
    pub(crate) fn set(&self, principal: &Principal) {
        // Set once; a second layer would find the same caller.
        let _ = self.0.set(principal.clone());
    }
}

/// What the access log says about a request; written when it is dropped, so that every way out is covered.
pub(crate) struct Record {
    path: String,
    /// Health checks are frequent, and logged at debug level.
    health: bool,
    caller: CallerSlot,
    begun: Instant,
    pub(crate) status: Option<Code>,
}

impl Record {
    pub(crate) fn begin(path: &str, health: bool, caller: CallerSlot) -> Self {
        Self {
            path: path.to_owned(),
            health,
            caller,
            begun: Instant::now(),
            status: None,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Without a status, the caller went away before the end.
        let status = self
            .status
            .map_or_else(|| "Cancelled".to_owned(), |code| format!("{code:?}"));
        let principal = self.caller.0.get().map(ToString::to_string).unwrap_or_default();
        let millis = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX) as f64 / 1000.0;
        if self.health {
            tracing::debug!(target: "slipway::access", method = self.path, status, millis, "request");
        } else {
            tracing::info!(target: "slipway::access", method = self.path, principal, status, millis, "request");
        }
    }
}
