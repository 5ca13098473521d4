//! `argoproj.io/v1alpha1` Rollout, of Argo Rollouts.

use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde::Deserialize;

use crate::annotation;

/// Annotation with the generation of the workload that `workloadRef` names.
const WORKLOAD_GENERATION: &str = "rollout.argoproj.io/workload-generation";

/// `argoproj.io/v1alpha1` Rollout.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: RolloutSpec,
    #[serde(default)]
    pub status: RolloutStatus,
}

/// What is wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Absent if `workloadRef` names a Deployment that has it.
    #[serde(default)]
    pub template: Option<PodTemplateSpec>,
    #[serde(default)]
    pub workload_ref: Option<WorkloadRef>,
    #[serde(default)]
    pub replicas: Option<i32>,
    /// A person stopped it; the controller's own pauses are in the status.
    #[serde(default)]
    pub paused: bool,
    #[serde(default)]
    pub strategy: Strategy,
}

/// The workload that has the template.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
}

/// How it is rolled out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    #[serde(default)]
    pub canary: Option<CanaryStrategy>,
    #[serde(default)]
    pub blue_green: Option<BlueGreenStrategy>,
}

/// Step by step.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStrategy {
    #[serde(default)]
    pub steps: Option<Vec<Step>>,
}

/// One step; for those that are not a pause, only their number matters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    #[serde(default)]
    pub pause: Option<PauseStep>,
}

/// A step that waits; without a duration, for a person.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseStep {
    #[serde(default)]
    pub duration: Option<IntOrString>,
}

/// All at once, next to the old one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreenStrategy {
    #[serde(default)]
    pub auto_promotion_enabled: Option<bool>,
    #[serde(default)]
    pub auto_promotion_seconds: Option<i32>,
}

/// The controller's report.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// A number as text; before 0.10 a hash.
    #[serde(default)]
    pub observed_generation: Option<String>,
    #[serde(default)]
    pub workload_observed_generation: Option<String>,
    /// `Healthy`, `Degraded`, `Progressing` or `Paused`.
    #[serde(default)]
    pub phase: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    /// It was aborted by a person, or by a failed analysis: the stable version serves everything.
    #[serde(default)]
    pub abort: bool,
    #[serde(default)]
    pub pause_conditions: Option<Vec<PauseCondition>>,
    #[serde(default)]
    pub controller_pause: bool,
    #[serde(default)]
    pub current_pod_hash: Option<String>,
    #[serde(default, rename = "stableRS")]
    pub stable_rs: Option<String>,
    #[serde(default)]
    pub current_step_index: Option<i32>,
    #[serde(default)]
    pub updated_replicas: Option<i32>,
    #[serde(default)]
    pub available_replicas: Option<i32>,
    #[serde(default)]
    pub conditions: Option<Vec<Condition>>,
    #[serde(default)]
    pub canary: CanaryStatus,
}

/// Why the controller paused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseCondition {
    /// `CanaryPauseStep`, `BlueGreenPause`, `InconclusiveAnalysisRun` or `InconclusiveExperiment`.
    #[serde(default)]
    pub reason: String,
}

/// As in other kinds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
}

/// Of a stepwise rollout.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    #[serde(default)]
    pub current_step_analysis_run_status: Option<AnalysisRun>,
}

/// An analysis that belongs to a step.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisRun {
    #[serde(default)]
    pub status: Option<String>,
}

impl Rollout {
    /// The steps of a stepwise rollout.
    pub fn steps(&self) -> &[Step] {
        self.spec
            .strategy
            .canary
            .as_ref()
            .and_then(|canary| canary.steps.as_deref())
            .unwrap_or_default()
    }

    /// Whether the current version serves everything (`IsFullyPromoted`).
    pub fn is_fully_promoted(&self) -> bool {
        self.status.stable_rs == self.status.current_pod_hash
    }

    /// The controller's pauses.
    pub fn pauses(&self) -> &[PauseCondition] {
        self.status.pause_conditions.as_deref().unwrap_or_default()
    }

    /// Whether the status is about the current specification.
    pub(crate) fn is_observed(&self) -> bool {
        let generation = self.metadata.generation.unwrap_or(0);
        let observed = self.status.observed_generation.as_deref();
        let workload = annotation(&self.metadata, WORKLOAD_GENERATION);
        observed.and_then(|text| text.parse::<i64>().ok()) == Some(generation)
            && workload
                .is_none_or(|wanted| self.status.workload_observed_generation.as_deref() == Some(wanted))
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        let conditions = self.status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.kind == kind)
    }
}
