//! What the process knows about an aggregate that it holds, shared by its supervisor and everything that has news for
//! it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Held {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// The lease is ours, as far as we know.
    leased: bool,
    /// Counts the reports about the lease, so that nothing acts on an outdated one.
    version: u64,
    /// The lease lapsed: stop.
    lost: bool,
    /// Something happened since the supervisor last looked.
    news: bool,
    /// It was claimed because it was due, so the cache may be stale and its polls may be due.
    claimed: bool,
    /// A hint came.
    hinted: bool,
    /// Claims without progress, this one included.
    attempts: u32,
    /// Polls that are being run.
    polls: usize,
}

/// What the supervisor finds when it looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub(super) leased: bool,
    pub(super) lost: bool,
    pub(super) claimed: bool,
    pub(super) hinted: bool,
    pub(super) attempts: u32,
}

impl Held {
    pub(super) fn new(attempts: u32, claimed: bool) -> Self {
        let state = State {
            leased: true,
            version: 0,
            lost: false,
            news: true,
            claimed,
            hinted: false,
            attempts,
            polls: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.news = true;
        drop(state);
        self.changed.notify_one();
    }

    /// The lease is ours (still, or again).
    pub(super) fn leased(&self, attempts: u32, claimed: bool) {
        self.tell(|state| {
            state.leased = true;
            state.lost = false;
            state.version += 1;
            state.claimed |= claimed;
            state.attempts = attempts;
        });
    }

    /// An append of ours gave the lease back, or found it with another holder.
    pub(super) fn given_back(&self) {
        self.tell(|state| {
            state.leased = false;
            state.version += 1;
        });
    }

    /// An append was made.
    pub(super) fn news(&self) {
        self.tell(|_| {});
    }

    /// False when the lease is not ours, so that the hint must be stored.
    pub(super) fn hint(&self) -> bool {
        let mut leased = false;
        self.tell(|state| {
            leased = state.leased && !state.lost;
            state.hinted |= leased;
        });
        leased
    }

    /// For a renewal: the version that it refers to, when there is a lease to renew.
    pub(super) fn renewable(&self) -> Option<u64> {
        let state = self.state();
        (state.leased && !state.lost).then_some(state.version)
    }

    /// The database says that the lease of `version` is not ours any more.
    pub(super) fn lose(&self, version: u64) {
        if self.state().version == version {
            self.tell(|state| state.lost = true);
        }
    }

    /// Polls that are being run.
    pub(super) fn polling(&self) -> bool {
        self.state().polls > 0
    }

    pub(super) fn set_polls(&self, polls: usize) {
        self.state().polls = polls;
    }

    /// Looks, and takes note.
    pub(super) fn take(&self) -> News {
        let mut state = self.state();
        state.news = false;
        News {
            leased: state.leased,
            lost: state.lost,
            claimed: std::mem::take(&mut state.claimed),
            hinted: std::mem::take(&mut state.hinted),
            attempts: state.attempts,
        }
    }

    /// About to give the lease back: from now on, hints are stored instead of delivered. `None` if there is news first.
    pub(super) fn begin_release(&self) -> Option<u64> {
        let mut state = self.state();
        if state.news || !state.leased || state.lost {
            return None;
        }
        state.leased = false;
        Some(state.version)
    }

    /// It was not given back after all.
    pub(super) fn undo_release(&self, version: u64) {
        let mut state = self.state();
        if state.version == version {
            state.leased = true;
        }
    }

    /// Whether the supervisor may end: nothing is held and there is no news. Call under the lock of the map.
    pub(super) fn may_end(&self) -> bool {
        let state = self.state();
        state.lost || (!state.leased && !state.news)
    }

    /// A hint that came too late for this supervisor.
    pub(super) fn leftover_hint(&self) -> bool {
        self.state().hinted
    }

    /// Resolves when there is news.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
