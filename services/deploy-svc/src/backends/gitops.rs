//! What deployments need of gitops-svc: rendered manifests, and changes put back.

use async_trait::async_trait;
use deploy_domain::deployment::{Revert, Source};
use slipway_model::{CommitSha, Fault, Id, Image, Name, Principal, Reason, TraceContext};

/// Renders folders of the GitOps repository.
#[async_trait]
pub trait Manifests: Send + Sync {
    /// The manifests of a folder at exactly one commit, as a stream of YAML documents.
    ///
    /// # Errors
    /// Permanent when they do not exist or do not render; transient when that could not be asked.
    async fn render(
        &self,
        repository: &Name,
        commit: &CommitSha,
        path: &str,
        trace: TraceContext,
    ) -> Result<String, Fault<Reason>>;
}

/// Puts changes of the GitOps repository back.
#[async_trait]
pub trait Reverts: Send + Sync {
    /// The change that brought what is to be put back, and what stood there before it.
    ///
    /// # Errors
    /// Permanent when there is none, or nothing before it; transient when that could not be asked.
    async fn find(&self, target: &RevertTarget<'_>) -> Result<Revertible, Fault<Reason>>;

    /// Orders that a change be put back; the same order again is the same change.
    ///
    /// # Errors
    /// Permanent when it cannot be; transient when that could not be asked.
    async fn revert(&self, order: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>>;

    /// How that stands.
    ///
    /// # Errors
    /// Permanent when it came to nothing; transient when it could not be asked.
    async fn observe(&self, change: &Id, trace: TraceContext) -> Result<Reverting, Fault<Reason>>;
}

/// What is to be put back, as a deployment names it.
#[derive(Debug, Clone)]
pub struct RevertTarget<'a> {
    pub service: &'a Name,
    pub environment: &'a Name,
    pub source: &'a Source,
    pub image: &'a Image,
    pub trace: TraceContext,
}

/// The change behind it, which can be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revertible {
    pub change: Id,
    /// The image that stood there before.
    pub image: Image,
}

/// Which change is put back, and for whom.
#[derive(Debug, Clone)]
pub struct RevertOrder<'a> {
    /// The idempotency key: the same order given again is the same change.
    pub request_id: String,
    pub revert: &'a Revert,
    /// The correlation id of its events.
    pub correlation_id: &'a str,
    pub on_behalf_of: &'a Principal,
    pub trace: TraceContext,
}

/// How a revert stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverting {
    /// It waits for a push, or for a pull request to be merged.
    Pending { change: Id, message: String },
    /// It is on its branch.
    Pushed { change: Id, commit: CommitSha },
}

/// Stands in where there is no gitops-svc.
#[derive(Debug, Clone, Copy)]
pub struct NoReverts;

#[async_trait]
impl Reverts for NoReverts {
    async fn find(&self, _: &RevertTarget<'_>) -> Result<Revertible, Fault<Reason>> {
        Err(Fault::refused(
            "NO_GITOPS",
            "there is no gitops-svc to put changes back",
        ))
    }

    async fn revert(&self, _: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>> {
        Err(Fault::refused(
            "NO_GITOPS",
            "there is no gitops-svc to put changes back",
        ))
    }

    async fn observe(&self, _: &Id, _: TraceContext) -> Result<Reverting, Fault<Reason>> {
        Err(Fault::refused(
            "NO_GITOPS",
            "there is no gitops-svc to put changes back",
        ))
    }
}
