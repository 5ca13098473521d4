//! The owners of what a release's steps stand for: build-svc, gitops-svc, approval-svc, and this service's own
//! deployments. An owner takes an order once, however often it is given, and answers how its thing stands.

mod approvals;
mod builds;
mod calls;
mod changes;
mod deployments;
mod reverts;

pub use approvals::Approvals;
use async_trait::async_trait;
pub use builds::Builds;
pub use changes::Changes;
pub use deployments::Deployments;
pub(crate) use deployments::{fencing_epoch, put_back};
use slipway_model::{Fault, Id, Image, Reason, SpanId, TraceContext, TraceId};

use crate::{
    catalog::GitOps,
    plan::{Plan, PlannedEnvironment},
    release::{ChangeMade, Observation, ReleaseState, Step},
};

/// A step of a release as its owner needs to see it.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub release: &'a Id,
    pub state: &'a ReleaseState,
    pub plan: &'a Plan,
    pub step: &'a Step,
    pub environment: Option<(usize, &'a PlannedEnvironment)>,
}

/// What an owner says when it takes an order.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its id for the thing.
    pub reference: Id,
    pub observation: Observation,
}

/// One owner. A permanent fault is a refusal of the order, and fails the step; a transient one is asked again.
#[async_trait]
pub trait Owner: Send + Sync {
    /// Gives the order; the same order given again is the same thing.
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>>;
    /// How the thing stands.
    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>>;
    /// Asks for the thing to be stopped. It may end otherwise all the same.
    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>>;
}

impl<'a> Order<'a> {
    /// The order for the active step; none when the release has none.
    pub fn of(release: &'a Id, state: &'a ReleaseState) -> Option<Self> {
        let plan = state.plan.as_ref()?;
        let step = state.active_step()?;
        Some(Self {
            release,
            state,
            plan,
            step,
            environment: state.environment_of(step),
        })
    }

    /// The idempotency key of this order.
    pub fn request_id(&self) -> String {
        self.request_id_of(self.step)
    }

    /// The idempotency key of another step's order.
    fn request_id_of(&self, step: &Step) -> String {
        format!("{}/{}/{}", self.release, step.name, step.attempt)
    }

    /// The step's span, as the parent of whatever the owner does.
    pub fn trace(&self) -> TraceContext {
        step_trace(self.release, &self.step.name, self.step.attempt)
    }

    /// Who asked for the release, as the other services are told.
    fn requester(&self) -> String {
        self.state
            .requested_by
            .as_ref()
            .map(|actor| actor.effective().to_string())
            .unwrap_or_default()
    }

    fn planned(&self) -> Result<&'a PlannedEnvironment, Fault<Reason>> {
        self.environment
            .map(|(_, planned)| planned)
            .ok_or_else(|| missing("an environment"))
    }

    fn gitops(&self) -> Result<&'a GitOps, Fault<Reason>> {
        let gitops = self.planned()?.gitops.as_ref();
        gitops.ok_or_else(|| missing("a GitOps repository"))
    }

    fn image(&self) -> Result<&'a Image, Fault<Reason>> {
        let images = self.state.images.as_ref().ok_or_else(|| missing("an image"))?;
        Ok(images.only())
    }

    fn change(&self) -> Result<&'a ChangeMade, Fault<Reason>> {
        let (index, _) = self.environment.ok_or_else(|| missing("an environment"))?;
        self.state
            .environments
            .get(index)
            .and_then(|progress| progress.change.as_ref())
            .ok_or_else(|| missing("a change"))
    }

    fn revert(&self) -> Result<&'a ChangeMade, Fault<Reason>> {
        let (index, _) = self.environment.ok_or_else(|| missing("an environment"))?;
        self.state
            .environments
            .get(index)
            .and_then(|progress| progress.revert.as_ref())
            .ok_or_else(|| missing("a revert"))
    }

    fn epoch(&self) -> Result<u64, Fault<Reason>> {
        let (index, _) = self.environment.ok_or_else(|| missing("an environment"))?;
        self.state
            .environments
            .get(index)
            .and_then(|progress| progress.epoch)
            .ok_or_else(|| missing("an epoch"))
    }
}

/// The trace of a release: the same after every restart.
pub fn release_trace(release: &Id) -> TraceId {
    TraceId::derived(&["release", release.as_str()])
}

/// The root span of a release.
pub fn root_span(release: &Id) -> SpanId {
    SpanId::derived(&["release", release.as_str()])
}

/// The span of one attempt of one step.
pub fn step_trace(release: &Id, step: &str, attempt: u32) -> TraceContext {
    TraceContext {
        trace_id: release_trace(release),
        span_id: SpanId::derived(&["release", release.as_str(), step, &attempt.to_string()]),
        sampled: true,
    }
}

fn missing(what: &str) -> Fault<Reason> {
    Fault::refused(
        "INTERNAL",
        format!("the release has no {what} for this step; this is a defect"),
    )
}
