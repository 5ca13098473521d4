//! Compares one run of kubectl with our verdicts on the same states.

use slipway_model::{ImageRef, Timestamp};

use super::{
    Options, Recorded, Row, Run,
    align::{Alignment, State, align},
    beside,
    cluster::{Key, resource},
    command::Command,
    is_noise, is_own_failure,
    recording::{ReadError, Recording},
    states::{Outcome, Tick, ticks},
    targets::targets,
    timed_out, title, words,
};
use crate::{
    Applied, Expected, FailureReason, Verdict, Verify, Workload, WorkloadKind, created, judge, kubectl,
};

/// How much earlier than its `--timeout` kubectl may seem to have ended, and how long before its end a state is
/// certain to have reached it, in milliseconds.
const JITTER_MS: i64 = 1500;

pub(super) fn compare(
    recording: &Recording,
    recorded: &Recorded,
    command: &Command,
    options: &Options,
    start: Timestamp,
) -> Result<Run, ReadError> {
    let mut run = Run {
        tool: "kubectl rollout status".to_owned(),
        command: title(recorded, command),
        rows: Vec::new(),
        exit: recorded.exited.and_then(|(_, code)| code),
        disagreements: Vec::new(),
        differences: Vec::new(),
        notes: Vec::new(),
        additions: None,
    };
    let mut lines: Vec<(i64, &str)> = Vec::new();
    for (t, text) in &recorded.lines {
        if is_noise(text) {
            run.notes
                .push(format!("at {t} ms, not about the rollout: {text}"));
        } else {
            lines.push((*t, text));
        }
        run.rows.push(Row {
            t_ms: *t,
            told: text.clone(),
            ..Row::default()
        });
    }
    if let Some((t, own)) = lines.iter().find(|(_, text)| is_own_failure(text)) {
        run.notes.push(format!(
            "at {t} ms kubectl failed by itself, so the rest is not compared: {own}"
        ));
        return Ok(run);
    }
    let targets = targets(recording, recorded, command)?;
    if targets.is_empty() {
        let notes =
            "the recording does not name what kubectl watched, and no object of the recording fits its lines";
        match lines.first() {
            Some((t, line)) if not_found(line).is_none() => {
                run.disagreements
                    .push(format!("at {t} ms kubectl says {line:?}; {notes}"));
            }
            _ => run.notes.push(notes.to_owned()),
        }
        return Ok(run);
    }
    let mut rest = &lines[..];
    let mut began = recorded.started;
    let last = targets.len() - 1;
    for (number, (kind, key)) in targets.iter().enumerate() {
        let ticks = ticks(recording, *kind, key, command.revision)?;
        let one = One {
            recorded,
            command,
            options,
            start,
            kind: *kind,
            key,
            ticks: &ticks,
            began,
            last: number == last,
        };
        let used = one.compare(rest, &mut run);
        began = used
            .checked_sub(1)
            .and_then(|used| rest.get(used))
            .map_or(began, |line| line.0);
        rest = &rest[used..];
    }
    for (t, line) in rest {
        run.disagreements.push(format!(
            "at {t} ms kubectl says {line:?} after our verdict had ended it"
        ));
    }
    run.rows = beside(run.rows);
    Ok(run)
}

fn not_found(line: &str) -> Option<&str> {
    line.strip_prefix("Error from server (NotFound): ")
}

struct One<'a> {
    recorded: &'a Recorded,
    command: &'a Command,
    options: &'a Options,
    start: Timestamp,
    kind: WorkloadKind,
    key: &'a Key,
    ticks: &'a [Tick],
    /// When kubectl moved on to this object.
    began: i64,
    /// It is the last that kubectl looks at.
    last: bool,
}

impl One<'_> {
    /// Compares the lines that are about this object; returns how many.
    fn compare(&self, lines: &[(i64, &str)], run: &mut Run) -> usize {
        let index: Vec<usize> = (0..self.ticks.len())
            .filter(|one| self.ticks[*one].state)
            .collect();
        let mut states: Vec<State> = index.iter().map(|one| self.state(&self.ticks[*one])).collect();
        // If it was deleted before kubectl began, it is not found.
        let absent = self.not_found().printed();
        if lines.first().is_some_and(|(_, line)| *line == absent) {
            let deleted = kubectl::Error::Deleted.printed();
            for state in states.iter_mut().filter(|state| state.words == deleted) {
                state.words.clone_from(&absent);
            }
        }
        // What ends the run without reporting a state.
        let told = lines
            .iter()
            .position(|(_, line)| *line == timed_out())
            .unwrap_or(lines.len());
        let mut alignment = align(&lines[..told], &states, self.began);
        // After the state that ends it come the lines about the next object.
        let mut used = told;
        if !self.last
            && let Some(end) = alignment
                .states
                .iter()
                .position(|state| state.is_some_and(|state| states[state].ends))
        {
            used = end + 1;
            alignment.states.truncate(used);
            alignment.unexplained.retain(|number| *number < used);
        }
        for number in &alignment.unexplained {
            run.disagreements
                .push(self.unexplained(lines[*number], &alignment, *number, &states));
        }
        let first = alignment
            .states
            .iter()
            .flatten()
            .next()
            .map(|state| index[*state]);
        let last = alignment
            .states
            .iter()
            .flatten()
            .last()
            .map(|state| index[*state]);
        let end = self.recorded.exited.map_or(i64::MAX, |(t, _)| t);
        let until = match last {
            // A state that ends the run is the last of it, even if others arrived before kubectl's process had ended.
            Some(last) if self.ends(&self.ticks[last].outcome) => last,
            // Anything that arrived just before the end may not have reached kubectl.
            _ => self.last_before(end - JITTER_MS).max(last.unwrap_or(0)),
        };
        let first = first.unwrap_or_else(|| self.last_before(self.began).min(until));
        self.plain(first, until, run);
        self.full(first, until, run);
        if told < lines.len() {
            self.timeout(lines[told].0, until, run);
            return lines.len();
        }
        if self.last {
            self.exit(lines, until, run);
        }
        used
    }

    fn state(&self, tick: &Tick) -> State {
        let words = match &tick.outcome {
            Outcome::Absent => self.not_found().printed(),
            Outcome::Judged(Ok(status)) => status.line.clone(),
            Outcome::Judged(Err(error)) => error.printed(),
        };
        State {
            t_ms: tick.t_ms,
            words,
            ends: self.ends(&tick.outcome),
            after_gap: tick.after_gap,
        }
    }

    fn not_found(&self) -> kubectl::Error {
        kubectl::Error::NotFound {
            resource: format!("{}.apps", resource(self.kind)),
            name: self.key.1.clone(),
        }
    }

    /// Whether kubectl ends with it.
    fn ends(&self, outcome: &Outcome) -> bool {
        match outcome {
            // kubectl ends if it finds nothing at its start, which is the only time it can.
            Outcome::Absent | Outcome::Judged(Err(_)) => true,
            Outcome::Judged(Ok(status)) => status.done || !self.command.watch,
        }
    }

    fn last_before(&self, t_ms: i64) -> usize {
        self.ticks.iter().rposition(|tick| tick.t_ms <= t_ms).unwrap_or(0)
    }

    fn unexplained(
        &self,
        (t, line): (i64, &str),
        alignment: &Alignment,
        number: usize,
        states: &[State],
    ) -> String {
        let before = alignment.states[..number].iter().rev().flatten().next();
        let next = before.map_or_else(
            || states.iter().rposition(|state| state.t_ms <= t),
            |before| Some((before + 1).min(states.len() - 1)),
        );
        let ours = next.map_or("nothing", |next| states[next].words.as_str());
        format!("at {t} ms kubectl says {line:?}; we would say {ours:?}")
    }

    /// Our verdict without the additions, on each state that kubectl saw.
    fn plain(&self, first: usize, until: usize, run: &mut Run) {
        let expected = self.expected(first, Verify::AS_KUBECTL);
        let mut shown = String::new();
        for tick in &self.ticks[first..=until] {
            let verdict = judge(&expected, &tick.observed, self.at(tick));
            if tick.state && !agrees(&tick.outcome, &verdict) {
                run.disagreements.push(format!(
                    "at {} ms our verdict is {:?} and kubectl's {:?}",
                    tick.t_ms,
                    words(&verdict),
                    self.state(tick).words
                ));
            }
            let text = words(&verdict);
            if text != shown {
                run.rows.push(Row {
                    t_ms: tick.t_ms.max(self.began),
                    plain: text.clone(),
                    ..Row::default()
                });
                shown = text;
            }
        }
    }

    /// Our verdict with the additions, until it is final.
    fn full(&self, first: usize, until: usize, run: &mut Run) {
        let expected = self.expected(first, self.options.verify);
        let mut shown = String::new();
        let last = self.ticks[until].t_ms;
        for (index, tick) in self.ticks.iter().enumerate().take(until + 1).skip(first) {
            let mut now = self.at(tick);
            let next = self.ticks.get(index + 1).filter(|_| index < until);
            let next = next.map_or(last.max(tick.t_ms), |next| next.t_ms);
            let verdict = loop {
                let verdict = judge(&expected, &tick.observed, now);
                match &verdict {
                    // A deadline that passes before anything else happens.
                    Verdict::Progressing {
                        look_again: Some(at), ..
                    } if *at > now && *at < self.time(next) => now = *at,
                    _ => break verdict,
                }
            };
            let t_ms = (now.as_micros() - self.start.as_micros()) / 1000;
            let t_ms = t_ms.max(self.began);
            let text = words(&verdict);
            if text != shown {
                run.rows.push(Row {
                    t_ms,
                    full: text.clone(),
                    ..Row::default()
                });
                shown = text;
            }
            if verdict == Verdict::Complete && !self.may_complete(&tick.outcome) {
                run.disagreements.push(format!(
                    "at {t_ms} ms our verdict with the additions is COMPLETE and kubectl's {:?}",
                    self.state(tick).words
                ));
            }
            if !matches!(verdict, Verdict::Progressing { .. }) {
                run.additions = Some((t_ms, verdict));
                return;
            }
        }
        if let Outcome::Judged(Err(error)) = &self.ticks[until].outcome
            && !is_revision(error)
            && !(*error == kubectl::Error::Strategy && self.options.verify.digest)
        {
            run.disagreements.push(format!(
                "at {last} ms kubectl fails with {:?}; with the additions we still wait: {shown}",
                error.printed()
            ));
        }
    }

    /// kubectl does not judge strategies other than RollingUpdate, and ours may be good; a revision given to kubectl is
    /// not something that we check.
    fn may_complete(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Judged(Ok(status)) => status.done,
            Outcome::Judged(Err(error)) => is_revision(error) || *error == kubectl::Error::Strategy,
            Outcome::Absent => false,
        }
    }

    fn expected(&self, first: usize, verify: Verify) -> Expected {
        let live = self.ticks[first].observed.workload.as_ref();
        let metadata = live.map(Workload::metadata);
        let image: Option<ImageRef> = live
            .and_then(Workload::template)
            .and_then(|template| template.spec.as_ref())
            .and_then(|spec| spec.containers.first())
            .and_then(|container| container.image.as_deref())
            .and_then(|image| image.parse().ok());
        let known = image.is_some();
        let extras = verify.fail_early || verify.digest;
        Expected {
            image: image.unwrap_or_else(nothing),
            epoch: u64::MAX,
            // What kubectl saw first is what was requested; kubectl itself does not care whose it is.
            applied: match metadata.filter(|_| extras) {
                Some(metadata) => Applied {
                    uid: metadata.uid.clone().unwrap_or_default(),
                    generation: metadata.generation.unwrap_or(0),
                    created_at: created(metadata),
                    previous: None,
                },
                None => Applied::default(),
            },
            verify: Verify {
                digest: verify.digest && known,
                ..verify
            },
            since: self.time(self.began),
            sync: None,
            promotes: false,
            restored: None,
            moving_tag: false,
        }
    }

    fn at(&self, tick: &Tick) -> Timestamp {
        // What was there before the run began is judged when it begins.
        self.time(tick.t_ms.max(self.began))
    }

    fn time(&self, t_ms: i64) -> Timestamp {
        Timestamp::from_micros(self.start.as_micros().saturating_add(t_ms.saturating_mul(1000)))
    }

    /// kubectl's own timeout: we are still waiting, and our deadline has passed.
    fn timeout(&self, t: i64, until: usize, run: &mut Run) {
        let Some(timeout) = self.command.timeout else {
            run.disagreements.push(format!(
                "at {t} ms kubectl timed out, without a --timeout to do so"
            ));
            return;
        };
        let deadline = self.recorded.started + i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX / 2);
        if t < deadline - JITTER_MS {
            run.disagreements.push(format!(
                "at {t} ms kubectl timed out, before its {timeout:?} had passed"
            ));
        }
        let tick = &self.ticks[until];
        // A timeout that expires before kubectl has read anything says nothing.
        if t - self.began > JITTER_MS
            && self.ends(&tick.outcome)
            && !matches!(tick.outcome, Outcome::Absent)
            && self.command.watch
        {
            run.disagreements.push(format!(
                "at {t} ms kubectl timed out, and our verdict since {} ms is {:?}",
                tick.t_ms,
                self.state(tick).words
            ));
        }
        run.rows.push(Row {
            t_ms: deadline.min(t),
            plain: format!("our deadline of {timeout:?} has passed"),
            ..Row::default()
        });
        self.code(Some(1), run);
    }

    /// The exit code that corresponds to our verdict.
    fn exit(&self, lines: &[(i64, &str)], until: usize, run: &mut Run) {
        if self.recorded.exited.is_none() {
            run.notes
                .push("the recording ends before kubectl does".to_owned());
            return;
        }
        let code = match &self.ticks[until].outcome {
            Outcome::Judged(Ok(status)) if status.done || (!self.command.watch && !lines.is_empty()) => {
                Some(0)
            }
            Outcome::Judged(Ok(_)) => None,
            Outcome::Judged(Err(_)) | Outcome::Absent => Some(1),
        };
        self.code(code, run);
    }

    fn code(&self, ours: Option<i64>, run: &mut Run) {
        let Some((t, Some(code))) = self.recorded.exited else {
            if self.recorded.exited.is_some() {
                run.notes.push("kubectl was ended by a signal".to_owned());
            }
            return;
        };
        // As a shell reports it: interrupted, killed, terminated.
        if code < 0 || matches!(code, 130 | 137 | 143) {
            run.notes.push(format!("kubectl was ended by a signal ({code})"));
        } else if ours != Some(code.min(1)) {
            let ours = match ours {
                Some(0) => "complete, which is 0",
                Some(_) => "failed, which is 1",
                None => "that the rollout goes on",
            };
            run.disagreements.push(format!(
                "at {t} ms kubectl exits with {code}; our verdict is {ours}"
            ));
        }
    }
}

fn is_revision(error: &kubectl::Error) -> bool {
    matches!(
        error,
        kubectl::Error::Revision { .. } | kubectl::Error::RevisionUnreadable { .. }
    )
}

/// Whether our verdict without the additions agrees with kubectl's.
fn agrees(kubectl: &Outcome, ours: &Verdict) -> bool {
    let failed = |reason| matches!(ours, Verdict::Failed(failure) if failure.reason == reason);
    match kubectl {
        Outcome::Absent => matches!(ours, Verdict::Progressing { .. }),
        Outcome::Judged(Ok(status)) if status.done => *ours == Verdict::Complete,
        Outcome::Judged(Ok(_)) => {
            matches!(ours, Verdict::Progressing { message, look_again: None } if !message.is_empty())
        }
        Outcome::Judged(Err(kubectl::Error::ProgressDeadline(_))) => {
            failed(FailureReason::ProgressDeadlineExceeded)
        }
        Outcome::Judged(Err(kubectl::Error::Strategy)) => failed(FailureReason::NotRolledOut),
        Outcome::Judged(Err(kubectl::Error::Deleted)) => failed(FailureReason::Deleted),
        // A revision given to kubectl is not something that a verdict checks.
        Outcome::Judged(Err(_)) => true,
    }
}

/// Stands for an unreadable image, which is then not checked.
fn nothing() -> ImageRef {
    #[allow(clippy::expect_used)]
    "none".parse().expect("a name")
}
