//! The effect of a command on a deployment in its current state.

use slipway_decider::{Decider, Impossible};
use slipway_model::{Id, Timestamp};

use super::{
    Ask, Deployment, DeploymentCommand as Command, DeploymentEvent as Event, DeploymentRefusal as Refusal,
    DeploymentState, DeploymentStep as Step, Reason, bake,
    ending::{and_on, collected, failed},
    state::{ABORTED, stop_key},
    timing,
};
use crate::result::{CheckResult, JobResult};

/// How many progress messages are recorded for one deployment; later ones are not.
const MAX_PROGRESS: u32 = 200;

pub(super) fn decide(
    id: &Id,
    state: &DeploymentState,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    if state.request.is_none() {
        return match command {
            Command::Request(request) => {
                let deadline = now + request.timeout;
                let nothing_to_do = request.next(None).is_none();
                let mut events = vec![Event::Requested { request, deadline }];
                if nothing_to_do {
                    events.push(Event::Succeeded {});
                }
                Ok(events)
            }
            _ => Err(Refusal::Unknown(id.clone())),
        };
    }
    let wanted = command.key().is_some_and(|key| Deployment::wants(id, state, key));
    Ok(match command {
        Command::Request(_) => Vec::new(),
        Command::LaneLeft if state.status.is_final() && state.holds_lane() => vec![Event::LaneLeft {}],
        Command::LaneLeft if state.active() => return Err(Impossible::new(id, state.words()).into()),
        Command::Stopped { key } if state.stray.is_some() && key == stop_key() => vec![Event::Stopped {}],
        Command::Promote { full } => asked(state, Ask::Promote { full })?,
        Command::Abort { message } => asked(state, Ask::Abort { message })?,
        Command::Cancel { message } if state.active() => {
            vec![Event::Cancelled {
                reason: Reason::new("CANCELLED", message),
            }]
        }
        Command::Wake if state.active() => timing::wake(state, now),
        Command::Told { key, declined }
            if state.active() && state.ask.is_some() && key == state.ask_key() =>
        {
            told(state, declined)
        }
        Command::Reverting { key, change }
            if state.step == Step::Revert && state.reverting.is_none() && state.expects(&key) =>
        {
            vec![Event::Reverting { change }]
        }
        // The first answer may be the last one already.
        Command::Reverted { key, commit }
            if state.step == Step::Revert && (state.observes(&key) || state.expects(&key)) =>
        {
            and_on(state, Event::Reverted { commit })
        }
        Command::JobEnded { key, result } if state.expects(&key) && state.job().is_some() => {
            job_ended(state, result)
        }
        Command::Applied { key, applied } if state.step == Step::Apply && state.expects(&key) => {
            and_on(state, Event::Applied { applied })
        }
        Command::RolledOut { key } if state.step == Step::Rollout && state.expects(&key) => {
            and_on(state, Event::RolledOut {})
        }
        Command::Checked { key, results } if state.step == Step::Checks && state.expects(&key) => {
            checked(state, results)
        }
        Command::Measured {
            key,
            measurements,
            verdict,
        } if state.step == Step::Bake && state.expects(&key) => {
            bake::measured(state, measurements, verdict, now)
        }
        Command::Evidence { key, evidence } if state.step == Step::Evidence && state.expects(&key) => {
            vec![collected(state, evidence)]
        }
        Command::StepsKnown { key, steps } if state.expects(&key) => {
            timing::steps_known(state, steps).into_iter().collect()
        }
        Command::Progress { key, message, human } if state.expects(&key) || state.observes(&key) => {
            progress(state, message, human)
        }
        Command::Warn { key, warnings } if state.expects(&key) => {
            let news = (warnings != state.warnings).then_some(Event::Warned { warnings });
            news.into_iter().collect()
        }
        Command::Away { key, reason } if state.expects(&key) || state.observes(&key) => away(state, reason),
        Command::Refused { key, reason } if state.expects(&key) || state.observes(&key) => {
            vec![refused(state, with_whom(state, reason))]
        }
        Command::Stumbled { key, reason } if state.expects(&key) && state.reverting.is_none() => {
            vec![Event::Stumbled {
                step: state.step,
                attempt: state.attempt,
                code: reason.code,
                message: reason.message,
                retry_at: now + timing::pause(id, state.stumbles + 1),
            }]
        }
        // The outcome of one step's effect, with the key of another's.
        _ if wanted => return Err(Impossible::new(id, state.words()).into()),
        // Of an older attempt, or too late.
        _ => Vec::new(),
    })
}

/// The person who requested the abort is named even if the watch shows the abort before the answer arrives.
fn with_whom(state: &DeploymentState, reason: Reason) -> Reason {
    match &state.ask {
        Some(Ask::Abort { message }) if reason.code == ABORTED => {
            Reason::new(ABORTED, format!("{message}; {}", reason.message))
        }
        _ => reason,
    }
}

fn refused(state: &DeploymentState, reason: Reason) -> Event {
    match state.step {
        // Nothing was written, or not everything: there is no rollout to collect evidence about.
        Step::Revert | Step::Before | Step::Apply => failed(state, reason, Vec::new()),
        Step::Rollout | Step::Checks | Step::After | Step::Bake => Event::Failing { reason },
        Step::Evidence => collected(state, Vec::new()),
    }
}

fn job_ended(state: &DeploymentState, result: JobResult) -> Vec<Event> {
    if result.succeeded {
        let more = state.request.as_ref().is_some_and(|request| {
            let jobs = request.jobs_of(state.step);
            state.job().map(|job| &job.name) != jobs.last().map(|job| &job.name)
        });
        let event = Event::JobEnded { result };
        return if more { vec![event] } else { and_on(state, event) };
    }
    let mut message = format!("job {} failed: {}", result.name, result.message);
    if let Some(line) = result.log_tail.iter().rev().find(|line| !line.trim().is_empty()) {
        message = format!("{message}; its last log line: {line}");
    }
    if state.step == Step::Before {
        message = format!("{message}; nothing else was changed");
    }
    let reason = Reason::new("JOB_FAILED", message);
    vec![Event::JobEnded { result }, refused(state, reason)]
}

fn checked(state: &DeploymentState, results: Vec<CheckResult>) -> Vec<Event> {
    let failures: Vec<String> = results
        .iter()
        .filter(|result| !result.passed)
        .map(|result| {
            let attempts = if result.attempts == 1 {
                "1 attempt".to_owned()
            } else {
                format!("{} attempts", result.attempts)
            };
            format!("check {} failed after {attempts}", result.name)
        })
        .collect();
    // The checks show all answers in full.
    let first = results.iter().find(|result| !result.passed);
    let answer = first.map(|result| cut(&result.last_answer)).unwrap_or_default();
    let event = Event::Checked { results };
    let message = match failures.as_slice() {
        [] => return and_on(state, event),
        [one] => format!("{one}: {answer}"),
        [first, others @ ..] => format!("{first}: {answer}; {}", others.join("; ")),
    };
    let reason = Reason::new("CHECK_FAILED", message);
    vec![event, Event::Failing { reason }]
}

/// The beginning of an answer's first line.
fn cut(answer: &str) -> String {
    const LONGEST: usize = 200;
    let line = answer.lines().next().unwrap_or_default();
    let mut kept: String = line.chars().take(LONGEST).collect();
    if kept.len() < answer.trim_end().len() {
        kept.push('…');
    }
    kept
}

// Whether the remote system can be asked determines how the deadline ends it, and a person who is waited for should
// know: both are recorded without limit.
fn progress(state: &DeploymentState, message: String, human: bool) -> Vec<Event> {
    let turns = state.fault.is_some() || human != state.human;
    let says = message != state.progress && state.progress_count < MAX_PROGRESS;
    let event = Event::Progressed {
        message,
        fault: false,
        code: String::new(),
        human,
    };
    if turns || says { vec![event] } else { Vec::new() }
}

fn away(state: &DeploymentState, reason: Reason) -> Vec<Event> {
    let known = state.fault.as_ref();
    let turns = known.is_none_or(|known| known.code != reason.code);
    let says = known != Some(&reason) && state.progress_count < MAX_PROGRESS;
    let event = Event::Progressed {
        message: reason.message,
        fault: true,
        code: reason.code,
        human: false,
    };
    if turns || says { vec![event] } else { Vec::new() }
}

fn asked(state: &DeploymentState, ask: Ask) -> Result<Vec<Event>, Refusal> {
    let kind = state.request.as_ref().map(|request| request.target.kind);
    if let Some(kind) = kind
        && !kind.may_have_steps()
    {
        return Err(Refusal::NoSteps(kind));
    }
    if !state.active() || state.step != Step::Rollout {
        return Err(Refusal::NotRollingOut(state.words()));
    }
    match (&state.ask, &ask) {
        (Some(same), _) if *same == ask => Ok(Vec::new()),
        // An abort is not overruled by a promotion.
        (Some(Ask::Abort { .. }), _) => Ok(Vec::new()),
        _ => Ok(vec![Event::Asked { ask }]),
    }
}

fn told(state: &DeploymentState, declined: Option<String>) -> Vec<Event> {
    match (declined, &state.ask) {
        (Some(message), _) => vec![Event::Declined { message }],
        (None, Some(Ask::Abort { message })) => vec![Event::Failing {
            reason: Reason::new(ABORTED, message.clone()),
        }],
        (None, _) => vec![Event::Promoted {}],
    }
}
