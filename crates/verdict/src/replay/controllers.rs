//! Compares what controllers' own tools said with our verdicts on the same states.
//!
//! Without the additions our verdict must be the tool's, by this mapping: Healthy or Succeeded is complete; Degraded or
//! Failed is failed; a pause that has no duration waits for a person. With the additions a rollout may fail earlier, or
//! be complete later, never the opposite, except for the differences that are named.

mod expectation;
mod ticks;

use slipway_model::Timestamp;

use super::{
    Options, Recorded, Row, Run, beside,
    cluster::Cluster,
    is_noise,
    oracle::{self, Question, Said, Wants},
    recording::{ReadError, Recording, What},
    words,
};
use crate::{Expected, Managed, Next, Observed, Verdict, Verify, Workload, application, job, judge, next};

use expectation::nothing_expected;
use ticks::{Seen, Tick, ticks};

/// How long after a state a tool may tell of it, or before the recorder saw it, in milliseconds.
const LATE_MS: i64 = 3000;
const EARLY_MS: i64 = 1500;

/// A verdict, and whether a person is waited for.
struct Ours {
    verdict: Verdict,
    asks: bool,
}

impl Ours {
    fn said(&self) -> Said {
        match &self.verdict {
            Verdict::Complete => Said::Complete,
            Verdict::Failed(_) => Said::Failed,
            Verdict::Progressing { .. } if self.asks => Said::WaitsForAPerson,
            Verdict::Progressing { .. } => Said::GoesOn,
        }
    }
}

/// Compares one run; `None` if the tool was asked something that is not a verdict.
pub(super) fn compare(
    recording: &Recording,
    tool: String,
    recorded: Recorded,
    options: &Options,
    start: Timestamp,
) -> Result<Option<Run>, ReadError> {
    let mut all = Cluster::default();
    for line in &recording.lines {
        if let What::Watch { resource, event } = &line.what
            && event.kind != "DELETED"
        {
            all.apply(line, resource, event)?;
        }
    }
    let Some(question) = oracle::question(&tool, &recorded, recording.namespace.as_deref(), &all) else {
        return Ok(None);
    };
    let one = One::new(recording, tool, recorded, question, options, start)?;
    Ok(Some(one.compare()))
}

struct One {
    tool: String,
    recorded: Recorded,
    question: Question,
    ticks: Vec<Tick>,
    start: Timestamp,
    plain: Expected,
    full: Expected,
}

impl One {
    fn new(
        recording: &Recording,
        tool: String,
        recorded: Recorded,
        question: Question,
        options: &Options,
        start: Timestamp,
    ) -> Result<Self, ReadError> {
        let ticks = ticks(recording, &question)?;
        let mut one = Self {
            tool,
            recorded,
            question,
            ticks,
            start,
            plain: nothing_expected(),
            full: nothing_expected(),
        };
        one.plain = one.expected(recording, Verify::AS_KUBECTL);
        // An Application that is Degraded has failed; without its workloads nothing else ends it early.
        one.plain.verify.fail_early = matches!(one.question, Question::Application(..));
        one.full = one.expected(recording, options.verify);
        if let Some(sync) = &one.full.sync {
            one.ticks.iter_mut().for_each(|tick| tick.adopt(sync));
        }
        Ok(one)
    }

    fn time(&self, t_ms: i64) -> Timestamp {
        Timestamp::from_micros(self.start.as_micros().saturating_add(t_ms.saturating_mul(1000)))
    }

    fn end(&self) -> i64 {
        self.recorded.exited.map_or(i64::MAX / 4, |(t, _)| t)
    }

    fn judge(&self, tick: &Tick, expected: &Expected, now: Timestamp) -> Ours {
        match &tick.seen {
            Seen::Job { live: Some(live), .. } => Ours::of(job::judge(live)),
            Seen::Job {
                live: None,
                deleted: true,
            } => Ours::of(job::deleted()),
            Seen::Job { live: None, .. } => Ours::of(crate::progressing(crate::UNSEEN.to_owned())),
            Seen::Workload(observed) => {
                let verdict = judge(expected, observed, now);
                let asks = match &observed.workload {
                    Some(Workload::Application(_)) => application::steps(expected, &observed.managed)
                        .iter()
                        .any(|(_, next)| matches!(next, Next::Ask(_))),
                    Some(live) => matches!(next(expected, live), Next::Ask(_)),
                    None => false,
                };
                Ours { verdict, asks }
            }
        }
    }

    /// Without the additions: Argo CD's word alone.
    fn judge_plainly(&self, tick: &Tick) -> Ours {
        let now = self.time(tick.t_ms.max(self.recorded.started));
        let Seen::Workload(observed) = &tick.seen else {
            return self.judge(tick, &self.plain, now);
        };
        let Some(Workload::Application(live)) = &observed.workload else {
            return self.judge(tick, &self.plain, now);
        };
        let alone = Observed {
            managed: Managed::Unknown,
            ..Observed::clone(observed)
        };
        Ours {
            verdict: judge(&self.plain, &alone, now),
            asks: live.status.health.status == "Suspended",
        }
    }

    /// The states that a tool can have told of at that time, the last one before them first.
    fn told_of(&self, t: i64) -> &[Tick] {
        let until = self.ticks.partition_point(|tick| tick.t_ms <= t + EARLY_MS);
        let from = self.ticks.partition_point(|tick| tick.t_ms < t - LATE_MS);
        &self.ticks[from.saturating_sub(1)..until.max(1)]
    }

    fn compare(self) -> Run {
        let mut run = Run {
            tool: self.tool.clone(),
            command: format!("{} {}", self.tool, self.recorded.args.join(" ")),
            rows: Vec::new(),
            exit: self.recorded.exited.and_then(|(_, code)| code),
            disagreements: Vec::new(),
            differences: Vec::new(),
            notes: Vec::new(),
            additions: None,
        };
        self.compare_lines(&mut run);
        self.compare_end(&mut run);
        self.show_plain(&mut run);
        self.compare_additions(&mut run);
        run.rows = beside(run.rows);
        run
    }

    fn compare_lines(&self, run: &mut Run) {
        for (t, text) in &self.recorded.lines {
            if is_noise(text) || !self.says_something(text) {
                continue;
            }
            run.rows.push(Row {
                t_ms: *t,
                told: text.clone(),
                ..Row::default()
            });
            let candidates = self.told_of(*t);
            let same: Vec<&Tick> = match &self.question {
                Question::Rollout(_) => {
                    if oracle::of_rollout_line(text, None).is_none() {
                        continue;
                    }
                    candidates
                        .iter()
                        .filter(|tick| tick.line().as_ref() == Some(text))
                        .collect()
                }
                Question::Canary(..) => candidates
                    .iter()
                    .filter(|tick| tick.line().as_ref() == Some(text))
                    .collect(),
                Question::Application(..) | Question::Job(..) => continue,
            };
            if same.is_empty() {
                let ours = self.at(*t).and_then(Tick::line).unwrap_or_default();
                run.disagreements.push(format!(
                    "at {t} ms {} says {text:?}; we would say {ours:?}",
                    self.tool
                ));
                continue;
            }
            self.agree(*t, text, &same, run);
        }
    }

    /// One of these states must have the verdict that the text stands for.
    fn agree(&self, t: i64, text: &str, states: &[&Tick], run: &mut Run) {
        let agrees = states.iter().any(|tick| {
            let ours = self.judge_plainly(tick).said();
            match &self.question {
                Question::Rollout(_) => oracle::of_rollout_line(text, tick.rollout()) == Some(ours),
                _ => oracle::of_canary_phase(text) == ours,
            }
        });
        let Some(last) = states.last().filter(|_| !agrees) else {
            return;
        };
        let ours = self.judge_plainly(last);
        // Looked up without anything having been asked for: the end of a run before the last change.
        let unasked = self.recorded.args.is_empty() && ours.said() == Said::GoesOn;
        let words = format!(
            "at {t} ms {} says {text:?}; our verdict is {:?}",
            self.tool,
            words(&ours.verdict)
        );
        if unasked {
            run.notes.push(words);
        } else {
            run.disagreements.push(words);
        }
    }

    /// Lines that only repeat, or are for people.
    fn says_something(&self, text: &str) -> bool {
        match &self.question {
            Question::Application(..) => ["Sync Status:", "Health Status:", "Phase:", "{\"level\"", "FATA"]
                .iter()
                .any(|start| text.starts_with(start)),
            _ => true,
        }
    }

    fn compare_end(&self, run: &mut Run) {
        let Some((t, code)) = self.recorded.exited else {
            run.notes
                .push(format!("the recording ends before {} does", self.tool));
            return;
        };
        let Some(code) = code else { return };
        if code < 0 || matches!(code, 130 | 137 | 143) {
            run.notes
                .push(format!("{} was ended by a signal ({code})", self.tool));
            return;
        }
        let states = self.told_of(t);
        let said = self.at_end(code);
        if !self.saw_end(t, code) {
            run.notes.push(format!(
                "at {t} ms {} exits with {code}; the recorder's own watch did not show what it saw",
                self.tool
            ));
            return;
        }
        let matches = |tick: &&Tick| {
            let ours = self.judge_plainly(tick).said();
            match (&said, &self.question) {
                (Said::NotComplete, _) => ours != Said::Complete,
                (Said::OperationEnded, _) => tick.application().is_some_and(|live| {
                    live.operation.is_none()
                        && (oracle::of_operation(live) == Said::Failed) == (ours == Said::Failed)
                }),
                (Said::Other, Question::Application(_, wants)) => {
                    tick.application().is_some_and(|live| wants.are_met(live))
                }
                (Said::Other, _) => true,
                (said, Question::Application(_, wants)) if code == 0 => {
                    ours == *said && tick.application().is_some_and(|live| wants.are_met(live))
                }
                (said, _) => ours == *said,
            }
        };
        if states.iter().any(|tick| matches(&tick)) {
            return;
        }
        let ours = states.last().map(|tick| words(&self.judge_plainly(tick).verdict));
        run.disagreements.push(format!(
            "at {t} ms {} exits with {code}, which is {}; our verdict is {:?}",
            self.tool,
            meaning(&said),
            ours.unwrap_or_default()
        ));
    }

    /// Whether the recording has the state that ended the tool: a watch of the recorder may have ended before. The phase
    /// of a Canary is the state itself.
    fn saw_end(&self, t: i64, code: i64) -> bool {
        match &self.question {
            Question::Canary(_, Some(until)) if code == 0 => self
                .told_of(t)
                .iter()
                .any(|tick| tick.line().as_ref() == Some(until)),
            _ => true,
        }
    }

    /// What the end of the tool says.
    fn at_end(&self, code: i64) -> Said {
        let last = self.recorded.lines.iter().rev().map(|(_, text)| text.as_str());
        let mut last = last.filter(|text| !text.is_empty());
        match &self.question {
            Question::Application(_, wants) if code == 0 => wants.reached(),
            Question::Application(..) => {
                let degraded = last.any(|text| text.contains("to Degraded") && text.contains("transitioned"));
                if degraded { Said::Failed } else { Said::NotComplete }
            }
            Question::Rollout(_) if code == 0 => Said::Complete,
            Question::Rollout(_) => {
                let said = last.find_map(|text| oracle::of_rollout_line(text, None));
                if said == Some(Said::Failed) {
                    Said::Failed
                } else {
                    Said::NotComplete
                }
            }
            Question::Canary(_, Some(until)) if code == 0 => oracle::of_canary_phase(until),
            Question::Canary(..) => Said::Other,
            Question::Job(_, oracle::End::Complete) if code == 0 => Said::Complete,
            Question::Job(_, oracle::End::Failed) if code == 0 => Said::Failed,
            Question::Job(_, oracle::End::Complete) => Said::NotComplete,
            Question::Job(_, oracle::End::Failed) => Said::Other,
        }
    }

    /// The states from the beginning of the run to its end.
    fn during(&self) -> &[Tick] {
        let from = self
            .ticks
            .partition_point(|tick| tick.t_ms <= self.recorded.started)
            .saturating_sub(1);
        let until = self.ticks.partition_point(|tick| tick.t_ms <= self.end());
        &self.ticks[from..until.max(from)]
    }

    fn show_plain(&self, run: &mut Run) {
        let mut shown = String::new();
        for tick in self.during() {
            let text = words(&self.judge_plainly(tick).verdict);
            if text != shown {
                run.rows.push(Row {
                    t_ms: tick.t_ms.max(self.recorded.started),
                    plain: text.clone(),
                    ..Row::default()
                });
                shown = text;
            }
        }
    }

    /// Our verdict with the additions, until it is final.
    fn compare_additions(&self, run: &mut Run) {
        let ticks = self.during();
        let mut shown = String::new();
        for (index, tick) in ticks.iter().enumerate() {
            let mut now = self.time(tick.t_ms.max(self.recorded.started));
            let until = ticks
                .get(index + 1)
                .map_or(self.end().min(tick.t_ms + LATE_MS), |next| next.t_ms);
            let ours = loop {
                let ours = self.judge(tick, &self.full, now);
                match &ours.verdict {
                    // A deadline that passes before anything else happens.
                    Verdict::Progressing {
                        look_again: Some(at), ..
                    } if *at > now && *at < self.time(until) => now = *at,
                    _ => break ours,
                }
            };
            let t_ms = (now.as_micros() - self.start.as_micros()) / 1000;
            let text = words(&ours.verdict);
            if text != shown {
                run.rows.push(Row {
                    t_ms,
                    full: text.clone(),
                    ..Row::default()
                });
                shown.clone_from(&text);
            }
            match ours.verdict {
                Verdict::Progressing { .. } => {}
                Verdict::Complete => {
                    self.may_complete(tick, t_ms, now, run);
                    run.additions = Some((t_ms, Verdict::Complete));
                    return;
                }
                failed @ Verdict::Failed(_) => {
                    if self.code() == Some(0) && self.at_end(0) == Said::Complete {
                        run.differences.push(format!(
                            "at {t_ms} ms the additions give up what {} still sees end well: {text}",
                            self.tool
                        ));
                    }
                    run.additions = Some((t_ms, failed));
                    return;
                }
            }
        }
        if let Some(code) = self.code()
            && self.at_end(code) == Said::Failed
            && self.saw_end(self.end(), code)
        {
            run.disagreements.push(format!(
                "at {} ms {} has failed; with the additions we still wait: {shown}",
                self.end(),
                self.tool
            ));
        }
    }

    fn code(&self) -> Option<i64> {
        self.recorded.exited.and_then(|(_, code)| code)
    }

    /// With the additions nothing is complete before the tool says so, unless a warning says what it waits for.
    fn may_complete(&self, tick: &Tick, t_ms: i64, now: Timestamp, run: &mut Run) {
        let content = |tick: &Tick| match (&self.question, &tick.seen) {
            (Question::Application(_, wants), _) => {
                let wants = if wants.for_completion() {
                    *wants
                } else {
                    Wants {
                        health: true,
                        ..Wants::default()
                    }
                };
                tick.application().is_some_and(|live| wants.are_met(live))
            }
            (Question::Rollout(_), _) => {
                let line = tick.line().unwrap_or_default();
                oracle::of_rollout_line(&line, tick.rollout()) == Some(Said::Complete)
            }
            (Question::Canary(..), _) => tick
                .line()
                .is_some_and(|phase| oracle::of_canary_phase(&phase) == Said::Complete),
            (Question::Job(_, end), _) => *end == oracle::End::Complete,
        };
        let later = self
            .ticks
            .iter()
            .filter(|one| (t_ms..=t_ms + EARLY_MS).contains(&one.t_ms));
        if content(tick) || later.into_iter().any(content) {
            return;
        }
        let warnings = match (&tick.seen, tick.application()) {
            (Seen::Workload(observed), Some(live)) => {
                let situation = application::Situation {
                    managed: Some(&observed.managed),
                    ..application::Situation::default()
                };
                application::warnings(&self.full, live, &situation, now)
            }
            _ => Vec::new(),
        };
        if warnings.is_empty() {
            run.disagreements.push(format!(
                "at {t_ms} ms our verdict with the additions is COMPLETE, and {} is not content yet",
                self.tool
            ));
        } else {
            run.differences.push(format!(
                "at {t_ms} ms complete with a warning, where {} waits on: {}",
                self.tool,
                warnings.join("; ")
            ));
        }
    }
}

impl Ours {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, asks: false }
    }
}

fn meaning(said: &Said) -> &'static str {
    match said {
        Said::Complete => "complete",
        Said::Failed => "failed",
        Said::WaitsForAPerson => "waiting for a person",
        Said::GoesOn => "that the rollout goes on",
        Said::NotComplete => "not complete",
        Said::OperationEnded => "that the operation has ended",
        Said::Other => "what it was asked for",
    }
}
