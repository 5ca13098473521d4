//! One group of changes on its way to the remote: tried again for as long as others win the race.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use gitops_domain::{
    change::{self, Outcome},
    message,
    reason::Code,
    remote::Moved,
};
use slipway_ledger::LedgerError;
use slipway_model::{CommitSha, Fault, Id, Reason};

use super::{Round, RoundError, too_late, waiting::Waiting};
use crate::backends::repository::{Applied, Plan, Repository};

/// The first wait after a lost race; it doubles after each further one up to the longest. Each is shortened by a random
/// amount, up to all of it, since the winner may lose next time.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// So many races lost on a head that does not move were lost to nobody: something else keeps the remote from taking it.
const LOST_TO_NOBODY: u32 = 3;

/// A group, and its progress.
pub(super) struct Attempt<'a> {
    pub(super) round: &'a Round<'a>,
    pub(super) repository: &'a Arc<Repository>,
    /// All unrecorded commits of ours come after this commit.
    base: &'a CommitSha,
    /// Fewer after a lost race; the rest is left to the next round.
    changes: &'a [Waiting],
    /// Pushes so far.
    pushes: u32,
    /// Before the next try, after a lost race.
    wait: Duration,
    /// The fetched head on which races were lost, and how many in a row.
    lost_on: Option<(CommitSha, u32)>,
}

/// The progress of a group's changes: those without an outcome are left to the next round.
pub(super) struct Settled {
    pub(super) outcomes: Vec<(Id, Outcome)>,
    pub(super) head: CommitSha,
    /// Whether others waited while these were pushed, if that was checked.
    pub(super) others: Option<bool>,
}

/// Why a group has no outcomes.
pub(super) enum Stop {
    /// The remote rejected the changes together, or could not be reached.
    Fault(Fault<Reason>),
    /// The round itself cannot continue.
    Round(RoundError),
}

impl From<Fault<Reason>> for Stop {
    fn from(fault: Fault<Reason>) -> Self {
        Self::Fault(fault)
    }
}

impl From<RoundError> for Stop {
    fn from(error: RoundError) -> Self {
        Self::Round(error)
    }
}

/// The commit on which a try is made.
pub(super) struct Head {
    pub(super) commit: CommitSha,
    /// It was fetched for this try. Otherwise it was known before: good enough for a push, which shows whether it is
    /// still current.
    fresh: bool,
}

/// The changes of a group on one head.
struct Sorted<'a> {
    /// Of those for which nothing needs to be pushed.
    outcomes: Vec<(Id, Outcome)>,
    rest: Vec<&'a Waiting>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        round: &'a Round<'a>,
        repository: &'a Arc<Repository>,
        base: &'a CommitSha,
        changes: &'a [Waiting],
    ) -> Self {
        Self {
            round,
            repository,
            base,
            changes,
            pushes: 0,
            wait: FIRST_WAIT,
            lost_on: None,
        }
    }

    /// Makes the changes' commits on the head, and pushes them; if the race is lost, again on the new head.
    ///
    /// # Errors
    /// [`Stop`]
    pub(super) async fn run(mut self) -> Result<Settled, Stop> {
        let mut known = self.known_head().await?;
        let _spans = self.spans();
        loop {
            if self.round.cancelled.is_cancelled() {
                return Err(RoundError::Cancelled.into());
            }
            let head = match known.take() {
                Some(head) => head,
                None => self.fetched_head().await?,
            };
            let sorted = match self.sort(&head).await {
                Err(Stop::Fault(fault)) if !head.fresh => {
                    Self::starts_over(&fault);
                    continue;
                }
                sorted => sorted?,
            };
            slipway_faults::point("gitops.edit.before");
            let commits = match self.commits(&head, sorted.rest).await {
                Err(fault) if !head.fresh => {
                    Self::starts_over(&fault);
                    continue;
                }
                commits => commits?,
            };
            if commits.all_left() && sorted.outcomes.is_empty() {
                return Ok(Settled {
                    outcomes: Vec::new(),
                    head: self.base.clone(),
                    others: Some(true),
                });
            }
            let tip = commits.tip;
            let mut others = None;
            if tip != head.commit {
                let (moved, seen) = self.push(&head, &tip).await?;
                if let Moved::LostRace(said) = moved {
                    self.lost(&head, said).await?;
                    continue;
                }
                others = seen;
            } else if !head.fresh {
                // Nothing was pushed, so nothing shows that this is the remote's state.
                continue;
            }
            let pushes = self.pushes;
            let made = commits.made.into_iter();
            let made = made.map(|((id, _), applied, note)| (id.clone(), outcome(applied, pushes, note)));
            let refused = commits.refused.into_iter();
            let refused = refused.map(|(id, reason)| (id, Outcome::Failed(reason)));
            return Ok(Settled {
                outcomes: sorted.outcomes.into_iter().chain(made).chain(refused).collect(),
                head: tip,
                others: if commits.left { Some(true) } else { others },
            });
        }
    }

    /// What the mirror knew may be no longer there: branches are reset, and what they had is deleted. A fetch shows.
    fn starts_over(fault: &Fault<Reason>) {
        tracing::debug!(error = %fault, "the last known head cannot be worked on; it is fetched");
    }

    /// The head to begin with: the last known one, or a fetched one if others were seen to write too. `None` if the
    /// mirror does not know enough.
    async fn known_head(&self) -> Result<Option<Head>, Stop> {
        let round = self.round;
        let mut tracked = self.repository.tracked(round.branch).await?;
        if !self.repository.has_commit(self.base).await? {
            tracked = None;
        }
        let paces = &round.worker.paces;
        if paces.contended(round.id) {
            let head = self.fetched_head().await?;
            paces.set_contended(round.id, tracked.as_ref() != Some(&head.commit));
            return Ok(Some(head));
        }
        Ok(tracked.map(|commit| Head { commit, fresh: false }))
    }

    async fn fetched_head(&self) -> Result<Head, Stop> {
        Ok(Head {
            commit: self.repository.fetch(self.round.branch).await?,
            fresh: true,
        })
    }

    /// Which changes are on the head already, which are not to be pushed any more, and which are.
    async fn sort(&self, head: &Head) -> Result<Sorted<'a>, Stop> {
        let found = if head.commit == *self.base {
            HashMap::new()
        } else {
            let wanted: HashSet<Id> = super::ids(self.changes).collect();
            self.repository
                .find_changes(Some(self.base), &head.commit, wanted)
                .await?
        };
        let mut sorted = Sorted {
            outcomes: Vec::new(),
            rest: Vec::new(),
        };
        for change @ (id, state) in self.changes {
            let outcome = if let Some(commit) = found.get(id) {
                Outcome::Pushed {
                    commit: commit.clone(),
                    differences: self.repository.differences(commit, edits(state)).await?,
                    attempts: self.pushes.max(1),
                    not_rendered: self.note(commit, state).await?,
                }
            } else if state.cancel.is_some() {
                Outcome::Cancelled
            } else if head.fresh && self.is_late(state) {
                let reason = Reason::new(Code::RemoteUnreachable, "others won every race");
                Outcome::Errored(too_late(&reason))
            } else {
                sorted.rest.push(change);
                continue;
            };
            sorted.outcomes.push((id.clone(), outcome));
        }
        Ok(sorted)
    }

    fn is_late(&self, state: &change::State) -> bool {
        state
            .deadline
            .is_some_and(|deadline| deadline <= self.round.ledger.now())
    }

    /// Pushes the commits, and checks meanwhile whether others are waiting.
    async fn push(&mut self, head: &Head, tip: &CommitSha) -> Result<(Moved, Option<bool>), Stop> {
        self.pushes += 1;
        slipway_faults::point("gitops.push.before");
        let (moved, others) = tokio::join!(
            self.repository.push(self.round.branch, &head.commit, tip),
            self.others_wait()
        );
        let moved = moved?;
        if moved == Moved::Yes {
            if self.pushes == 1 {
                self.round.worker.paces.won(self.round.id, self.changes.len());
            }
            slipway_faults::point("gitops.push.after");
        }
        Ok((moved, others.ok()))
    }

    pub(super) async fn others_wait(&self) -> Result<bool, LedgerError> {
        let these: HashSet<&Id> = self.changes.iter().map(|(id, _)| id).collect();
        self.round.waiting().any_other_than(&these).await
    }

    /// Another push was faster. On a fresh head, fewer changes are tried next, after a moment.
    ///
    /// # Errors
    /// When nobody else pushes: the remote says so for another reason, which may be temporary.
    async fn lost(&mut self, head: &Head, said: String) -> Result<(), Stop> {
        let paces = &self.round.worker.paces;
        paces.set_contended(self.round.id, true);
        // An old head says nothing about how fast we were.
        if head.fresh {
            let before = match &self.lost_on {
                Some((commit, times)) if *commit == head.commit => *times,
                _ => 0,
            };
            self.lost_on = Some((head.commit.clone(), before + 1));
            if before + 1 == LOST_TO_NOBODY {
                return Err(Fault::unavailable(
                    Code::RemoteUnreachable,
                    format!("the remote does not take the push, although nobody else has pushed: {said}"),
                )
                .into());
            }
            paces.lost(self.round.id, self.changes.len());
            self.round.sleep(self.wait.mul_f64(fastrand::f64())).await?;
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
            // The rest comes in the next round.
            let batch = self.changes.len().min(paces.batch(self.round.id));
            self.changes = &self.changes[..batch];
        }
        Ok(())
    }

    /// A span in each change's own trace, for as long as its push takes.
    fn spans(&self) -> Vec<tracing::Span> {
        let span = |(id, state): &Waiting| {
            let request = state.request.as_ref()?;
            let span = tracing::info_span!(
                "push",
                change = %id,
                repository = self.round.repository,
                branch = %self.round.branch,
                batch = self.changes.len()
            );
            self.round.worker.telemetry.adopt(&span, request.traceparent);
            Some(span)
        };
        self.changes.iter().filter_map(span).collect()
    }
}

fn outcome(applied: Applied, pushes: u32, not_rendered: String) -> Outcome {
    match applied {
        Applied::Commit { commit, differences } => Outcome::Pushed {
            commit,
            differences,
            attempts: pushes,
            not_rendered,
        },
        Applied::Unchanged { commit, differences } => Outcome::Unchanged { commit, differences },
        Applied::Refused(reason) => Outcome::Failed(reason),
    }
}

fn edits(state: &change::State) -> Vec<slipway_edit::Edit> {
    state
        .request
        .as_ref()
        .map(|request| request.edits.clone())
        .unwrap_or_default()
}

pub(super) fn plan(id: &Id, state: &change::State) -> Option<Plan> {
    let request = state.request.as_ref()?;
    Some(Plan {
        edits: request.edits.clone(),
        message: message::compose(id, request),
        time: state.requested_at?,
    })
}
