//! Reverts a change in git: gitops-svc is given the order once, and asked until the commit is on its branch.

use deploy_domain::deployment::{DeploymentCommand, DeploymentRequest};
use slipway_model::Fault;

use super::{DeploymentEffects, Run, own_trace};
use crate::backends::gitops::{RevertOrder, Reverting};

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

    /// Checks its state.
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
