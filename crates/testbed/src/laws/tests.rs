//! A decider that obeys the laws, and one for each way of breaking them.

use std::panic::catch_unwind;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, EffectKey, Index};
use slipway_model::{Id, Timestamp};

use super::{COMMANDS, NEVER, Origin, decider_laws};

const SOUND: u8 = 0;
const PANICS: u8 = 1;
const COUNTS_TWICE: u8 = 2;
const HEEDS_THE_STALE: u8 = 3;
const DROPS_AN_OUTCOME: u8 = 4;
const FORGETS: u8 = 5;
const TWO_OF_ONE_KEY: u8 = 6;
const READS_OTHERWISE: u8 = 7;
const TIMER_STAYS: u8 = 8;
const GOES_ON: u8 = 9;
const WANTS_MORE: u8 = 10;

/// Lit three times, it is over.
#[derive(Debug)]
struct Lamp<const FAULT: u8>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    tries: u32,
    lit: u32,
    due: Option<Timestamp>,
    #[serde(skip)]
    forgotten: u32,
}

#[derive(Debug, Clone)]
enum Command {
    SwitchOn,
    Lit { key: EffectKey },
    Failed { key: EffectKey },
    Wake,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    SwitchedOn {
        #[serde(skip_deserializing)]
        by: u32,
    },
    Lit {},
    Failed {
        due: Timestamp,
    },
    Retried {},
}

#[derive(Debug, thiserror::Error)]
#[error("there is no lamp")]
struct Refusal;

impl slipway_ledger::Refusal for Refusal {
    fn kind(&self) -> slipway_ledger::RefusalKind {
        slipway_ledger::RefusalKind::FailedPrecondition("REFUSED")
    }
}

fn key(state: &State) -> EffectKey {
    EffectKey::new("light", state.tries)
}

impl<const FAULT: u8> Decider for Lamp<FAULT> {
    const KIND: &'static str = "lamp";
    const STATE_VERSION: u32 = 1;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = ();
    type Refusal = Refusal;

    fn decide(_: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let over = state.lit >= 3;
        Ok(match command {
            Command::SwitchOn if state.tries == 0 => vec![Event::SwitchedOn {
                by: u32::from(FAULT == READS_OTHERWISE),
            }],
            Command::SwitchOn if over && FAULT == GOES_ON => vec![Event::Lit {}],
            _ if state.tries == 0 => return Err(Refusal),
            Command::Lit { .. } if over => Vec::new(),
            Command::Lit { key } if FAULT == HEEDS_THE_STALE && key.step == NEVER => vec![Event::Lit {}],
            Command::Lit { key: told } if told == key(state) && state.due.is_none() => {
                if FAULT == DROPS_AN_OUTCOME && state.lit == 1 {
                    return Ok(Vec::new());
                }
                vec![Event::Lit {}]
            }
            Command::Failed { key: told } if told == key(state) && state.due.is_none() && !over => {
                vec![Event::Failed {
                    due: now + std::time::Duration::from_secs(1),
                }]
            }
            Command::Wake if FAULT != TIMER_STAYS && state.due.is_some_and(|at| at <= now) => {
                vec![Event::Retried {}]
            }
            _ => Vec::new(),
        })
    }

    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        assert!(FAULT != PANICS || state.lit < 2, "no third time");
        match event {
            Event::SwitchedOn { by } => {
                state.tries = 1;
                state.lit = *by;
                state.forgotten = 1;
            }
            Event::Lit {} => {
                state.lit += 1;
                state.due = None;
                state.tries += u32::from(FAULT != COUNTS_TWICE);
            }
            Event::Failed { due } => state.due = Some(*due),
            Event::Retried {} => {
                state.due = None;
                state.tries += 1;
            }
        }
    }

    fn effects(_: &Id, state: &State) -> Vec<(EffectKey, ())> {
        let over = state.lit >= 3 && FAULT != WANTS_MORE;
        let wants = state.tries > 0 && !over && state.due.is_none();
        let wants = wants && (FAULT != FORGETS || state.forgotten == 1);
        let times = match FAULT {
            _ if !wants => 0,
            TWO_OF_ONE_KEY => 2,
            _ => 1,
        };
        vec![(key(state), ()); times]
    }

    fn wake_at(state: &State) -> Option<Timestamp> {
        state.due
    }

    fn wake() -> Option<Command> {
        Some(Command::Wake)
    }

    fn index(_: &State) -> Index {
        Index::default()
    }

    fn is_final(state: &State) -> bool {
        state.lit >= 3
    }
}

fn said(command: &Command) -> Origin {
    match command {
        Command::SwitchOn | Command::Wake => Origin::Caller,
        Command::Lit { key } | Command::Failed { key } => Origin::Outcome(Some(key.clone())),
    }
}

fn hold<const FAULT: u8>() {
    let id = "lamp-1".parse().unwrap();
    decider_laws::<Lamp<FAULT>, _>(&id, said, |_, key| {
        prop_oneof![
            1 => Just(Command::SwitchOn),
            3 => key.clone().prop_map(|key| Command::Lit { key }),
            2 => key.prop_map(|key| Command::Failed { key }),
        ]
    });
}

#[test]
fn a_sound_decider_keeps_to_them() {
    hold::<SOUND>();
}

#[test]
fn each_broken_law_is_told_with_a_short_life() {
    let broken: [(fn(), &str); 10] = [
        (hold::<PANICS>, "evolve panicked: no third time"),
        (hold::<COUNTS_TWICE>, "said twice, it came to"),
        (hold::<HEEDS_THE_STALE>, "is not wanted, and still there came"),
        (hold::<DROPS_AN_OUTCOME>, "was dropped without a word"),
        (hold::<FORGETS>, "is lost in JSON"),
        (hold::<TWO_OF_ONE_KEY>, "have one key"),
        (
            hold::<READS_OTHERWISE>,
            "the state folded from JSON is another one",
        ),
        (hold::<TIMER_STAYS>, "is still due then"),
        (hold::<GOES_ON>, "final is final"),
        (hold::<WANTS_MORE>, "final, and still"),
    ];
    for (hold, law) in broken {
        let panic = catch_unwind(hold).expect_err(law);
        let words = panic.downcast_ref::<String>().unwrap();
        assert!(words.contains(law), "{law}: {words}");
        let life = words.lines().filter(|line| line.starts_with("  ")).count();
        assert!(life <= COMMANDS / 2, "{law}: {words}");
    }
}
