//! `flagger.app/v1beta1` Canary, of Flagger.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use slipway_model::Timestamp;

use crate::micros;

/// `flagger.app/v1beta1` Canary.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: CanarySpec,
    #[serde(default)]
    pub status: CanaryStatus,
}

/// What is wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanarySpec {
    #[serde(default)]
    pub target_ref: TargetRef,
    #[serde(default)]
    pub suspend: bool,
    #[serde(default)]
    pub skip_analysis: bool,
    /// Older manifests call it `canaryAnalysis`.
    #[serde(default, alias = "canaryAnalysis")]
    pub analysis: Option<Analysis>,
}

/// The workload that people change.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
}

/// How the new version is analysed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// The number of failed checks that ends it; Flagger takes 1 for values not above 0.
    #[serde(default)]
    pub threshold: Option<i64>,
    #[serde(default)]
    pub iterations: Option<i64>,
    #[serde(default)]
    pub max_weight: Option<i64>,
    #[serde(default)]
    pub webhooks: Option<Vec<Webhook>>,
}

/// Whom Flagger asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "type")]
    pub kind: String,
}

/// What Flagger says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    #[serde(default)]
    pub phase: Option<String>,
    #[serde(default)]
    pub failed_checks: i64,
    #[serde(default)]
    pub canary_weight: i64,
    #[serde(default)]
    pub iterations: i64,
    /// Hash of the target's template that was last tried.
    #[serde(default)]
    pub last_applied_spec: Option<String>,
    /// Hash of the one that serves.
    #[serde(default)]
    pub last_promoted_spec: Option<String>,
    #[serde(default)]
    pub last_transition_time: Option<Time>,
    #[serde(default)]
    pub conditions: Option<Vec<Condition>>,
}

/// As in other kinds; Flagger has one, `Promoted`, whose reason is the phase.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub last_update_time: Option<Time>,
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}

impl Canary {
    /// The phase; empty before Flagger has seen it.
    pub fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    /// The number of failed checks at which Flagger rolls back (`GetAnalysisThreshold`).
    pub fn threshold(&self) -> i64 {
        let told = self
            .spec
            .analysis
            .as_ref()
            .and_then(|analysis| analysis.threshold);
        told.filter(|told| *told > 0).unwrap_or(1)
    }

    /// Whether a run is in progress that can be rolled back.
    pub fn is_running(&self) -> bool {
        matches!(self.phase(), "Progressing" | "WaitingPromotion")
    }

    /// Names of the webhooks that Flagger waits for in the current phase.
    pub fn gates(&self) -> Vec<&str> {
        let kind = match self.phase() {
            "Waiting" => "confirm-rollout",
            "WaitingPromotion" => "confirm-promotion",
            _ => return Vec::new(),
        };
        let webhooks = self
            .spec
            .analysis
            .as_ref()
            .and_then(|analysis| analysis.webhooks.as_ref());
        webhooks
            .into_iter()
            .flatten()
            .filter(|webhook| webhook.kind == kind)
            .map(|webhook| webhook.name.as_str())
            .collect()
    }

    /// The condition that reports the current phase.
    pub(crate) fn promoted(&self) -> Option<&Condition> {
        let conditions = self.status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| {
            condition.kind == "Promoted" && condition.reason.as_deref() == Some(self.phase())
        })
    }

    /// When the current phase, one that ends a run, was reached. Truncated to seconds.
    pub(crate) fn ended_at(&self) -> Option<Timestamp> {
        let told = match self.promoted() {
            Some(condition) => condition
                .last_update_time
                .as_ref()
                .or(condition.last_transition_time.as_ref()),
            // Versions without conditions.
            None => self.status.last_transition_time.as_ref(),
        };
        told.map(|time| Timestamp::from_micros(micros(time)))
    }
}
