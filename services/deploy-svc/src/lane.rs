//! The lane of one deploy target: at most one release at a time, in the order of their tickets.
//!
//! A lane grants a growing *epoch* with every turn; each write to the cluster carries it, so that a writer of an
//! older turn that wakes up late cannot overwrite a newer one. A newer ticket supersedes an older one that has
//! changed nothing yet, also when that one already holds the lane and waits at its gate; a release that was asked
//! to wait stands in line instead. Newer means a later ticket, not a later commit.

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, Index};
use slipway_model::{Id, Timestamp};

/// The decider of lanes. Their ids are the targets: `cluster/namespace/kind/name`.
#[derive(Debug)]
pub enum Lane {}

/// Who holds the lane and who waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    /// The epoch of the last turn; 0 before the first.
    pub epoch: u64,
    /// The ticket given last.
    pub last_ticket: u64,
    pub holder: Option<Turn>,
    /// In the order of their tickets.
    pub waiting: Vec<Ticket>,
}

/// A place in the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub release: Id,
    pub ticket: u64,
    /// A newer ticket may take this one's place while it has changed nothing.
    pub yields: bool,
}

/// The release whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub release: Id,
    pub ticket: u64,
    pub yields: bool,
    pub epoch: u64,
    /// It began to change the target: from now on it runs to its end.
    pub changed: bool,
}

/// What a release asks of a lane. Each may be asked twice.
#[derive(Debug, Clone)]
pub enum LaneCommand {
    /// Take a ticket. `yields` is the catalog's `supersede: newest`.
    Enter { release: Id, yields: bool },
    /// The holder is about to change the target.
    Change { release: Id },
    /// Give back the turn or the ticket.
    Leave { release: Id },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LaneEvent {
    Entered {
        release: Id,
        ticket: u64,
        yields: bool,
    },
    /// `by` took the place of `release`, which had changed nothing.
    Superseded {
        release: Id,
        by: Id,
    },
    Granted {
        release: Id,
        ticket: u64,
        epoch: u64,
    },
    Changed {
        release: Id,
    },
    Left {
        release: Id,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneRefusal {
    #[error("release {release} does not hold this lane; it may have been superseded")]
    NotTheHolder { release: Id },
}

impl LaneState {
    fn knows(&self, release: &Id) -> bool {
        self.holds(release) || self.waiting.iter().any(|ticket| ticket.release == *release)
    }

    /// Whether it is this release's turn.
    pub fn holds(&self, release: &Id) -> bool {
        self.holder.as_ref().is_some_and(|turn| turn.release == *release)
    }
}

impl Decider for Lane {
    const KIND: &'static str = "lane";
    const STATE_VERSION: u32 = 1;

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
            LaneCommand::Enter { release, .. } if state.knows(&release) => Ok(Vec::new()),
            LaneCommand::Enter { release, yields } => Ok(enter(state, &release, yields, now)),
            LaneCommand::Change { release } => match &state.holder {
                Some(turn) if turn.release == release && turn.changed => Ok(Vec::new()),
                Some(turn) if turn.release == release => Ok(vec![LaneEvent::Changed { release }]),
                _ => Err(LaneRefusal::NotTheHolder { release }),
            },
            LaneCommand::Leave { release } if state.knows(&release) => Ok(leave(state, release, now)),
            LaneCommand::Leave { .. } => Ok(Vec::new()),
        }
    }

    fn evolve(state: &mut LaneState, event: &LaneEvent, _: Timestamp) {
        match event {
            LaneEvent::Entered {
                release,
                ticket,
                yields,
            } => {
                state.last_ticket = *ticket;
                state.waiting.push(Ticket {
                    release: release.clone(),
                    ticket: *ticket,
                    yields: *yields,
                });
            }
            LaneEvent::Granted {
                release,
                ticket,
                epoch,
            } => {
                let yields = state
                    .waiting
                    .iter()
                    .any(|waiting| waiting.release == *release && waiting.yields);
                state.waiting.retain(|waiting| waiting.release != *release);
                state.epoch = *epoch;
                state.holder = Some(Turn {
                    release: release.clone(),
                    ticket: *ticket,
                    yields,
                    epoch: *epoch,
                    changed: false,
                });
            }
            LaneEvent::Changed { .. } => {
                if let Some(turn) = &mut state.holder {
                    turn.changed = true;
                }
            }
            LaneEvent::Superseded { release, .. } | LaneEvent::Left { release } => {
                state.waiting.retain(|waiting| waiting.release != *release);
                if state.holds(release) {
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

fn enter(state: &LaneState, release: &Id, yields: bool, now: Timestamp) -> Vec<LaneEvent> {
    let ticket = state.last_ticket + 1;
    let mut events = vec![LaneEvent::Entered {
        release: release.clone(),
        ticket,
        yields,
    }];
    let idle_holder = state
        .holder
        .iter()
        .filter(|turn| turn.yields && !turn.changed)
        .map(|turn| &turn.release);
    let idle_waiting = state
        .waiting
        .iter()
        .filter(|waiting| waiting.yields)
        .map(|waiting| &waiting.release);
    for older in idle_holder.chain(idle_waiting) {
        events.push(LaneEvent::Superseded {
            release: older.clone(),
            by: release.clone(),
        });
    }
    grant_next(state, &mut events, now);
    events
}

fn leave(state: &LaneState, release: Id, now: Timestamp) -> Vec<LaneEvent> {
    let mut events = vec![LaneEvent::Left { release }];
    grant_next(state, &mut events, now);
    events
}

/// Gives a free lane to the oldest ticket.
fn grant_next(state: &LaneState, events: &mut Vec<LaneEvent>, now: Timestamp) {
    let mut after = state.clone();
    for event in events.iter() {
        Lane::evolve(&mut after, event, now);
    }
    if after.holder.is_none()
        && let Some(next) = after.waiting.first()
    {
        events.push(LaneEvent::Granted {
            release: next.release.clone(),
            ticket: next.ticket,
            epoch: after.epoch + 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    fn run(state: &mut LaneState, command: LaneCommand) -> Vec<LaneEvent> {
        let now = Timestamp::from_micros(0);
        let events = Lane::decide(&id("lane"), state, command, now).unwrap();
        for event in &events {
            Lane::evolve(state, event, now);
        }
        events
    }

    fn enter(state: &mut LaneState, release: &str, yields: bool) -> Vec<LaneEvent> {
        run(
            state,
            LaneCommand::Enter {
                release: id(release),
                yields,
            },
        )
    }

    #[test]
    fn a_free_lane_is_granted_at_once_with_a_new_epoch() {
        let mut lane = LaneState::default();
        enter(&mut lane, "a", true);
        assert_eq!(lane.holder.as_ref().unwrap().epoch, 1);
        assert_eq!(
            enter(&mut lane, "a", true),
            vec![],
            "entering twice changes nothing"
        );
        run(&mut lane, LaneCommand::Leave { release: id("a") });
        enter(&mut lane, "b", true);
        assert_eq!(lane.holder.as_ref().unwrap().epoch, 2);
    }

    #[test]
    fn a_newer_ticket_supersedes_a_holder_that_changed_nothing() {
        let mut lane = LaneState::default();
        enter(&mut lane, "a", true);
        let events = enter(&mut lane, "b", true);
        assert!(events.contains(&LaneEvent::Superseded {
            release: id("a"),
            by: id("b")
        }));
        assert!(lane.holds(&id("b")));
        assert!(
            Lane::decide(
                &id("lane"),
                &lane,
                LaneCommand::Change { release: id("a") },
                Timestamp::from_micros(0)
            )
            .is_err()
        );
    }

    #[test]
    fn a_holder_that_began_to_change_runs_to_its_end_and_the_last_comer_is_next() {
        let mut lane = LaneState::default();
        enter(&mut lane, "a", true);
        run(&mut lane, LaneCommand::Change { release: id("a") });
        enter(&mut lane, "b", true);
        enter(&mut lane, "c", true);
        assert!(lane.holds(&id("a")));
        assert_eq!(
            lane.waiting
                .iter()
                .map(|t| t.release.as_str())
                .collect::<Vec<_>>(),
            ["c"],
            "c superseded b"
        );
        run(&mut lane, LaneCommand::Leave { release: id("a") });
        assert!(lane.holds(&id("c")));
    }

    #[test]
    fn those_that_wait_are_never_superseded() {
        let mut lane = LaneState::default();
        enter(&mut lane, "a", false);
        enter(&mut lane, "b", false);
        enter(&mut lane, "c", true);
        assert!(lane.holds(&id("a")));
        run(&mut lane, LaneCommand::Leave { release: id("a") });
        assert!(lane.holds(&id("b")));
        run(&mut lane, LaneCommand::Leave { release: id("b") });
        assert!(lane.holds(&id("c")));
    }

    proptest! {
        /// One holder, growing epochs, nobody lost: whoever entered holds, waits, was superseded or left.
        #[test]
        fn one_at_a_time_and_nobody_forgotten(steps in proptest::collection::vec((0..3u8, 0..6u8, any::<bool>()), 0..60)) {
            let mut lane = LaneState::default();
            let mut inside = std::collections::BTreeSet::new();
            let mut epoch = 0;
            for (what, who, yields) in steps {
                let release = id(&format!("r{who}"));
                let command = match what {
                    0 => LaneCommand::Enter { release: release.clone(), yields },
                    1 => LaneCommand::Change { release: release.clone() },
                    _ => LaneCommand::Leave { release: release.clone() },
                };
                let Ok(events) = Lane::decide(&id("lane"), &lane, command, Timestamp::from_micros(0)) else { continue };
                for event in &events {
                    match event {
                        LaneEvent::Entered { release, .. } => { inside.insert(release.clone()); }
                        LaneEvent::Superseded { release, .. } => {
                            let changed = lane.holder.as_ref().is_some_and(|turn| turn.release == *release && turn.changed);
                            prop_assert!(!changed, "superseded after it changed something");
                            inside.remove(release);
                        }
                        LaneEvent::Left { release } => { inside.remove(release); }
                        LaneEvent::Granted { epoch: granted, .. } => { prop_assert!(*granted > epoch); epoch = *granted; }
                        LaneEvent::Changed { .. } => {}
                    }
                    Lane::evolve(&mut lane, event, Timestamp::from_micros(0));
                }
                let mut known: std::collections::BTreeSet<Id> = lane.waiting.iter().map(|t| t.release.clone()).collect();
                known.extend(lane.holder.iter().map(|turn| turn.release.clone()));
                prop_assert_eq!(&known, &inside);
                prop_assert!(lane.holder.is_some() || lane.waiting.is_empty(), "a free lane with a line");
            }
        }
    }
}
