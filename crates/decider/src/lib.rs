//! The contract between a kind of aggregate and the ledger: pure functions from state to decision.
//!
//! Domain crates depend on this crate and not on the ledger, so that the compiler keeps them from doing anything but
//! deciding.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_model::{Id, Retry, Timestamp};

/// One kind of aggregate, whose life is a sequence of events: a build, a change, a lane, an approval, a release.
///
/// Everything here is pure: no clock, no I/O, no await. The ledger calls [`decide`](Self::decide) with the time,
/// appends the events, and asks the new state what must be running now ([`effects`](Self::effects)), what it waits to
/// learn ([`polls`](Self::polls)) and when it wants to be woken ([`wake_at`](Self::wake_at)). All three are derived
/// from the state, so nothing is lost in a crash at any point.
pub trait Decider: Send + Sync + Sized + 'static {
    /// The name of this kind in the database and in event types. Never changes.
    const KIND: &'static str;
    /// Raised whenever `State` or `evolve` changes its meaning: older states are rebuilt from their events.
    const STATE_VERSION: u32;

    type State: Default + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Cloned when the command is decided again because another writer came first.
    type Command: Clone + fmt::Debug + Send + Sync + 'static;
    /// Internally tagged by serde with `type` in snake_case; stored as JSON text and never rewritten. An event whose
    /// JSON changes is a new variant with the tag `NAME.v2`, and the old one stays, so that what was recorded still
    /// applies; or its tag becomes an alias, if the types within it read both forms.
    type Event: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Effect: Clone + fmt::Debug + Send + 'static;
    type Refusal: Refusal;

    /// What happens when `command` meets `state`. No events means that there is nothing to do, which is success.
    ///
    /// An outcome of an effect or poll that comes too late (with the key of another try, or after the end) results in
    /// no events. One whose key is expected but which does not fit the state is [`Impossible`]: the executor logs it as
    /// an error, and the effect has failed.
    ///
    /// # Errors
    /// The refusal, worded for the caller.
    fn decide(
        id: &Id,
        state: &Self::State,
        command: Self::Command,
        now: Timestamp,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// Applies an event that was recorded at `at`. Total: an event that was ever appended always applies.
    fn evolve(state: &mut Self::State, event: &Self::Event, at: Timestamp);

    /// What must be running now. An effect that is missing is started; one that is no longer listed is aborted.
    fn effects(_id: &Id, _state: &Self::State) -> Vec<(EffectKey, Self::Effect)> {
        Vec::new()
    }

    /// Reads of another system's state that this state waits for: run when a hint arrives and every
    /// [`poll_every`](Self::poll_every), jittered. A poll whose command results in no events leaves no record.
    fn polls(_id: &Id, _state: &Self::State) -> Vec<(EffectKey, Self::Effect)> {
        Vec::new()
    }

    /// Whether this effect or poll should be running.
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

    /// What is being retried after a fault that is part of the state. The executor's own retries are not part of it.
    fn retry(_state: &Self::State) -> Option<Retry> {
        None
    }

    /// The columns by which lists are filtered.
    fn index(state: &Self::State) -> Index;

    /// Ends the watches of this aggregate: no more events unless a retry is requested.
    fn is_final(state: &Self::State) -> bool;
}

/// Why a command was refused. Its text is for the caller.
pub trait Refusal: std::error::Error + Send + Sync + 'static {
    /// The error that an API answers with.
    fn kind(&self) -> RefusalKind;
}

/// The kinds of refusals, as every API tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalKind {
    /// It does not exist.
    NotFound { kind: &'static str, id: Id },
    /// It exists already, with different content.
    AlreadyExists { kind: &'static str, id: Id },
    /// The state forbids it; with the reason that callers may rely on, such as `EXPIRED`.
    FailedPrecondition(&'static str),
    /// A bug in the caller: see [`Impossible`].
    Defect,
}

impl Refusal for std::convert::Infallible {
    fn kind(&self) -> RefusalKind {
        match *self {}
    }
}

/// A command that no correct caller can give in this state: a bug in the caller. Every decider whose effects have
/// outcomes can refuse with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} refuses this command in its present state ({standing}): a defect, please report it")]
pub struct Impossible {
    pub id: Id,
    /// The state of the aggregate, in words.
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

/// Names one try of one step; the result of an older try is ignored.
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

/// What lists are filtered by. Empty for a property that the aggregate does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// In lower case, as the API's filter takes it.
    pub status: String,
    pub service: String,
    pub environment: String,
    /// The opaque correlation id of the caller (a release's id), by which hints are matched to their aggregate.
    pub correlation: String,
    pub labels: std::collections::BTreeMap<String, String>,
}
