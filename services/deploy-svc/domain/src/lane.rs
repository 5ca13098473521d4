//! The lane of one deploy target: at most one holder at a time, in the order in which they were started.
//!
//! A holder is a release, or a deployment that belongs to none. A lane grants an increasing *epoch* with every turn;
//! each write to the cluster carries it, so that a stalled writer of an older turn cannot overwrite a newer one. A
//! newer release supersedes an older one that has changed nothing yet, also when that one already holds the lane and
//! waits at its gate; a release that is configured to wait queues instead. Newer means started later, not a later
//! commit: a release with a long build may reach the lane after one that was started later, and must not take the
//! target back. So it is superseded if such a release is there or has gone through before it, and if it is to wait, it
//! is queued before the newer ones.

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, Index, RefusalKind};
use slipway_model::{Id, Timestamp};

/// The decider of lanes. Their ids are the targets: `cluster/namespace/kind/name`.
#[derive(Debug)]
pub enum Lane {}

/// The current holder of the lane, and those waiting for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    /// The epoch of the last turn; 0 before the first.
    pub epoch: u64,
    /// The ticket given last.
    pub last_ticket: u64,
    pub holder: Option<Turn>,
    /// In the order of their turns.
    pub waiting: Vec<Ticket>,
    /// The newest holder that went through: the target runs its version, or something newer.
    #[serde(default)]
    pub through: Option<Through>,
}

/// A holder that went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Through {
    #[serde(rename = "release")]
    pub holder: Id,
    pub started: Timestamp,
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    #[serde(rename = "release")]
    pub holder: Id,
    pub ticket: u64,
    /// A newer one may supersede this one while it has changed nothing.
    pub yields: bool,
    /// When it was started; not known of older records.
    #[serde(default)]
    pub started: Option<Timestamp>,
}

/// The holder, and its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    #[serde(rename = "release")]
    pub holder: Id,
    pub ticket: u64,
    pub yields: bool,
    pub epoch: u64,
    /// It began to change the target: from now on it runs to its end.
    pub changed: bool,
    #[serde(default)]
    pub started: Option<Timestamp>,
}

/// What releases and deployments ask of a lane. Each request may be repeated.
#[derive(Debug, Clone)]
pub enum LaneCommand {
    /// Take a ticket. `yields` is the catalog's `supersede: newest`; `started`: when the release or deployment was
    /// started.
    Enter {
        holder: Id,
        yields: bool,
        started: Option<Timestamp>,
    },
    /// The holder is about to change the target.
    Change { holder: Id },
    /// Give back the turn or the ticket. `through`: the target runs the holder's version.
    Leave { holder: Id, through: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LaneEvent {
    Entered {
        #[serde(rename = "release")]
        holder: Id,
        ticket: u64,
        yields: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
    },
    /// `by` superseded `holder`, which had changed nothing.
    Superseded {
        #[serde(rename = "release")]
        holder: Id,
        by: Id,
    },
    Granted {
        #[serde(rename = "release")]
        holder: Id,
        ticket: u64,
        epoch: u64,
    },
    Changed {
        #[serde(rename = "release")]
        holder: Id,
    },
    Left {
        #[serde(rename = "release")]
        holder: Id,
        /// The target runs its version.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        through: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneRefusal {
    #[error("{holder} does not hold this lane: it may have been superseded")]
    NotTheHolder { holder: Id },
}

impl slipway_decider::Refusal for LaneRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotTheHolder { .. } => RefusalKind::Defect,
        }
    }
}

impl LaneState {
    fn knows(&self, holder: &Id) -> bool {
        self.holds(holder) || self.waiting.iter().any(|ticket| ticket.holder == *holder)
    }

    /// The newest one that was started after `started` and is in the lane, or has gone through.
    pub fn newer_than(&self, started: Option<Timestamp>) -> Option<&Id> {
        let started = started?;
        let holder = self.holder.iter().map(|turn| (turn.started, &turn.holder));
        let waiting = self.waiting.iter().map(|one| (one.started, &one.holder));
        let through = self.through.iter().map(|one| (Some(one.started), &one.holder));
        let newer = holder
            .chain(waiting)
            .chain(through)
            .filter(|(other, _)| *other > Some(started));
        newer.max_by_key(|(other, _)| *other).map(|(_, holder)| holder)
    }

    /// Whether it is this one's turn.
    pub fn holds(&self, holder: &Id) -> bool {
        self.holder.as_ref().is_some_and(|turn| turn.holder == *holder)
    }
}

impl LaneState {
    fn went_through(&mut self, holder: &Id) {
        let turn = self.holder.as_ref().filter(|turn| turn.holder == *holder);
        let started = turn.and_then(|turn| turn.started);
        if let Some(started) = started
            && self
                .through
                .as_ref()
                .is_none_or(|before| before.started < started)
        {
            self.through = Some(Through {
                holder: holder.clone(),
                started,
            });
        }
    }
}

impl Decider for Lane {
    const KIND: &'static str = "lane";
    const STATE_VERSION: u32 = 2;

    type State = LaneState;
    type Command = LaneCommand;
    type Event = LaneEvent;
    type Effect = std::convert::Infallible;
    type Refusal = LaneRefusal;

    fn decide(
        _: &Id,
        state: &LaneState,
        command: LaneCommand,
        now: Timestamp,
    ) -> Result<Vec<LaneEvent>, LaneRefusal> {
        match command {
            LaneCommand::Enter { holder, .. } if state.knows(&holder) => Ok(Vec::new()),
            LaneCommand::Enter {
                holder,
                yields,
                started,
            } => Ok(enter(state, &holder, yields, started, now)),
            LaneCommand::Change { holder } => match &state.holder {
                Some(turn) if turn.holder == holder && turn.changed => Ok(Vec::new()),
                Some(turn) if turn.holder == holder => Ok(vec![LaneEvent::Changed { holder }]),
                _ => Err(LaneRefusal::NotTheHolder { holder }),
            },
            LaneCommand::Leave { holder, through } if state.knows(&holder) => {
                Ok(leave(state, holder, through, now))
            }
            LaneCommand::Leave { .. } => Ok(Vec::new()),
        }
    }

    fn evolve(state: &mut LaneState, event: &LaneEvent, _: Timestamp) {
        match event {
            LaneEvent::Entered {
                holder,
                ticket,
                yields,
                started,
            } => {
                state.last_ticket = *ticket;
                let newer = |other: &Ticket| started.is_some() && other.started > *started;
                let place = state.waiting.iter().position(newer);
                let place = place.unwrap_or(state.waiting.len());
                let ticket = Ticket {
                    holder: holder.clone(),
                    ticket: *ticket,
                    yields: *yields,
                    started: *started,
                };
                state.waiting.insert(place, ticket);
            }
            LaneEvent::Granted {
                holder,
                ticket,
                epoch,
            } => {
                let mut waiting = state.waiting.iter();
                let waited = waiting.find(|waiting| waiting.holder == *holder);
                let (yields, started) =
                    waited.map_or((false, None), |waited| (waited.yields, waited.started));
                state.waiting.retain(|waiting| waiting.holder != *holder);
                state.epoch = *epoch;
                state.holder = Some(Turn {
                    holder: holder.clone(),
                    ticket: *ticket,
                    yields,
                    epoch: *epoch,
                    changed: false,
                    started,
                });
            }
            LaneEvent::Changed { .. } => {
                if let Some(turn) = &mut state.holder {
                    turn.changed = true;
                }
            }
            LaneEvent::Superseded { holder, .. } | LaneEvent::Left { holder, .. } => {
                if let LaneEvent::Left { through: true, .. } = event {
                    state.went_through(holder);
                }
                state.waiting.retain(|waiting| waiting.holder != *holder);
                if state.holds(holder) {
                    state.holder = None;
                }
            }
        }
    }

    fn index(state: &LaneState) -> Index {
        let status = if state.holder.is_some() { "held" } else { "free" };
        Index {
            status: status.to_owned(),
            ..Index::default()
        }
    }

    /// A lane lives as long as its target.
    fn is_final(_: &LaneState) -> bool {
        false
    }
}

fn enter(
    state: &LaneState,
    holder: &Id,
    yields: bool,
    started: Option<Timestamp>,
    now: Timestamp,
) -> Vec<LaneEvent> {
    let mut events = vec![LaneEvent::Entered {
        holder: holder.clone(),
        ticket: state.last_ticket + 1,
        yields,
        started,
    }];
    if let Some(by) = too_late(state, yields, started) {
        events.push(LaneEvent::Superseded {
            holder: holder.clone(),
            by: by.clone(),
        });
        return events;
    }
    let older = |other: Option<Timestamp>| started.is_none() || other <= started;
    let idle_holder = state
        .holder
        .iter()
        .filter(|turn| turn.yields && !turn.changed && older(turn.started))
        .map(|turn| &turn.holder);
    let idle_waiting = state
        .waiting
        .iter()
        .filter(|waiting| waiting.yields && older(waiting.started))
        .map(|waiting| &waiting.holder);
    for older in idle_holder.chain(idle_waiting) {
        events.push(LaneEvent::Superseded {
            holder: older.clone(),
            by: holder.clone(),
        });
    }
    grant_next(state, &mut events, now);
    events
}

/// The newer one because of which a late arrival does not get a turn any more.
fn too_late(state: &LaneState, yields: bool, started: Option<Timestamp>) -> Option<&Id> {
    let through = state
        .through
        .as_ref()
        .filter(|through| started < Some(through.started));
    match (started, through) {
        (None, _) => None,
        (Some(_), Some(through)) => Some(&through.holder),
        // One that is to wait gets its turn unless the newer one has gone through.
        (Some(_), None) => state.newer_than(started).filter(|_| yields),
    }
}

fn leave(state: &LaneState, holder: Id, through: bool, now: Timestamp) -> Vec<LaneEvent> {
    let through = through && state.holds(&holder);
    let left = LaneEvent::Left { holder, through };
    let mut after = state.clone();
    Lane::evolve(&mut after, &left, now);
    let mut events = vec![left];
    for waiting in &after.waiting {
        if let Some(by) = too_late(&after, false, waiting.started) {
            events.push(LaneEvent::Superseded {
                holder: waiting.holder.clone(),
                by: by.clone(),
            });
        }
    }
    grant_next(state, &mut events, now);
    events
}

/// Gives a free lane to the first in the queue.
fn grant_next(state: &LaneState, events: &mut Vec<LaneEvent>, now: Timestamp) {
    let mut after = state.clone();
    for event in events.iter() {
        Lane::evolve(&mut after, event, now);
    }
    if after.holder.is_none()
        && let Some(next) = after.waiting.first()
    {
        events.push(LaneEvent::Granted {
            holder: next.holder.clone(),
            ticket: next.ticket,
            epoch: after.epoch + 1,
        });
    }
}

#[cfg(test)]
mod tests;
