//! Commands on several aggregates of one database, all or nothing.

use std::{collections::BTreeMap, fmt, sync::Arc};

use slipway_model::Id;
use tokio::sync::Mutex;

use crate::{
    Decider, ExecuteError, Ledger, LedgerError, Meta, Request, Snapshot, TransactError,
    commit::Failure,
    decision::{AnyDecision, Decision},
    ledger::{TRIES, breathe},
    read::Read,
    store::{Append, Batch, Clash, Result},
    types::Key,
};

/// A transaction in the making. Everything that was read through it is checked when it is written: if one of the
/// aggregates has moved on by then, the closure runs again on what is there now.
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
    /// Something came from memory, so a no may be out of date.
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

    /// Decides `command`, and shows the state after it. Nothing is written before the closure returns `Ok`.
    ///
    /// # Errors
    /// The decider's refusal: return it to write nothing, or go on without.
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
            let (loaded, cached) = self.ledger.load::<D>(&key, self.read).await?;
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
    /// An idempotency key stands for the first aggregate that `f` decided on; a request that was carried out before
    /// ends in [`TransactError::Replayed`], which names it.
    ///
    /// # Errors
    /// What `f` returned, and those of [`TransactError`].
    pub async fn transact<T, E, F, Fut>(
        &self,
        meta: &Meta,
        request: Option<&Request>,
        f: F,
    ) -> Result<T, TransactError<E>>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let request = request.filter(|request| !request.request_id.is_empty());
        if let Some(replay) = self.replayed(request).await? {
            return Err(replay);
        }
        let mut read = Read::Cached(0);
        let mut turns = Vec::new();
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
                return Ok(value);
            };
            let keys: Vec<Key> = decisions.keys().cloned().collect();
            let appends: Vec<Append> = decisions
                .into_values()
                .map(AnyDecision::append)
                .collect::<Result<_>>()?;
            let request_row = request.map(|request| (request.clone(), subject));
            match self
                .append(Batch {
                    appends,
                    request: request_row,
                })
                .await
            {
                Ok(()) => return Ok(value),
                Err(Failure::Clash(Clash::Request)) => {
                    if let Some(replay) = self.replayed(request).await? {
                        return Err(replay);
                    }
                }
                Err(Failure::Clash(Clash::Seq)) => {
                    // In order of the keys, as everybody does: nobody waits in a circle.
                    turns.clear();
                    for key in &keys {
                        self.shared.cache.remove(key);
                        turns.push(self.turns().take(key).await);
                    }
                    breathe(round).await;
                }
                Err(Failure::Ledger(error)) => return Err(error.into()),
            }
        }
        Err(TransactError::Conflict)
    }

    async fn replayed<E>(&self, request: Option<&Request>) -> Result<Option<TransactError<E>>> {
        let Some(request) = request else {
            return Ok(None);
        };
        Ok(self.shared.store.request(request).await?.map(|known| {
            if known.fingerprint == request.fingerprint {
                TransactError::Replayed {
                    kind: known.kind,
                    id: known.id,
                }
            } else {
                TransactError::RequestIdReused {
                    request_id: request.request_id.clone(),
                }
            }
        }))
    }
}
