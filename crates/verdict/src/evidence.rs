//! What a person needs to see when a deployment failed.

mod cause;
mod redact;
mod run_log;
mod telling;

use serde::{Deserialize, Serialize};

pub use cause::{at_fault, together};
pub use redact::{REDACTED, Redactor, clean, redact};
pub use run_log::{RunLog, of_runs};
pub use telling::telling;

/// One container of a pod at fault, and of all other pods with the same fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodEvidence {
    /// Or `Kind/name` of another object, if it is not about a pod.
    pub pod: String,
    pub container: String,
    /// Such as `CrashLoopBackOff` or `Running, not ready`.
    pub state: String,
    /// Of the last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of the current run, oldest line first.
    pub log_tail: Vec<String>,
    /// Of the previous run, oldest line first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_log_tail: Vec<String>,
    /// Oldest first.
    pub events: Vec<String>,
    /// How many other pods have the same fault.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u32,
    /// The names of the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_pods: Vec<String>,
    /// The line of the logs or events that says most.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub telling: String,
    /// Why a log is missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_missing: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl PodEvidence {
    /// Chooses the line that says most: of the run that ended, of the one that is under way, else of the events.
    #[must_use]
    pub fn told(mut self) -> Self {
        let logs = self.log_tail.iter().chain(&self.previous_log_tail);
        let line = telling(logs.map(String::as_str))
            .or_else(|| telling(self.events.iter().map(String::as_str)))
            .unwrap_or_default();
        self.telling = line.to_owned();
        self
    }
}

/// All log lines of one deployment together, in bytes: evidence is stored in an event and shown in API answers.
pub const MAX_LOGS: usize = 32 * 1024;
/// All log lines of one pod together, in bytes.
pub const MAX_POD_LOGS: usize = 16 * 1024;

/// Drops the oldest lines of the longest logs until every pod's logs fit into [`MAX_POD_LOGS`] and all together into
/// [`MAX_LOGS`].
pub fn bound(evidence: &mut [PodEvidence]) {
    let pods: std::collections::BTreeSet<String> = evidence.iter().map(|one| one.pod.clone()).collect();
    for pod in pods {
        shorten(
            &mut evidence
                .iter_mut()
                .filter(|one| one.pod == pod)
                .collect::<Vec<_>>(),
            MAX_POD_LOGS,
        );
    }
    shorten(&mut evidence.iter_mut().collect::<Vec<_>>(), MAX_LOGS);
}

fn shorten(evidence: &mut [&mut PodEvidence], most: usize) {
    let size = |lines: &Vec<String>| lines.iter().map(|line| line.len() + 1).sum::<usize>();
    let mut logs: Vec<(usize, &mut Vec<String>)> = evidence
        .iter_mut()
        .flat_map(|one| [&mut one.log_tail, &mut one.previous_log_tail])
        .map(|lines| (size(lines), lines))
        .collect();
    let mut total: usize = logs.iter().map(|(size, _)| size).sum();
    while total > most {
        let Some((size, longest)) = logs.iter_mut().max_by_key(|(size, _)| *size) else {
            return;
        };
        let gone = longest.remove(0).len() + 1;
        *size -= gone;
        total -= gone;
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_LOGS, MAX_POD_LOGS, PodEvidence, bound};

    fn one(pod: &str, current: usize, previous: usize) -> PodEvidence {
        let lines = |count: usize| (0..count).map(|line| format!("{line:0>499}")).collect();
        PodEvidence {
            pod: pod.to_owned(),
            container: "c".to_owned(),
            log_tail: lines(current),
            previous_log_tail: lines(previous),
            ..PodEvidence::default()
        }
    }
    fn size<'a>(evidence: impl IntoIterator<Item = &'a PodEvidence>) -> usize {
        let logs = evidence
            .into_iter()
            .flat_map(|one| one.log_tail.iter().chain(&one.previous_log_tail));
        logs.map(|line| line.len() + 1).sum()
    }

    #[test]
    fn the_most_telling_line_is_of_the_logs_and_else_of_the_events() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        for (log, previous, events, said) in [
            (
                "starting",
                "cannot reach the database",
                "Warning BackOff: m",
                "cannot reach the database",
            ),
            ("an error", "", "Warning BackOff: m", "an error"),
            (
                "",
                "",
                "Normal Pulled: m\nWarning FailedCreate: exceeded quota",
                "Warning FailedCreate: exceeded quota",
            ),
            ("", "", "", ""),
        ] {
            let one = PodEvidence {
                log_tail: lines(log),
                previous_log_tail: lines(previous),
                events: lines(events),
                ..PodEvidence::default()
            };
            assert_eq!(one.told().telling, said);
        }
    }

    #[test]
    fn logs_are_bounded_from_their_beginning() {
        let mut evidence = [one("a", 50, 50), one("a", 2, 1), one("b", 10, 0), one("c", 50, 0)];
        bound(&mut evidence);
        assert!(size(&evidence) <= MAX_LOGS);
        assert!(size(&evidence[..2]) <= MAX_POD_LOGS);
        assert_eq!(evidence[1], one("a", 2, 1), "the short ones stay whole");
        assert_eq!(evidence[2], one("b", 10, 0), "the short ones stay whole");
        for long in [
            &evidence[0].log_tail,
            &evidence[0].previous_log_tail,
            &evidence[3].log_tail,
        ] {
            assert!(long.last().unwrap().ends_with("49"), "the last lines stay");
        }
        let both = &evidence[0];
        assert!(
            both.log_tail.len().abs_diff(both.previous_log_tail.len()) <= 1,
            "neither run is preferred"
        );
    }
}
