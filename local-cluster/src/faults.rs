//! Faults on demand: what real API servers do to their clients on bad days, for tests of those clients.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::status::{ApiError, ApiResult};
use crate::store::Store;

/// What a throttled client is told to wait, in seconds.
const RETRY_AFTER: u32 = 1;

/// Which requests [`Faults::throttle_only`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Throttled {
    /// Every request, watches included.
    All,
    /// Every request that is not a watch.
    NoWatches,
    /// Watches alone.
    Watches,
}

impl Throttled {
    fn covers(self, watch: bool) -> bool {
        match self {
            Self::All => true,
            Self::NoWatches => !watch,
            Self::Watches => watch,
        }
    }
}

/// What open watches are told; the counters only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Signal {
    pub(crate) dropped: u64,
    pub(crate) expired: u64,
    pub(crate) delay: Duration,
}

#[derive(Debug, Default)]
struct Plan {
    throttle: Option<(u32, Throttled)>,
    unavailable_until: Option<Instant>,
    stalled_until: Option<Instant>,
    /// Watches may start from here on.
    oldest: u64,
}

#[derive(Debug)]
struct State {
    plan: Mutex<Plan>,
    signal: watch::Sender<Signal>,
}

/// The faults of one cluster. They apply to the API's clients; the cluster's own controllers and pods continue.
/// `/metrics` always answers.
#[derive(Clone)]
pub struct Faults {
    state: Arc<State>,
    store: Arc<Store>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl Faults {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let state = State {
            plan: Mutex::default(),
            signal: watch::Sender::new(Signal::default()),
        };
        Self {
            state: Arc::new(state),
            store,
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.state.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses the next `count` requests, watches included, with 429 Too Many Requests, `Retry-After: 1` and a Status.
    /// Replaces an earlier setting; 0 ends it.
    pub fn throttle(&self, count: u32) {
        self.throttle_only(count, Throttled::All);
    }

    /// [`Faults::throttle`] for some requests only; the others are neither refused nor counted.
    pub fn throttle_only(&self, count: u32, which: Throttled) {
        self.plan().throttle = (count > 0).then_some((count, which));
    }

    /// Cuts every open watch in the middle of its stream, without a clean end.
    pub fn drop_watches(&self) {
        self.state.signal.send_modify(|signal| signal.dropped += 1);
    }

    /// Sends every open watch an ERROR event with 410 Gone (reason Expired) and ends it. From now on resourceVersions
    /// older than the current one are refused with 410, until the cluster is started again.
    pub fn expire_watches(&self) {
        self.plan().oldest = self.store.version();
        self.state.signal.send_modify(|signal| signal.expired += 1);
    }

    /// Answers everything with 503 Service Unavailable for this long; zero ends it. Open watches stay open.
    pub fn unavailable(&self, duration: Duration) {
        self.plan().unavailable_until = Some(Instant::now() + duration);
    }

    /// Delays the events of all watches, open ones included, by this much; zero ends it.
    pub fn delay_watches(&self, delay: Duration) {
        self.state.signal.send_modify(|signal| signal.delay = delay);
    }

    /// Lets requests that arrive within this time hang until it is over; then they are answered. Zero ends it for later
    /// requests. Open watches continue.
    pub fn stall(&self, duration: Duration) {
        self.plan().stalled_until = Some(Instant::now() + duration);
    }

    /// Waits or refuses as the plan says.
    ///
    /// # Errors
    /// 429 and 503.
    pub(crate) async fn admit(&self, watch: bool) -> ApiResult<()> {
        let stalled = self.plan().stalled_until;
        if let Some(until) = stalled {
            tokio::time::sleep_until(until).await;
        }
        let mut plan = self.plan();
        if plan.unavailable_until.is_some_and(|until| Instant::now() < until) {
            return Err(ApiError::unavailable(
                "the server is currently unable to handle the request",
            ));
        }
        match &mut plan.throttle {
            Some((left, which)) if *left > 0 && which.covers(watch) => {
                *left -= 1;
                Err(ApiError::too_many_requests(RETRY_AFTER))
            }
            _ => Ok(()),
        }
    }

    /// Whether a client may continue from this version.
    ///
    /// # Errors
    /// 410 if it is older than what was expired.
    pub(crate) fn remembers(&self, version: u64) -> ApiResult<()> {
        let oldest = self.plan().oldest;
        if version < oldest {
            return Err(ApiError::gone(version, oldest));
        }
        Ok(())
    }

    pub(crate) fn signal(&self) -> watch::Receiver<Signal> {
        self.state.signal.subscribe()
    }
}
