//! This service's own deployments, as the owner of the deploy and redeploy steps. They live in the same database.

use async_trait::async_trait;
use slipway_ledger::{Ledger, Meta};
use slipway_model::{Actor, Id};

use super::{CallError, Order, Owner, Taken};
use crate::{
    catalog::Jobs,
    deployment::{Action, Deployment, DeploymentCommand, DeploymentRequest, DeploymentState, DeploymentStatus, Source},
    release::{Facts, Observation, Reason, StepKind, Waiting, WaitingKind},
};

#[derive(Clone)]
pub struct Deployments {
    ledger: Ledger,
}

impl std::fmt::Debug for Deployments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployments").finish_non_exhaustive()
    }
}

impl Deployments {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    async fn execute(
        &self,
        order: Order<'_>,
        id: &Id,
        command: DeploymentCommand,
    ) -> Result<Observation, CallError> {
        let meta = Meta::new(Actor::system("deploy"), Some(order.trace()));
        let executed = self
            .ledger
            .execute::<Deployment>(id, || command.clone(), &meta)
            .await;
        executed
            .map(|snapshot| observation(&snapshot.state))
            .map_err(passing)
    }
}

#[async_trait]
impl Owner for Deployments {
    async fn start(&self, order: Order<'_>) -> Result<Taken, CallError> {
        let planned = order.planned()?;
        let redeploy = order.step.kind == StepKind::Redeploy;
        // What is put back is what stood there before the change.
        let (image, commit) = if redeploy {
            let previous = order
                .change()?
                .previous
                .as_ref()
                .ok_or_else(|| super::missing("a previous image"))?;
            (previous, &order.revert()?.commit)
        } else {
            (order.image()?, &order.change()?.commit)
        };
        let requested_by = order
            .state
            .requested_by
            .clone()
            .ok_or_else(|| super::missing("a requester"))?;
        let request = DeploymentRequest {
            service: order.plan.service.clone(),
            environment: planned.name.clone(),
            target: planned.target.clone(),
            image: image.name.clone(),
            digest: image.digest.clone(),
            source: planned.gitops.as_ref().map(|gitops| Source {
                repository: gitops.repository.clone(),
                path: gitops.path.clone(),
                commit: commit.clone(),
            }),
            action: Action::Apply,
            jobs: Jobs::default(),
            bake: None,
            pauses: planned.pauses,
            rolls_back: None,
            epoch: fencing_epoch(order.epoch()?, redeploy),
            checks: planned.checks.clone(),
            verify: planned.verify,
            timeout: planned.timeout.deploy,
            correlation_id: order.release.to_string(),
            labels: Default::default(),
            requested_by,
            holds_lane: false,
        };
        let reference = Id::derived("dep", &[&order.request_id()]);
        let observation = self
            .execute(order, &reference, DeploymentCommand::Request(Box::new(request)))
            .await?;
        Ok(Taken {
            reference,
            observation,
        })
    }

    async fn observe(&self, _: Order<'_>, reference: &Id) -> Result<Observation, CallError> {
        let snapshot = self.ledger.get::<Deployment>(reference).await.map_err(passing)?;
        snapshot
            .map(|snapshot| observation(&snapshot.state))
            .ok_or_else(|| super::missing("a deployment"))
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, CallError> {
        let message = order
            .state
            .stop_ending()
            .map(|(_, reason)| reason.message)
            .unwrap_or_default();
        self.execute(order, reference, DeploymentCommand::Cancel { message })
            .await
    }
}

/// The fencing token of a deployment: what is put back stands above what it replaces, under the same turn of the lane,
/// so that an apply of the failed deployment that wakes up late cannot overwrite it.
pub(crate) fn fencing_epoch(turn: u64, redeploy: bool) -> u64 {
    2 * turn + u64::from(redeploy)
}

fn passing(error: impl std::fmt::Display) -> CallError {
    CallError::Passing(Reason::new("LEDGER", error.to_string()))
}

fn observation(state: &DeploymentState) -> Observation {
    let reason = |fallback| {
        state
            .reason
            .clone()
            .unwrap_or_else(|| Reason::new(fallback, "no reason given"))
    };
    match state.status {
        DeploymentStatus::Pending | DeploymentStatus::Applying | DeploymentStatus::Verifying => {
            let message = if state.progress.is_empty() {
                state.status.as_str()
            } else {
                &state.progress
            };
            Observation::Pending(Waiting {
                kind: WaitingKind::Machine,
                message: message.to_owned(),
            })
        }
        DeploymentStatus::Succeeded => {
            let digest = state
                .request
                .as_ref()
                .map(|request| request.digest.short().to_owned())
                .unwrap_or_default();
            Observation::Succeeded {
                result: format!("runs {digest}"),
                facts: Facts::None,
            }
        }
        DeploymentStatus::Failed | DeploymentStatus::RollbackFailed => Observation::Failed(reason("DEPLOYMENT_FAILED")),
        DeploymentStatus::Errored => Observation::Errored(reason("DEPLOYMENT_ERRORED")),
        DeploymentStatus::Cancelled => Observation::Cancelled(reason("DEPLOYMENT_CANCELLED")),
    }
}
