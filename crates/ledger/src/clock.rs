//! The database's time, known without asking for it every time.
//!
//! Leases and due times are in the database's time; commands are decided with the same clock, since otherwise a decider
//! could disagree that a timer is due. An estimate is the last time that the database returned plus what has passed
//! here since: never ahead of the database, and behind it by less than a round trip.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use slipway_model::Timestamp;

/// If the database clock was set back by more than this it is followed; less is waited out.
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

    /// The database just returned the time `told`.
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
