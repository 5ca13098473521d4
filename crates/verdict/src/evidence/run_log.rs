//! The log of one run of a container, or why there is none: a kubelet also answers with words of its own.

/// What a kubelet writes in place of a log that it does not have any more, or at the end of one: how the line begins, and
/// what else is in it, which a program's own line would not have.
const NOT_A_LOG: [(&str, &str); 5] = [
    ("unable to retrieve container logs for ", "://"),
    ("failed to try resolving symlinks in path ", "/var/log/pods/"),
    ("failed to open log file ", "/var/log/pods/"),
    ("failed to read log file ", "/var/log/pods/"),
    ("failed to get container status ", "rpc error"),
];
/// What a kubelet says of a run of which it knows nothing.
const NO_RUN: [&str; 4] = [
    "previous terminated container",
    "is waiting to start",
    "is not running",
    "not found",
];

/// The last lines of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunLog {
    /// Oldest first; never empty.
    Lines(Vec<String>),
    /// There is none, for this reason.
    Missing(String),
}

impl RunLog {
    /// What a kubelet answered to a request for a log.
    pub fn of(lines: Vec<String>) -> Self {
        let is_answer = |line: &str| {
            let line = line.trim_start();
            NOT_A_LOG
                .iter()
                .any(|(start, within)| line.starts_with(start) && line.contains(within))
        };
        let mut kept = lines;
        let mut lost = false;
        while kept.last().is_some_and(|line| is_answer(line)) {
            kept.pop();
            lost = true;
        }
        if !kept.is_empty() {
            return Self::Lines(kept);
        }
        Self::Missing(if lost {
            "its node does not have it any more".to_owned()
        } else {
            "the container wrote nothing".to_owned()
        })
    }

    /// The request was refused, with these words.
    pub fn refused(words: &str) -> Self {
        let knows_none = NO_RUN.iter().any(|phrase| words.contains(phrase));
        let start = words.contains("is waiting to start") || words.contains("ContainerCreating");
        Self::Missing(if start {
            "the container has not started".to_owned()
        } else if knows_none {
            "its node does not have it any more".to_owned()
        } else {
            format!("it cannot be read: {words}")
        })
    }

    /// The lines, if there are any.
    pub fn lines(&self) -> &[String] {
        match self {
            Self::Lines(lines) => lines,
            Self::Missing(_) => &[],
        }
    }
}

/// The lines of the run that is under way or ended last, those of the run before it, and what to say of a log that is
/// missing. `running`: a run is under way.
pub fn of_runs(now: RunLog, before: Option<RunLog>, running: bool) -> (Vec<String>, Vec<String>, String) {
    match (now, before) {
        (RunLog::Lines(now), None) => (now, Vec::new(), String::new()),
        (RunLog::Missing(why), None) => (Vec::new(), Vec::new(), why),
        // While a container waits to be restarted, its node answers with the run that ended last in both cases.
        (RunLog::Lines(now), Some(before))
            if !running && (before.lines() == now || before.lines().is_empty()) =>
        {
            (now, Vec::new(), String::new())
        }
        (RunLog::Missing(_), Some(RunLog::Lines(before))) if !running => (before, Vec::new(), String::new()),
        (RunLog::Missing(why), Some(RunLog::Missing(_))) if !running => (Vec::new(), Vec::new(), why),
        (now, Some(before)) => {
            let missing = [("this run", &now), ("the run before", &before)];
            let missing = missing.into_iter().filter_map(|(run, log)| match log {
                RunLog::Missing(why) => Some(format!("{run}: {why}")),
                RunLog::Lines(_) => None,
            });
            let missing = missing.collect::<Vec<_>>().join("; ");
            (now.lines().to_vec(), before.lines().to_vec(), missing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RunLog, of_runs};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_a_kubelet_says_is_not_a_log() {
        let gone = RunLog::Missing("its node does not have it any more".to_owned());
        for (text, log) in [
            ("one\ntwo", RunLog::Lines(lines("one\ntwo"))),
            ("", RunLog::Missing("the container wrote nothing".to_owned())),
            (
                "unable to retrieve container logs for containerd://3f5a",
                gone.clone(),
            ),
            ("unable to retrieve container logs for cri-o://3f5a", gone.clone()),
            (
                "unable to retrieve container logs for docker://3f5a",
                gone.clone(),
            ),
            (
                "failed to try resolving symlinks in path \"/var/log/pods/a/0.log\": lstat /var/log/pods/a/0.log: no such file or directory",
                gone,
            ),
            (
                "the program's own line\nunable to retrieve container logs for containerd://3f5a",
                RunLog::Lines(lines("the program's own line")),
            ),
            (
                "failed to open log file /srv/app.log: permission denied",
                RunLog::Lines(lines("failed to open log file /srv/app.log: permission denied")),
            ),
            // A program may say such words itself, in the middle.
            (
                "unable to retrieve container logs for containerd://3f5a\nok",
                RunLog::Lines(lines(
                    "unable to retrieve container logs for containerd://3f5a\nok",
                )),
            ),
        ] {
            assert_eq!(RunLog::of(lines(text)), log, "{text}");
        }
        for (words, said) in [
            (
                "previous terminated container \"app\" in pod \"shop-1\" not found",
                "its node does not have it any more",
            ),
            (
                "container \"app\" in pod \"shop-1\" is waiting to start: trying and failing to pull image",
                "the container has not started",
            ),
            (
                "dial tcp 10.0.0.1:10250: connection refused",
                "it cannot be read: dial tcp 10.0.0.1:10250: connection refused",
            ),
        ] {
            assert_eq!(
                RunLog::refused(words),
                RunLog::Missing(said.to_owned()),
                "{words}"
            );
        }
    }

    #[test]
    fn a_missing_log_is_said_to_be_missing_and_no_run_is_told_twice() {
        let log = |text: &str| RunLog::Lines(lines(text));
        let none = |why: &str| RunLog::Missing(why.to_owned());
        for (now, before, running, said) in [
            (log("a"), None, true, ("a", "", "")),
            (none("wrote nothing"), None, true, ("", "", "wrote nothing")),
            // It waits to be restarted: one run, told once, from wherever it is found.
            (log("a"), Some(log("a")), false, ("a", "", "")),
            (log("a"), Some(none("gone")), false, ("a", "", "")),
            (none("gone"), Some(log("a")), false, ("a", "", "")),
            (none("gone"), Some(none("gone too")), false, ("", "", "gone")),
            (log("b"), Some(log("a")), false, ("b", "a", "")),
            // It runs again: two runs.
            (log("b"), Some(log("a")), true, ("b", "a", "")),
            (
                log("b"),
                Some(none("gone")),
                true,
                ("b", "", "the run before: gone"),
            ),
            (
                none("wrote nothing"),
                Some(log("a")),
                true,
                ("", "a", "this run: wrote nothing"),
            ),
            (
                none("wrote nothing"),
                Some(none("gone")),
                true,
                ("", "", "this run: wrote nothing; the run before: gone"),
            ),
        ] {
            let (tail, previous, missing) = of_runs(now, before, running);
            let said = (lines(said.0), lines(said.1), said.2.to_owned());
            assert_eq!((tail, previous, missing), said);
        }
    }
}
