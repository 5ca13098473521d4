//! The turn in the target's lane, and in those that it shares, of a standalone deployment, which does not belong to a
//! release: taken with the request, given back at the end.

use deploy_domain::{
    canary_watch::{CanaryWatch, CanaryWatchCommand, CanaryWatchRefusal, Watched},
    deployment::{
        Deployment, DeploymentCommand, DeploymentRefusal, DeploymentRequest, DeploymentState,
        DeploymentStatus, fencing_epoch,
    },
    lane::{Lane, LaneCommand, LaneRefusal, LaneState},
    plan::lanes as lanes_of_target,
};
use slipway_ledger::{ExecuteError, LedgerError, Meta, Snapshot, Tx, executor::codes};
use slipway_model::{Actor, Id, Reason, Timestamp};

use super::Run;
use crate::effects::lanes::{self, LanesError};

/// Why a turn was not taken or not given back.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("{target} belongs to {holder} now: wait until it is through, or cancel it")]
    Busy { target: String, holder: Id },
    #[error("target {target:?} cannot name a lane: {source}")]
    Name {
        target: String,
        source: slipway_model::Invalid,
    },
    #[error(transparent)]
    Lane(#[from] ExecuteError<LaneRefusal>),
    #[error(transparent)]
    Deployment(#[from] ExecuteError<DeploymentRefusal>),
    #[error(transparent)]
    Watch(#[from] ExecuteError<CanaryWatchRefusal>),
    #[error(transparent)]
    Release(#[from] LanesError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Requests a standalone deployment: it takes the target's lane, whose new turn determines the epoch.
///
/// # Errors
/// [`LaneError::Busy`] while another holds the lane or waits for it: a deployment without a release does not queue.
pub async fn request(
    tx: &Tx,
    id: &Id,
    request: DeploymentRequest,
) -> Result<Snapshot<Deployment>, LaneError> {
    request_as_of(tx, id, request, None).await
}

/// As [`request`], but in the order of turns it counts as started at that time: a release that is newer than what it is
/// about must not be superseded by it.
///
/// # Errors
/// As for [`request`].
pub(crate) async fn request_as_of(
    tx: &Tx,
    id: &Id,
    mut request: DeploymentRequest,
    started: Option<Timestamp>,
) -> Result<Snapshot<Deployment>, LaneError> {
    let (target, service) = (request.target.clone(), request.service.clone());
    let lanes = lanes_of(&request)?;
    let mut own = LaneState::default();
    let mut through: Option<Timestamp> = None;
    for lane in &lanes {
        let state = tx.get::<Lane>(lane).await?;
        let state = state.map(|snapshot| snapshot.state).unwrap_or_default();
        let mut others = state
            .holder
            .iter()
            .map(|turn| &turn.holder)
            .chain(state.waiting.iter().map(|one| &one.holder));
        if let Some(holder) = others.find(|holder| *holder != id) {
            return Err(LaneError::Busy {
                target: target.key(),
                holder: holder.clone(),
            });
        }
        let last = state.last_through(Some(&service));
        through = through.max(last.map(|through| through.started));
        if lane.as_str() == target.key() {
            own = state;
        }
    }
    // The deployment is decided first, since an idempotency key stands for what is decided first; the transaction is
    // valid only if the lane is still as it was read.
    request.epoch = fencing_epoch(own.epoch + 1, false);
    request.holds_lane = true;
    let snapshot = tx
        .decide::<Deployment>(id, DeploymentCommand::Request(Box::new(request)))
        .await?;
    // It is requested now, whatever another replica's clock said about earlier ones.
    let started = started.or(snapshot.state.requested_at).max(through);
    for lane in &lanes {
        tx.decide::<Lane>(
            lane,
            LaneCommand::Enter {
                holder: id.clone(),
                service: service.clone(),
                yields: false,
                started,
            },
        )
        .await?;
        // From here on a newer release waits instead of superseding it.
        tx.decide::<Lane>(lane, LaneCommand::Change { holder: id.clone() })
            .await?;
    }
    Ok(snapshot)
}

/// Gives the turn back, and notifies the release that has waited for it, all in one transaction.
pub async fn leave(run: &Run) -> Result<Option<DeploymentCommand>, Reason> {
    let state = &run.snapshot.state;
    let Some(request) = &state.request else {
        return Ok(None);
    };
    let target = &request.target;
    if state.status == DeploymentStatus::RollbackFailed {
        let reason = state.reason.as_ref().map(|reason| reason.message.as_str());
        tracing::error!(deployment = %run.id, target = %target, reason, "the rollback failed: a person must look");
    }
    let meta = Meta::new(Actor::system("deploy"), run.traceparent);
    let left = run
        .ledger
        .transact(&meta, |tx| give_back(tx, run.id.clone(), request.clone()))
        .await;
    match left {
        Ok(()) => Ok(None),
        Err(error) => {
            let message = format!("the lane of {target} was not given back: {error}");
            Err(Reason::new(codes::LEDGER, message))
        }
    }
}

async fn give_back(tx: Tx, deployment: Id, request: DeploymentRequest) -> Result<(), LaneError> {
    let left = tx
        .decide::<Deployment>(&deployment, DeploymentCommand::LaneLeft)
        .await?;
    let through = left.state.status == DeploymentStatus::Succeeded;
    lanes::leave(&tx, &lanes_of(&request)?, &deployment, through).await?;
    tell_watch(&tx, &deployment, &request, &left.state).await
}

/// The canary watch that ordered the deployment learns how it ended.
async fn tell_watch(
    tx: &Tx,
    deployment: &Id,
    request: &DeploymentRequest,
    state: &DeploymentState,
) -> Result<(), LaneError> {
    let (Some(_), Ok(release)) = (&request.rolls_back, request.correlation_id.parse::<Id>()) else {
        return Ok(());
    };
    let watch = Watched::id_of(&release, &request.environment);
    let ordered = tx.get::<CanaryWatch>(&watch).await?;
    if ordered.is_some_and(|watch| watch.state.deployment.as_ref() == Some(deployment)) {
        let command = CanaryWatchCommand::DeploymentEnded {
            deployment: deployment.clone(),
            status: state.status,
            reason: state.reason.clone(),
        };
        tx.decide::<CanaryWatch>(&watch, command).await?;
    }
    Ok(())
}

fn lanes_of(request: &DeploymentRequest) -> Result<Vec<Id>, LaneError> {
    lanes_of_target(&request.target, &request.shared).map_err(|source| LaneError::Name {
        target: request.target.key(),
        source,
    })
}
