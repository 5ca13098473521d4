//! One task for each aggregate that is held: compares what is running with what the state says must be running.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use slipway_model::{Reason, Timestamp, TraceContext};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Core, EffectRun, Effects, Held, codes, log_retry, refused};
use crate::{
    Decider, EffectKey, ExecuteError, LedgerError, Meta, Snapshot, cache::Cached, ledger::Outcome,
    load::Read, types::Key,
};

/// How long an effect may take to end after it was cancelled because of a lost lease or a shutdown.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// The pause between tries to write an outcome while the database is away.
const RETRY: Duration = Duration::from_secs(1);

/// Effects and polls are keyed separately.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Work {
    Effect(EffectKey),
    Poll(EffectKey),
    Wake,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Effect(key) => write!(f, "effect {key}"),
            Self::Poll(key) => write!(f, "poll {key}"),
            Self::Wake => f.write_str("timer"),
        }
    }
}

pub(super) struct Ended<D: Decider> {
    work: Work,
    traceparent: Option<TraceContext>,
    /// `Err` when it panicked.
    outcome: Result<Result<Option<D::Command>, Reason>, String>,
}

pub(super) struct Supervisor<'a, D: Decider> {
    pub(super) core: &'a Arc<Core>,
    pub(super) key: &'a Key,
    pub(super) held: &'a Held,
    handler: &'a Arc<dyn Effects<D>>,
    pub(super) tasks: JoinSet<Ended<D>>,
    pub(super) running: HashMap<Work, CancellationToken>,
    /// What went wrong under this lease, and is not restarted under it.
    pub(super) failed: BTreeMap<Work, Reason>,
    /// Why the last polls failed; not recorded yet.
    pub(super) fault: Option<Reason>,
    /// When the polls that are running now began.
    pub(super) round: Option<Timestamp>,
    /// When the last polls began that are done but not yet recorded as such.
    pub(super) served: Option<Timestamp>,
    poll_next: Option<Instant>,
    /// It was claimed, so its polls may be due: poll without waiting.
    poll_now: bool,
    /// A hint came, and no poll has begun since.
    pub(super) hinted: bool,
    /// Since when everything is being cancelled.
    stopping: Option<Instant>,
}

impl<'a, D: Decider> Supervisor<'a, D> {
    pub(super) fn new(
        core: &'a Arc<Core>,
        key: &'a Key,
        held: &'a Held,
        handler: &'a Arc<dyn Effects<D>>,
    ) -> Self {
        Self {
            core,
            key,
            held,
            handler,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            failed: BTreeMap::new(),
            fault: None,
            round: None,
            served: None,
            poll_next: None,
            poll_now: false,
            hinted: false,
            stopping: None,
        }
    }

    /// Runs until there is nothing to hold, or the lease is lost, or the service stops.
    pub(super) async fn run(&mut self) -> Result<(), LedgerError> {
        loop {
            let news = self.held.take();
            self.poll_now |= news.claimed;
            self.hinted |= news.hinted;
            let stop = self.core.stop.is_cancelled();
            if stop || news.lost || !news.leased {
                self.cancel(|_| true);
                if self.tasks.is_empty() {
                    if stop && news.leased && !news.lost {
                        self.core
                            .ledger
                            .shared
                            .store
                            .release(std::slice::from_ref(self.key))
                            .await?;
                    }
                    return Ok(());
                }
                self.wait_for_the_cancelled(stop || news.lost).await;
                continue;
            }
            self.stopping = None;
            if news.attempts > self.core.max_claims {
                self.failed.entry(Work::Wake).or_insert_with(|| {
                    let message = format!(
                        "claimed {} times without progress: the process ended each time",
                        news.attempts - 1
                    );
                    Reason::new(codes::NO_PROGRESS, message)
                });
                return self.hand_back_failed(news.attempts).await;
            }
            let read = if news.claimed {
                Read::Fresh
            } else {
                Read::Cached(0)
            };
            let (Some(loaded), _) = self.core.ledger.shared.load::<D>(self.key, read).await? else {
                // Gone from the database.
                if let Some(version) = self.held.renewable() {
                    self.held.lose(version);
                }
                continue;
            };
            let state = loaded.state::<D>();
            self.compare(&loaded, &state);

            let due = D::wake_at(&state).filter(|at| *at <= self.core.ledger.now());
            if due.is_some() && !self.failed.contains_key(&Work::Wake) {
                self.wake(due).await?;
                continue;
            }
            if self.tasks.is_empty() || self.served.is_some() {
                let idle = self.tasks.is_empty();
                if idle && !self.failed.is_empty() {
                    self.hand_back_failed(news.attempts).await?;
                } else {
                    self.settle(&loaded, &state, idle).await?;
                }
                continue;
            }
            self.wait(&state).await?;
        }
    }

    /// Aborts what the state does not want, and starts what it wants.
    fn compare(&mut self, loaded: &Arc<Cached>, state: &Arc<D::State>) {
        let effects = D::effects(&self.key.id, state)
            .into_iter()
            .map(|(key, effect)| (Work::Effect(key), effect));
        let polls = D::polls(&self.key.id, state)
            .into_iter()
            .map(|(key, effect)| (Work::Poll(key), effect));
        let mut wanted: BTreeMap<Work, D::Effect> = effects.chain(polls).collect();
        self.cancel(|work| !wanted.contains_key(work));
        self.failed
            .retain(|work, _| *work == Work::Wake || wanted.contains_key(work));

        let any_poll = wanted.keys().any(|work| matches!(work, Work::Poll(_)));
        if !any_poll {
            (self.poll_next, self.poll_now) = (None, false);
        } else if self.poll_next.is_none() {
            self.poll_next = Some(Instant::now() + D::poll_every(state));
        }
        let poll = any_poll
            && self.round.is_none()
            && (self.poll_now || self.hinted || self.poll_next.is_some_and(|next| next <= Instant::now()));
        if poll {
            self.round = Some(self.core.ledger.now());
            (self.poll_now, self.hinted) = (false, false);
            self.poll_next = Some(Instant::now() + D::poll_every(state));
        }
        wanted.retain(|work, _| {
            !self.running.contains_key(work)
                && !self.failed.contains_key(work)
                && (poll || matches!(work, Work::Effect(_)))
        });
        for (work, effect) in wanted {
            self.start(work, effect, loaded.snapshot(self.key));
        }
        self.count_polls();
    }

    fn start(&mut self, work: Work, effect: D::Effect, snapshot: Snapshot<D>) {
        let (Work::Effect(key) | Work::Poll(key)) = work.clone() else {
            return;
        };
        let cancelled = CancellationToken::new();
        self.running.insert(work.clone(), cancelled.clone());
        let traceparent = snapshot.traceparent;
        let run = EffectRun {
            ledger: self.core.ledger.clone(),
            id: self.key.id.clone(),
            snapshot,
            key,
            effect,
            cancelled,
            traceparent,
        };
        let handler = Arc::clone(self.handler);
        self.tasks.spawn(async move {
            let outcome = AssertUnwindSafe(handler.perform(run))
                .catch_unwind()
                .await
                .map_err(|panic| {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    text.or_else(|| panic.downcast_ref::<String>().cloned())
                        .unwrap_or_else(|| "no message".to_owned())
                });
            Ended {
                work,
                traceparent,
                outcome,
            }
        });
    }

    pub(super) fn cancel(&self, unwanted: impl Fn(&Work) -> bool) {
        for (work, token) in &self.running {
            if unwanted(work) {
                token.cancel();
            }
        }
    }

    /// Reports how many polls are running; the round is over when there are none.
    fn count_polls(&mut self) {
        let polls = self
            .running
            .keys()
            .filter(|work| matches!(work, Work::Poll(_)))
            .count();
        self.held.set_polls(polls);
        if polls == 0
            && let Some(began) = self.round.take()
        {
            self.served = Some(began);
        }
    }

    async fn wait(&mut self, state: &D::State) -> Result<(), LedgerError> {
        let timer = D::wake_at(state).filter(|_| !self.failed.contains_key(&Work::Wake));
        let mut pause = timer.map(|at| {
            self.core
                .ledger
                .shared
                .clock
                .until(at)
                .max(Duration::from_millis(1))
        });
        if self.round.is_none()
            && let Some(next) = self.poll_next
        {
            let next = next.saturating_duration_since(Instant::now());
            pause = Some(pause.map_or(next, |pause| pause.min(next)));
        }
        tokio::select! {
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(ended) => self.ended(ended).await?,
                // Only aborted tasks end like this: panics are caught inside.
                Err(error) => tracing::debug!(%error, "an effect was aborted"),
            },
            () = self.held.changed() => {}
            () = self.core.stop.cancelled() => {}
            () = tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3600))) => {}
        }
        Ok(())
    }

    /// Waits for something that was cancelled to end. Its outcome is still accepted; if it does not react it is dropped
    /// after a while, when `limited`.
    async fn wait_for_the_cancelled(&mut self, limited: bool) {
        let since = *self.stopping.get_or_insert_with(Instant::now);
        let left = if limited {
            GRACE.saturating_sub(since.elapsed())
        } else {
            Duration::from_secs(3600)
        };
        tokio::select! {
            Some(ended) = self.tasks.join_next() => if let Ok(ended) = ended
                && let Err(error) = self.ended(ended).await
            {
                tracing::warn!(kind = %self.key.kind, id = %self.key.id, %error, "an outcome was lost");
            },
            () = self.held.changed() => {}
            () = tokio::time::sleep(left) => {
                tracing::warn!(kind = %self.key.kind, id = %self.key.id, "an effect did not stop when it was cancelled");
                self.tasks.shutdown().await;
                self.running.clear();
                self.round = None;
                self.held.set_polls(0);
            }
        }
    }

    /// Decides the outcome of an effect.
    async fn ended(&mut self, ended: Ended<D>) -> Result<(), LedgerError> {
        let Ended {
            work,
            traceparent,
            outcome,
        } = ended;
        let cancelled = self
            .running
            .remove(&work)
            .is_some_and(|token| token.is_cancelled());
        let poll = matches!(work, Work::Poll(_));
        let began = self.round;
        self.count_polls();
        let failure = match outcome {
            Err(panic) => Some(Reason::new(codes::PANICKED, format!("panicked: {panic}"))),
            Ok(Err(error)) if poll => {
                if !cancelled {
                    self.fault = Some(error);
                }
                None
            }
            Ok(Err(error)) => {
                let wanted = self.still_wants(&work).await?;
                (wanted && !cancelled).then_some(error)
            }
            Ok(Ok(None)) => {
                let wanted = self.still_wants(&work).await?;
                (wanted && !cancelled && !poll)
                    .then(|| Reason::new(codes::NO_OUTCOME, "ended without an outcome and is still wanted"))
            }
            Ok(Ok(Some(command))) => {
                let polled = if poll { began } else { None };
                let meta = Meta {
                    actor: self.handler.actor(),
                    traceparent,
                };
                match self.decide(&command, &meta, polled).await {
                    Ok(Outcome::Done {
                        appended: true,
                        snapshot,
                    }) => {
                        // The append recorded that the polls are served, unless others of the round are still running
                        // or failed.
                        if poll && self.round.is_none() && self.fault.is_none() {
                            self.served = None;
                        }
                        if let Some(retry) =
                            D::retry(&snapshot.state).filter(|retry| retry.next_time.is_some())
                        {
                            log_retry(D::KIND, &self.key.id, &retry);
                        }
                        None
                    }
                    Ok(Outcome::Done { snapshot, .. }) => {
                        (!poll && !cancelled && self.wants(&work, &snapshot.state)).then(|| {
                            let message = "its outcome changed nothing and it is still wanted";
                            refused(&self.key.kind, &self.key.id, &work, &command, &message, false);
                            Reason::new(codes::NO_OUTCOME, message)
                        })
                    }
                    Ok(Outcome::RequestTaken) => None,
                    Err(ExecuteError::Ledger(error)) if error.is_transient() => return Err(error),
                    Err(ExecuteError::Refused(refusal)) => {
                        let stale = !self.still_wants(&work).await?;
                        refused(&self.key.kind, &self.key.id, &work, &command, &refusal, stale);
                        (!stale).then(|| {
                            let message = format!("its outcome was refused: {refusal}");
                            Reason::new(codes::OUTCOME_REFUSED, message)
                        })
                    }
                    Err(error) => {
                        let message = format!("its outcome was refused: {error}");
                        Some(Reason::new(codes::OUTCOME_REFUSED, message))
                    }
                }
            }
        };
        if let Some(reason) = failure {
            self.failed.insert(work, reason);
        }
        Ok(())
    }

    /// Whether the state, as it is now, still asks for this.
    async fn still_wants(&self, work: &Work) -> Result<bool, LedgerError> {
        let shared = &self.core.ledger.shared;
        let (loaded, _) = shared.load::<D>(self.key, Read::Cached(0)).await?;
        Ok(loaded.is_some_and(|loaded| self.wants(work, &loaded.state::<D>())))
    }

    fn wants(&self, work: &Work, state: &D::State) -> bool {
        match work {
            Work::Effect(wanted) => D::effects(&self.key.id, state)
                .iter()
                .any(|(key, _)| key == wanted),
            Work::Poll(wanted) => D::polls(&self.key.id, state).iter().any(|(key, _)| key == wanted),
            Work::Wake => false,
        }
    }

    /// Carries out the command; while the database is unreachable, retries for as long as the lease lasts.
    async fn decide(
        &self,
        command: &D::Command,
        meta: &Meta,
        polled: Option<Timestamp>,
    ) -> Result<Outcome<D>, ExecuteError<D::Refusal>> {
        let since = Instant::now();
        let mut command_fn = || command.clone();
        loop {
            let result = self
                .core
                .ledger
                .carry_out::<D>(&self.key.id, &mut command_fn, meta, None, polled)
                .await;
            match result {
                Err(ExecuteError::Ledger(LedgerError::Database { transient: true, .. }))
                    if since.elapsed() < self.core.claimant.lease =>
                {
                    tokio::time::sleep(RETRY).await;
                }
                result => return result,
            }
        }
    }

    /// Fires a due timer.
    async fn wake(&mut self, due: Option<Timestamp>) -> Result<(), LedgerError> {
        let Some(command) = D::wake() else {
            let message = "wake_at is due but there is no wake command";
            self.failed
                .insert(Work::Wake, Reason::new(codes::TIMER_STUCK, message));
            return Ok(());
        };
        let meta = Meta {
            actor: self.handler.actor(),
            traceparent: None,
        };
        let reason = match self.decide(&command, &meta, None).await {
            // Moved, by this command or another.
            Ok(Outcome::Done { snapshot, .. }) if D::wake_at(&snapshot.state) != due => return Ok(()),
            Ok(_) => Reason::new(codes::TIMER_STUCK, "the timer fired and wake_at did not move"),
            Err(ExecuteError::Ledger(error)) if error.is_transient() => return Err(error),
            Err(error) => {
                let message = format!("the timer's command was refused: {error}");
                Reason::new(codes::OUTCOME_REFUSED, message)
            }
        };
        tracing::error!(kind = %self.key.kind, id = %self.key.id, ?command, reason = %reason.message, "a timer failed");
        self.failed.insert(Work::Wake, reason);
        Ok(())
    }
}
