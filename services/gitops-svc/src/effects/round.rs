//! A round of a branch, the heart of the service:
//!
//! take all waiting changes → make one commit each on the head as last heard of → push them together, on condition
//! that the remote's branch is still there → settle them. Only when the condition fails is anything fetched. Whatever
//! was decided on a head counts only once that head is proved to be the remote's: by a push that was accepted, or by
//! a fetch.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use gitops_domain::{
    branch::{self, Branch},
    change::{self, BRANCH_LABEL, Change, Outcome},
    message,
    reason::Code,
    remote::Moved,
};
use slipway_ledger::{
    Decider as _, ExecuteError, Ledger, LedgerError, ListFilter, Meta, Page, Snapshot, TransactError,
    executor::log_retry,
};
use slipway_model::{BranchName, CommitSha, Fault, Id, Reason};
use tokio_util::sync::CancellationToken;

use super::{Worker, actor, nudge};
use crate::backends::repository::{Applied, Plan, Repository};

/// The first wait after a lost race, doubled after each further one up to the longest; each is cut by up to all of it
/// at random, since the winner may lose next time.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How often a round looks who has come while it waits for a crowd.
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

/// A change, its request taken out.
type Waiting = (Id, change::State);

/// How far some changes came.
enum Attempt {
    Settled {
        outcomes: Vec<(Id, Outcome)>,
        head: CommitSha,
        /// How many others waited while these were pushed, when somebody looked.
        others: Option<usize>,
    },
    /// The remote refused them together, or could not be reached.
    Fault(Fault<Reason>),
}

impl Round<'_> {
    /// To its end: every change is settled, or the round postponed.
    ///
    /// # Errors
    /// When there is nothing to record, or no way to.
    pub(crate) async fn run(&self) -> Result<(), RoundError> {
        let most = self.worker.max_batch.min(self.worker.paces.together(self.id));
        let waiting = self.gathered(most).await?;
        let began = Instant::now();
        let count = waiting.len();
        let deadlines: HashMap<Id, _> = waiting
            .iter()
            .map(|(id, state)| (id.clone(), state.deadline))
            .collect();
        let mut outcomes = Vec::new();
        let mut head = None;
        let mut postponed = None;
        let mut others = None;
        match self.worker.repositories.get(self.repository) {
            _ if waiting.is_empty() => {}
            None => {
                let message = format!("the configuration has no repository {} any more", self.repository);
                outcomes.extend(ids(&waiting).map(|id| {
                    (
                        id,
                        Outcome::Failed(Reason::new(Code::RepositoryNotConfigured, message.clone())),
                    )
                }));
            }
            Some(_) if let Some(pusher) = &self.worker.pusher => {
                let changes: Vec<Id> = ids(&waiting).collect();
                outcomes.extend(pusher.push(changes).await);
            }
            Some(repository) => {
                let base = match self.base(repository).await? {
                    Ok(base) => base,
                    Err(Fault::Permanent(reason)) => {
                        outcomes.extend(ids(&waiting).map(|id| (id, Outcome::Failed(reason.clone()))));
                        return self.settle(outcomes, None, None, None).await;
                    }
                    Err(Fault::Transient { error: reason, .. }) => {
                        return self
                            .settle(self.overdue(&deadlines, &reason), None, Some(reason), None)
                            .await;
                    }
                };
                let mut groups = VecDeque::from([waiting]);
                while let Some(group) = groups.pop_front() {
                    match self.attempt(repository, &base, &group).await? {
                        Attempt::Settled {
                            outcomes: settled,
                            head: at,
                            others: seen,
                        } => {
                            // The rest of the group waits for the next round.
                            others = seen.or_else(|| (settled.len() < group.len()).then_some(1));
                            outcomes.extend(settled);
                            head = Some(at);
                        }
                        // A hook may dislike one commit of many: each is tried alone.
                        Attempt::Fault(Fault::Permanent(reason))
                            if reason.code == Code::PushRefused && group.len() > 1 =>
                        {
                            groups.extend(group.into_iter().map(|change| vec![change]));
                        }
                        Attempt::Fault(Fault::Permanent(reason)) => {
                            outcomes.extend(ids(&group).map(|id| (id, Outcome::Failed(reason.clone()))));
                        }
                        Attempt::Fault(Fault::Transient { error: reason, .. }) => {
                            let mut rest = deadlines;
                            rest.retain(|id, _| outcomes.iter().all(|(done, _)| done != id));
                            outcomes.extend(self.overdue(&rest, &reason));
                            postponed = Some(reason);
                            break;
                        }
                    }
                }
            }
        }
        self.settle(outcomes, head, postponed, others).await?;
        let now = Instant::now();
        if count > 0 {
            self.worker.paces.settled(self.id, count, now - began, now);
        }
        Ok(())
    }

    /// The changes that wait, after a moment for those who are likely to come again.
    async fn gathered(&self, most: usize) -> Result<Vec<Waiting>, RoundError> {
        let linger = self.worker.paces.linger(self.id, Instant::now());
        let mut waiting = self.waiting(most).await?;
        if let Some((crowd, longest)) = linger {
            let until = Instant::now() + longest;
            while waiting.len() < crowd.min(most) && Instant::now() < until {
                self.sleep(LINGER_STEP).await?;
                let more = self.waiting(most).await?;
                let quiet = more.len() == waiting.len() && !more.is_empty();
                waiting = more;
                if quiet {
                    break;
                }
            }
        }
        Ok(waiting)
    }

    /// Those that have waited long enough for a remote that cannot be reached.
    fn overdue(
        &self,
        deadlines: &HashMap<Id, Option<slipway_model::Timestamp>>,
        reason: &Reason,
    ) -> Vec<(Id, Outcome)> {
        let now = self.ledger.now();
        deadlines
            .iter()
            .filter(|(_, deadline)| deadline.is_some_and(|deadline| deadline <= now))
            .map(|(id, _)| (id.clone(), Outcome::Errored(too_late(reason))))
            .collect()
    }

    /// The changes of this branch that wait, oldest first.
    async fn waiting(&self, most: usize) -> Result<Vec<Waiting>, RoundError> {
        let filter = ListFilter {
            labels: [(BRANCH_LABEL.to_owned(), self.id.to_string())].into(),
            not_final: true,
            ..ListFilter::default()
        };
        let mut page = Page {
            size: 1000,
            token: String::new(),
        };
        let mut all: Vec<Snapshot<Change>> = Vec::new();
        loop {
            let found = self.ledger.list_of::<Change>(&filter, &page).await?;
            all.extend(found.items);
            if found.next_page_token.is_empty() {
                break;
            }
            page.token = found.next_page_token;
        }
        // Lists are newest first.
        Ok(all
            .into_iter()
            .rev()
            .take(most)
            .map(|change| (change.id, change.state))
            .collect())
    }

    /// The head after which everything of ours comes that is not recorded. Fixed before the first push ever.
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

    /// Pushes what can be pushed of some changes, for as long as others win the race.
    async fn attempt(
        &self,
        repository: &Arc<Repository>,
        base: &CommitSha,
        changes: &[Waiting],
    ) -> Result<Attempt, RoundError> {
        macro_rules! reach {
            ($call:expr) => {
                match $call {
                    Ok(value) => value,
                    Err(fault) => return Ok(Attempt::Fault(fault)),
                }
            };
        }
        let mut fetched = None;
        let mut known = reach!(repository.tracked(self.branch).await);
        if !reach!(repository.has_commit(base).await) {
            known = None;
        }
        let paces = &self.worker.paces;
        if paces.contended(self.id) {
            let before = known.take();
            let head = reach!(repository.fetch(self.branch).await);
            paces.set_contended(self.id, before.as_ref() != Some(&head));
            fetched = Some(head);
        }
        let _spans = self.spans(changes);
        let mut wait = FIRST_WAIT;
        let mut attempts = 0;
        let mut changes = changes;
        loop {
            if self.cancelled.is_cancelled() {
                return Err(RoundError::Cancelled);
            }
            // A head from before is good for a push, which tells whether it still holds.
            let (head, mut proved) = match (fetched.take(), known.take()) {
                (Some(head), _) => (head, true),
                (None, Some(head)) => (head, false),
                (None, None) => (reach!(repository.fetch(self.branch).await), true),
            };
            let fresh = proved;
            let mut outcomes = Vec::new();
            let mut rest: Vec<&Waiting> = Vec::new();
            let found = if head == *base {
                HashMap::new()
            } else {
                let wanted: HashSet<Id> = ids(changes).collect();
                reach!(repository.find_changes(Some(base), &head, wanted).await)
            };
            for change @ (id, state) in changes {
                if let Some(commit) = found.get(id) {
                    let edits = edits(state);
                    let differences = reach!(repository.differences(commit, edits).await);
                    let attempts = attempts.max(1);
                    outcomes.push((
                        id.clone(),
                        Outcome::Pushed {
                            commit: commit.clone(),
                            differences,
                            attempts,
                        },
                    ));
                } else if state.cancel.is_some() {
                    outcomes.push((id.clone(), Outcome::Cancelled));
                } else if proved
                    && state
                        .deadline
                        .is_some_and(|deadline| deadline <= self.ledger.now())
                {
                    let reason = Reason::new(Code::RemoteUnreachable, "others won every race");
                    outcomes.push((id.clone(), Outcome::Errored(too_late(&reason))));
                } else {
                    rest.push(change);
                }
            }
            let plans: Vec<Plan> = rest.iter().filter_map(|(id, state)| plan(id, state)).collect();
            slipway_faults::point("gitops.edit.before");
            let (tip, applied) = reach!(repository.apply(&head, plans).await);
            let mut others = None;
            if tip != head {
                attempts += 1;
                slipway_faults::point("gitops.push.before");
                let push = repository.push(self.branch, &head, &tip);
                let (pushed, seen) = tokio::join!(push, self.others_waiting(changes));
                others = seen.ok();
                match pushed {
                    Ok(Moved::Yes) => {
                        proved = true;
                        if attempts == 1 {
                            paces.won(self.id, changes.len());
                        }
                    }
                    Ok(Moved::LostRace) => {
                        paces.set_contended(self.id, true);
                        // An old head says nothing about how fast we were.
                        if fresh {
                            paces.lost(self.id, changes.len());
                            self.pause(wait).await?;
                            wait = (wait * 2).min(LONGEST_WAIT);
                            // The rest comes in the next round.
                            changes = &changes[..changes.len().min(paces.together(self.id))];
                        }
                        continue;
                    }
                    Err(fault) => return Ok(Attempt::Fault(fault)),
                }
                slipway_faults::point("gitops.push.after");
            }
            if !proved {
                // Nothing was pushed, so nothing shows that this is how the remote stands.
                continue;
            }
            outcomes.extend(rest.iter().zip(applied).map(|((id, _), applied)| {
                let outcome = match applied {
                    Applied::Commit { commit, differences } => Outcome::Pushed {
                        commit,
                        differences,
                        attempts,
                    },
                    Applied::Unchanged { commit, differences } => Outcome::Unchanged { commit, differences },
                    Applied::Refused(reason) => Outcome::Failed(reason),
                };
                (id.clone(), outcome)
            }));
            return Ok(Attempt::Settled {
                outcomes,
                head: tip,
                others,
            });
        }
    }

    /// A span in each change's own trace, for as long as its push takes.
    fn spans(&self, changes: &[Waiting]) -> Vec<tracing::Span> {
        let span = |(id, state): &Waiting| {
            let request = state.request.as_ref()?;
            let span = tracing::info_span!(
                "push",
                change = %id,
                repository = self.repository,
                branch = %self.branch,
                together = changes.len()
            );
            self.worker.telemetry.adopt(&span, request.traceparent);
            Some(span)
        };
        changes.iter().filter_map(span).collect()
    }

    async fn pause(&self, wait: Duration) -> Result<(), RoundError> {
        self.sleep(wait.mul_f64(fastrand::f64())).await
    }

    async fn sleep(&self, time: Duration) -> Result<(), RoundError> {
        tokio::select! {
            () = self.cancelled.cancelled() => Err(RoundError::Cancelled),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Records how the changes ended and where the branch stands, in one transaction.
    async fn settle(
        &self,
        outcomes: Vec<(Id, Outcome)>,
        head: Option<CommitSha>,
        postponed: Option<Reason>,
        others: Option<usize>,
    ) -> Result<(), RoundError> {
        let meta = Meta::from(actor());
        // Nothing is lost when somebody has come since: see below.
        let others = match others {
            Some(others) => others,
            None => self.others_than(outcomes.iter().map(|(id, _)| id)).await?,
        };
        let rest = postponed.is_none() && others == 0;
        let jitter = fastrand::u16(0..=1000);
        let (outcomes, head, postponed) = (&outcomes, &head, &postponed);
        let settled = self
            .ledger
            .transact(&meta, move |tx| async move {
                for (id, outcome) in outcomes {
                    // What is final already stays as it is, so whatever is refused is a defect.
                    tx.decide::<Change>(id, change::Command::Settle(outcome.clone()))
                        .await
                        .map_err(|error| {
                            if let ExecuteError::Refused(refusal) = &error {
                                tracing::error!(kind = "change", %id, command = ?outcome, %refusal, "an impossible command");
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
        // A change that came between the look and the record saw its branch awake, and woke nobody.
        if rest && !self.waiting(1).await?.is_empty() {
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

    async fn others_waiting(&self, changes: &[Waiting]) -> Result<usize, RoundError> {
        self.others_than(changes.iter().map(|(id, _)| id)).await
    }

    /// How many wait besides these.
    async fn others_than<'a>(&self, these: impl Iterator<Item = &'a Id>) -> Result<usize, RoundError> {
        let these: HashSet<&Id> = these.collect();
        let waiting = self.waiting(these.len() + 1).await?;
        Ok(waiting.iter().filter(|(id, _)| !these.contains(id)).count())
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

fn edits(state: &change::State) -> Vec<slipway_edit::Edit> {
    state
        .request
        .as_ref()
        .map(|request| request.edits.clone())
        .unwrap_or_default()
}

fn plan(id: &Id, state: &change::State) -> Option<Plan> {
    let request = state.request.as_ref()?;
    Some(Plan {
        edits: request.edits.clone(),
        message: message::compose(id, request),
        time: state.requested_at?,
    })
}

fn too_late(reason: &Reason) -> Reason {
    Reason::new(
        Code::DeadlineExceeded,
        format!("not pushed in time; last: {}", reason.message),
    )
}
