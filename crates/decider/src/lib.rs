//! The contract between a kind of thing and the ledger: pure functions from state to decision.
//!
//! What decides depends on this crate and not on the ledger, so that the compiler keeps it from doing anything else.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_model::{Id, Retry, Timestamp};

/// One kind of thing whose life is a sequence of events: a build, a change, a lane, an approval, a release.
///
/// Everything here is pure: no clock, no I/O, no await. The ledger calls [`decide`](Self::decide) with the time,
/// appends the events, and asks the new state what must be going on now ([`effects`](Self::effects)), what it waits
/// to learn ([`polls`](Self::polls)) and when it wants to be woken ([`wake_at`](Self::wake_at)). All three are
/// derived from the state, so a crash at any point forgets nothing.
pub trait Decider: Send + Sync + Sized + 'static {
    /// The name of this kind in the database and in event types. Never changes.
    const KIND: &'static str;
    /// Raised whenever `State` or `evolve` changes its meaning: older states are folded again from their events.
    const STATE_VERSION: u32;

    type State: Default + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Cloned when it is decided again because somebody else wrote first.
    type Command: Clone + fmt::Debug + Send + Sync + 'static;
    /// Internally tagged by serde with `type` in snake_case; stored as JSON text and never rewritten. An event whose JSON
    /// changes is a new variant with the tag `NAME.v2`, and the old one stays, so that what was recorded still applies;
    /// or its tag becomes an alias, where the types within it read both forms.
    type Event: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Effect: Clone + fmt::Debug + Send + 'static;
    type Refusal: Refusal;

    /// What happens when `command` meets `state`. No events means: nothing to do, which is success.
    ///
    /// An effect's or poll's word that comes too late, by the key of another try or after the end, comes to no events.
    /// One whose key is wanted and that does not fit the state is [`Impossible`]: the executor logs it as an error, and
    /// the effect has failed.
    ///
    /// # Errors
    /// The refusal, in words for whoever gave the command.
    fn decide(
        id: &Id,
        state: &Self::State,
        command: Self::Command,
        now: Timestamp,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// Applies an event that was recorded at `at`. Total: an event that was appended once always applies.
    fn evolve(state: &mut Self::State, event: &Self::Event, at: Timestamp);

    /// What must be going on now. An effect that is missing is started, one that is no longer here is aborted.
    fn effects(_id: &Id, _state: &Self::State) -> Vec<(EffectKey, Self::Effect)> {
        Vec::new()
    }

    /// Reads of somebody else's truth that this state waits for: run when a hint arrives and every
    /// [`poll_every`](Self::poll_every), jittered. A poll whose command decides to no events leaves no record.
    fn polls(_id: &Id, _state: &Self::State) -> Vec<(EffectKey, Self::Effect)> {
        Vec::new()
    }

    /// Whether this effect or poll is to be going on.
    fn wants(id: &Id, state: &Self::State, key: &EffectKey) -> bool {
        let effects = Self::effects(id, state).into_iter();
        effects
            .chain(Self::polls(id, state))
            .any(|(wanted, _)| wanted == *key)
    }

    /// How long to wait between polls when no hint arrives.
    fn poll_every(_state: &Self::State) -> Duration {
        Duration::from_secs(2)
    }

    /// When [`wake`](Self::wake) is to be decided next: retries, expiries, wait timers, deadlines.
    fn wake_at(_state: &Self::State) -> Option<Timestamp> {
        None
    }

    /// The command that a due timer stands for. It is decided with the time, and must move `wake_at`.
    fn wake() -> Option<Self::Command> {
        None
    }

    /// What is being tried again after a fault that the state knows of. What the executor tries again of its own accord
    /// is no part of the state.
    fn retry(_state: &Self::State) -> Option<Retry> {
        None
    }

    /// The columns by which lists are filtered.
    fn index(state: &Self::State) -> Index;

    /// Ends the watches of this thing: no more events unless someone asks for a retry.
    fn is_final(state: &Self::State) -> bool;
}

/// Why a command was refused. Its text is for whoever gave the command.
pub trait Refusal: std::error::Error + Send + Sync + 'static {
    /// What an API answers with.
    fn kind(&self) -> RefusalKind;
}

/// The kinds of refusals, as every API tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such thing.
    NotFound { kind: &'static str, id: Id },
    /// There is one already, and it is another.
    AlreadyExists { kind: &'static str, id: Id },
    /// The state forbids it; with the reason that callers may rely on, such as `EXPIRED`.
    FailedPrecondition(&'static str),
    /// A defect of whoever gave the command: see [`Impossible`].
    Defect,
}

impl Refusal for std::convert::Infallible {
    fn kind(&self) -> RefusalKind {
        match *self {}
    }
}

/// A command that nobody who is right can give in this state: a defect of whoever gave it. A refusal of every decider
/// whose effects have outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} cannot be told this as it stands ({standing}): a defect, please report it")]
pub struct Impossible {
    pub id: Id,
    /// How the thing stands, in words.
    pub standing: String,
}

impl Impossible {
    pub fn new(id: &Id, standing: impl Into<String>) -> Self {
        Self {
            id: id.clone(),
            standing: standing.into(),
        }
    }
}

/// Names one try of one step; the result of an older try changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectKey {
    pub step: String,
    pub attempt: u32,
}

impl EffectKey {
    pub fn new(step: impl Into<String>, attempt: u32) -> Self {
        Self {
            step: step.into(),
            attempt,
        }
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.step, self.attempt)
    }
}

/// What lists are filtered by. Empty texts where a thing has no such property.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// In lower case, as the API's filter takes it.
    pub status: String,
    pub service: String,
    pub environment: String,
    /// The opaque correlation id of the caller (a release's id), by which hints find their aggregate.
    pub correlation: String,
    pub labels: std::collections::BTreeMap<String, String>,
}
