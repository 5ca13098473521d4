//! What deployments need from gitops-svc: rendered manifests, and reverted changes.

use async_trait::async_trait;
use deploy_domain::{
    catalog::GitOps,
    deployment::{Revert, Source},
};
use slipway_model::{CommitSha, Fault, Id, Image, Name, Principal, Reason, TraceContext};

/// Renders folders of the GitOps repository.
#[async_trait]
pub trait Manifests: Send + Sync {
    /// The manifests of a folder at exactly one commit, as a stream of YAML documents.
    ///
    /// # Errors
    /// Permanent when they do not exist or cannot be rendered; transient when that could not be determined.
    async fn render(
        &self,
        repository: &Name,
        commit: &CommitSha,
        path: &str,
        trace: TraceContext,
    ) -> Result<String, Fault<Reason>>;
}

/// Reverts changes of the GitOps repository.
#[async_trait]
pub trait Reverts: Send + Sync {
    /// The change that is to be reverted, and what was there before it.
    ///
    /// # Errors
    /// Permanent when there is none, or nothing before it; transient when that could not be determined.
    async fn find(&self, target: &RevertTarget<'_>) -> Result<Revertible, Fault<Reason>>;

    /// Why the change is not what git has there now, with a code of gitops-svc where it has one; `None` if it is.
    ///
    /// # Errors
    /// Transient when that could not be determined; permanent when the place cannot be read.
    async fn moved_on(
        &self,
        target: &RevertTarget<'_>,
        place: &GitOps,
        change: &Id,
    ) -> Result<Option<Reason>, Fault<Reason>>;

    /// Orders a change to be reverted; repeating the order does not create another change.
    ///
    /// # Errors
    /// Permanent when it is not possible; transient when that could not be determined.
    async fn revert(&self, order: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>>;

    /// How that stands.
    ///
    /// # Errors
    /// Permanent when it failed; transient when that could not be determined.
    async fn observe(&self, change: &Id, trace: TraceContext) -> Result<Reverting, Fault<Reason>>;
}

/// What is to be reverted, as a deployment names it.
#[derive(Debug, Clone)]
pub struct RevertTarget<'a> {
    pub service: &'a Name,
    pub environment: &'a Name,
    pub source: &'a Source,
    pub image: &'a Image,
    pub trace: TraceContext,
}

/// The change behind it, which can be reverted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revertible {
    pub change: Id,
    /// The image that was there before.
    pub image: Image,
}

/// Which change is reverted, and for what.
#[derive(Debug, Clone)]
pub struct RevertOrder<'a> {
    /// The idempotency key: repeating the order does not create another change.
    pub request_id: String,
    pub revert: &'a Revert,
    /// The correlation id of its events.
    pub correlation_id: &'a str,
    pub on_behalf_of: &'a Principal,
    pub trace: TraceContext,
}

/// The state of a revert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverting {
    /// It waits for a push, or for a pull request to be merged.
    Pending { change: Id, message: String },
    /// It is on its branch.
    Pushed { change: Id, commit: CommitSha },
}

/// Used when there is no gitops-svc.
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

    async fn moved_on(
        &self,
        _: &RevertTarget<'_>,
        _: &GitOps,
        _: &Id,
    ) -> Result<Option<Reason>, Fault<Reason>> {
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
