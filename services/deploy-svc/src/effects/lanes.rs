//! Runs the commands of releases, and their consequences for lanes, in one transaction.
//!
//! A release is in the lanes of its current environment ([`ReleaseState::lane`]), most often one. It enters them one
//! after the other, each when it holds the one before, in an order that is the same for all: so no two wait for each
//! other. Whenever a command moves it to another environment, or ends it, leaving, entering, the grant to the next one
//! and the end of the superseded ones are appended together: there is no moment at which a target belongs to two
//! releases, or to one that is over. The watches over its canaries begin in the transaction that ends it.

use std::collections::VecDeque;

use deploy_domain::{
    canary_watch::{self, CanaryWatch, CanaryWatchCommand, CanaryWatchRefusal},
    lane::{Lane, LaneCommand, LaneRefusal, LaneState, Turn},
    plan::PlannedEnvironment,
    release::{Release, ReleaseCommand, ReleaseRefusal, ReleaseState, ReleaseStatus},
};
use slipway_ledger::{ExecuteError, Ledger, LedgerError, Meta, Snapshot, TransactError, Tx};
use slipway_model::{Id, Name};

/// Why a command of a release was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LanesError {
    #[error(transparent)]
    Release(#[from] ExecuteError<ReleaseRefusal>),
    #[error(transparent)]
    Lane(#[from] ExecuteError<LaneRefusal>),
    #[error(transparent)]
    Watch(#[from] ExecuteError<CanaryWatchRefusal>),
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
    carry_out(
        &tx,
        VecDeque::from([Work::Release(release.clone(), Box::new(command))]),
    )
    .await?;
    let unknown = || LanesError::Release(ExecuteError::Refused(ReleaseRefusal::Unknown(release.clone())));
    tx.get::<Release>(&release).await?.ok_or_else(unknown)
}

/// A command that is still to be decided.
enum Work {
    Release(Id, Box<ReleaseCommand>),
    /// The release holds one lane of this environment, and enters the next.
    Enter {
        release: Id,
        environment: usize,
        held: Id,
        next: Id,
    },
}

/// Gives back the turns of a holder that is not a release, and notifies the releases that waited for them.
///
/// # Errors
/// See [`LanesError`]; nothing is written then.
pub async fn leave(tx: &Tx, lanes: &[Id], holder: &Id, through: bool) -> Result<(), LanesError> {
    let mut work = VecDeque::new();
    for lane in lanes {
        let command = LaneCommand::Leave {
            holder: holder.clone(),
            through,
        };
        move_in(tx, lane, command, &mut work).await?;
    }
    carry_out(tx, work).await
}

/// Decides commands until they lead to no further ones.
async fn carry_out(tx: &Tx, mut work: VecDeque<Work>) -> Result<(), LanesError> {
    while let Some(next) = work.pop_front() {
        match next {
            Work::Release(release, command) => step(tx, &release, *command, &mut work).await?,
            Work::Enter {
                release,
                environment,
                held,
                next,
            } => {
                let state = release_state(tx, &release).await?;
                // Something that was decided meanwhile may have ended it.
                let holds = lane_state(tx, &held).await?.holds(&release);
                if holds && state.lane() == Some(environment) {
                    enter(tx, &release, &state, &next, &mut work).await?;
                }
            }
        }
    }
    Ok(())
}

/// Tells the lanes that the holder is about to change the target; false if a turn was lost.
///
/// # Errors
/// When the ledger could not be asked.
pub async fn mark_changed(
    ledger: &Ledger,
    release: &Id,
    state: &ReleaseState,
    meta: &Meta,
) -> Result<bool, ExecuteError<LaneRefusal>> {
    let Ok(lanes) = lanes_of(state) else {
        return Ok(false);
    };
    for lane in &lanes {
        let command = || LaneCommand::Change {
            holder: release.clone(),
        };
        match ledger.execute::<Lane>(lane, command, meta).await {
            Ok(_) => {}
            Err(ExecuteError::Refused(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(!lanes.is_empty())
}

/// The environment whose lanes the release is in or waits for.
fn planned(state: &ReleaseState) -> Option<&PlannedEnvironment> {
    state.planned(state.lane())
}

/// The lanes of that environment, in the order in which they are entered; none if the release is in no lane.
fn lanes_of(state: &ReleaseState) -> Result<Vec<Id>, LanesError> {
    let Some(planned) = planned(state) else {
        return Ok(Vec::new());
    };
    planned.lanes().map_err(|source| LanesError::Target {
        target: planned.target.key(),
        source,
    })
}

async fn release_state(tx: &Tx, release: &Id) -> Result<ReleaseState, LanesError> {
    let snapshot = tx.get::<Release>(release).await?;
    Ok(snapshot.map(|snapshot| snapshot.state).unwrap_or_default())
}

async fn lane_state(tx: &Tx, lane: &Id) -> Result<LaneState, LanesError> {
    let snapshot = tx.get::<Lane>(lane).await?;
    Ok(snapshot.map(|snapshot| snapshot.state).unwrap_or_default())
}

async fn step(
    tx: &Tx,
    release: &Id,
    command: ReleaseCommand,
    work: &mut VecDeque<Work>,
) -> Result<(), LanesError> {
    let before = release_state(tx, release).await?;
    let after = tx.decide::<Release>(release, command).await?.state;
    if after.status.is_final() && !before.status.is_final() {
        for watched in canary_watch::at_end(release, &after) {
            let (watch, command) = (watched.id(), CanaryWatchCommand::Begin(Box::new(watched)));
            tx.decide::<CanaryWatch>(&watch, command).await?;
        }
    }
    if before.lane() == after.lane() {
        return Ok(());
    }
    for lane in lanes_of(&before)? {
        let command = LaneCommand::Leave {
            holder: release.clone(),
            through: went_through(&before, &after),
        };
        move_in(tx, &lane, command, work).await?;
    }
    match lanes_of(&after)?.first() {
        Some(first) => enter(tx, release, &after, first, work).await,
        None => Ok(()),
    }
}

async fn enter(
    tx: &Tx,
    release: &Id,
    state: &ReleaseState,
    lane: &Id,
    work: &mut VecDeque<Work>,
) -> Result<(), LanesError> {
    let (Some(plan), Some(planned)) = (&state.plan, planned(state)) else {
        return Ok(());
    };
    let command = LaneCommand::Enter {
        holder: release.clone(),
        service: plan.service.clone(),
        yields: planned.yields,
        started: state.requested_at,
    };
    move_in(tx, lane, command, work).await
}

/// Decides a lane's command, and queues its consequences for releases.
async fn move_in(
    tx: &Tx,
    lane: &Id,
    command: LaneCommand,
    work: &mut VecDeque<Work>,
) -> Result<(), LanesError> {
    let before = lane_state(tx, lane).await?;
    let after = tx.decide::<Lane>(lane, command.clone()).await?.state;
    for (superseded, by) in superseded(&before, &after, &command) {
        work.push_back(Work::Release(
            superseded,
            Box::new(ReleaseCommand::Supersede { by }),
        ));
    }
    if let Some(turn) = &after.holder
        && before.holder.as_ref().map(|before| before.epoch) != Some(turn.epoch)
    {
        work.extend(granted(tx, lane, turn).await?);
    }
    Ok(())
}

/// What follows for a release that holds a lane from now on: it enters the next one, or has its turn.
async fn granted(tx: &Tx, lane: &Id, turn: &Turn) -> Result<Option<Work>, LanesError> {
    let state = release_state(tx, &turn.holder).await?;
    let lanes = lanes_of(&state)?;
    // A deployment that stands alone, or a release that is elsewhere by now.
    let (Some(environment), Some(planned), Some(place)) = (
        state.lane(),
        planned(&state),
        lanes.iter().position(|one| one == lane),
    ) else {
        return Ok(None);
    };
    let release = turn.holder.clone();
    if let Some(next) = lanes.get(place + 1) {
        return Ok(Some(Work::Enter {
            release,
            environment,
            held: lane.clone(),
            next: next.clone(),
        }));
    }
    // Writes are fenced by the target's own lane.
    let target = planned.target.key();
    let epoch = match lanes.iter().find(|one| one.as_str() == target) {
        Some(own) if own != lane => lane_state(tx, own).await?.epoch,
        _ => turn.epoch,
    };
    let command = ReleaseCommand::LaneGranted { environment, epoch };
    Ok(Some(Work::Release(release, Box::new(command))))
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
        .map(|turn| (&turn.holder, &turn.service, turn.started))
        .chain(
            before
                .waiting
                .iter()
                .map(|one| (&one.holder, &one.service, one.started)),
        );
    let gone = |holder: &Id| !after.holds(holder) && after.waiting.iter().all(|one| one.holder != *holder);
    let by_newer = |release: &Id, service: Option<&Name>, started| {
        let by = after.newer_than(service, started)?;
        Some((release.clone(), by.clone()))
    };
    match command {
        // It came too late itself.
        LaneCommand::Enter {
            holder,
            service,
            started,
            ..
        } if gone(holder) => by_newer(holder, Some(service), *started).into_iter().collect(),
        LaneCommand::Enter { holder, .. } => inside
            .filter(|(other, ..)| gone(other))
            .map(|(other, ..)| (other.clone(), holder.clone()))
            .collect(),
        LaneCommand::Leave { holder, .. } => inside
            .filter(|(other, ..)| *other != holder && gone(other))
            .filter_map(|(other, service, started)| by_newer(other, service.as_ref(), started))
            .collect(),
        LaneCommand::Change { .. } => Vec::new(),
    }
}
