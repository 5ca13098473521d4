//! One watch, kept open: kube-runtime's watcher, and what it leaves to its users.
//!
//! The watcher lists in pages, watches on from the list's version and lists again when that version has expired. Added
//! here: a growing pause between tries that heeds Retry-After; a limit on how long a response may take; a new list if
//! the watcher would go on with a version that the server does not know any more, or if a watch has died silently; and
//! knowledge of when it runs again, since the watcher resumes without saying so.

use std::{sync::Arc, time::Duration};

use backon::BackoffBuilder;
use futures::StreamExt;
use kube::{
    Api,
    api::ListParams,
    core::Status,
    runtime::watcher::{self, Error, Event, watcher},
};
use slipway_model::causes;
use slipway_verdict::cut;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    FeedKey, Interruption, Shared, State,
    kinds::{Kind, Watched},
    store,
};
use crate::CALL_TIMEOUT;

/// Between tries to reach an API server that is unreachable: quick at first, so that a restart costs little.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The pause when told to come back later without a time.
const THROTTLED: Duration = Duration::from_secs(1);
/// The pause for missing permissions, which people have to grant.
const FORBIDDEN: Duration = Duration::from_secs(15);
/// How long the API server keeps a watch open, in seconds; 5 s later the watcher considers one dead that has not ended
/// by itself. Resuming one costs a request, and is the only way to find out about a dead one.
const OPEN: u32 = 25;
/// After this long without any event, everything is listed again: in a cluster in which nothing happens that costs
/// little, and if things do happen the watch is dead.
const SILENCE: Duration = Duration::from_secs(300);
/// The limit for a page of a list, and for the first event after it.
const ANSWER: Duration = Duration::from_secs(30);
/// Objects per page.
const PAGE: u32 = 500;
/// A watch counts as running if it has not failed again this long after it was resumed, provided the API server
/// answers.
const STEADY: Duration = Duration::from_secs(1);
/// After this many tries with the same version the next one begins with a list.
const TRIES: u32 = 5;
/// An interruption is counted together with those before it if they are no further apart.
const ROW: Duration = Duration::from_secs(30);

/// The state of a watch's task.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    pub(super) again: Arc<Notify>,
    pub(super) key: FeedKey,
}

/// Why the current stream of events is given up.
enum End {
    /// The watch is not needed any more, or was replaced by another.
    Stopped,
    /// Everything is listed again.
    List,
}

/// Keeps a watch open and the index fed until it is stopped.
pub(super) async fn run<K: Watched>(handle: Handle) {
    let api = K::api(handle.shared.client.clone(), handle.key.namespace.as_deref());
    let mut pause = Pause::default();
    while let End::List = turn::<K>(&handle, &api, &mut pause).await {}
}

/// From a list onwards, for as long as its version is valid.
async fn turn<K: Watched>(handle: &Handle, api: &Api<K>, pause: &mut Pause) -> End {
    let config = watcher::Config::default().timeout(OPEN).page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    let mut round = handle.begin();
    let mut listing = true;
    loop {
        let limit = if listing { ANSWER } else { SILENCE };
        let ailing = !listing && handle.ailing();
        let next = tokio::select! {
            biased;
            () = handle.stop.cancelled() => return End::Stopped,
            () = handle.again.notified() => return End::List,
            next = tokio::time::timeout(limit, events.next()) => next,
            () = answers(api), if ailing => {
                pause.reset();
                handle.heal();
                continue;
            }
        };
        let error = match next {
            Ok(Some(Ok(event))) => {
                match event {
                    // Emitted before the list is requested: it says nothing about the API server.
                    Event::Init => {
                        listing = true;
                        round = handle.begin();
                        continue;
                    }
                    Event::InitApply(object) => handle.put(object, store::From::List, round),
                    Event::InitDone => {
                        listing = false;
                        handle.listed::<K>(round);
                    }
                    Event::Apply(object) => handle.put(object, store::From::Watch, round),
                    Event::Delete(object) => handle.take(object),
                }
                if !listing {
                    pause.reset();
                    handle.heal();
                }
                continue;
            }
            Ok(Some(Err(error))) => error,
            Ok(None) => return End::List,
            Err(_) if listing => {
                handle.fail(format!("no answer within {} s", ANSWER.as_secs()), false);
                pause.wait(None, handle).await;
                return End::List;
            }
            Err(_) => return End::List,
        };
        let trouble = Trouble::of(&error, handle.key.kind);
        tracing::debug!(
            cluster = %handle.shared.cluster, kind = %handle.key.kind, error = trouble.words, "watch interrupted"
        );
        if trouble.forbidden && handle.key.namespace.is_none() {
            handle.shared.fall_back(handle.key.kind, &trouble.words);
            return End::Stopped;
        }
        let row = pause.row();
        // A dropped one is resumed at once, mostly with success: not worth logging.
        if row > 0 || listing || trouble.absent || trouble.forbidden {
            handle.fail(trouble.words, trouble.absent);
        }
        if trouble.expired && row == 0 {
            pause.count();
            return End::List;
        }
        pause.wait(trouble.after, handle).await;
        if trouble.expired || (!listing && pause.row() >= TRIES) {
            return End::List;
        }
    }
}

/// Ends when the API server has answered, and at least [`STEADY`] after it was first polled.
async fn answers<K: Watched>(api: &Api<K>) {
    loop {
        tokio::time::sleep(STEADY).await;
        let one = ListParams::default().limit(1);
        if let Ok(Ok(_)) = tokio::time::timeout(CALL_TIMEOUT, api.list_metadata(&one)).await {
            return;
        }
    }
}

impl Handle {
    /// What the task may do only while the watch is still its own.
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.shared.state();
        (!self.stop.is_cancelled()).then(|| what(&mut state))
    }

    /// The same for what is done because something arrived.
    fn heard(&self, what: impl FnOnce(&mut State)) {
        self.with(|state| {
            if let Some(feed) = state.feeds.get_mut(&self.key) {
                feed.heard = Instant::now();
            }
            what(state);
        });
    }

    /// Numbers the list that is about to be received.
    fn begin(&self) -> u64 {
        let mut state = self.shared.state();
        state.rounds += 1;
        state.rounds
    }

    fn put<K: Watched>(&self, mut object: K, from: store::From, round: u64) {
        object.slim();
        self.heard(|state| {
            let State {
                stores, followers, ..
            } = state;
            store::put(stores, object, from, round, &mut |kind, namespace, name| {
                wake(followers, kind, namespace, name);
            });
        });
    }

    fn take<K: Watched>(&self, object: K) {
        self.heard(|state| {
            let State {
                stores, followers, ..
            } = state;
            store::take(stores, &object, &mut |kind, namespace, name| {
                wake(followers, kind, namespace, name);
            });
        });
        drop(object);
    }

    fn listed<K: Watched>(&self, round: u64) {
        self.heard(|state| {
            let State {
                stores,
                followers,
                feeds,
                ..
            } = state;
            store::sweep::<K>(
                stores,
                self.key.namespace.as_deref(),
                round,
                &mut |kind, namespace, name| wake(followers, kind, namespace, name),
            );
            let first = feeds
                .get_mut(&self.key)
                .is_some_and(|feed| !std::mem::replace(&mut feed.listed, true));
            if first {
                state.wake_all(&self.key);
            }
        });
    }

    fn fail(&self, words: String, absent: bool) {
        self.with(|state| {
            let Some(feed) = state.feeds.get_mut(&self.key) else {
                return;
            };
            let fault = Interruption {
                words,
                at: Instant::now(),
                absent,
            };
            // The same fault again is not news.
            let news = feed.fault.as_ref().is_none_or(|known| known.words != fault.words);
            feed.fault = Some(fault);
            if news {
                state.wake_all(&self.key);
            }
        });
    }

    fn ailing(&self) -> bool {
        let state = self.shared.state();
        state
            .feeds
            .get(&self.key)
            .is_some_and(|feed| feed.fault.is_some())
    }

    fn heal(&self) {
        self.with(|state| {
            let healed = state
                .feeds
                .get_mut(&self.key)
                .is_some_and(|feed| feed.fault.take().is_some());
            if healed {
                state.wake_all(&self.key);
            }
        });
    }
}

fn wake(
    followers: &std::collections::HashMap<super::Key, super::Follower>,
    kind: Kind,
    namespace: &str,
    name: &str,
) {
    let key = super::Key {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    if let Some(follower) = followers.get(&key) {
        follower.wake();
    }
}

/// The pauses between tries, and how many there were in a row.
struct Pause {
    pauses: backon::ExponentialBackoff,
    row: u32,
    last: Option<Instant>,
}

impl Default for Pause {
    fn default() -> Self {
        let pauses = backon::ExponentialBuilder::default()
            .with_min_delay(BACKOFF.0)
            .with_max_delay(BACKOFF.1)
            .with_jitter()
            .without_max_times();
        Self {
            pauses: pauses.build(),
            row: 0,
            last: None,
        }
    }
}

impl Pause {
    fn reset(&mut self) {
        if self.row > 0 {
            *self = Self::default();
        }
    }

    /// Interruptions before this one.
    fn row(&mut self) -> u32 {
        if self.last.is_some_and(|last| last.elapsed() > ROW) {
            self.reset();
        }
        self.row
    }

    fn count(&mut self) {
        self.row += 1;
        self.last = Some(Instant::now());
    }

    async fn wait(&mut self, at_least: Option<Duration>, handle: &Handle) {
        self.count();
        let pause = self.pauses.next().unwrap_or(BACKOFF.1);
        let pause = at_least.map_or(pause, |least| pause.max(least));
        tokio::select! {
            () = handle.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        self.last = Some(Instant::now());
    }
}

/// What is wrong, as far as it matters for what to do next.
struct Trouble {
    words: String,
    /// The API server does not know the kind.
    absent: bool,
    forbidden: bool,
    /// The version that the watch had reached is of no use any more.
    expired: bool,
    /// Do not try again earlier.
    after: Option<Duration>,
}

impl Trouble {
    fn of(error: &Error, kind: Kind) -> Self {
        let status = status(error);
        let code = status.map_or(0, |status| status.code);
        let absent = code == 404;
        let words = match status {
            Some(_) if absent => kind.absent().to_owned(),
            Some(status) => format!("watch {kind}s: {} ({code})", cut(&status.message)),
            None => format!("watch {kind}s: {}", cut(&causes(error))),
        };
        // After a restore the version may lie in the server's future; it says so as a timeout with a cause.
        let future = status.is_some_and(|status| {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            causes
                .into_iter()
                .any(|cause| cause.reason == "ResourceVersionTooLarge")
        });
        // An event that cannot be read is lost; a list shows the object, or says what is wrong with it.
        let unread = matches!(error, Error::WatchFailed(kube::Error::SerdeError(_)));
        let refused = matches!(error, Error::WatchStartFailed(_)) && (400..429).contains(&code);
        Self {
            words,
            absent,
            forbidden: code == 403,
            expired: code == 410 || future || unread || refused,
            after: match code {
                429 => {
                    let asked = status.and_then(|status| Some(status.details.as_ref()?.retry_after_seconds));
                    Some(THROTTLED.max(Duration::from_secs(asked.unwrap_or(0).into())))
                }
                403 => Some(FORBIDDEN),
                _ => None,
            },
        }
    }
}

fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status))
        | Error::WatchError(status) => Some(status),
        _ => None,
    }
}
