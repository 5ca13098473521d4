//! The verdict on a StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use slipway_model::Timestamp;

use crate::{Expected, Observed, UNSEEN, Verdict, progressing};

/// Judges one StatefulSet.
pub fn judge(_expected: &Expected, _live: &StatefulSet, _observed: &Observed, _now: Timestamp) -> Verdict {
    progressing(UNSEEN.to_owned())
}
