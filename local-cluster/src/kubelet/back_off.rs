//! Pauses between tries, and how they are displayed.

use std::time::Duration;

/// The longest pause between restarts or pulls (kubelet: `MaxContainerBackOff`).
const MAX_BACK_OFF: Duration = Duration::from_secs(300);
/// Pauses that double up to the limit.
#[derive(Debug)]
pub(crate) struct BackOff {
    pause: Duration,
}

impl BackOff {
    pub(crate) fn new(first: Duration) -> Self {
        Self { pause: first }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX_BACK_OFF);
        pause
    }
}

/// A duration as Go prints it: `10s`, `2m40s`, `500ms`.
pub(crate) fn human(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let mut back_off = BackOff::new(Duration::from_secs(10));
        let pauses: Vec<String> = (0..7).map(|_| human(back_off.next())).collect();
        assert_eq!(pauses, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
    }
}
