//! When to process what again, and how long to wait after failures.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::object::Key;

/// The pause after the first failure; it doubles (`workqueue.DefaultTypedControllerRateLimiter`).
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause. The real controllers go up to 1,000 s; a developer does not wait that long.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One time for each key.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: HashMap<Key, Timestamp>,
    queue: BTreeSet<(Timestamp, Key)>,
    failures: HashMap<Key, u32>,
}

impl Timers {
    /// Replaces the key's time.
    pub(crate) fn set(&mut self, key: &Key, at: Option<Timestamp>) {
        if let Some(before) = self.at.remove(key) {
            self.queue.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.at.insert(key.clone(), at);
            self.queue.insert((at, key.clone()));
        }
    }

    /// After a failure, or the end of failures: when to retry.
    pub(crate) fn retry(&mut self, key: &Key, failed: bool, now: Timestamp) -> Option<Timestamp> {
        if !failed {
            self.failures.remove(key);
            return None;
        }
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(20));
        *failures += 1;
        let pause = SignedDuration::try_from(pause.min(LONGEST_PAUSE)).unwrap_or_default();
        now.checked_add(pause).ok()
    }

    /// The earliest time.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the keys that are due.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.queue.first()
            && *at <= now
            && let Some((_, key)) = self.queue.pop_first()
        {
            self.at.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn key(name: &str) -> Key {
        ("jobs", String::new(), name.to_owned())
    }

    #[test]
    fn each_key_has_one_time() {
        let mut timers = Timers::default();
        timers.set(&key("a"), Some(at(5)));
        timers.set(&key("b"), Some(at(3)));
        timers.set(&key("a"), Some(at(9)));
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.due(at(8)), [key("b")]);
        timers.set(&key("a"), None);
        assert_eq!((timers.next(), timers.due(at(10))), (None, vec![]));
    }

    #[test]
    fn pauses_after_failures_double_until_something_works() {
        let mut timers = Timers::default();
        let mut pause = |failed| {
            timers
                .retry(&key("a"), failed, at(0))
                .map(Timestamp::as_millisecond)
        };
        assert_eq!(
            [pause(true), pause(true), pause(true)],
            [Some(5), Some(10), Some(20)]
        );
        assert_eq!((pause(false), pause(true)), (None, Some(5)));
        for _ in 0..30 {
            pause(true);
        }
        assert_eq!(pause(true), Some(30_000));
    }
}
