//! Runs the commands of releases, and their consequences for lanes, in one transaction.
//!
//! A release is in at most one lane, that of its current environment ([`ReleaseState::lane`]). Whenever a command moves
//! it from one lane to another, or out of the last, leaving, entering, the grant to the next one and the end of the
//! superseded ones are appended together: there is no moment at which a target belongs to two releases, or to one that
//! is over.

use std::collections::VecDeque;

use deploy_domain::{
    lane::{Lane, LaneCommand, LaneRefusal, LaneState},
    release::{Release, ReleaseCommand, ReleaseRefusal, ReleaseState, ReleaseStatus},
};
use slipway_ledger::{ExecuteError, Ledger, LedgerError, Meta, Snapshot, TransactError, Tx};
use slipway_model::Id;

/// Why a command of a release was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LanesError {
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

/// Decides `command` for a release in a separate transaction.
///
/// # Errors
/// See [`LanesError`]; a lost race is decided again.
pub async fn execute(
    ledger: &Ledger,
    release: &Id,
    command: ReleaseCommand,
    meta: &Meta,
) -> Result<Snapshot<Release>, TransactError<LanesError>> {
    ledger
        .transact(meta, |tx| decide(tx, release.clone(), command.clone()))
        .await
}

/// Decides `command` for a release, and moves it and the other releases affected in and out of lanes.
///
/// # Errors
/// See [`LanesError`]; nothing is written then.
pub async fn decide(tx: Tx, release: Id, command: ReleaseCommand) -> Result<Snapshot<Release>, LanesError> {
    carry_out(&tx, VecDeque::from([(release.clone(), command)])).await?;
    let unknown = || LanesError::Release(ExecuteError::Refused(ReleaseRefusal::Unknown(release.clone())));
    tx.get::<Release>(&release).await?.ok_or_else(unknown)
}

/// Gives back the turn of a holder that is not a release, and notifies the releases that waited for it.
///
/// # Errors
/// See [`LanesError`]; nothing is written then.
pub async fn leave(tx: &Tx, lane: &Id, holder: &Id, through: bool) -> Result<(), LanesError> {
    let command = LaneCommand::Leave {
        holder: holder.clone(),
        through,
    };
    let mut work = VecDeque::new();
    move_in(tx, lane, command, &mut work).await?;
    carry_out(tx, work).await
}

/// Decides commands until they lead to no further ones.
async fn carry_out(tx: &Tx, mut work: VecDeque<(Id, ReleaseCommand)>) -> Result<(), LanesError> {
    while let Some((release, command)) = work.pop_front() {
        step(tx, &release, command, &mut work).await?;
    }
    Ok(())
}

/// Tells the lane that the holder is about to change the target; false if the turn was lost.
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
        holder: release.clone(),
    };
    match ledger.execute::<Lane>(&lane, command, meta).await {
        Ok(_) => Ok(true),
        Err(ExecuteError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn lane_of(state: &ReleaseState) -> Option<Result<Id, LanesError>> {
    let planned = state.plan.as_ref()?.environments.get(state.lane()?)?;
    Some(planned.lane().map_err(|source| LanesError::Target {
        target: planned.target.key(),
        source,
    }))
}

async fn step(
    tx: &Tx,
    release: &Id,
    command: ReleaseCommand,
    work: &mut VecDeque<(Id, ReleaseCommand)>,
) -> Result<(), LanesError> {
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
                holder: release.clone(),
                through: went_through(&before, &after),
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
                holder: release.clone(),
                yields,
                started: after.requested_at,
            },
            work,
        )
        .await?;
    }
    Ok(())
}

/// Decides a lane's command, and queues its consequences for other releases.
async fn move_in(
    tx: &Tx,
    lane: &Id,
    command: LaneCommand,
    work: &mut VecDeque<(Id, ReleaseCommand)>,
) -> Result<(), LanesError> {
    let before = tx
        .get::<Lane>(lane)
        .await?
        .map(|snapshot| snapshot.state)
        .unwrap_or_default();
    let after = tx.decide::<Lane>(lane, command.clone()).await?.state;
    for (superseded, by) in superseded(&before, &after, &command) {
        work.push_back((superseded, ReleaseCommand::Supersede { by }));
    }
    if let Some(turn) = &after.holder
        && before.holder.as_ref().map(|before| before.epoch) != Some(turn.epoch)
    {
        let environment = environment_at(tx, &turn.holder, lane).await?;
        if let Some(environment) = environment {
            work.push_back((
                turn.holder.clone(),
                ReleaseCommand::LaneGranted {
                    environment,
                    epoch: turn.epoch,
                },
            ));
        }
    }
    Ok(())
}

/// Whether the target runs the release's version: the release continued, or this was the last environment and it
/// succeeded.
fn went_through(before: &ReleaseState, after: &ReleaseState) -> bool {
    let on = after.lane().is_some() && after.lane() > before.lane();
    on || after.status == ReleaseStatus::Succeeded
}

/// The releases that the command ended, each with the one that superseded it.
fn superseded(before: &LaneState, after: &LaneState, command: &LaneCommand) -> Vec<(Id, Id)> {
    let inside = before
        .holder
        .iter()
        .map(|turn| (&turn.holder, turn.started))
        .chain(before.waiting.iter().map(|one| (&one.holder, one.started)));
    let gone = |holder: &Id| !after.holds(holder) && after.waiting.iter().all(|one| one.holder != *holder);
    let by_newer = |release: &Id, started| {
        let by = after.newer_than(started)?;
        Some((release.clone(), by.clone()))
    };
    match command {
        // It came too late itself.
        LaneCommand::Enter { holder, started, .. } if gone(holder) => {
            by_newer(holder, *started).into_iter().collect()
        }
        LaneCommand::Enter { holder, .. } => inside
            .filter(|(other, _)| gone(other))
            .map(|(other, _)| (other.clone(), holder.clone()))
            .collect(),
        LaneCommand::Leave { holder, .. } => inside
            .filter(|(other, _)| *other != holder && gone(other))
            .filter_map(|(other, started)| by_newer(other, started))
            .collect(),
        LaneCommand::Change { .. } => Vec::new(),
    }
}

/// The environment for which a release is in this lane.
async fn environment_at(tx: &Tx, release: &Id, lane: &Id) -> Result<Option<usize>, LanesError> {
    let Some(snapshot) = tx.get::<Release>(release).await? else {
        return Ok(None);
    };
    let index = snapshot.state.lane();
    let planned = index.and_then(|index| snapshot.state.plan.as_ref()?.environments.get(index));
    Ok(index.filter(|_| planned.is_some_and(|planned| planned.target.key() == lane.as_str())))
}
