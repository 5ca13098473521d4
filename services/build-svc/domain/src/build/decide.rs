//! What a command does to a build.

use std::time::Duration;

use slipway_decider::Impossible;
use slipway_model::{Id, Reason, Timestamp};

use super::{Command, Event, Limits, Phase, Refusal, Request, State, codes};

/// The longest wait between two attempts, in milliseconds.
pub(super) const MAX_BACKOFF_MS: u64 = 5 * 60 * 1000;

pub(super) fn decide(
    id: &Id,
    state: &State,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let Some(request) = &state.request else {
        return match command {
            Command::Request(request) => Ok(vec![Event::Requested { request }]),
            _ => Err(Refusal::NotFound(id.clone())),
        };
    };
    if let Command::Request(_) = command {
        return Err(Refusal::Exists(id.clone()));
    }
    // A final build stays as it is; the outcome of an older attempt changes nothing.
    if state.status.is_final() || command.key().is_some_and(|key| !state.is_current(key)) {
        return Ok(Vec::new());
    }
    Ok(match (command, &state.digest) {
        (Command::Begin { .. }, None) if state.started_at.is_none() => {
            vec![Event::Started {
                attempt: state.attempt,
            }]
        }
        (Command::Begin { .. }, None) => Vec::new(),
        (Command::Fetched { authors, .. }, None) => {
            let mut events = Vec::new();
            if state.authors != authors {
                events.push(Event::Fetched { authors });
            }
            if state.phase != Phase::Building {
                events.push(Event::PhaseReached {
                    attempt: state.attempt,
                    phase: Phase::Building,
                });
            }
            events
        }
        (Command::Advance { phase, .. }, None) if phase != state.phase => {
            vec![Event::PhaseReached {
                attempt: state.attempt,
                phase,
            }]
        }
        (Command::Advance { .. }, None) => Vec::new(),
        (Command::Pushed { digest, .. }, None) => vec![Event::Pushed {
            digest,
            made_by: None,
        }],
        (
            Command::Found {
                build,
                digest,
                authors,
                ..
            },
            None,
        ) => {
            let mut events = Vec::new();
            if state.authors != authors {
                events.push(Event::Fetched { authors });
            }
            events.push(Event::Pushed {
                digest,
                made_by: Some(build),
            });
            events
        }
        (Command::Tagged { tags, kept, .. }, Some(digest)) => {
            vec![Event::Succeeded {
                digest: digest.clone(),
                tags,
                kept_tags: kept,
            }]
        }
        (Command::Finished { digest, tags, .. }, None) => {
            vec![Event::Succeeded {
                digest,
                tags,
                kept_tags: Vec::new(),
            }]
        }
        (Command::Fail { reason, log_tail, .. }, _) => vec![Event::Failed { reason, log_tail }],
        (Command::Fault { reason, log_tail, .. }, _) => {
            if state.attempt >= request.limits.attempts {
                vec![Event::Errored { reason, log_tail }]
            } else {
                let retry_at = now + backoff(id, &request.limits, state.attempt);
                vec![Event::Faulted {
                    attempt: state.attempt,
                    reason,
                    retry_at,
                }]
            }
        }
        (Command::Cancel { reason }, _) => vec![Event::Cancelled {
            reason: Reason::new(codes::CANCELLED, reason),
        }],
        (Command::Wake, _) => wake(state, request, now),
        // Tags of an image that was not pushed, or a second image beside the pushed one.
        (
            Command::Request(_)
            | Command::Begin { .. }
            | Command::Fetched { .. }
            | Command::Advance { .. }
            | Command::Pushed { .. }
            | Command::Found { .. }
            | Command::Tagged { .. }
            | Command::Finished { .. },
            _,
        ) => return Err(Impossible::new(id, state.phase.as_str()).into()),
    })
}

fn wake(state: &State, request: &Request, now: Timestamp) -> Vec<Event> {
    if state.deadline().is_some_and(|deadline| deadline <= now) {
        let last_fault = state
            .fault
            .as_ref()
            .map(|fault| format!("; last fault: {}", fault.message));
        let message = format!(
            "timed out after {} s while {}{}",
            request.limits.timeout_s,
            state.phase.as_str(),
            last_fault.unwrap_or_default()
        );
        return vec![Event::Errored {
            reason: Reason::new(codes::TIMEOUT, message),
            log_tail: Vec::new(),
        }];
    }
    match state.retry_at {
        Some(retry_at) if retry_at <= now => vec![Event::Retried {
            attempt: state.attempt + 1,
        }],
        _ => Vec::new(),
    }
}

/// Doubles from attempt to attempt, up to [`MAX_BACKOFF_MS`]. The last quarter is jitter derived from the build's id, so
/// that builds which failed together are not retried together.
pub(super) fn backoff(id: &Id, limits: &Limits, attempt: u32) -> Duration {
    let whole = limits
        .backoff_ms
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(MAX_BACKOFF_MS);
    let seed = id.as_str().bytes().fold(u64::from(attempt), |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let spread = whole / 4;
    Duration::from_millis(whole - spread + if spread == 0 { 0 } else { seed % spread })
}
