//! Group commit: appends from many tasks share transactions.
//!
//! One dispatcher takes what has queued up while the last transaction was being written and hands it over as one group;
//! there is no timer, so a single append does not wait, and many concurrent ones fill the groups by themselves. Up to
//! [`IN_FLIGHT`] groups are written at the same time, so that one's rows are written while the other waits for the
//! disk. Groups in flight never share an aggregate: a batch that touches a busy one waits for that group's end (and,
//! having been decided on the state before it, usually finds then that it lost).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    LedgerError,
    shared::Shared,
    store::{Batch, Clash, Written},
    types::Key,
};

/// Concurrent transactions, if the database allows more than one writer.
const IN_FLIGHT: usize = 2;
/// How often other tasks get to run without new batches before a group is closed.
const QUIET: u32 = 8;
/// Batches that may queue up before callers have to wait.
pub(crate) const QUEUE: usize = 4096;
/// How often a group is tried on a database with a transient fault, with growing pauses (about 3 s in all).
const TRIES: u32 = 6;

/// A batch to be written, and the channel to its caller.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) batch: Batch,
    /// One for each append that is to be run here: a slot in the executor, reserved beforehand.
    pub(crate) permits: Vec<Option<OwnedSemaphorePermit>>,
    pub(crate) reply: oneshot::Sender<Result<(), Failure>>,
}

/// Why a batch was not appended.
#[derive(Debug)]
pub(crate) enum Failure {
    Clash(Clash),
    Ledger(LedgerError),
}

/// Runs until every sender is gone and everything is written.
pub(crate) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Job>, group_size: usize) {
    let in_flight = if shared.single_writer { 1 } else { IN_FLIGHT };
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut busy: HashSet<Key> = HashSet::new();
    let mut flights: JoinSet<()> = JoinSet::new();
    let mut routes: HashMap<tokio::task::Id, Vec<Key>> = HashMap::new();
    // How many the last group held, and so how many may come again.
    let mut answered = 0;
    let mut open = true;
    while open || !waiting.is_empty() || !flights.is_empty() {
        tokio::select! {
            job = queue.recv(), if open => match job {
                Some(job) => waiting.push_back(job),
                None => open = false,
            },
            Some(done) = flights.join_next_with_id() => {
                let flight = match done {
                    Ok((flight, ())) => flight,
                    Err(error) => {
                        tracing::error!(%error, "a committer failed");
                        error.id()
                    }
                };
                let keys = routes.remove(&flight).unwrap_or_default();
                answered = keys.len();
                for key in keys {
                    busy.remove(&key);
                }
            }
        }
        // Those who were just answered get to submit their next batches before the group is closed.
        let mut quiet = 0;
        while flights.len() < in_flight && waiting.len() < answered && quiet < QUIET {
            tokio::task::yield_now().await;
            quiet += 1;
            while let Ok(job) = queue.try_recv() {
                waiting.push_back(job);
                quiet = 0;
            }
        }
        while let Ok(job) = queue.try_recv() {
            waiting.push_back(job);
        }
        while flights.len() < in_flight {
            let group = next_group(&mut waiting, &busy, group_size);
            if group.is_empty() {
                break;
            }
            let keys: Vec<Key> = group
                .iter()
                .flat_map(|job| &job.batch.appends)
                .map(|append| append.key.clone())
                .collect();
            busy.extend(keys.iter().cloned());
            let shared = Arc::clone(&shared);
            let flight = flights.spawn(async move { write(&shared, group).await }).id();
            routes.insert(flight, keys);
        }
    }
}

/// The first batches that touch nothing busy and nothing that an earlier batch still waits for.
fn next_group(waiting: &mut VecDeque<Job>, busy: &HashSet<Key>, limit: usize) -> Vec<Job> {
    let mut group = Vec::new();
    let mut kept = VecDeque::new();
    let mut taken: HashSet<Key> = HashSet::new();
    while group.len() < limit
        && let Some(job) = waiting.pop_front()
    {
        let free = job
            .batch
            .appends
            .iter()
            .all(|append| !busy.contains(&append.key) && !taken.contains(&append.key));
        taken.extend(job.batch.appends.iter().map(|append| append.key.clone()));
        if free {
            group.push(job);
        } else {
            kept.push_back(job);
        }
    }
    kept.append(waiting);
    *waiting = kept;
    group
}

async fn write(shared: &Shared, group: Vec<Job>) {
    // Callers that have already lost are answered without asking the database.
    let (lost, group): (Vec<Job>, Vec<Job>) = group.into_iter().partition(|job| {
        job.batch.appends.iter().any(|append| {
            shared
                .cache
                .get(&append.key)
                .is_some_and(|cached| cached.seq > append.expected)
        })
    });
    for job in lost {
        let _ = job.reply.send(Err(Failure::Clash(Clash::Seq)));
    }
    if group.is_empty() {
        return;
    }
    let (mut batches, mut replies) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
    for job in group {
        batches.push(job.batch);
        replies.push((job.permits, job.reply));
    }
    let result = persistently(shared, &batches).await;
    match result {
        Ok(outcomes) => {
            slipway_faults::appended(
                batches
                    .iter()
                    .zip(&outcomes)
                    .filter(|(_, outcome)| outcome.is_ok())
                    .map(|(batch, _)| batch.appends.iter().filter(|append| append.writes()).count() as u64)
                    .sum(),
            );
            for ((batch, outcome), (permits, reply)) in batches.into_iter().zip(outcomes).zip(replies) {
                let answer = match outcome {
                    Ok(written) => {
                        publish(shared, &batch, &written, permits);
                        Ok(())
                    }
                    Err(clash) => Err(Failure::Clash(clash)),
                };
                // If a caller went away, its events are still written.
                let _ = reply.send(answer);
            }
            shared.hub.tick();
        }
        Err(error) => {
            let text = error.to_string();
            for (_, reply) in replies {
                let _ = reply.send(Err(Failure::Ledger(LedgerError::Database {
                    doing: "appending",
                    transient: error.is_transient(),
                    source: text.clone().into(),
                })));
            }
        }
    }
}

/// A group may be retried: what was written although the answer was lost is recognised by its hash.
async fn persistently(
    shared: &Shared,
    group: &[Batch],
) -> Result<Vec<Result<Vec<Written>, Clash>>, LedgerError> {
    let mut pause = Duration::from_millis(50);
    let mut again = false;
    for _ in 1..TRIES {
        match shared.store.commit(group, again).await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, batches = group.len(), "an append failed; retrying");
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                pause *= 2;
                again = true;
            }
            result => return result,
        }
    }
    shared.store.commit(group, again).await
}

fn publish(shared: &Shared, batch: &Batch, written: &[Written], permits: Vec<Option<OwnedSemaphorePermit>>) {
    let hook = shared.hook();
    for ((append, written), permit) in batch.appends.iter().zip(written).zip(permits) {
        if !append.writes() {
            continue;
        }
        shared.cache.put(&append.key, &append.next);
        if let Some(hook) = &hook {
            Arc::clone(hook).committed(&append.key, *written, permit);
        }
        shared.hub.publish(&append.key, append.next.seq);
    }
}
