//! Bake: watching metrics for a while after a rollout, before it counts as good.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_model::{Name, duration};

/// How long a version is watched, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bake {
    /// From the last passed check to the end of the watch. The pods stay watched too.
    #[serde(rename = "for", with = "duration")]
    pub period: Duration,
    /// Between measurements.
    #[serde(default = "thirty_seconds", with = "duration")]
    pub interval: Duration,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

/// One Prometheus query with its thresholds. Without data it fails closed: inconclusive is not success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    pub name: Name,
    /// Name of a Prometheus of this service's configuration; left out, the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Name>,
    /// PromQL that gives one number; `{{service}}`, `{{environment}}`, `{{namespace}}`, `{{target}}` and `{{window}}`
    /// (the time since the rollout, at most the bake's) are filled in.
    pub query: String,
    /// The least value that is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest value that is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// How many measurements may be bad before the metric has failed.
    #[serde(default)]
    pub failure_limit: u32,
    /// How many may say nothing (no data, not a number, no answer) before the metric is inconclusive.
    #[serde(default = "three")]
    pub inconclusive_limit: u32,
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
const fn three() -> u32 {
    3
}
