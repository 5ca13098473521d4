//! The lane of one deploy target: at most one holder at a time, in the order in which they were started.
//!
//! A holder is a release, or a deployment that belongs to none. A lane grants an increasing *epoch* with every turn;
//! each write to the cluster carries it, so that a stalled writer of an older turn cannot overwrite a newer one. A
//! newer release supersedes an older one that has changed nothing yet, also when that one already holds the lane and
//! waits at its gate; a release that is configured to wait queues instead. Newer means started later, not a later
//! commit: a release with a long build may reach the lane after one that was started later, and must not take the
//! target back. So it is superseded if such a release is there or has gone through before it, and if it is to wait, it
//! is queued before the newer ones.
//!
//! Several services may share a lane, because they share a target or the folder that is applied to it. They take turns:
//! only releases of the same service supersede each other, since a newer release of another service does not replace
//! this one's version.

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, Index, RefusalKind};
use slipway_model::{Id, Name, Timestamp};

/// The decider of lanes. Their ids are the targets, `cluster/namespace/kind/name`, and folders that several targets share.
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
    /// The newest holder of each service that went through: the target runs its version, or something newer.
    #[serde(default)]
    pub through: Vec<Through>,
}

/// A holder that went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Through {
    #[serde(rename = "release")]
    pub holder: Id,
    pub started: Timestamp,
    /// Not known of older records.
    #[serde(default)]
    pub service: Option<Name>,
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
    /// What it releases; not known of older records.
    #[serde(default)]
    pub service: Option<Name>,
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
    #[serde(default)]
    pub service: Option<Name>,
}

/// What releases and deployments ask of a lane. Each request may be repeated.
#[derive(Debug, Clone)]
pub enum LaneCommand {
    /// Take a ticket. `yields` is the catalog's `supersede: newest`; `started`: when the release or deployment was
    /// started.
    Enter {
        holder: Id,
        service: Name,
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
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<Name>,
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

    /// The newest one of this service that was started after `started` and is in the lane, or has gone through.
    pub fn newer_than(&self, service: Option<&Name>, started: Option<Timestamp>) -> Option<&Id> {
        let started = started?;
        let holder = self
            .holder
            .iter()
            .map(|turn| (turn.started, &turn.holder, &turn.service));
        let waiting = self
            .waiting
            .iter()
            .map(|one| (one.started, &one.holder, &one.service));
        let through = self
            .through
            .iter()
            .map(|one| (Some(one.started), &one.holder, &one.service));
        let newer = holder
            .chain(waiting)
            .chain(through)
            .filter(|(other, _, of)| *other > Some(started) && may_be_same(of.as_ref(), service));
        newer
            .max_by_key(|(other, ..)| *other)
            .map(|(_, holder, _)| holder)
    }

    /// The newest one of this service that went through.
    pub fn last_through(&self, service: Option<&Name>) -> Option<&Through> {
        let of_service = self
            .through
            .iter()
            .filter(|through| may_be_same(through.service.as_ref(), service));
        of_service.max_by_key(|through| through.started)
    }

    /// The holder, or the first in the queue.
    pub fn first(&self) -> Option<&Id> {
        let holder = self.holder.iter().map(|turn| &turn.holder);
        holder.chain(self.waiting.iter().map(|one| &one.holder)).next()
    }

    /// Whether it is this one's turn.
    pub fn holds(&self, holder: &Id) -> bool {
        self.holder.as_ref().is_some_and(|turn| turn.holder == *holder)
    }
}

impl LaneState {
    fn went_through(&mut self, holder: &Id) {
        let turn = self.holder.as_ref().filter(|turn| turn.holder == *holder);
        let Some((started, service)) = turn.and_then(|turn| Some((turn.started?, turn.service.clone())))
        else {
            return;
        };
        let new = Through {
            holder: holder.clone(),
            started,
            service,
        };
        match self.through.iter_mut().find(|known| known.service == new.service) {
            Some(known) if known.started < new.started => *known = new,
            Some(_) => {}
            None => self.through.push(new),
        }
    }
}

/// Whether two holders release the same service; older records do not say, and had no other service beside them.
fn may_be_same(one: Option<&Name>, other: Option<&Name>) -> bool {
    one.is_none() || other.is_none() || one == other
}

impl Decider for Lane {
    const KIND: &'static str = "lane";
    const STATE_VERSION: u32 = 3;

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
                service,
                yields,
                started,
            } => {
                let ticket = Ticket {
                    holder,
                    ticket: state.last_ticket + 1,
                    yields,
                    started,
                    service: Some(service),
                };
                Ok(enter(state, ticket, now))
            }
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
                service,
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
                    service: service.clone(),
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
                let (yields, started, service) = waited.map_or((false, None, None), |waited| {
                    (waited.yields, waited.started, waited.service.clone())
                });
                state.waiting.retain(|waiting| waiting.holder != *holder);
                state.epoch = *epoch;
                state.holder = Some(Turn {
                    holder: holder.clone(),
                    ticket: *ticket,
                    yields,
                    epoch: *epoch,
                    changed: false,
                    started,
                    service,
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

fn enter(state: &LaneState, ticket: Ticket, now: Timestamp) -> Vec<LaneEvent> {
    let too_late = too_late(state, &ticket).cloned();
    let mut events = vec![LaneEvent::Entered {
        holder: ticket.holder.clone(),
        ticket: ticket.ticket,
        yields: ticket.yields,
        started: ticket.started,
        service: ticket.service.clone(),
    }];
    if let Some(by) = too_late {
        events.push(LaneEvent::Superseded {
            holder: ticket.holder,
            by,
        });
        return events;
    }
    let older = |other: Option<Timestamp>, service: &Option<Name>| {
        may_be_same(service.as_ref(), ticket.service.as_ref())
            && (ticket.started.is_none() || other <= ticket.started)
    };
    let idle_holder = state
        .holder
        .iter()
        .filter(|turn| turn.yields && !turn.changed && older(turn.started, &turn.service))
        .map(|turn| &turn.holder);
    let idle_waiting = state
        .waiting
        .iter()
        .filter(|waiting| waiting.yields && older(waiting.started, &waiting.service))
        .map(|waiting| &waiting.holder);
    for older in idle_holder.chain(idle_waiting) {
        events.push(LaneEvent::Superseded {
            holder: older.clone(),
            by: ticket.holder.clone(),
        });
    }
    grant_next(state, &mut events, now);
    events
}

/// The newer one of the same service because of which a late arrival does not get a turn any more.
fn too_late<'a>(state: &'a LaneState, ticket: &Ticket) -> Option<&'a Id> {
    // One that is to wait gets its turn unless the newer one has gone through.
    let there = || state.newer_than(ticket.service.as_ref(), ticket.started);
    overtaken(state, ticket).or_else(|| there().filter(|_| ticket.yields))
}

/// The newer one of the same service that has gone through.
fn overtaken<'a>(state: &'a LaneState, ticket: &Ticket) -> Option<&'a Id> {
    let started = ticket.started?;
    let through = state.last_through(ticket.service.as_ref())?;
    (started < through.started).then_some(&through.holder)
}

fn leave(state: &LaneState, holder: Id, through: bool, now: Timestamp) -> Vec<LaneEvent> {
    let through = through && state.holds(&holder);
    let left = LaneEvent::Left { holder, through };
    let mut after = state.clone();
    Lane::evolve(&mut after, &left, now);
    let mut events = vec![left];
    for waiting in &after.waiting {
        if let Some(by) = overtaken(&after, waiting) {
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
