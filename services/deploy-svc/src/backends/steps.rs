//! The backends of a release's steps: build-svc, gitops-svc, approval-svc, and this service's own deployments. A step
//! backend accepts an order once, however often it is given, and reports the state of what it started for it.

mod approvals;
mod builds;
mod calls;
mod changes;
mod deployments;
mod reverts;

pub(crate) use approvals::Approvals;
use async_trait::async_trait;
pub(crate) use builds::Builds;
pub use changes::Changes;
use deploy_domain::{
    catalog::GitOps,
    plan::{Plan, PlannedEnvironment},
    release::{ChangeMade, EnvironmentProgress, Observation, ReleaseState, Step, step_trace},
};
pub use deployments::Deployments;
use slipway_model::{Digest, Fault, Id, Image, Reason, Tag, TraceContext};
use slipway_verdict::Restored;

/// A step of a release as its step backend needs to see it.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub release: &'a Id,
    pub state: &'a ReleaseState,
    pub plan: &'a Plan,
    pub step: &'a Step,
    pub environment: Option<(usize, &'a PlannedEnvironment)>,
}

/// A step backend's answer when it accepts an order.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its id for the build, approval, change or deployment.
    pub reference: Id,
    pub observation: Observation,
}

/// Carries out steps of one or more kinds. A permanent fault refuses the order, and fails the step; after a transient
/// one the call is repeated.
#[async_trait]
pub trait StepBackend: Send + Sync {
    /// Gives the order; repeating the order does not start another build, approval, change or deployment.
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>>;
    /// How it stands.
    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>>;
    /// Asks for it to be stopped. It may still end in another way.
    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>>;
}

/// Knows what the tags of images point to.
#[async_trait]
pub trait Tags: Send + Sync {
    /// The digest that a tag of the service's image points to now.
    async fn resolve(&self, order: Order<'_>, tag: &Tag) -> Result<Digest, Fault<Reason>>;
}

impl<'a> Order<'a> {
    /// The order for the active step; `None` if the release has none.
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

    /// The step's span, as the parent of everything that the step backend does.
    pub fn trace(&self) -> TraceContext {
        step_trace(self.release, &self.step.name, self.step.attempt)
    }

    /// Who requested the release, as reported to the other services.
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

    /// The image that is released.
    pub(crate) fn image(&self) -> Result<&'a Image, Fault<Reason>> {
        let images = self.state.images.as_ref().ok_or_else(|| missing("an image"))?;
        Ok(images.only())
    }

    /// Why the release is stopped, for the step backend that is asked to stop.
    fn stop_message(&self) -> String {
        self.state
            .stop_ending()
            .map(|(_, reason)| reason.message)
            .unwrap_or_default()
    }

    fn progress(&self) -> Result<&'a EnvironmentProgress, Fault<Reason>> {
        let index = self.environment.map(|(index, _)| index);
        index
            .and_then(|index| self.state.environments.get(index))
            .ok_or_else(|| missing("an environment"))
    }

    fn change(&self) -> Result<&'a ChangeMade, Fault<Reason>> {
        let change = self.progress()?.change.as_ref();
        change.ok_or_else(|| missing("a change"))
    }

    fn revert(&self) -> Result<&'a ChangeMade, Fault<Reason>> {
        let revert = self.progress()?.revert.as_ref();
        revert.ok_or_else(|| missing("a revert"))
    }

    /// What ran before, where the files named it by tag.
    fn restored(&self) -> Option<Restored> {
        self.state.restored(self.step.environment)
    }

    /// What ran before, by the digest that its pods had, where the files named it by tag.
    fn pinned(&self) -> Result<Image, Fault<Reason>> {
        let restored = self.restored().ok_or_else(|| missing("a previous image"))?;
        let digest = restored.digests.into_iter().next();
        Ok(Image {
            name: self.image()?.name.clone(),
            repository: restored.image.name,
            digest: digest.ok_or_else(|| missing("a previous image"))?,
            tags: restored.image.tag.into_iter().collect(),
        })
    }

    fn epoch(&self) -> Result<u64, Fault<Reason>> {
        self.progress()?.epoch.ok_or_else(|| missing("an epoch"))
    }
}

fn missing(what: &str) -> Fault<Reason> {
    Fault::refused(
        "INTERNAL",
        format!("the release has no {what} for this step; this is a defect"),
    )
}
