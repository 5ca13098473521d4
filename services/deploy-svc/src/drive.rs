//! Runs the commands of releases, and what they mean for lanes, in one transaction.
//!
//! A release stands in at most one lane, that of the environment it is in ([`ReleaseState::lane`]). Whenever a
//! command moves it from one lane to another, or out of the last, leaving, entering, the grant to whoever is next
//! and the end of whoever is superseded are appended together: there is no moment at which a target belongs to
//! two releases, or to one that is over.

use std::collections::VecDeque;

use slipway_ledger::{ExecuteError, Ledger, LedgerError, Meta, Snapshot, TransactError, Tx};
use slipway_model::Id;

use crate::{
    lane::{Lane, LaneCommand, LaneRefusal, LaneState},
    release::{Release, ReleaseCommand, ReleaseRefusal, ReleaseState},
};

/// Why a command of a release was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error(transparent)]
    Release(#[from] ExecuteError<ReleaseRefusal>),
    #[error(transparent)]
    Lane(#[from] ExecuteError<LaneRefusal>),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("target {target:?} cannot name a lane: {source}")]
    Target {
        target: String,
        source: slipway_model::Invalid,
    },
}

/// Decides `command` for a release in a transaction of its own.
///
/// # Errors
/// See [`DriveError`]; a lost race is decided again.
pub async fn execute(
    ledger: &Ledger,
    release: &Id,
    command: ReleaseCommand,
    meta: &Meta,
) -> Result<Snapshot<Release>, TransactError<DriveError>> {
    ledger
        .transact(meta, None, |tx| decide(tx, release.clone(), command.clone()))
        .await
}

/// Decides `command` for a release, and moves it and whoever that touches in and out of lanes.
///
/// # Errors
/// See [`DriveError`]; nothing is written then.
pub async fn decide(tx: Tx, release: Id, command: ReleaseCommand) -> Result<Snapshot<Release>, DriveError> {
    let mut work = VecDeque::from([(release.clone(), command)]);
    while let Some((release, command)) = work.pop_front() {
        step(&tx, &release, command, &mut work).await?;
    }
    let unknown = || DriveError::Release(ExecuteError::Refused(ReleaseRefusal::Unknown(release.clone())));
    tx.get::<Release>(&release).await?.ok_or_else(unknown)
}

/// Tells the lane that the holder is about to change the target; refused when the turn was lost.
///
/// # Errors
/// When the ledger could not be asked.
pub async fn mark_changed(
    ledger: &Ledger,
    release: &Id,
    state: &ReleaseState,
    meta: &Meta,
) -> Result<bool, ExecuteError<LaneRefusal>> {
    let Some(lane) = lane_of(state).and_then(Result::ok) else {
        return Ok(false);
    };
    let command = || LaneCommand::Change {
        release: release.clone(),
    };
    match ledger.execute::<Lane>(&lane, command, meta).await {
        Ok(_) => Ok(true),
        Err(ExecuteError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn lane_of(state: &ReleaseState) -> Option<Result<Id, DriveError>> {
    let planned = state.plan.as_ref()?.environments.get(state.lane()?)?;
    Some(planned.lane().map_err(|source| DriveError::Target {
        target: planned.target.key(),
        source,
    }))
}

async fn step(
    tx: &Tx,
    release: &Id,
    command: ReleaseCommand,
    work: &mut VecDeque<(Id, ReleaseCommand)>,
) -> Result<(), DriveError> {
    let before = tx
        .get::<Release>(release)
        .await?
        .map(|snapshot| snapshot.state)
        .unwrap_or_default();
    let after = tx.decide::<Release>(release, command).await?.state;
    let (left, entered) = (before.lane(), after.lane());
    if left == entered {
        return Ok(());
    }
    if let Some(lane) = lane_of(&before).transpose()? {
        move_in(
            tx,
            &lane,
            LaneCommand::Leave {
                release: release.clone(),
            },
            work,
        )
        .await?;
    }
    if let Some(lane) = lane_of(&after).transpose()? {
        let planned = entered.and_then(|index| after.plan.as_ref()?.environments.get(index));
        let yields = planned.is_some_and(|planned| planned.yields);
        move_in(
            tx,
            &lane,
            LaneCommand::Enter {
                release: release.clone(),
                yields,
            },
            work,
        )
        .await?;
    }
    Ok(())
}

/// Decides a lane's command, and queues what it means for other releases.
async fn move_in(
    tx: &Tx,
    lane: &Id,
    command: LaneCommand,
    work: &mut VecDeque<(Id, ReleaseCommand)>,
) -> Result<(), DriveError> {
    let by = match &command {
        LaneCommand::Enter { release, .. } => Some(release.clone()),
        LaneCommand::Leave { .. } | LaneCommand::Change { .. } => None,
    };
    let before = tx
        .get::<Lane>(lane)
        .await?
        .map(|snapshot| snapshot.state)
        .unwrap_or_default();
    let leaver = match &command {
        LaneCommand::Leave { release } => Some(release.clone()),
        _ => None,
    };
    let after = tx.decide::<Lane>(lane, command).await?.state;
    if let Some(by) = by {
        for superseded in gone(&before, &after).filter(|release| Some(*release) != leaver.as_ref()) {
            work.push_back((superseded.clone(), ReleaseCommand::Supersede { by: by.clone() }));
        }
    }
    if let Some(turn) = &after.holder
        && before.holder.as_ref().map(|before| before.epoch) != Some(turn.epoch)
    {
        let environment = environment_at(tx, &turn.release, lane).await?;
        if let Some(environment) = environment {
            work.push_back((
                turn.release.clone(),
                ReleaseCommand::LaneGranted {
                    environment,
                    epoch: turn.epoch,
                },
            ));
        }
    }
    Ok(())
}

/// The releases that were in the lane and are not any more.
fn gone<'a>(before: &'a LaneState, after: &'a LaneState) -> impl Iterator<Item = &'a Id> {
    let inside = before
        .holder
        .iter()
        .map(|turn| &turn.release)
        .chain(before.waiting.iter().map(|ticket| &ticket.release));
    inside.filter(|release| {
        !after.holds(release) && !after.waiting.iter().any(|ticket| ticket.release == **release)
    })
}

/// The environment with which a release stands in this lane.
async fn environment_at(tx: &Tx, release: &Id, lane: &Id) -> Result<Option<usize>, DriveError> {
    let Some(snapshot) = tx.get::<Release>(release).await? else {
        return Ok(None);
    };
    let index = snapshot.state.lane();
    let planned = index.and_then(|index| snapshot.state.plan.as_ref()?.environments.get(index));
    Ok(index.filter(|_| planned.is_some_and(|planned| planned.target.key() == lane.as_str())))
}
