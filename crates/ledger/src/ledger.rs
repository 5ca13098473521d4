//! The handle: open, carry out commands, hint, close.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use slipway_model::{Id, Timestamp};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    Committed, Decider, ExecuteError, Executed, IdempotencyKey, LedgerConfig, LedgerError, Meta, Parking,
    ReplayError, Snapshot,
    cache::Cache,
    clock::Clock,
    commit::{self, Failure, Job},
    decision::Decision,
    hook::Hook,
    hub::Hub,
    load::Read,
    postgres::Postgres,
    serial::Serial,
    shared::Shared,
    sqlite::Sqlite,
    store::{Batch, Clash, Hinted, Remote, Result, Store},
    types::Key,
};

/// How often a command is decided again because another writer was faster.
pub(crate) const TRIES: u32 = 40;
/// The durable core of one service: one database, any number of replicas. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Tasks {
    /// `None` once closed.
    queue: RwLock<Option<mpsc::Sender<Job>>>,
    committer: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    listener: JoinHandle<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // The committer ends by itself when its queue is gone, after writing what is in it.
        self.listener.abort();
    }
}

impl Ledger {
    /// Connects, migrates the tables under a lock, and starts the committer and the listener.
    ///
    /// # Errors
    /// [`LedgerError::Config`] for a URL that is neither PostgreSQL nor SQLite, [`LedgerError::Database`] otherwise.
    pub async fn open(config: LedgerConfig) -> Result<Self> {
        // Leases belong to this process only: its successor under the same name is a different holder.
        let owner = format!("{}/{}", config.replica, uuid::Uuid::now_v7());
        let scheme = config.url.split_once(':').map_or("", |(scheme, _)| scheme);
        let (store, single_writer): (Arc<dyn Store>, bool) = match scheme {
            "postgres" | "postgresql" => {
                let opening: BoxFuture<'_, Result<Postgres>> = Box::pin(Postgres::open(&config, owner));
                (Arc::new(opening.await?), false)
            }
            "sqlite" => {
                let opening: BoxFuture<'_, Result<Sqlite>> = Box::pin(Sqlite::open(&config, owner));
                (Arc::new(opening.await?), true)
            }
            _ => return Err(unknown_scheme()),
        };
        let shared = Arc::new(Shared {
            cache: Cache::new(config.cache_entries),
            hub: Arc::new(Hub::new()),
            clock: Clock::new(store.now().await?),
            serial: Serial::default(),
            hook: RwLock::new(None),
            store,
            single_writer,
            config,
        });
        let (queue, jobs) = mpsc::channel(commit::QUEUE);
        let committer = tokio::spawn(commit::run(Arc::clone(&shared), jobs, shared.config.group_size));
        let remote = shared.store.remote().await?;
        let listener = tokio::spawn(listen(Arc::clone(&shared), remote));
        Ok(Self {
            shared,
            tasks: Arc::new(Tasks {
                queue: RwLock::new(Some(queue)),
                committer: tokio::sync::Mutex::new(Some(committer)),
                listener,
            }),
        })
    }

    /// Whether the database can be reached and written, without opening it: nothing is created, migrated or claimed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn check(config: &LedgerConfig) -> Result<()> {
        match config.url.split_once(':').map_or("", |(scheme, _)| scheme) {
            "postgres" | "postgresql" => Postgres::check(config).await,
            "sqlite" => Sqlite::check(config).await,
            _ => Err(unknown_scheme()),
        }
    }

    /// Writes what is queued, then disconnects. Later calls fail with [`LedgerError::Closed`].
    pub async fn close(&self) {
        drop(
            self.tasks
                .queue
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        if let Some(committer) = self.tasks.committer.lock().await.take()
            && let Err(error) = committer.await
        {
            tracing::error!(%error, "the committer failed");
        }
        self.tasks.listener.abort();
        self.shared.store.close().await;
    }

    /// The producing service's name.
    pub fn origin(&self) -> &str {
        &self.shared.config.origin
    }

    /// The database's time, estimated (see the clock module): what commands are decided with.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Loads (from memory if possible), decides, appends. If another writer was faster, loads and decides again; a
    /// refusal or an empty decision on a state from memory is repeated on the state in the database.
    ///
    /// # Errors
    /// The decider's refusal, and those of [`ExecuteError`].
    pub async fn execute<D: Decider>(
        &self,
        id: &Id,
        mut command_fn: impl FnMut() -> D::Command + Send,
        meta: &Meta,
    ) -> Result<Snapshot<D>, ExecuteError<D::Refusal>> {
        match self.carry_out::<D>(id, &mut command_fn, meta, None, None).await? {
            Outcome::Done { snapshot, .. } => Ok(snapshot),
            Outcome::RequestTaken => Err(LedgerError::Closed.into()),
        }
    }

    /// What the same request created or changed before, as it is now; `None` if it was not carried out yet, and for a
    /// key that is not idempotent. Ask this first if deciding a request again would depend on something that may have
    /// changed since.
    ///
    /// # Errors
    /// [`ReplayError::RequestIdReused`] when the request id was used with another command or for another kind of
    /// aggregate.
    pub async fn replayed<D: Decider>(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<Snapshot<D>>, ReplayError> {
        if key.request_id.is_empty() {
            return Ok(None);
        }
        let Some(known) = self.shared.store.request(key).await? else {
            return Ok(None);
        };
        if known.fingerprint != key.fingerprint || known.kind != D::KIND {
            return Err(ReplayError::RequestIdReused {
                request_id: key.request_id.clone(),
            });
        }
        Ok(self.get::<D>(&known.id).await?)
    }

    /// As [`execute`](Self::execute), at most once for each key. The same key with the same command returns the
    /// aggregate as it is now, under the id of the first time; a command that was refused or did nothing is not
    /// remembered.
    ///
    /// # Errors
    /// [`ExecuteError::RequestIdReused`] for the same key with another command, and those of `execute`.
    pub async fn execute_once<D: Decider>(
        &self,
        key: &IdempotencyKey,
        id: &Id,
        mut command_fn: impl FnMut() -> D::Command + Send,
        meta: &Meta,
    ) -> Result<Executed<D>, ExecuteError<D::Refusal>> {
        let remembered = Some(key).filter(|key| !key.request_id.is_empty());
        for _ in 0..TRIES {
            if let Some(snapshot) = self.replayed::<D>(key).await? {
                return Ok(Executed {
                    snapshot,
                    replayed: true,
                });
            }
            match self
                .carry_out::<D>(id, &mut command_fn, meta, remembered, None)
                .await?
            {
                Outcome::Done { snapshot, .. } => {
                    return Ok(Executed {
                        snapshot,
                        replayed: false,
                    });
                }
                // The same request came twice concurrently, and the other one was first.
                Outcome::RequestTaken => {}
            }
        }
        Err(ExecuteError::Conflict {
            kind: D::KIND.to_owned(),
            id: id.clone(),
        })
    }

    /// The only way in which a command on one aggregate is carried out.
    pub(crate) async fn carry_out<D: Decider>(
        &self,
        id: &Id,
        command_fn: &mut (impl FnMut() -> D::Command + Send),
        meta: &Meta,
        once: Option<&IdempotencyKey>,
        polled: Option<Timestamp>,
    ) -> Result<Outcome<D>, ExecuteError<D::Refusal>> {
        let key = Key::of::<D>(id);
        let limit = self.shared.config.max_event_bytes;
        let _serial = self.shared.serial.take(&key).await;
        let mut read = Read::Cached(0);
        for round in 0..TRIES {
            let (loaded, cached) = self.shared.load::<D>(&key, read).await?;
            read = Read::Fresh;
            let mut decision = Decision::<D>::on(key.clone(), loaded);
            match decision.decide(command_fn(), self.now(), meta, limit) {
                Err(ExecuteError::Refused(_)) | Ok(0) if cached => continue,
                Err(error) => return Err(error),
                Ok(0) => {
                    return Ok(Outcome::Done {
                        snapshot: decision.snapshot(),
                        appended: false,
                    });
                }
                Ok(_) => {}
            }
            let snapshot = decision.snapshot();
            let append = decision.append(polled)?;
            let request = once.map(|once| (once.clone(), key.clone()));
            match self
                .append(Batch {
                    appends: vec![append],
                    request,
                })
                .await
            {
                Ok(()) => {
                    return Ok(Outcome::Done {
                        snapshot,
                        appended: true,
                    });
                }
                Err(Failure::Clash(Clash::Request)) => return Ok(Outcome::RequestTaken),
                Err(Failure::Clash(Clash::Seq)) => {
                    self.shared.cache.remove(&key);
                    breathe(round).await;
                }
                Err(Failure::Ledger(error)) => return Err(error.into()),
            }
        }
        Err(ExecuteError::Conflict {
            kind: D::KIND.to_owned(),
            id: id.clone(),
        })
    }

    /// Hands a batch to the committer and waits until it is durable.
    pub(crate) async fn append(&self, mut batch: Batch) -> Result<(), Failure> {
        let hook = self.shared.hook();
        let permits = batch
            .appends
            .iter_mut()
            .map(|append| {
                let hook = hook.as_ref().filter(|_| append.writes())?;
                let (wish, permit) = hook.wish(&append.key, &append.schedule);
                append.wish = wish;
                permit
            })
            .collect();
        let queue = self
            .tasks
            .queue
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (reply, answer) = oneshot::channel();
        let closed = || Failure::Ledger(LedgerError::Closed);
        queue
            .ok_or_else(closed)?
            .send(Job {
                batch,
                permits,
                reply,
            })
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Makes the aggregate due now, so that what it polls is asked at once. Not an event: only the time is recorded.
    /// Unknown ids are ignored.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn hint(&self, kind: &str, id: &Id) -> Result<()> {
        let key = Key::new(kind, id);
        let hook = self.shared.hook();
        if hook.as_ref().is_some_and(|hook| hook.hint(&key)) {
            return Ok(());
        }
        let room = hook.as_ref().and_then(|hook| hook.room(&key));
        let claimant = room.as_ref().map(|(claimant, _)| claimant);
        if let Hinted::Claimed { now, attempts } = self.shared.store.hint(&key, claimant).await?
            && let (Some(hook), Some((_, permit))) = (hook, room)
        {
            self.shared.clock.told(now);
            hook.claimed(key, attempts, permit);
        }
        Ok(())
    }

    /// Resumes a parked aggregate: it is due now. Returns why it was parked; `None` when it was not.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn resume(&self, kind: &str, id: &Id) -> Result<Option<Parking>> {
        let key = Key::new(kind, id);
        let resumed = self.shared.store.resume(&key).await?;
        self.shared.cache.remove(&key);
        if let Some(hook) = self.shared.hook() {
            hook.due(self.now());
        }
        Ok(resumed)
    }

    /// Appends of this process and, as far as notifications arrive, of other replicas: for hints, not for state.
    pub fn subscribe_commits(&self) -> broadcast::Receiver<Committed> {
        self.shared.hub.subscribe()
    }

    pub(crate) fn set_hook(&self, hook: Weak<dyn Hook>) {
        *self.shared.hook.write().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    pub(crate) fn serial(&self) -> &Serial {
        &self.shared.serial
    }
}

fn unknown_scheme() -> LedgerError {
    LedgerError::Config("the url must begin with postgres:// or sqlite://".to_owned())
}

/// The result of a command.
pub(crate) enum Outcome<D: Decider> {
    Done {
        snapshot: Snapshot<D>,
        appended: bool,
    },
    /// Its idempotency key was taken in the meantime.
    RequestTaken,
}

/// After a lost race against another replica: longer with each try, up to 20 ms.
pub(crate) async fn breathe(round: u32) {
    if round > 0 {
        let most = Duration::from_millis(u64::from(round.min(20)));
        tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
    }
}

/// Passes on the notifications of other replicas.
async fn listen(shared: Arc<Shared>, mut remote: mpsc::Receiver<Remote>) {
    while let Some(message) = remote.recv().await {
        match message {
            Remote::Committed { kind, id, seq } => {
                let key = Key::new(&kind, &id);
                shared.cache.outdated(&key, seq);
                if let Some(hook) = shared.hook() {
                    hook.remote(&key);
                }
                shared.hub.publish(&key, seq);
                shared.hub.tick();
            }
            Remote::Due(at) => {
                if let Some(hook) = shared.hook() {
                    hook.due(at);
                }
            }
            Remote::Resync => {
                shared.cache.clear();
                shared.hub.tick();
                if let Some(hook) = shared.hook() {
                    hook.due(shared.clock.now());
                }
            }
        }
    }
}
