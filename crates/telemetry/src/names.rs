//! Attribute and metric names. Those of OpenTelemetry's semantic conventions 1.44 (CICD, VCS, deployment, OCI, RPC)
//! come from their crate; what the conventions do not name (approval, lane, rollout) is `slipway.*`.
//!
//! Ids of runs belong on spans, never on metrics: each would be a time series of its own.

pub use opentelemetry_semantic_conventions::attribute::{
    CICD_PIPELINE_ACTION_NAME, CICD_PIPELINE_NAME, CICD_PIPELINE_RESULT, CICD_PIPELINE_RUN_ID,
    CICD_PIPELINE_RUN_STATE, CICD_PIPELINE_RUN_URL_FULL, CICD_PIPELINE_TASK_NAME, CICD_PIPELINE_TASK_RUN_ID,
    CICD_PIPELINE_TASK_RUN_RESULT, CICD_PIPELINE_TASK_TYPE, CICD_SYSTEM_COMPONENT,
    DEPLOYMENT_ENVIRONMENT_NAME, DEPLOYMENT_ID, ERROR_TYPE, OCI_MANIFEST_DIGEST, RPC_METHOD,
    RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME, SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION,
    VCS_REF_HEAD_NAME, VCS_REF_HEAD_REVISION, VCS_REPOSITORY_URL_FULL,
};
pub use opentelemetry_semantic_conventions::metric::{
    CICD_PIPELINE_RUN_ACTIVE, CICD_PIPELINE_RUN_DURATION, CICD_SYSTEM_ERRORS, RPC_SERVER_CALL_DURATION,
};

/// The release's id; also `cicd.pipeline.run.id`.
pub const RELEASE_ID: &str = "slipway.release.id";
/// The service that is released; `service.name` is the one that reports.
pub const RELEASE_SERVICE: &str = "slipway.release.service";
/// The step's key within its release, such as `staging/gate`.
pub const STEP: &str = "slipway.step";
/// The step's attempt, from 1.
pub const STEP_ATTEMPT: &str = "slipway.step.attempt";
/// What a step waited for: `machine`, `human` or `lane`.
pub const WAIT_KIND: &str = "slipway.wait.kind";
/// How long it waited for that, in seconds.
pub const WAIT_SECONDS: &str = "slipway.wait.seconds";
/// The approval's id.
pub const APPROVAL_ID: &str = "slipway.approval.id";
/// The approval's policy.
pub const APPROVAL_POLICY: &str = "slipway.approval.policy";
/// How the approval ended: `approved`, `refused`, `expired`, `cancelled` or `automatic`.
pub const APPROVAL_OUTCOME: &str = "slipway.approval.outcome";
/// The lane, that is the deploy target.
pub const LANE: &str = "slipway.lane";
/// The epoch that the lane granted.
pub const LANE_EPOCH: &str = "slipway.lane.epoch";
/// The change's id.
pub const CHANGE_ID: &str = "slipway.change.id";
/// The build's id.
pub const BUILD_ID: &str = "slipway.build.id";
/// The machine-readable reason of an unsuccessful end.
pub const REASON: &str = "slipway.reason";

/// Histogram: how long steps took, in seconds, by step kind and result.
pub const STEP_DURATION: &str = "slipway.step.duration";
/// Gauge: steps that are waiting now, by step kind and what they wait for.
pub const STEPS_WAITING: &str = "slipway.steps.waiting";
/// Counter: events that the relay published.
pub const EVENTS_PUBLISHED: &str = "slipway.events.published";
/// Counter: events that a group gave up on.
pub const EVENTS_DEAD: &str = "slipway.events.dead";
