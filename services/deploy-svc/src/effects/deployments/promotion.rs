//! Canary and blue-green rollouts that pause: promotes and aborts them, as requested by a person or the catalog.

use std::time::Duration;

use deploy_domain::deployment::{Ask, DeploymentRequest};
use slipway_kubernetes::{
    Kubernetes,
    promotion::{self, Outcome},
};
use slipway_model::Fault;
use slipway_verdict::{Expected, Next, Target, Workload};

use super::Run;

/// Between tries to reach an API server that is unreachable. The deployment's own deadline ends them.
const AGAIN: Duration = Duration::from_secs(2);

/// Tells the rollout what was requested, or reports why that cannot be done.
pub(super) async fn tell(cluster: &Kubernetes, run: &Run, request: &DeploymentRequest) -> Option<String> {
    let target = &request.target;
    loop {
        let told = match &run.snapshot.state.ask {
            Some(Ask::Promote { full }) => promotion::promote(cluster, target, *full).await,
            Some(Ask::Abort { .. }) => promotion::abort(cluster, target).await,
            None => return Some("it is no longer requested".to_owned()),
        };
        match told {
            Ok(Outcome::Done) => return None,
            Ok(Outcome::Nothing(why)) => return Some(why),
            Err(Fault::Permanent(reason)) => return Some(reason.message),
            Err(Fault::Transient { error, .. }) => {
                tracing::warn!(deployment = %run.id, target = %target, code = error.code, %error, "not delivered; it is tried again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Promotes if that is this service's own decision, once for each version of the object.
#[derive(Debug, Default)]
pub(super) struct Promoter {
    /// The version that was promoted last.
    given: Option<String>,
}

impl Promoter {
    /// Carries out what the workload waits for, if that is up to us.
    pub(super) async fn look(
        &mut self,
        cluster: &Kubernetes,
        target: &Target,
        expected: &Expected,
        live: &Workload,
    ) {
        let next = slipway_verdict::next(expected, live);
        if matches!(next, Next::Wait | Next::Ask(_)) {
            return;
        }
        let version = live.metadata().resource_version.clone();
        if version.is_some() && version == self.given {
            return;
        }
        let told = match next {
            Next::Promote => promotion::promote(cluster, target, false).await,
            _ => promotion::settle(cluster, target).await,
        };
        match told {
            Ok(outcome) => {
                tracing::info!(target = %target, ?next, ?outcome, "told the rollout");
                self.given = version;
            }
            Err(Fault::Permanent(error)) => {
                tracing::warn!(target = %target, ?next, code = error.code, %error, "the rollout does not accept it");
                self.given = version;
            }
            // The next check tries again.
            Err(Fault::Transient { error, .. }) => {
                tracing::debug!(target = %target, ?next, code = error.code, %error, "not told");
            }
        }
    }
}
