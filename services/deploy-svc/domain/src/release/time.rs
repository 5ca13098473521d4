//! Where the time of a release went.

use std::time::Duration;

use slipway_model::Timestamp;

use super::{ReleaseState, Step, StepKind, WaitingKind};

/// What a step's time is spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Machine,
    Human,
    Lane,
}

impl Party {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Human => "human",
            Self::Lane => "lane",
        }
    }
}

impl Step {
    pub fn party(&self) -> Party {
        match self.kind {
            StepKind::Lane => Party::Lane,
            StepKind::Gate => Party::Human,
            _ => Party::Machine,
        }
    }

    /// How long it has waited for a person until `now`: for a promotion, or a merge.
    pub(super) fn human_time(&self, now: Timestamp) -> Duration {
        let waits = self
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.kind == WaitingKind::Human);
        let spell = self.waiting_since.filter(|_| waits);
        self.human + spell.map_or(Duration::ZERO, |since| now.since(since))
    }
}

/// The parts sum to the whole, since each step is queued at the moment when the previous one ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeSpent {
    pub total: Duration,
    pub machine: Duration,
    pub human: Duration,
    pub lane: Duration,
}

impl ReleaseState {
    /// The time spent until the release ended, or until `now`.
    pub fn time_spent(&self, now: Timestamp) -> TimeSpent {
        let mut spent = TimeSpent::default();
        for step in &self.steps {
            let duration = step.ended_at.unwrap_or(now).since(step.queued_at);
            spent.total += duration;
            match step.party() {
                // Machine steps wait for people too: in the middle of a rollout, or until a pull request is merged.
                Party::Machine => {
                    let human = step.human_time(now).min(duration);
                    spent.human += human;
                    spent.machine += duration - human;
                }
                Party::Human => spent.human += duration,
                Party::Lane => spent.lane += duration,
            }
        }
        spent
    }
}
