//! The verdict on a Rollout of Argo Rollouts. Only the fields that are looked at are read.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;
use slipway_model::Timestamp;

use crate::{Expected, Observed, UNSEEN, Verdict, pods::Current, progressing};

/// `argoproj.io/v1alpha1` Rollout.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: RolloutSpec,
}

/// What is wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    #[serde(default)]
    pub template: Option<PodTemplateSpec>,
}

/// Judges one Rollout.
pub fn judge(_expected: &Expected, _live: &Rollout, _observed: &Observed, _now: Timestamp) -> Verdict {
    progressing(UNSEEN.to_owned())
}

/// The ReplicaSet of the present template, and its pods.
pub fn current_pods<'a>(_live: &Rollout, _observed: &'a Observed) -> Current<'a> {
    Current::default()
}
