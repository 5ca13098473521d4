//! Writes that hold only for the version that was read: what happens when there was another write in between.

use std::{fmt, time::Duration};

use slipway_model::{Fault, Reason};

use crate::fault::unavailable;

/// How often a write is tried again on a newer version of the object: controllers write the status all the time.
pub(crate) const TRIES: u32 = 20;

/// Waits after a lost race, before the object is read again.
pub(crate) async fn lost(what: &(dyn fmt::Display + Sync)) {
    tracing::debug!(%what, "written by someone in between: reading again");
    // A short wait of random length, so that two writers do not keep colliding.
    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=20))).await;
}

/// The error after [`TRIES`].
pub(crate) fn given_up(what: &dyn fmt::Display) -> Fault<Reason> {
    unavailable(format!(
        "{what}: lost the race for its resourceVersion {TRIES} times"
    ))
}
