//! What a process remembers about the branches that it writes, to write them faster. Nothing here affects what is
//! written: another replica starts without it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use slipway_model::Id;

/// Writers that were answered longer ago than this are not waited for.
const SOON: Duration = Duration::from_millis(100);
/// The longest that a round waits for others.
const LONGEST_LINGER: Duration = Duration::from_millis(25);

/// The pace of the branches.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<HashMap<Id, Pace>>);

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The number of changes that go into one push.
    batch: usize,
    /// Others write too: a push to the old head is not worth a try.
    contended: bool,
    last: Option<Last>,
}

/// The last round that pushed something.
#[derive(Debug, Clone, Copy)]
struct Last {
    settled: usize,
    took: Duration,
    ended: Instant,
}

impl Paces {
    fn all(&self) -> MutexGuard<'_, HashMap<Id, Pace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, branch: &Id, change: impl FnOnce(&mut Pace) -> T) -> T {
        change(self.all().entry(branch.clone()).or_insert(Pace {
            batch: usize::MAX,
            contended: false,
            last: None,
        }))
    }

    /// How many changes should share the next push. Fewer after lost races: a smaller batch is ready sooner and more
    /// likely to win, while one that loses every race gets nowhere.
    pub(crate) fn batch(&self, branch: &Id) -> usize {
        self.change(branch, |pace| pace.batch)
    }

    /// Whether others wrote a moment ago, so that a round fetches first.
    pub(crate) fn contended(&self, branch: &Id) -> bool {
        self.change(branch, |pace| pace.contended)
    }

    /// Whether others wrote since the last round.
    pub(crate) fn set_contended(&self, branch: &Id, contended: bool) {
        self.change(branch, |pace| pace.contended = contended);
    }

    /// A push of this many lost the race, although the head was fetched just before.
    pub(crate) fn lost(&self, branch: &Id, pushed: usize) {
        self.change(branch, |pace| pace.batch = (pushed / 2).max(1));
    }

    /// A push of this many was the first that was tried.
    pub(crate) fn won(&self, branch: &Id, pushed: usize) {
        self.change(branch, |pace| {
            if pushed >= pace.batch {
                pace.batch = pace.batch.saturating_mul(2);
            }
        });
    }

    /// A round ended.
    pub(crate) fn settled(&self, branch: &Id, settled: usize, took: Duration, now: Instant) {
        let ended = now;
        self.change(branch, |pace| {
            pace.last = Some(Last { settled, took, ended });
        });
    }

    /// How long a round may wait for writers that were answered a moment ago and are likely to come again, and for how
    /// many: a push costs about the same for few as for many. A single writer is never waited for.
    pub(crate) fn linger(&self, branch: &Id, now: Instant) -> Option<(usize, Duration)> {
        let last = self.all().get(branch)?.last?;
        let since = now.saturating_duration_since(last.ended);
        (last.settled > 1 && since < SOON).then(|| (last.settled, (last.took / 4).min(LONGEST_LINGER)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Paces;

    #[test]
    fn fewer_after_a_lost_race_and_more_after_one_that_was_won() {
        let (paces, branch) = (Paces::default(), "br-1".parse().unwrap());
        assert_eq!(paces.batch(&branch), usize::MAX);
        paces.won(&branch, 64);
        assert_eq!(paces.batch(&branch), usize::MAX);
        for (pushed, next) in [(64, 32), (32, 16), (16, 8), (3, 1), (1, 1)] {
            paces.lost(&branch, pushed);
            assert_eq!(paces.batch(&branch), next);
        }
        for next in [2, 4, 8] {
            paces.won(&branch, next / 2);
            assert_eq!(paces.batch(&branch), next);
        }
        // A smaller batch says nothing.
        paces.won(&branch, 3);
        assert_eq!(paces.batch(&branch), 8);
    }

    #[test]
    fn a_branch_is_contended_until_nobody_else_writes() {
        let (paces, branch) = (Paces::default(), "br-1".parse().unwrap());
        assert!(!paces.contended(&branch));
        paces.set_contended(&branch, true);
        assert!(paces.contended(&branch));
        paces.set_contended(&branch, false);
        assert!(!paces.contended(&branch));
    }

    #[test]
    fn only_a_crowd_is_waited_for_and_only_soon_after() {
        let (paces, branch, now) = (Paces::default(), "br-1".parse().unwrap(), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(paces.linger(&branch, now), None);
        paces.settled(&branch, 1, ms(80), now);
        assert_eq!(paces.linger(&branch, now), None);
        paces.settled(&branch, 40, ms(80), now);
        assert_eq!(paces.linger(&branch, now + ms(10)), Some((40, ms(20))));
        assert_eq!(paces.linger(&branch, now + ms(200)), None);
        paces.settled(&branch, 40, ms(1000), now);
        assert_eq!(paces.linger(&branch, now), Some((40, ms(25))));
    }
}
