//! The database's time, known without asking for it each time.
//!
//! Leases and due times are the database's; commands are decided with the same clock, or a timer that the database
//! calls due would find a decider that disagrees. An estimate is the last time the database told plus what has
//! passed here since the answer came in: never ahead of the database, behind it by less than a round trip.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use slipway_model::Timestamp;

/// A database clock that was set back by more than this is followed; less is waited out.
const STEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Clock(Mutex<(Timestamp, Instant)>);

impl Clock {
    pub(crate) fn new(told: Timestamp) -> Self {
        Self(Mutex::new((told, Instant::now())))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let (told, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told + since.elapsed()
    }

    /// The database just answered that it is `told`.
    pub(crate) fn told(&self, told: Timestamp) {
        let now = Instant::now();
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let estimate = anchor.0 + now.duration_since(anchor.1);
        if told > estimate || estimate.since(told) > STEP {
            *anchor = (told, now);
        }
    }

    /// How long until the database's clock shows `at`, as far as we know.
    pub(crate) fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}
