//! What a follower holds, and sees.

use std::sync::{Arc, MutexGuard};

use k8s_openapi::api::batch::v1::Job;
use slipway_verdict::Observed;
use tokio::{sync::watch::Receiver, time::Instant};

use super::{Key, State, Watches};

/// What the watch shows now.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All lists have arrived at least once; before that, absence means nothing.
    pub synced: bool,
    pub observed: Observed,
    /// Why the view may be behind.
    pub fault: Option<Interruption>,
}

/// What the watch shows of a Job now.
#[derive(Debug, Clone, Default)]
pub struct JobView {
    /// The list has arrived at least once; before that, absence means nothing.
    pub synced: bool,
    pub job: Option<Arc<Job>>,
    /// Why the view may be behind.
    pub fault: Option<Interruption>,
}

/// A watch that is interrupted. It disappears from the view as soon as the watch is known to run again.
#[derive(Debug, Clone)]
pub struct Interruption {
    /// Without the cluster's name.
    pub words: String,
    /// When it was last tried.
    pub at: Instant,
    /// The API server does not know the kind: its CRD is not installed.
    pub absent: bool,
}

/// Follows one workload until dropped.
#[derive(Debug)]
pub struct Subscription(Following);

impl Subscription {
    pub(super) const fn new(following: Following) -> Self {
        Self(following)
    }

    /// What the watch shows now. Changes that come after this call wake [`changed`](Self::changed).
    pub fn view(&mut self) -> View {
        let (state, key) = self.0.look();
        View {
            synced: state.synced(key),
            observed: state.stores.observed(key.kind, &key.namespace, &key.name),
            fault: state.fault(key),
        }
    }

    /// What the watch shows now, without counting it as seen: what has changed still wakes [`changed`](Self::changed).
    pub fn peek(&self) -> Observed {
        let state = self.0.watches.0.state();
        let key = &self.0.key;
        state.stores.observed(key.kind, &key.namespace, &key.name)
    }

    /// Waits for the next change of the workload, of what belongs to it, or of the watches' health.
    pub async fn changed(&mut self) {
        self.0.changed().await;
    }
}

/// Follows one Job until dropped.
#[derive(Debug)]
pub struct JobSubscription(Following);

impl JobSubscription {
    pub(super) const fn new(following: Following) -> Self {
        Self(following)
    }

    /// What the watch shows now. Changes that come after this call wake [`changed`](Self::changed).
    pub fn view(&mut self) -> JobView {
        let (state, key) = self.0.look();
        JobView {
            synced: state.synced(key),
            job: state.stores.jobs.get(&key.namespace, &key.name).cloned(),
            fault: state.fault(key),
        }
    }

    /// Waits for the next change of the Job, or of the watch's health.
    pub async fn changed(&mut self) {
        self.0.changed().await;
    }
}

/// What both have in common.
pub(super) struct Following {
    watches: Watches,
    key: Key,
    changed: Receiver<u64>,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Following {
    pub(super) const fn new(watches: Watches, key: Key, changed: Receiver<u64>) -> Self {
        Self {
            watches,
            key,
            changed,
        }
    }

    fn look(&mut self) -> (MutexGuard<'_, State>, &Key) {
        self.changed.mark_unchanged();
        (self.watches.0.state(), &self.key)
    }

    async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The sender lives as long as its followers; if it is gone, there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.watches.0.leave(&self.key);
    }
}
