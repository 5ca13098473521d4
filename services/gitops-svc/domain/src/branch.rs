//! A branch of a repository: the decider that lets one replica at a time push to it.
//!
//! The waiting changes are not listed here, so that a change can be recorded without touching a row that all writers of
//! the branch share. A branch is either awake or asleep; while awake, it has one effect, a *round*, which takes all
//! waiting changes, writes one commit each, pushes them together and settles them. It goes to sleep when none is left.
//!
//! `head` is the remote's head when the last round was settled. Every commit of ours that may have been pushed without
//! being recorded comes after it, so a round searches for the trailers of its changes from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, EffectKey, Index, RefusalKind};
use slipway_model::{BranchName, CommitSha, Id, Reason, Retry, Timestamp};

/// The first wait after a failure of the remote; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub repository: String,
    /// Absent only before the first event.
    pub branch: Option<BranchName>,
    /// Whether changes wait.
    pub awake: bool,
    /// Counts the rounds; the number of the effect.
    pub round: u32,
    /// The remote's head after the last settled round, or before the first push ever.
    pub head: Option<CommitSha>,
    /// Failures of the remote in a row.
    pub failures: u32,
    /// Not before this time.
    pub retry_at: Option<Timestamp>,
    /// The last failure.
    pub problem: Option<Reason>,
}

#[derive(Debug, Clone)]
pub enum Command {
    /// A change waits to be pushed.
    ChangeWaits { repository: String, branch: BranchName },
    /// The head before anything of ours can have been pushed.
    Base { round: u32, head: CommitSha },
    /// The round's changes are settled. `rest`: others are waiting.
    Settle {
        round: u32,
        head: Option<CommitSha>,
        rest: bool,
    },
    /// The remote could not be reached. `jitter` from 0 to 1000 spreads the wait.
    Postpone { round: u32, reason: Reason, jitter: u16 },
    /// The time to try again may have come.
    Retry,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    Woken {
        repository: String,
        branch: BranchName,
    },
    Based {
        head: CommitSha,
    },
    Settled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<CommitSha>,
        rest: bool,
    },
    Postponed {
        reason: Reason,
        retry_at: Timestamp,
    },
    Resumed,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Push {
        round: u32,
        repository: String,
        branch: BranchName,
        head: Option<CommitSha>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another holder of the branch has continued meanwhile; what this one pushed is found by its trailers.
    #[error("round {0} is over")]
    StaleRound(u32),
}

impl slipway_decider::Refusal for Refusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::StaleRound(_) => RefusalKind::Defect,
        }
    }
}

/// The kind `branch`.
#[derive(Debug)]
pub struct Branch;

impl Decider for Branch {
    const KIND: &'static str = "branch";
    const STATE_VERSION: u32 = 1;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    fn decide(_: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let running = |round: u32| {
            if state.awake && state.round == round && state.retry_at.is_none() {
                Ok(())
            } else {
                Err(Refusal::StaleRound(round))
            }
        };
        match command {
            Command::ChangeWaits { .. } if state.awake => Ok(Vec::new()),
            Command::ChangeWaits { repository, branch } => Ok(vec![Event::Woken { repository, branch }]),
            Command::Base { round, head } => {
                running(round)?;
                Ok(if state.head.is_none() {
                    vec![Event::Based { head }]
                } else {
                    Vec::new()
                })
            }
            Command::Settle { round, head, rest } => {
                running(round)?;
                Ok(vec![Event::Settled { head, rest }])
            }
            Command::Postpone {
                round,
                reason,
                jitter,
            } => {
                running(round)?;
                let full = FIRST_WAIT
                    .saturating_mul(2_u32.saturating_pow(state.failures.min(16)))
                    .min(LONGEST_WAIT);
                let wait = full / 2 + full / 2 * u32::from(jitter.min(1000)) / 1000;
                Ok(vec![Event::Postponed {
                    reason,
                    retry_at: now + wait,
                }])
            }
            Command::Retry => match state.retry_at {
                Some(at) if at <= now => Ok(vec![Event::Resumed]),
                _ => Ok(Vec::new()),
            },
        }
    }

    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        match event {
            Event::Woken { repository, branch } => {
                state.repository.clone_from(repository);
                state.branch = Some(branch.clone());
                state.awake = true;
                state.round += 1;
                state.failures = 0;
                state.retry_at = None;
            }
            Event::Based { head } => state.head = Some(head.clone()),
            Event::Settled { head, rest } => {
                if head.is_some() {
                    state.head.clone_from(head);
                }
                state.awake = !rest;
                state.round += 1;
                state.failures = 0;
                state.retry_at = None;
                state.problem = None;
            }
            Event::Postponed { reason, retry_at } => {
                state.failures += 1;
                state.retry_at = Some(*retry_at);
                state.problem = Some(reason.clone());
            }
            Event::Resumed => {
                state.retry_at = None;
                state.round += 1;
            }
        }
    }

    fn effects(_: &Id, state: &State) -> Vec<(EffectKey, Effect)> {
        match &state.branch {
            Some(branch) if state.awake && state.retry_at.is_none() => vec![(
                EffectKey::new("push", state.round),
                Effect::Push {
                    round: state.round,
                    repository: state.repository.clone(),
                    branch: branch.clone(),
                    head: state.head.clone(),
                },
            )],
            _ => Vec::new(),
        }
    }

    fn wake_at(state: &State) -> Option<Timestamp> {
        state.retry_at
    }

    fn wake() -> Option<Command> {
        Some(Command::Retry)
    }

    fn retry(state: &State) -> Option<Retry> {
        let error = state
            .problem
            .clone()
            .filter(|_| state.awake && state.failures > 0)?;
        Some(Retry {
            error,
            attempt: state.failures,
            next_time: state.retry_at,
        })
    }

    fn index(state: &State) -> Index {
        let status = match (state.awake, state.retry_at) {
            (false, _) => "idle",
            (true, None) => "pushing",
            (true, Some(_)) => "postponed",
        };
        Index {
            status: status.to_owned(),
            ..Index::default()
        }
    }

    fn is_final(_: &State) -> bool {
        false
    }
}
