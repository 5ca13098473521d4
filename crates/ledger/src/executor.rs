//! The executor: starts and stops effects so that what runs is what the states ask for.
//!
//! An aggregate with something to do carries a `due_at`. Every executor of the service claims due aggregates, each
//! under a lease in database time that it renews; the holder of the lease runs one supervisor task for the aggregate
//! (see [`supervisor`]), which starts the effects that are missing, aborts those that vanished from the state, fires
//! timers and runs polls, and writes their outcomes as commands. A process whose append leaves something to do takes
//! the lease in the same append, so that no claim is needed between one step and the next; an append that leaves
//! nothing to do gives it back.
//!
//! Effects may run twice: a lease lapses when its holder stalls or dies, and the holder notices late. So what they do
//! to a remote system must be fenced or idempotent. An aggregate that fails [`ExecutorBuilder::max_claims`] times in a
//! row without progress is *parked*, with the error of the last try, until a person resumes it or a command changes its
//! state.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use slipway_model::{Actor, Id, Reason, Retry, Timestamp, TraceContext};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Decider, EffectKey, ExecuteError, Ledger, Meta, Snapshot,
    hook::Hook,
    store::{Claimant, Schedule, Wish, Written},
    types::Key,
};

mod claims;
mod handback;
mod held;
mod kind;
mod supervisor;

/// Pinned codes of what the executor retries by itself, and parks in the end.
pub mod codes {
    /// The process ended each time before anything was recorded.
    pub const NO_PROGRESS: &str = "NO_PROGRESS";
    /// The effect panicked: there is a bug in its code.
    pub const PANICKED: &str = "PANICKED";
    /// The effect ended with nothing that changes the state, which still wants it.
    pub const NO_OUTCOME: &str = "NO_OUTCOME";
    /// The outcome of the effect does not fit the state.
    pub const OUTCOME_REFUSED: &str = "OUTCOME_REFUSED";
    /// A due timer did not move.
    pub const TIMER_STUCK: &str = "TIMER_STUCK";
    /// The ledger's database failed.
    pub const LEDGER: &str = "LEDGER";
}

/// Logs a retry: as a warning at the 1st, 2nd, 4th, 8th … try, so that a long outage is logged less and less often.
pub fn log_retry(kind: &str, id: &Id, retry: &Retry) {
    let Retry {
        error,
        attempt,
        next_time,
    } = retry;
    let next_try = next_time.map(|time| time.to_string());
    if *attempt == 0 || attempt.is_power_of_two() {
        tracing::warn!(kind, %id, code = error.code, %error, attempt, next_try, "retrying");
    } else {
        tracing::debug!(kind, %id, code = error.code, %error, attempt, next_try, "retrying");
    }
}

pub(crate) use held::Held;
use kind::{Kind, Runner};

/// Carries out the effects of one kind of aggregate.
#[async_trait]
pub trait Effects<D: Decider>: Send + Sync {
    /// Carries out one effect, idempotently (it may run twice), and returns its outcome as a command: failures are
    /// commands too, and the decider says when to try again. `Ok(None)` means that there is no outcome, which for an
    /// effect that is still wanted and was not cancelled counts as a failure to make progress.
    ///
    /// Must end soon after [`EffectRun::cancelled`]; what it returns then is still decided.
    ///
    /// # Errors
    /// Why there is no outcome yet. It is retried, and reported as such ([`Snapshot::retry`]) without an event: an
    /// effect after a pause, up to [`ExecutorBuilder::max_claims`] times; a poll when its turn comes, for as long as
    /// the state wants it.
    async fn perform(&self, run: EffectRun<D>) -> Result<Option<D::Command>, Reason>;

    /// Recorded as the author of the outcome.
    fn actor(&self) -> Actor;
}

/// One run of one effect (or poll).
pub struct EffectRun<D: Decider> {
    pub ledger: Ledger,
    pub id: Id,
    /// The state that asked for the effect.
    pub snapshot: Snapshot<D>,
    pub key: EffectKey,
    pub effect: D::Effect,
    /// Cancelled when the lease was lost, the effect vanished from the state, or the service stops.
    pub cancelled: CancellationToken,
    /// The trace of the latest event.
    pub traceparent: Option<TraceContext>,
}

impl<D: Decider> EffectRun<D> {
    /// Decides a command of a running effect, such as its progress, on behalf of `actor`.
    ///
    /// # Errors
    /// Those of [`Ledger::execute`]; a refusal is logged as well. An effect can go on after an error, since its outcome
    /// will be decided again.
    pub async fn tell(
        &self,
        command: D::Command,
        actor: Actor,
    ) -> Result<Snapshot<D>, ExecuteError<D::Refusal>> {
        let meta = Meta::new(actor, self.traceparent);
        let told = self
            .ledger
            .execute::<D>(&self.id, || command.clone(), &meta)
            .await;
        if let Err(ExecuteError::Refused(refusal)) = &told {
            self.refused(&command, refusal).await;
        }
        told
    }

    /// Logs that the state refused a command of this run: as an error, unless the run is an older try. For effects that
    /// decide their outcome themselves, in a transaction of their own.
    pub async fn refused(&self, command: &impl fmt::Debug, refusal: &impl fmt::Display) {
        let now = self.ledger.get::<D>(&self.id).await;
        // If that cannot be read, the refusal itself is logged as an error.
        let stale = matches!(&now, Ok(Some(now)) if !D::wants(&self.id, &now.state, &self.key));
        refused(D::KIND, &self.id, &self.key, command, refusal, stale);
    }
}

/// The longest beginning of a command that is logged, in characters.
const SHOWN: usize = 500;

/// Logs a command that the state refuses. For an older try that is expected.
fn refused(
    kind: &str,
    id: &Id,
    work: &impl fmt::Display,
    command: &impl fmt::Debug,
    refusal: &impl fmt::Display,
    stale: bool,
) {
    if stale {
        tracing::debug!(kind, %id, %work, %refusal, "refused an outcome of an older try");
        return;
    }
    let command: String = format!("{command:?}").chars().take(SHOWN).collect();
    tracing::error!(kind, %id, %work, command, %refusal, "an impossible command");
}

impl<D: Decider> fmt::Debug for EffectRun<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EffectRun")
            .field("kind", &D::KIND)
            .field("id", &self.id)
            .field("key", &self.key)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

/// Sets up the executor of a service. One per ledger.
#[derive(Debug)]
pub struct ExecutorBuilder {
    ledger: Ledger,
    concurrency: usize,
    lease: Duration,
    max_claims: u32,
    backoff: (Duration, Duration),
    kinds: HashMap<&'static str, Arc<dyn Kind>>,
}

/// Runs effects. See the module's documentation.
#[derive(Debug)]
pub struct Executor;

impl Executor {
    /// An executor with room for 256 aggregates and leases of 15 s.
    pub fn builder(ledger: Ledger) -> ExecutorBuilder {
        ExecutorBuilder {
            ledger,
            concurrency: 256,
            lease: Duration::from_secs(15),
            max_claims: 10,
            backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            kinds: HashMap::new(),
        }
    }
}

impl ExecutorBuilder {
    /// How many aggregates are held at the same time.
    #[must_use]
    pub fn concurrency(mut self, aggregates: usize) -> Self {
        self.concurrency = aggregates.max(1);
        self
    }

    /// How long a dead holder keeps others waiting. The lease is renewed at a third of it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// After how many claims in a row without progress an aggregate is parked.
    #[must_use]
    pub fn max_claims(mut self, claims: u32) -> Self {
        self.max_claims = claims.max(1);
        self
    }

    /// The pause after the first failure, doubled after each further one up to the second value. Jittered.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most);
        self
    }

    /// Runs the effects of `D` through `handler`.
    #[must_use]
    pub fn register<D: Decider>(mut self, handler: Arc<dyn Effects<D>>) -> Self {
        self.kinds.insert(D::KIND, Arc::new(Runner { handler }));
        self
    }

    /// Starts the executor; it stops, and gives its leases back, when `shutdown` is cancelled.
    pub fn spawn(self, shutdown: CancellationToken) -> ExecutorHandle {
        let core = Arc::new(Core {
            room: Arc::new(Semaphore::new(self.concurrency)),
            claimant: Claimant {
                lease: self.lease,
                kinds: self
                    .kinds
                    .values()
                    .map(|kind| (kind.name().to_owned(), kind.version()))
                    .collect(),
            },
            max_claims: self.max_claims,
            backoff: self.backoff,
            kinds: self.kinds,
            ledger: self.ledger,
            held: Mutex::default(),
            next_due: Mutex::new(None),
            wake: Notify::new(),
            supervisors: TaskTracker::new(),
            stop: shutdown,
        });
        let hook: Arc<dyn Hook> = Arc::clone(&core) as _;
        core.ledger.set_hook(Arc::downgrade(&hook));
        ExecutorHandle {
            task: tokio::spawn(claims::run(core)),
        }
    }
}

/// A running executor.
#[derive(Debug)]
pub struct ExecutorHandle {
    task: JoinHandle<()>,
}

impl ExecutorHandle {
    /// Waits until everything has stopped after the shutdown: effects ended, leases given back.
    pub async fn drain(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the executor failed");
        }
    }
}

/// What the executor's tasks share.
#[derive(Debug)]
pub(crate) struct Core {
    ledger: Ledger,
    kinds: HashMap<&'static str, Arc<dyn Kind>>,
    claimant: Claimant,
    max_claims: u32,
    backoff: (Duration, Duration),
    room: Arc<Semaphore>,
    held: Mutex<HashMap<Key, Arc<Held>>>,
    /// The earliest time at which something is known to become due.
    next_due: Mutex<Option<Timestamp>>,
    /// There may be something to claim.
    wake: Notify,
    supervisors: TaskTracker,
    stop: CancellationToken,
}

impl Core {
    fn held(&self) -> MutexGuard<'_, HashMap<Key, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Option<Arc<Held>> {
        self.held().get(key).cloned()
    }

    /// Runs a supervisor for an aggregate whose lease is now ours, or notifies the existing one.
    fn hold(self: &Arc<Self>, key: Key, attempts: u32, claimed: bool, permit: Option<OwnedSemaphorePermit>) {
        let Some(kind) = self.kinds.get(&*key.kind).cloned() else {
            return;
        };
        let held = {
            let mut all = self.held();
            if let Some(held) = all.get(&key) {
                held.leased(attempts, claimed);
                return;
            }
            let held = Arc::new(Held::new(attempts, claimed));
            all.insert(key.clone(), Arc::clone(&held));
            held
        };
        let core = Arc::clone(self);
        self.supervisors.spawn(async move {
            kind.supervise(&core, &key, &held).await;
            drop(permit);
            // There is room again.
            core.wake.notify_one();
        });
    }

    /// The pause after this many claims without progress.
    fn pause(&self, attempts: u32) -> Duration {
        let (first, most) = self.backoff;
        let doubled = first
            .saturating_mul(1 << attempts.saturating_sub(1).min(16))
            .min(most);
        doubled.mul_f64(0.75 + 0.5 * fastrand::f64())
    }
}

impl Hook for Core {
    fn wish(&self, key: &Key, schedule: &Schedule) -> (Wish, Option<OwnedSemaphorePermit>) {
        if !self.kinds.contains_key(&*key.kind) || self.stop.is_cancelled() {
            return (Wish::Leave, None);
        }
        let held = self.find(key);
        if !schedule.effects {
            let polling = held.is_some_and(|held| held.polling());
            let keep = polling && schedule.poll_every.is_some();
            return (if keep { Wish::Leave } else { Wish::Release }, None);
        }
        if held.is_some() {
            return (Wish::Take(self.claimant.lease), None);
        }
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => (Wish::Take(self.claimant.lease), Some(permit)),
            // A replica with room claims it.
            Err(_) => (Wish::Leave, None),
        }
    }

    fn committed(self: Arc<Self>, key: &Key, written: Written, permit: Option<OwnedSemaphorePermit>) {
        if written.mine {
            self.hold(key.clone(), 1, false, permit);
            return;
        }
        // Under the lock, so that a supervisor which is about to end does not miss it.
        if let Some(held) = self.held().get(key) {
            held.given_back();
        }
        if let Some(at) = written.due_at {
            self.due(at);
        }
    }

    fn remote(&self, key: &Key) {
        if let Some(held) = self.find(key) {
            held.news();
        }
    }

    fn due(&self, at: Timestamp) {
        let mut next = self.next_due.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_none_or(|next| at < next) {
            *next = Some(at);
            self.wake.notify_one();
        }
    }

    fn hint(&self, key: &Key) -> bool {
        self.find(key).is_some_and(|held| held.hint())
    }

    fn room(&self, key: &Key) -> Option<(Claimant, OwnedSemaphorePermit)> {
        if !self.kinds.contains_key(&*key.kind) || self.stop.is_cancelled() {
            return None;
        }
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some((self.claimant.clone(), permit))
    }

    fn claimed(self: Arc<Self>, key: Key, attempts: u32, permit: OwnedSemaphorePermit) {
        self.hold(key, attempts, true, Some(permit));
    }
}
