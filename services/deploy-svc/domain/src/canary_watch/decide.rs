//! The effect of a command on a watch in its current state.

use slipway_decider::{Decider, Impossible};
use slipway_model::{Id, Reason, Timestamp};

use super::{
    CanaryWatch, CanaryWatchCommand as Command, CanaryWatchEvent as Event, CanaryWatchRefusal as Refusal,
    CanaryWatchState, CanaryWatchStatus as Status,
};
use crate::deployment::{DeploymentStatus, pause};

pub(super) fn decide(
    id: &Id,
    state: &CanaryWatchState,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    if state.watched.is_none() {
        return match command {
            Command::Begin(watched) => {
                let until = now + watched.period;
                let watched = *watched;
                Ok(vec![Event::Began { watched, until }])
            }
            _ => Err(Refusal::Unknown(id.clone())),
        };
    }
    let wanted = command
        .key()
        .is_some_and(|key| CanaryWatch::wants(id, state, key));
    let follows = wanted && state.status == Status::Watching;
    let puts_back = wanted && state.status == Status::Failed;
    Ok(match command {
        Command::Begin(_) => Vec::new(),
        Command::Away { reason, .. } if follows && state.fault.as_ref() != Some(&reason) => {
            vec![Event::Away { reason }]
        }
        Command::Away { .. } if follows => Vec::new(),
        Command::Back { .. } if follows && state.fault.is_some() => vec![Event::Back {}],
        Command::Back { .. } if follows => Vec::new(),
        Command::Failed { reason, .. } if follows => vec![Event::Failed { reason }],
        Command::Passed { reason, .. } if follows => vec![Event::Passed { reason: Some(reason) }],
        Command::Superseded { reason, .. } if wanted => vec![Event::Superseded { reason }],
        Command::Recovered { .. } if puts_back => recovered(state, now),
        Command::LaneHeld { holder, .. } if puts_back && state.lane_holder.as_ref() != Some(&holder) => {
            vec![Event::LaneHeld { holder }]
        }
        Command::LaneHeld { .. } if puts_back => Vec::new(),
        Command::PuttingBack { deployment, .. } if puts_back => vec![Event::PuttingBack { deployment }],
        Command::Declined { reason, .. } if puts_back => vec![Event::NotPutBack { reason }],
        Command::Stumbled { reason, .. } if puts_back => vec![Event::Stumbled {
            reason,
            retry_at: now + pause(id, state.stumbles + 1),
        }],
        Command::DeploymentEnded {
            deployment,
            status,
            reason,
        } if state.status == Status::PuttingBack && state.deployment.as_ref() == Some(&deployment) => {
            vec![deployment_ended(&deployment, status, reason)]
        }
        Command::Wake => wake(state, now),
        // The outcome of one effect, with the key of another's.
        _ if wanted => return Err(Impossible::new(id, state.words()).into()),
        // Of an older attempt, or too late.
        _ => Vec::new(),
    })
}

/// It is followed for the rest of its time.
fn recovered(state: &CanaryWatchState, now: Timestamp) -> Vec<Event> {
    let mut events = vec![Event::Recovered {}];
    if state.until.is_some_and(|until| until <= now) {
        events.push(Event::Passed { reason: None });
    }
    events
}

fn deployment_ended(deployment: &Id, status: DeploymentStatus, reason: Option<Reason>) -> Event {
    match status {
        DeploymentStatus::Succeeded => Event::PutBack {},
        _ => Event::NotPutBack {
            reason: reason.unwrap_or_else(|| {
                let words = format!("{deployment} ended {}: no reason given", status.as_str());
                Reason::new("NOT_PUT_BACK", words)
            }),
        },
    }
}

fn wake(state: &CanaryWatchState, now: Timestamp) -> Vec<Event> {
    let due = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    match state.status {
        // What happened in the meantime is not known.
        Status::Watching if due(state.until) => vec![Event::Passed {
            reason: state.fault.clone(),
        }],
        Status::Failed if due(state.retry_at) => vec![Event::Resumed {}],
        _ => Vec::new(),
    }
}
