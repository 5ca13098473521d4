//! One shared watch per cluster, namespace and kind, however many deployments are verified through it.
//!
//! The first follower of a namespace starts its three watches (Deployments, ReplicaSets, Pods); they end a while
//! after the last one has gone. What arrives goes into an index ([`store`]) and wakes only those who follow the
//! Deployment concerned, so that cost grows with what changes and not with what is watched. Expired versions, 410
//! Gone, dropped connections and restarts are the watcher's own business (kube-runtime): the view stays as it was
//! until a new list replaces it as a whole, and [`View::fault`] says that it may be behind.

mod store;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, ExponentialBackoff},
    },
};
use tokio::{
    sync::watch::{Receiver, Sender},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use slipway_verdict::{Observed, cut};

use store::Stores;

/// How long a namespace stays watched after its last follower: releases come in rows, and a list is dear.
const LINGER: Duration = Duration::from_secs(60);
/// Between tries to reach an API server that is away: quick at first, so that a restart costs little.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The watches on one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Watches {
    client: Client,
    namespaces: Arc<Mutex<HashMap<String, Arc<Namespace>>>>,
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").finish_non_exhaustive()
    }
}

/// What is watched in one namespace, and who wants to know.
struct Namespace {
    stores: Mutex<Stores>,
    /// By the name of the Deployment that is followed.
    followers: Mutex<HashMap<String, Follower>>,
    stop: CancellationToken,
}

/// All who follow one Deployment share a counter that grows with each change.
struct Follower {
    count: usize,
    changed: Sender<u64>,
}

/// What the watch shows now.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All three lists have arrived at least once; before that, absence means nothing.
    pub synced: bool,
    pub observed: Observed,
    /// Why the view may be behind. A watch that is quiet after it was taken up again clears nothing: ask the API
    /// server.
    pub fault: Option<Fault>,
}

/// A watch that was interrupted.
#[derive(Debug, Clone)]
pub struct Fault {
    pub words: String,
    /// When it was tried last.
    pub at: Instant,
}

/// Follows one Deployment until dropped.
pub struct Subscription {
    watches: Watches,
    namespace: Arc<Namespace>,
    key: (String, String),
    changed: Receiver<u64>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// What the watch shows now. Changes that come after this call wake [`changed`](Self::changed).
    pub fn view(&mut self) -> View {
        self.changed.mark_unchanged();
        lock(&self.namespace.stores).view(&self.key.1)
    }

    /// Waits for the next change of the Deployment, its ReplicaSets or its pods, or of the watch's health.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The sender lives as long as its followers; should it be gone, there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut followers = lock(&self.namespace.followers);
        if let Some(follower) = followers.get_mut(&self.key.1) {
            follower.count -= 1;
            if follower.count == 0 {
                followers.remove(&self.key.1);
            }
        }
        let last = followers.is_empty();
        drop(followers);
        if last {
            self.watches
                .linger(self.key.0.clone(), Arc::clone(&self.namespace));
        }
    }
}

impl Watches {
    /// Nothing is watched until someone follows.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            namespaces: Arc::default(),
        }
    }

    /// Follows one Deployment. Must be called within a tokio runtime.
    pub fn follow(&self, namespace: &str, deployment: &str) -> Subscription {
        let mut namespaces = lock(&self.namespaces);
        let watched = match namespaces.get(namespace) {
            Some(watched) => Arc::clone(watched),
            None => {
                let watched = self.start(namespace);
                namespaces.insert(namespace.to_owned(), Arc::clone(&watched));
                watched
            }
        };
        // Under the lock of the namespaces, so that a lingering end cannot come between.
        let mut followers = lock(&watched.followers);
        let follower = followers
            .entry(deployment.to_owned())
            .or_insert_with(|| Follower {
                count: 0,
                changed: Sender::new(0),
            });
        follower.count += 1;
        let changed = follower.changed.subscribe();
        drop(followers);
        Subscription {
            watches: self.clone(),
            namespace: watched,
            key: (namespace.to_owned(), deployment.to_owned()),
            changed,
        }
    }

    /// How many namespaces are watched now; each has three connections.
    pub fn namespaces(&self) -> usize {
        lock(&self.namespaces).len()
    }

    fn start(&self, namespace: &str) -> Arc<Namespace> {
        let watched = Arc::new(Namespace {
            stores: Mutex::default(),
            followers: Mutex::default(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(run::<Deployment>(
            Api::namespaced(self.client.clone(), namespace),
            Arc::clone(&watched),
            |stores, event| stores.deployment(event),
        ));
        tokio::spawn(run::<ReplicaSet>(
            Api::namespaced(self.client.clone(), namespace),
            Arc::clone(&watched),
            |stores, event| stores.replica_set(event),
        ));
        tokio::spawn(run::<Pod>(
            Api::namespaced(self.client.clone(), namespace),
            Arc::clone(&watched),
            |stores, event| stores.pod(event),
        ));
        watched
    }

    /// Ends the namespace's watches when nobody has followed again for a while.
    fn linger(&self, name: String, watched: Arc<Namespace>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            watched.stop.cancel();
            return;
        };
        let namespaces = Arc::clone(&self.namespaces);
        runtime.spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut namespaces = lock(&namespaces);
            let unused = lock(&watched.followers).is_empty();
            let same = namespaces
                .get(&name)
                .is_some_and(|one| Arc::ptr_eq(one, &watched));
            if unused && same {
                namespaces.remove(&name);
                watched.stop.cancel();
            }
        });
    }
}

/// Whom a change concerns.
pub(crate) enum Concerns {
    Nobody,
    /// The Deployment of that name.
    One(String),
    Everybody,
}

/// Feeds one kind's events into the stores until the namespace is no longer watched.
async fn run<K>(
    api: Api<K>,
    watched: Arc<Namespace>,
    apply: impl Fn(&mut Stores, Event<K>) -> Concerns + Send,
) where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times();
    let events = watcher::watcher(api, watcher::Config::default()).backoff(ExponentialBackoff::from(backoff));
    let mut events = std::pin::pin!(events);
    loop {
        let next = tokio::select! {
            () = watched.stop.cancelled() => return,
            next = events.next() => next,
        };
        let concerns = {
            let mut stores = lock(&watched.stores);
            match next {
                Some(Ok(event)) => {
                    let healed = stores.heal(&kind);
                    match apply(&mut stores, event) {
                        _ if healed => Concerns::Everybody,
                        concerns => concerns,
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(kind, %error, "watch interrupted");
                    stores.fail(&kind, cut(&error.to_string()))
                }
                None => return,
            }
        };
        watched.tell(&concerns);
    }
}

impl Namespace {
    fn tell(&self, concerns: &Concerns) {
        let followers = lock(&self.followers);
        let wake = |follower: &Follower| {
            follower
                .changed
                .send_modify(|count| *count = count.wrapping_add(1));
        };
        match concerns {
            Concerns::Nobody => {}
            Concerns::One(name) => followers.get(name).into_iter().for_each(wake),
            Concerns::Everybody => followers.values().for_each(wake),
        }
    }
}

/// A panic while a lock was held is a defect of its own; the maps stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
