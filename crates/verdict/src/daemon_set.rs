//! The verdict on a DaemonSet.

use k8s_openapi::api::apps::v1::DaemonSet;
use slipway_model::Timestamp;

use crate::{Expected, Observed, UNSEEN, Verdict, progressing};

/// Judges one DaemonSet.
pub fn judge(_expected: &Expected, _live: &DaemonSet, _observed: &Observed, _now: Timestamp) -> Verdict {
    progressing(UNSEEN.to_owned())
}
