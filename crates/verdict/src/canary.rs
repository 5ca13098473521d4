//! The verdict on a Canary of Flagger. Only the fields that are looked at are read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use slipway_model::Timestamp;

use crate::{Expected, Observed, UNSEEN, Verdict, progressing};

/// `flagger.app/v1beta1` Canary.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

/// Judges one Canary.
pub fn judge(_expected: &Expected, _live: &Canary, _observed: &Observed, _now: Timestamp) -> Verdict {
    progressing(UNSEEN.to_owned())
}
