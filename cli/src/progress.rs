//! What people see while something is followed: a spinner on a terminal, lines in a log. On standard error, so that
//! standard output has the result alone.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use slipway_model::Timestamp;

use crate::{args::Output, readable::seconds};

/// A log has no longer silence than this: CI systems end jobs that print nothing.
const SILENCE: i64 = 60_000_000;
/// A log has no shorter time between two lines about what a step waits for.
const CALM: i64 = 5_000_000;
/// The longest words of one line.
const WORDS: usize = 200;

/// Something that is followed, as it is at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The steps so far, in order; all but the last have ended.
    pub(crate) steps: Vec<Step>,
    /// What the last one waits for.
    pub(crate) waits: String,
}

/// One step of it. Times are in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) began: i64,
    pub(crate) end: Option<End>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: i64,
    /// It ended well.
    pub(crate) well: bool,
    /// Such as `succeeded`.
    pub(crate) status: String,
    /// What it produced, or why it failed.
    pub(crate) words: String,
}

/// Where progress is shown.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A person is watching; finished steps are lines above the spinner.
    Terminal {
        bar: ProgressBar,
        ended: usize,
    },
    Log(Log),
    /// A program reads the output, at a terminal.
    Hidden,
}

impl Progress {
    pub(crate) fn new(output: Output) -> Self {
        if !std::io::stderr().is_terminal() {
            Self::Log(Log::default())
        } else if output.format().is_some() {
            Self::Hidden
        } else {
            Self::Terminal {
                bar: spinner(output),
                ended: 0,
            }
        }
    }

    /// Shows what is new.
    pub(crate) fn show(&mut self, moment: &Moment) {
        match self {
            Self::Hidden => {}
            Self::Log(log) => {
                for line in log.lines(moment, Timestamp::now().as_micros()) {
                    eprintln!("{line}");
                }
            }
            Self::Terminal { bar, ended } => {
                for step in &moment.steps[(*ended).min(moment.steps.len())..] {
                    let Some(end) = &step.end else { break };
                    let mark = if end.well { '✓' } else { '✗' };
                    bar.println(format!("{mark} {}  {}", step.name, end.words));
                    *ended += 1;
                }
                if let Some(step) = moment.steps.last().filter(|step| step.end.is_none()) {
                    bar.set_message(format!("{}  {}", step.name, moment.waits));
                }
            }
        }
    }

    /// Removes the spinner.
    pub(crate) fn finish(self) {
        if let Self::Terminal { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

/// A spinner with the elapsed time, if a person is watching.
pub(crate) fn spinner(output: Output) -> ProgressBar {
    if output.format().is_some() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// The lines of a log: one as each step begins, one as it ends, and what it waits for in between.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// How many steps it has said to begin, and to have ended.
    begun: usize,
    ended: usize,
    /// What the last line said that the step waits for.
    waits: String,
    /// When the last line was written.
    at: i64,
}

impl Log {
    /// What is new in `moment`, which is looked at `now` (microseconds since 1970).
    pub(crate) fn lines(&mut self, moment: &Moment, now: i64) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, step) in moment.steps.iter().enumerate().skip(self.ended) {
            if index >= self.begun {
                lines.push(line(step.began, &step.name, "begins", ""));
                self.begun = index + 1;
                self.waits.clear();
            }
            let Some(end) = &step.end else { break };
            let what = format!("{} after {}", end.status, seconds(end.at - step.began));
            lines.push(line(end.at, &step.name, &what, &end.words));
            self.ended = index + 1;
        }
        if !lines.is_empty() {
            self.at = now;
            return lines;
        }
        let since = now - self.at;
        let is_due = since >= SILENCE || (since >= CALM && moment.waits != self.waits);
        if let Some(step) = moment.steps.last().filter(|step| step.end.is_none() && is_due) {
            let what = format!("waits since {}", seconds(now - step.began));
            lines.push(line(now, &step.name, &what, &moment.waits));
            self.waits.clone_from(&moment.waits);
            self.at = now;
        }
        lines
    }
}

fn line(at: i64, step: &str, what: &str, words: &str) -> String {
    let time = Timestamp::from_micros(at).to_string();
    // `2026-01-01T12:00:00.000000Z`: a log has the day already, or the reader knows it.
    let clock = time.get(11..19).unwrap_or(&time);
    let first = words.lines().next().unwrap_or_default();
    let mut cut: String = first.chars().take(WORDS).collect();
    if cut.len() < first.len() {
        cut.push('…');
    }
    let colon = if cut.is_empty() { "" } else { ": " };
    format!("{clock}Z  {step:<16}  {what}{colon}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    /// 12:00:00.
    const NOON: i64 = 12 * 3600 * SECOND;

    fn step(name: &str, began: i64, end: Option<(i64, &str, &str)>) -> Step {
        Step {
            name: name.to_owned(),
            began: NOON + began * SECOND,
            end: end.map(|(at, status, words)| End {
                at: NOON + at * SECOND,
                well: status == "succeeded",
                status: status.to_owned(),
                words: words.to_owned(),
            }),
        }
    }

    fn moment(steps: &[Step], waits: &str) -> Moment {
        Moment {
            steps: steps.to_vec(),
            waits: waits.to_owned(),
        }
    }

    #[test]
    fn a_log_has_a_line_as_a_step_begins_and_as_it_ends() {
        let mut log = Log::default();
        let mut said = |moment: &Moment, now: i64| log.lines(moment, NOON + now * SECOND);
        let none = [""; 0];
        let build = step("build", 0, None);
        assert_eq!(
            said(&moment(std::slice::from_ref(&build), "fetching"), 0),
            ["12:00:00Z  build             begins"]
        );
        assert_eq!(said(&moment(std::slice::from_ref(&build), "fetching"), 1), none);
        // What it waits for is said soon, and again only when it has changed.
        let waits = "12:00:05Z  build             waits since 5.0s: fetching";
        assert_eq!(
            said(&moment(std::slice::from_ref(&build), "fetching"), 5),
            [waits]
        );
        assert_eq!(said(&moment(std::slice::from_ref(&build), "fetching"), 11), none);
        assert_eq!(
            said(&moment(std::slice::from_ref(&build), "building"), 9),
            none,
            "not too often"
        );
        let waits = "12:00:12Z  build             waits since 12.0s: building";
        assert_eq!(
            said(&moment(std::slice::from_ref(&build), "building"), 12),
            [waits]
        );
        // A minute of silence is the most, also when nothing has changed.
        assert_eq!(said(&moment(std::slice::from_ref(&build), "building"), 71), none);
        let waits = "12:01:12Z  build             waits since 1m12s: building";
        assert_eq!(
            said(&moment(std::slice::from_ref(&build), "building"), 72),
            [waits]
        );
        // Steps that came and went between two looks have both their lines, with their own times.
        let built = step("build", 0, Some((80, "succeeded", "sha256:77c6")));
        let lane = step("dev/lane", 80, Some((81, "succeeded", "")));
        let deploy = step("dev/deploy", 81, None);
        assert_eq!(
            said(&moment(&[built.clone(), lane.clone(), deploy], "1 of 2 pods"), 82),
            [
                "12:01:20Z  build             succeeded after 1m20s: sha256:77c6",
                "12:01:20Z  dev/lane          begins",
                "12:01:21Z  dev/lane          succeeded after 1.0s",
                "12:01:21Z  dev/deploy        begins",
            ]
        );
        let failed = step(
            "dev/deploy",
            81,
            Some((90, "failed", "CRASH_LOOP: pod shop-1\nmore")),
        );
        let all = moment(&[built, lane, failed], "");
        assert_eq!(
            said(&all, 90),
            ["12:01:30Z  dev/deploy        failed after 9.0s: CRASH_LOOP: pod shop-1"]
        );
        assert_eq!(said(&all, 300), none, "nothing is said after the end");
    }
}
