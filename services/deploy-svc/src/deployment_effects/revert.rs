//! Takes a change out of git: gitops-svc is given the order once, and asked until the commit is on its branch.

use async_trait::async_trait;
use slipway_model::{CommitSha, Fault, Id, Image, Name, Principal, Reason, TraceContext};

use super::{DeploymentEffects, Run, own_trace};
use crate::deployment::{DeploymentCommand, DeploymentRequest, Revert, Source};

/// Whoever puts changes of the GitOps repository back.
#[async_trait]
pub trait Reverts: Send + Sync {
    /// The change that brought what is to be put back, and what stood there before it.
    ///
    /// # Errors
    /// Permanent when there is none, or nothing before it; transient when that could not be asked.
    async fn find(&self, lost: &Lost<'_>) -> Result<Found, Fault<Reason>>;

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
pub struct Lost<'a> {
    pub service: &'a Name,
    pub environment: &'a Name,
    pub source: &'a Source,
    pub image: &'a Image,
    pub trace: TraceContext,
}

/// The change behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub change: Id,
    /// The image of before.
    pub image: Image,
}

/// Which change is put back, and for whom.
#[derive(Debug, Clone)]
pub struct RevertOrder<'a> {
    /// Makes the order the same again.
    pub request_id: String,
    pub revert: &'a Revert,
    /// What facts about it correlate with.
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

impl DeploymentEffects {
    /// Gives the order.
    pub(super) async fn revert(&self, run: &Run, request: &DeploymentRequest) -> Option<DeploymentCommand> {
        let key = run.key.clone();
        let revert = request.reverts.as_ref()?;
        let order = RevertOrder {
            request_id: format!("{}/revert", run.id),
            revert,
            correlation_id: run.id.as_str(),
            on_behalf_of: request.requested_by.effective(),
            trace: run.traceparent.unwrap_or_else(|| own_trace(run)),
        };
        slipway_faults::point("deploy.revert.before");
        let answer = self.reverts.revert(&order).await;
        slipway_faults::point("deploy.revert.after");
        Some(match answer {
            Ok(Reverting::Pushed { commit, .. }) => DeploymentCommand::Reverted { key, commit },
            Ok(Reverting::Pending { change, .. }) => DeploymentCommand::Reverting { key, change },
            Err(Fault::Permanent(reason)) => DeploymentCommand::Refused { key, reason },
            Err(Fault::Transient { error: reason, .. }) => DeploymentCommand::Stumbled { key, reason },
        })
    }

    /// Looks how it stands.
    pub(super) async fn observe_revert(&self, run: &Run) -> Option<DeploymentCommand> {
        let key = run.key.clone();
        let change = run.snapshot.state.reverting.as_ref()?;
        let trace = run.traceparent.unwrap_or_else(|| own_trace(run));
        Some(match self.reverts.observe(change, trace).await {
            Ok(Reverting::Pushed { commit, .. }) => DeploymentCommand::Reverted { key, commit },
            Ok(Reverting::Pending { message, .. }) => DeploymentCommand::Progress {
                key,
                message,
                human: false,
            },
            Err(Fault::Permanent(reason)) => DeploymentCommand::Refused { key, reason },
            Err(Fault::Transient { error: reason, .. }) => DeploymentCommand::Away { key, reason },
        })
    }
}

/// For where there is no gitops-svc.
#[derive(Debug, Clone, Copy)]
pub struct NoReverts;

#[async_trait]
impl Reverts for NoReverts {
    async fn find(&self, _: &Lost<'_>) -> Result<Found, Fault<Reason>> {
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
