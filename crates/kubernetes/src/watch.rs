//! One shared watch per cluster, namespace scope and kind, however many deployments are verified through it.
//!
//! Following a workload opens watches on the kinds that belong to it ([`kinds`]), in the whole cluster or in its
//! namespace; the watches end a while after their last follower has gone. What arrives goes into an index ([`store`])
//! and wakes only the followers that it concerns, so that cost grows with what changes and not with what is watched.
//! Expired versions, dropped connections, restarts and throttling are handled by [`feed`]: the view stays as it was
//! until a new list replaces it, and [`View::fault`] says that it may be behind.

mod feed;
mod kinds;
mod slim;
mod store;
mod subscription;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::Pod,
};
use kube::Client;
use serde::Deserialize;
use slipway_model::Name;
use slipway_verdict::{
    Target, Workload,
    application::Application,
    objects::{canary::Canary, rollout::Rollout},
};
use tokio::{
    sync::{Notify, watch::Sender},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use kinds::{Custom, Kind};
use store::Stores;

pub(crate) use kinds::slim_workload;
use subscription::Following;
pub use subscription::{Interruption, JobSubscription, JobView, Subscription, View};

/// How long a kind stays watched after its last follower: releases come in series, and a list is expensive.
const LINGER: Duration = Duration::from_secs(60);
/// How far a watch may be behind an answer of the API server before it counts as dead.
const LAG: Duration = Duration::from_secs(2);

/// The scope of the watches on a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One watch of each kind for all namespaces. Needs `list` and `watch` in the whole cluster; if that is forbidden,
    /// [`Scope::Namespace`] is used instead.
    #[default]
    Cluster,
    /// One watch of each kind and namespace: needs no more than the namespaces' own permissions.
    Namespace,
}

/// The watches on one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Watches(Arc<Shared>);

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches")
            .field("cluster", &self.0.cluster)
            .finish_non_exhaustive()
    }
}

struct Shared {
    cluster: Name,
    client: Client,
    state: Mutex<State>,
}

struct State {
    scope: Scope,
    stores: Stores,
    feeds: HashMap<FeedKey, Feed>,
    followers: HashMap<Key, Follower>,
    /// Of the lists of all feeds.
    rounds: u64,
}

/// What a watch is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FeedKey {
    kind: Kind,
    /// `None`: all of them.
    namespace: Option<String>,
}

/// One watch, open or being opened.
struct Feed {
    /// Its users, counted by what they follow.
    users: usize,
    /// When the last of them left.
    unused: Instant,
    /// A list of it has been complete.
    listed: bool,
    /// When anything last arrived.
    heard: Instant,
    fault: Option<Interruption>,
    stop: CancellationToken,
    /// Notified when what it shows is known to be stale.
    again: Arc<Notify>,
}

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Key {
    /// The watches that show it.
    fn feeds(&self, scope: Scope) -> impl Iterator<Item = FeedKey> {
        let namespace = match scope {
            Scope::Cluster => None,
            Scope::Namespace => Some(self.namespace.clone()),
        };
        let kinds = self.kind.needs().iter();
        kinds.map(move |kind| FeedKey {
            kind: *kind,
            namespace: namespace.clone(),
        })
    }
}

/// All followers of one thing share a counter that grows with each change.
struct Follower {
    count: usize,
    changed: Sender<u64>,
}

impl Follower {
    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Watches {
    /// Nothing is watched until there is a follower.
    pub fn new(cluster: Name, client: Client, scope: Scope) -> Self {
        Self(Arc::new(Shared {
            cluster,
            client,
            state: Mutex::new(State {
                scope,
                stores: Stores::default(),
                feeds: HashMap::new(),
                followers: HashMap::new(),
                rounds: 0,
            }),
        }))
    }

    /// Follows one workload. Must be called within a tokio runtime.
    pub fn follow(&self, target: &Target) -> Subscription {
        let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
        Subscription::new(self.enter(target.kind.into(), namespace, name))
    }

    /// Follows one Job. Must be called within a tokio runtime.
    pub fn follow_job(&self, namespace: &str, name: &str) -> JobSubscription {
        JobSubscription::new(self.enter(Kind::Job, namespace, name))
    }

    /// How many watches there are now, lingering ones included; each is one connection.
    pub fn open(&self) -> usize {
        self.0.state().feeds.len()
    }

    /// Compares what the API server answered with what is watched: a watch that died silently shows an older version,
    /// and would go on showing it. `asked` is when the request was made.
    pub(crate) fn compare(&self, target: &Target, answer: Option<&Workload>, asked: Instant) {
        let key = Key {
            kind: target.kind.into(),
            namespace: target.namespace.to_string(),
            name: target.name.clone(),
        };
        if !self.0.behind(&key, answer, asked) {
            return;
        }
        let (shared, answer) = (Arc::clone(&self.0), answer.cloned());
        tokio::spawn(async move {
            tokio::time::sleep(LAG).await;
            if shared.behind(&key, answer.as_ref(), asked) {
                shared.again(&key);
            }
        });
    }

    fn enter(&self, kind: Kind, namespace: &str, name: &str) -> Following {
        let key = Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut state = self.0.state();
        let (changed, first) = match state.followers.entry(key.clone()) {
            Entry::Occupied(mut follower) => {
                follower.get_mut().count += 1;
                (follower.get().changed.subscribe(), false)
            }
            Entry::Vacant(place) => {
                let (changed, receiver) = tokio::sync::watch::channel(0);
                place.insert(Follower { count: 1, changed });
                (receiver, true)
            }
        };
        if first {
            self.0.need(&mut state, &key);
        }
        drop(state);
        Following::new(self.clone(), key, changed)
    }
}

impl Shared {
    /// A panic while the lock was held is a separate bug; the maps stay usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a user of the watches that show this, and opens those that are not open.
    fn need(self: &Arc<Self>, state: &mut State, key: &Key) {
        for feed in key.feeds(state.scope) {
            let entry = state.feeds.entry(feed.clone());
            entry.or_insert_with(|| self.open(feed)).users += 1;
        }
    }

    fn open(self: &Arc<Self>, key: FeedKey) -> Feed {
        let feed = Feed {
            users: 0,
            unused: Instant::now(),
            listed: false,
            heard: Instant::now(),
            fault: None,
            stop: CancellationToken::new(),
            again: Arc::default(),
        };
        let handle = feed::Handle {
            shared: Arc::clone(self),
            stop: feed.stop.clone(),
            again: Arc::clone(&feed.again),
            key,
        };
        match handle.key.kind {
            Kind::Deployment => drop(tokio::spawn(feed::run::<Deployment>(handle))),
            Kind::StatefulSet => drop(tokio::spawn(feed::run::<StatefulSet>(handle))),
            Kind::DaemonSet => drop(tokio::spawn(feed::run::<DaemonSet>(handle))),
            Kind::Application => drop(tokio::spawn(feed::run::<Custom<Application>>(handle))),
            Kind::Rollout => drop(tokio::spawn(feed::run::<Custom<Rollout>>(handle))),
            Kind::Canary => drop(tokio::spawn(feed::run::<Custom<Canary>>(handle))),
            Kind::ReplicaSet => drop(tokio::spawn(feed::run::<ReplicaSet>(handle))),
            Kind::Pod => drop(tokio::spawn(feed::run::<Pod>(handle))),
            Kind::Job => drop(tokio::spawn(feed::run::<Job>(handle))),
        }
        feed
    }

    fn leave(self: &Arc<Self>, key: &Key) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(follower) = state.followers.get_mut(key) else {
            return;
        };
        follower.count -= 1;
        if follower.count > 0 {
            return;
        }
        state.followers.remove(key);
        for key in key.feeds(state.scope) {
            let Some(feed) = state.feeds.get_mut(&key) else {
                continue;
            };
            feed.users = feed.users.saturating_sub(1);
            if feed.users > 0 {
                continue;
            }
            feed.unused = Instant::now();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(Arc::clone(self).linger(key))),
                Err(_) => state.close(&key),
            }
        }
    }

    /// Ends a watch that is not needed any more, unless a user came in the meantime.
    async fn linger(self: Arc<Self>, key: FeedKey) {
        tokio::time::sleep(LINGER).await;
        let mut state = self.state();
        let unused = |feed: &Feed| feed.users == 0 && feed.unused.elapsed() >= LINGER;
        if state.feeds.get(&key).is_some_and(unused) {
            state.close(&key);
        }
    }

    /// Watches namespace by namespace from here on, because the permission to watch all of them is missing.
    fn fall_back(self: &Arc<Self>, kind: Kind, words: &str) {
        let mut state = self.state();
        if state.scope == Scope::Namespace {
            return;
        }
        tracing::warn!(
            cluster = %self.cluster,
            %kind,
            error = words,
            "watching the whole cluster is forbidden: from here on each namespace is watched by itself"
        );
        state.scope = Scope::Namespace;
        let wide: Vec<FeedKey> = state.feeds.keys().cloned().collect();
        for key in wide {
            state.close(&key);
        }
        let followed: Vec<Key> = state.followers.keys().cloned().collect();
        for key in followed {
            self.need(&mut state, &key);
        }
    }

    /// Whether the watch shows less than the API server did when it was asked.
    fn behind(&self, key: &Key, answer: Option<&Workload>, asked: Instant) -> bool {
        let state = self.state();
        // One that has received something since is alive, and will get there.
        let alive = |feed: FeedKey| {
            let feed = state.feeds.get(&feed);
            feed.is_none_or(|feed| !feed.listed || feed.heard > asked)
        };
        let own = key.feeds(state.scope).find(|feed| feed.kind == key.kind);
        if own.is_none_or(alive) {
            return false;
        }
        let held = state
            .stores
            .observed(key.kind, &key.namespace, &key.name)
            .workload;
        let version =
            |workload: &Workload| workload.metadata().resource_version.as_ref()?.parse::<u64>().ok();
        match (held, answer) {
            (None, None) => false,
            (None, Some(_)) | (Some(_), None) => true,
            (Some(held), Some(answer)) => version(&held) < version(answer),
        }
    }

    /// Lists everything again that shows this.
    fn again(&self, key: &Key) {
        let state = self.state();
        tracing::warn!(
            cluster = %self.cluster,
            kind = %key.kind,
            namespace = key.namespace,
            name = key.name,
            "the watch is behind the API server: it is started again"
        );
        for feed in key.feeds(state.scope).filter_map(|feed| state.feeds.get(&feed)) {
            feed.again.notify_one();
        }
    }
}

impl State {
    fn synced(&self, key: &Key) -> bool {
        key.feeds(self.scope)
            .all(|feed| self.feeds.get(&feed).is_some_and(|feed| feed.listed))
    }

    fn fault(&self, key: &Key) -> Option<Interruption> {
        let faults = key
            .feeds(self.scope)
            .filter_map(|feed| self.feeds.get(&feed)?.fault.clone());
        faults.max_by_key(|fault| (fault.absent, fault.at))
    }

    /// Ends a watch and forgets what it showed.
    fn close(&mut self, key: &FeedKey) {
        if let Some(feed) = self.feeds.remove(key) {
            feed.stop.cancel();
            self.stores.forget(key.kind, key.namespace.as_deref());
        }
    }

    /// Wakes all followers of what this watch shows.
    fn wake_all(&self, feed: &FeedKey) {
        for (key, follower) in &self.followers {
            let inside = feed
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace);
            if inside && key.kind.needs().contains(&feed.kind) {
                follower.wake();
            }
        }
    }
}
