//! A round of a branch, the heart of the service:
//!
//! take all waiting changes → make one commit each on the last known head → push them together, on condition that the
//! remote's branch is still there → settle them. Nothing is fetched unless the condition fails. What was decided on a
//! head counts only once that head is proven to be the remote's: by a push that was accepted, or by a fetch.
//!
//! `waiting` reads which changes wait; `attempt` takes one group of them to the remote, with those of its `commits` that
//! render.

mod attempt;
mod commits;
mod waiting;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use gitops_domain::{
    branch::{self, Branch},
    change::{self, Change, Outcome},
    reason::Code,
};
use slipway_ledger::{
    Decider as _, ExecuteError, Ledger, LedgerError, Meta, TransactError, executor::log_retry,
};
use slipway_model::{BranchName, CommitSha, Fault, Id, Reason, Timestamp};
use tokio_util::sync::CancellationToken;

use self::{
    attempt::{Attempt, Settled, Stop},
    waiting::{Waiting, WaitingChanges},
};
use super::{Worker, actor, nudge};
use crate::backends::repository::Repository;

/// How often a round reads new changes while it waits for more.
const LINGER_STEP: Duration = Duration::from_millis(5);

/// Why a round has no outcome.
pub(crate) enum RoundError {
    Stale,
    Cancelled,
    Ledger(String),
}

impl From<LedgerError> for RoundError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error.to_string())
    }
}

impl From<ExecuteError<branch::Refusal>> for RoundError {
    fn from(error: ExecuteError<branch::Refusal>) -> Self {
        match error {
            ExecuteError::Refused(branch::Refusal::StaleRound(_)) => Self::Stale,
            error => Self::Ledger(error.to_string()),
        }
    }
}

pub(crate) struct Round<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) ledger: &'a Ledger,
    /// The branch's.
    pub(crate) id: &'a Id,
    pub(crate) number: u32,
    pub(crate) repository: &'a str,
    pub(crate) branch: &'a BranchName,
    /// The remote's head after the last settled round.
    pub(crate) recorded: Option<CommitSha>,
    pub(crate) cancelled: &'a CancellationToken,
}

/// The progress of a round.
#[derive(Debug, Default)]
struct Settlement {
    outcomes: Vec<(Id, Outcome)>,
    /// Where the remote's branch is now, if that was learnt.
    head: Option<CommitSha>,
    /// Why the changes without an outcome are to be tried again later.
    postponed: Option<Reason>,
    /// Whether others are waiting, if that was checked while these were pushed.
    others: Option<bool>,
}

impl Settlement {
    /// The same outcome for all of them.
    fn failed<'a>(changes: impl IntoIterator<Item = &'a Waiting>, reason: &Reason) -> Self {
        let outcome = |(id, _): &Waiting| (id.clone(), Outcome::Failed(reason.clone()));
        Self {
            outcomes: changes.into_iter().map(outcome).collect(),
            ..Self::default()
        }
    }

    /// Which of these changes are tried again later.
    fn waiting(&self, all: &[Id]) -> Vec<Id> {
        if self.postponed.is_none() {
            return Vec::new();
        }
        let done: HashSet<&Id> = self.outcomes.iter().map(|(id, _)| id).collect();
        all.iter().filter(|id| !done.contains(id)).cloned().collect()
    }
}

impl Round<'_> {
    /// Runs to its end: every change is settled, or the round postponed.
    ///
    /// # Errors
    /// When there is nothing to record, or it cannot be recorded.
    pub(crate) async fn run(&self) -> Result<(), RoundError> {
        let most = self.worker.max_batch.min(self.worker.paces.batch(self.id));
        let changes = self.gather(most).await?;
        let (began, all) = (Instant::now(), ids(&changes).collect::<Vec<Id>>());
        let settlement = match self.worker.repositories.get(self.repository) {
            _ if changes.is_empty() => Settlement::default(),
            None => {
                let message = format!(
                    "the configuration no longer has a repository {}: configure it again",
                    self.repository
                );
                Settlement::failed(&changes, &Reason::new(Code::RepositoryNotConfigured, message))
            }
            Some(_) if let Some(pusher) = &self.worker.pusher => Settlement {
                outcomes: pusher.push(ids(&changes).collect()).await,
                ..Settlement::default()
            },
            Some(repository) => self.push(repository, changes).await?,
        };
        let waiting = settlement.waiting(&all);
        self.settle(settlement).await?;
        self.tell(&waiting).await?;
        let now = Instant::now();
        if !all.is_empty() {
            self.worker.paces.settled(self.id, all.len(), now - began, now);
        }
        Ok(())
    }

    /// Has each change ask its branch at once why it waits, instead of some seconds later.
    async fn tell(&self, waiting: &[Id]) -> Result<(), RoundError> {
        for id in waiting {
            self.ledger.hint(Change::KIND, id).await?;
        }
        Ok(())
    }

    /// The waiting changes, after a moment for writers that are likely to come again. During it only new ones are read;
    /// after it all are read once more, since one may have been cancelled meanwhile, or recorded late.
    async fn gather(&self, most: usize) -> Result<Vec<Waiting>, RoundError> {
        let linger = self.worker.paces.linger(self.id, Instant::now());
        let waiting = self.waiting();
        let mut changes = waiting.oldest(most).await?;
        if let Some((crowd, longest)) = linger
            && changes.len() < crowd.min(most)
        {
            let until = Instant::now() + longest;
            while changes.len() < crowd.min(most) && Instant::now() < until {
                self.sleep(LINGER_STEP).await?;
                let newer = waiting.newer_than(&changes).await?;
                let quiet = newer.is_empty() && !changes.is_empty();
                changes.extend(newer);
                if quiet {
                    break;
                }
            }
            changes = waiting.oldest(most).await?;
        }
        Ok(changes)
    }

    /// Pushes them together, or one by one if the remote rejects them together.
    async fn push(
        &self,
        repository: &Arc<Repository>,
        changes: Vec<Waiting>,
    ) -> Result<Settlement, RoundError> {
        let deadlines: HashMap<Id, Option<Timestamp>> = changes
            .iter()
            .map(|(id, state)| (id.clone(), state.deadline))
            .collect();
        let base = match self.base(repository).await? {
            Ok(base) => base,
            Err(Fault::Permanent(reason)) => return Ok(Settlement::failed(&changes, &reason)),
            Err(Fault::Transient { error: reason, .. }) => {
                return Ok(self.postponed(Settlement::default(), deadlines, reason));
            }
        };
        let mut so_far = Settlement::default();
        let mut groups = VecDeque::from([changes]);
        while let Some(group) = groups.pop_front() {
            match Attempt::new(self, repository, &base, &group).run().await {
                Ok(Settled {
                    outcomes,
                    head,
                    others,
                }) => {
                    // The rest of the group waits for the next round.
                    so_far.others = others.or_else(|| (outcomes.len() < group.len()).then_some(true));
                    so_far.outcomes.extend(outcomes);
                    so_far.head = Some(head);
                }
                Err(Stop::Round(error)) => return Err(error),
                // A hook may reject one commit of many, so each is tried alone.
                Err(Stop::Fault(Fault::Permanent(reason)))
                    if reason.code == Code::PushRefused && group.len() > 1 =>
                {
                    groups.extend(group.into_iter().map(|change| vec![change]));
                }
                Err(Stop::Fault(Fault::Permanent(reason))) => {
                    so_far
                        .outcomes
                        .extend(Settlement::failed(&group, &reason).outcomes);
                }
                Err(Stop::Fault(Fault::Transient { error: reason, .. })) => {
                    return Ok(self.postponed(so_far, deadlines, reason));
                }
            }
        }
        Ok(so_far)
    }

    /// The remote is unreachable: changes without an outcome are tried again later, unless they have waited long
    /// enough.
    fn postponed(
        &self,
        mut so_far: Settlement,
        mut deadlines: HashMap<Id, Option<Timestamp>>,
        reason: Reason,
    ) -> Settlement {
        for (done, _) in &so_far.outcomes {
            deadlines.remove(done);
        }
        let now = self.ledger.now();
        let overdue = deadlines
            .into_iter()
            .filter(|(_, deadline)| deadline.is_some_and(|deadline| deadline <= now));
        so_far
            .outcomes
            .extend(overdue.map(|(id, _)| (id, Outcome::Errored(too_late(&reason)))));
        so_far.postponed = Some(reason);
        so_far
    }

    fn waiting(&self) -> WaitingChanges<'_> {
        WaitingChanges {
            ledger: self.ledger,
            branch: self.id,
        }
    }

    /// The head after which all unrecorded commits of ours come. Fixed before the first push ever.
    async fn base(
        &self,
        repository: &Arc<Repository>,
    ) -> Result<Result<CommitSha, Fault<Reason>>, RoundError> {
        if let Some(recorded) = &self.recorded {
            return Ok(Ok(recorded.clone()));
        }
        let head = match repository.fetch(self.branch).await {
            Ok(head) => head,
            Err(fault) => return Ok(Err(fault)),
        };
        let command = || branch::Command::Base {
            round: self.number,
            head: head.clone(),
        };
        let branch = self
            .ledger
            .execute::<Branch>(self.id, command, &Meta::from(actor()))
            .await?;
        Ok(Ok(branch.state.head.unwrap_or(head)))
    }

    async fn sleep(&self, time: Duration) -> Result<(), RoundError> {
        tokio::select! {
            () = self.cancelled.cancelled() => Err(RoundError::Cancelled),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Records how the changes ended and where the branch is, in one transaction.
    async fn settle(&self, settlement: Settlement) -> Result<(), RoundError> {
        let Settlement {
            outcomes,
            head,
            postponed,
            others,
        } = settlement;
        let meta = Meta::from(actor());
        // Nothing is lost if a change has come since: see below.
        let others = match others {
            Some(others) => others,
            None => {
                let these: HashSet<&Id> = outcomes.iter().map(|(id, _)| id).collect();
                self.waiting().any_other_than(&these).await?
            }
        };
        let rest = postponed.is_none() && !others;
        let jitter = fastrand::u16(0..=1000);
        let (outcomes, head, postponed) = (&outcomes, &head, &postponed);
        let settled = self
            .ledger
            .transact(&meta, move |tx| async move {
                for (id, outcome) in outcomes {
                    // What is final already stays as it is, so a refusal is a bug.
                    tx.decide::<Change>(id, change::Command::Settle(outcome.clone()))
                        .await
                        .map_err(|error| {
                            if let ExecuteError::Refused(refusal) = &error {
                                tracing::error!(kind = "change", %id, command = ?outcome, %refusal, "a change refused its own outcome: a defect, please report it");
                            }
                            SettleError::Ledger(error.to_string())
                        })?;
                }
                let command = match postponed {
                    None => branch::Command::Settle {
                        round: self.number,
                        head: head.clone(),
                        rest,
                    },
                    Some(reason) => branch::Command::Postpone {
                        round: self.number,
                        reason: reason.clone(),
                        jitter,
                    },
                };
                match tx.decide::<Branch>(self.id, command).await {
                    Ok(branch) => Ok(branch),
                    Err(ExecuteError::Refused(_)) => Err(SettleError::Stale),
                    Err(error) => Err(SettleError::Ledger(error.to_string())),
                }
            })
            .await;
        match settled {
            Ok(branch) => {
                if let Some(retry) = Branch::retry(&branch.state).filter(|_| postponed.is_some()) {
                    log_retry(Branch::KIND, self.id, &retry);
                }
            }
            Err(TransactError::Aborted(SettleError::Stale)) => return Err(RoundError::Stale),
            Err(error) => return Err(RoundError::Ledger(error.to_string())),
        }
        // A change that came between the check and the record found its branch awake, and did not wake it.
        if rest && self.waiting().any_other_than(&HashSet::new()).await? {
            nudge(
                &self.worker.wakes,
                self.ledger,
                self.repository,
                self.branch,
                &meta,
            )
            .await?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error("the round is over")]
    Stale,
    #[error("{0}")]
    Ledger(String),
}

fn ids(changes: &[Waiting]) -> impl Iterator<Item = Id> {
    changes.iter().map(|(id, _)| id.clone())
}

fn too_late(reason: &Reason) -> Reason {
    Reason::new(
        Code::DeadlineExceeded,
        format!("not pushed in time; last: {}", reason.message),
    )
}
