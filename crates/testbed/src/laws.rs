//! Laws that every decider must obey, for any commands in any order.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;
use slipway_ledger::{Decider, EffectKey};
use slipway_model::{Id, Timestamp};

/// The number of lives that are tried, unless `PROPTEST_CASES` says otherwise.
const LIVES: u32 = 400;
/// The maximum number of commands in a life.
const COMMANDS: usize = 40;
/// A step that no decider has.
const NEVER: &str = "never-was";
/// Events of other lives that every state must be able to apply.
const MEMORIES: usize = 300;

/// Who gives a command, as far as the laws are concerned. Has a key if the command names the try that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An outside caller, or another decider: nothing is expected of it.
    Caller,
    /// An effect in progress, or a poll.
    Report(Option<EffectKey>),
    /// An effect, as its outcome.
    Outcome(Option<EffectKey>),
}

impl Origin {
    fn key(&self) -> Option<&EffectKey> {
        match self {
            Self::Caller => None,
            Self::Report(key) | Self::Outcome(key) => key.as_ref(),
        }
    }
}

/// Runs a decider through random commands and checks these laws:
///
/// - `decide` and `evolve` never panic, `evolve` not even on events of other lives.
/// - The same report or outcome a second time changes nothing.
/// - A report about another try than the expected one changes nothing, nor does one about a step that never existed.
/// - The outcome of an effect that is wanted is never dropped silently: it changes something or is refused.
/// - Effects, polls, timers, the index and being final are functions of the state: the same after a round trip through
///   JSON.
/// - Effects have keys of their own.
/// - A state rebuilt from events that went through JSON equals the state that was kept.
/// - A due timer's command is accepted, and moves the timer.
/// - Final is final: no events, no effects, no polls, no timer.
///
/// `commands` makes a strategy for the commands that may be given in a state; its keys are those of the state's effects
/// and polls, of earlier ones, and some that never existed. Timers fire by themselves.
///
/// # Panics
/// When a law is broken: with the law and the shortest life that was found to break it.
pub fn decider_laws<D, S>(
    id: &Id,
    said: impl Fn(&D::Command) -> Origin,
    commands: impl Fn(&D::State, BoxedStrategy<EffectKey>) -> S,
) where
    D: Decider,
    S: Strategy<Value = D::Command>,
{
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let lives = std::env::var_os("PROPTEST_CASES").map_or(LIVES, |_| config.cases);
    let mut runner = TestRunner::new(config);
    let mut memories: Vec<D::Event> = Vec::new();
    for _ in 0..lives {
        let mut life = Life::<D>::new(id);
        let mut told: Vec<(Timestamp, D::Command)> = Vec::new();
        let mut keys = BTreeSet::from([EffectKey::new(NEVER, 1)]);
        for _ in 0..COMMANDS {
            keys.extend(life.keys());
            let known: Vec<EffectKey> = keys.iter().cloned().collect();
            let known = (prop::sample::select(known), 0_u32..3).prop_map(|(key, older)| EffectKey {
                // Mostly as it is.
                attempt: key.attempt.saturating_sub(older.saturating_sub(1)),
                ..key
            });
            let live: Vec<EffectKey> = life.keys();
            let key = if live.is_empty() {
                known.boxed()
            } else {
                prop_oneof![3 => prop::sample::select(live), 1 => known].boxed()
            };
            let next = draw(&mut runner, (pauses(), prop::bool::weighted(0.2)));
            let (mut at, timer) = (life.now + next.0, next.1);
            let command = match (D::wake_at(&life.state), D::wake()) {
                (Some(due), Some(wake)) if timer => {
                    at = at.max(due);
                    wake
                }
                _ => draw(&mut runner, commands(&life.state, key)),
            };
            told.push((at, command));
            let (at, command) = told.last().cloned().expect("it was told something");
            let last = life.tell(&said, &command, at);
            if let Err(broken) = last.and_then(|()| life.remembers(&life.events)) {
                fails::<D>(id, &said, &memories, told, broken);
            }
        }
        if let Err(broken) = life.remembers(&memories) {
            fails::<D>(id, &said, &memories, told, broken);
        }
        let room = MEMORIES.saturating_sub(memories.len());
        memories.extend(life.events.into_iter().take(room));
    }
    assert!(!memories.is_empty(), "no command of {} came to anything", D::KIND);
}

fn pauses() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => Just(Duration::ZERO),
        4 => (1_u64..2_000).prop_map(Duration::from_millis),
        2 => (1_u64..600).prop_map(Duration::from_secs),
        1 => (1_u64..100).prop_map(|hours| Duration::from_secs(hours * 3600)),
    ]
}

fn draw<T: Debug>(runner: &mut TestRunner, strategy: impl Strategy<Value = T>) -> T {
    strategy
        .new_tree(runner)
        .expect("a strategy without filters")
        .current()
}

/// One aggregate from its first command on.
struct Life<'a, D: Decider> {
    id: &'a Id,
    now: Timestamp,
    /// As the ledger keeps it in memory.
    state: D::State,
    /// As the ledger rebuilds it from what is stored.
    folded: D::State,
    events: Vec<D::Event>,
}

impl<'a, D: Decider> Life<'a, D> {
    fn new(id: &'a Id) -> Self {
        Self {
            id,
            now: Timestamp::from_micros(1_700_000_000_000_000),
            state: D::State::default(),
            folded: D::State::default(),
            events: Vec::new(),
        }
    }

    fn keys(&self) -> Vec<EffectKey> {
        let polls = D::polls(self.id, &self.state).into_iter();
        let all = D::effects(self.id, &self.state).into_iter().chain(polls);
        all.map(|(key, _)| key).collect()
    }

    /// Decides a command as the ledger does, and checks whether the laws still hold.
    fn tell(
        &mut self,
        said: &impl Fn(&D::Command) -> Origin,
        command: &D::Command,
        at: Timestamp,
    ) -> Result<(), String> {
        let (before, wanted) = (self.state.clone(), self.keys());
        let effects: Vec<EffectKey> = D::effects(self.id, &before)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        self.now = at;
        let decided = self.decide(&before, command.clone())?;
        let events = decided.as_deref().unwrap_or_default();
        let silent = matches!(&decided, Ok(events) if events.is_empty());

        if D::is_final(&before) && !events.is_empty() {
            return Err(format!("final is final, and still there came {events:?}"));
        }
        let who = said(command);
        if let Some(key) = who.key() {
            let other = |one: &EffectKey| one.step == key.step && one.attempt != key.attempt;
            let stale = key.step == NEVER || wanted.iter().any(other);
            if stale && !events.is_empty() {
                return Err(format!("{key} is not wanted, and still there came {events:?}"));
            }
            if matches!(who, Origin::Outcome(_)) && effects.contains(key) && silent {
                return Err(format!(
                    "the outcome of {key}, which is wanted, was dropped without a word"
                ));
            }
        }
        for event in events {
            let text = serde_json::to_string(event).map_err(|error| format!("{event:?}: {error}"))?;
            let read: D::Event = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
            self.state = self.evolve(&self.state, event)?;
            self.folded = self.evolve(&self.folded, &read)?;
        }
        if json(&self.state)? != json(&self.folded)? {
            return Err(format!(
                "the state folded from JSON is another one:\nkept   {}\nfolded {}",
                json(&self.state)?,
                json(&self.folded)?
            ));
        }
        self.events.extend(events.iter().cloned());
        self.derived()?;
        if who != Origin::Caller && !events.is_empty() {
            for later in [Duration::ZERO, Duration::from_secs(3600)] {
                let again = Self {
                    now: at + later,
                    ..Self::new(self.id)
                };
                if let Ok(more) = again.decide(&self.state, command.clone())?
                    && !more.is_empty()
                {
                    return Err(format!("said twice, it came to {events:?} and then to {more:?}"));
                }
            }
        }
        Ok(())
    }

    /// Applies events that do not follow from this state.
    fn remembers(&self, memories: &[D::Event]) -> Result<(), String> {
        memories
            .iter()
            .try_for_each(|event| self.evolve(&self.state, event).map(drop))
    }

    /// Everything that depends only on the state.
    fn derived(&self) -> Result<(), String> {
        let text = json(&self.state)?.to_string();
        let read: D::State = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
        let (kept, stored) = (self.shown(&self.state), self.shown(&read));
        if kept != stored {
            return Err(format!(
                "what follows from a state is lost in JSON:\nkept   {kept}\nstored {stored}"
            ));
        }
        let keys = self.keys();
        let distinct: BTreeSet<&EffectKey> = keys.iter().collect();
        if distinct.len() != keys.len() {
            return Err(format!("two effects or polls have one key: {keys:?}"));
        }
        let due = D::wake_at(&self.state);
        if D::is_final(&self.state) && (!keys.is_empty() || due.is_some()) {
            return Err(format!(
                "final, and still {keys:?} and a timer at {due:?} are wanted"
            ));
        }
        if let Some(due) = due {
            let Some(wake) = D::wake() else {
                return Err("there is a timer and no command for it".to_owned());
            };
            let timer = Self {
                now: due.max(self.now),
                ..Self::new(self.id)
            };
            let events = match timer.decide(&self.state, wake)? {
                Ok(events) => events,
                Err(refusal) => return Err(format!("a due timer's command was refused: {refusal}")),
            };
            let mut after = self.state.clone();
            for event in &events {
                after = timer.evolve(&after, event)?;
            }
            if D::wake_at(&after) == Some(due) {
                return Err(format!(
                    "a timer was due at {due}, came to {events:?}, and is still due then"
                ));
            }
        }
        Ok(())
    }

    fn shown(&self, state: &D::State) -> String {
        format!(
            "{:?}",
            (
                D::effects(self.id, state),
                D::polls(self.id, state),
                D::poll_every(state),
                D::wake_at(state),
                D::index(state),
                D::is_final(state),
            )
        )
    }

    fn decide(
        &self,
        state: &D::State,
        command: D::Command,
    ) -> Result<Result<Vec<D::Event>, D::Refusal>, String> {
        caught("decide", || D::decide(self.id, state, command, self.now))
    }

    fn evolve(&self, state: &D::State, event: &D::Event) -> Result<D::State, String> {
        let mut state = state.clone();
        caught("evolve", || {
            D::evolve(&mut state, event, self.now);
            state
        })
        .map_err(|panic| format!("{panic}, by {event:?}"))
    }
}

fn json(value: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| format!("it is not JSON: {error}"))
}

fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("{what} panicked: {}", text.unwrap_or_default())
    })
}

/// Removes commands that a life does not need to break a law, and describes the rest.
fn fails<D: Decider>(
    id: &Id,
    said: &impl Fn(&D::Command) -> Origin,
    memories: &[D::Event],
    mut told: Vec<(Timestamp, D::Command)>,
    mut broken: String,
) -> ! {
    let breaks = |told: &[(Timestamp, D::Command)]| {
        let mut life = Life::<D>::new(id);
        let mut lived = told.iter().map(|(at, command)| life.tell(said, command, *at));
        lived.find_map(Result::err).or_else(|| {
            life.remembers(&life.events)
                .and_then(|()| life.remembers(memories))
                .err()
        })
    };
    let mut at = told.len();
    while at > 0 {
        at -= 1;
        let mut fewer = told.clone();
        fewer.remove(at);
        if let Some(still) = breaks(&fewer) {
            (told, broken) = (fewer, still);
        }
    }
    let mut text = format!("{} {id}: {broken}\nwhen it is told", D::KIND);
    for (at, command) in told {
        let _: fmt::Result = write!(text, "\n  {at}: {command:?}");
    }
    panic!("{text}")
}

#[cfg(test)]
mod tests;
