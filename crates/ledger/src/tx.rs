//! Commands on several aggregates of one database, all or nothing.

use std::{collections::BTreeMap, fmt, sync::Arc};

use slipway_model::Id;
use tokio::sync::Mutex;

use crate::{
    Decider, ExecuteError, Executed, IdempotencyKey, Ledger, LedgerError, Meta, Snapshot, TransactError,
    commit::Failure,
    decision::{AnyDecision, Decision},
    ledger::{TRIES, breathe},
    load::Read,
    store::{Append, Batch, Clash, Result},
    types::Key,
};

/// A transaction under construction. Everything that was read through it is checked when it is written: if one of the
/// aggregates has moved on by then, the closure runs again on the new state.
#[derive(Clone)]
pub struct Tx {
    ledger: Ledger,
    meta: Meta,
    read: Read,
    work: Arc<Mutex<Work>>,
}

#[derive(Default)]
struct Work {
    decisions: BTreeMap<Key, Box<dyn AnyDecision>>,
    /// What an idempotency key stands for: the first aggregate that was decided on.
    subject: Option<Key>,
    /// Something came from memory, so a refusal may be out of date.
    cached: bool,
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl Tx {
    /// The aggregate, with what this transaction already decided.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get<D: Decider>(&self, id: &Id) -> Result<Option<Snapshot<D>>> {
        self.with::<D, _>(id, |decision, _| decision.exists().then(|| decision.snapshot()))
            .await
    }

    /// Decides `command`, and returns the state after it. Nothing is written before the closure returns `Ok`.
    ///
    /// # Errors
    /// The decider's refusal: return it to write nothing, or continue without.
    pub async fn decide<D: Decider>(
        &self,
        id: &Id,
        command: D::Command,
    ) -> Result<Snapshot<D>, ExecuteError<D::Refusal>> {
        let now = self.ledger.now();
        let limit = self.ledger.shared.config.max_event_bytes;
        self.with::<D, _>(id, |decision, subject| {
            if decision.decide(command, now, &self.meta, limit)? > 0 {
                subject.get_or_insert_with(|| Key::of::<D>(id));
            }
            Ok(decision.snapshot())
        })
        .await?
    }

    async fn with<D: Decider, T>(
        &self,
        id: &Id,
        act: impl FnOnce(&mut Decision<D>, &mut Option<Key>) -> T + Send,
    ) -> Result<T> {
        let key = Key::of::<D>(id);
        let mut work = self.work.lock().await;
        if !work.decisions.contains_key(&key) {
            let (loaded, cached) = self.ledger.shared.load::<D>(&key, self.read).await?;
            work.cached |= cached;
            work.decisions
                .insert(key.clone(), Box::new(Decision::<D>::on(key.clone(), loaded)));
        }
        let Work {
            decisions, subject, ..
        } = &mut *work;
        let decision = decisions
            .get_mut(&key)
            .and_then(|decision| (decision.as_mut() as &mut dyn std::any::Any).downcast_mut::<Decision<D>>())
            .ok_or_else(|| LedgerError::Config(format!("two deciders share the kind {:?}", D::KIND)))?;
        Ok(act(decision, subject))
    }
}

impl Ledger {
    /// Runs `f`, then writes everything it decided in one transaction. `f` may run several times, and so must do
    /// nothing but decide.
    ///
    /// # Errors
    /// What `f` returned, and those of [`TransactError`].
    pub async fn transact<T, E, F, Fut>(&self, meta: &Meta, f: F) -> Result<T, TransactError<E>>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        // Without a key, none is recorded.
        let done = self.write_together(meta, None, f).await?;
        done.ok_or(TransactError::Conflict)
    }

    /// As [`transact`](Self::transact), at most once for each key, which stands for the first aggregate that `f`
    /// decides on: the one whose snapshot it returns. The same key with the same command returns that aggregate as it
    /// is now.
    ///
    /// # Errors
    /// [`TransactError::RequestIdReused`] for the same key with another command, and those of `transact`.
    pub async fn transact_once<D, E, F, Fut>(
        &self,
        key: &IdempotencyKey,
        meta: &Meta,
        f: F,
    ) -> Result<Executed<D>, TransactError<E>>
    where
        D: Decider,
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<Snapshot<D>, E>>,
    {
        let remembered = Some(key).filter(|key| !key.request_id.is_empty());
        for _ in 0..TRIES {
            if let Some(snapshot) = self.replayed::<D>(key).await? {
                return Ok(Executed {
                    snapshot,
                    replayed: true,
                });
            }
            // `None`: the same request came twice at the same time, and the other one was first.
            if let Some(snapshot) = self.write_together(meta, remembered, &f).await? {
                return Ok(Executed {
                    snapshot,
                    replayed: false,
                });
            }
        }
        Err(TransactError::Conflict)
    }

    /// `None` when the key was taken in the meantime.
    async fn write_together<T, E, F, Fut>(
        &self,
        meta: &Meta,
        once: Option<&IdempotencyKey>,
        f: F,
    ) -> Result<Option<T>, TransactError<E>>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut read = Read::Cached(0);
        let mut guards = Vec::new();
        for round in 0..TRIES {
            let tx = Tx {
                ledger: self.clone(),
                meta: meta.clone(),
                read,
                work: Arc::default(),
            };
            read = Read::Fresh;
            let outcome = f(tx.clone()).await;
            let Work {
                decisions,
                subject,
                cached,
            } = std::mem::take(&mut *tx.work.lock().await);
            let value = match outcome {
                Ok(value) => value,
                Err(_) if cached => continue,
                Err(error) => return Err(TransactError::Aborted(error)),
            };
            let Some(subject) = subject else {
                if cached {
                    continue;
                }
                return Ok(Some(value));
            };
            let keys: Vec<Key> = decisions.keys().cloned().collect();
            let appends: Vec<Append> = decisions
                .into_values()
                .map(AnyDecision::append)
                .collect::<Result<_>>()?;
            let request = once.map(|once| (once.clone(), subject));
            match self.append(Batch { appends, request }).await {
                Ok(()) => return Ok(Some(value)),
                Err(Failure::Clash(Clash::Request)) => return Ok(None),
                Err(Failure::Clash(Clash::Seq)) => {
                    // In order of the keys, as everywhere, so there are no deadlocks.
                    guards.clear();
                    for key in &keys {
                        self.shared.cache.remove(key);
                        guards.push(self.serial().take(key).await);
                    }
                    breathe(round).await;
                }
                Err(Failure::Ledger(error)) => return Err(error.into()),
            }
        }
        Err(TransactError::Conflict)
    }
}
