//! One deployment: a commit's manifests taken by a cluster, and proof that the image runs. Pure.
//!
//! `apply → rollout → checks`, each a step with attempts. What the far side refuses fails the deployment; what could
//! not be asked is tried again until the deadline, and only then is the end *errored*: we could not tell. On failure
//! the reason is recorded first and the pods' evidence is collected after it, in a step of its own.

mod request;
mod state;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, EffectKey, Index};
use slipway_model::{Id, Timestamp};

use slipway_verdict::{Applied, evidence::PodEvidence};

use crate::result::CheckResult;

pub use request::{Action, DeploymentRequest, Source};
pub use state::{DeploymentState, DeploymentStatus, DeploymentStep, Reason};

/// Words about progress that are kept of one deployment; later ones are not recorded.
const MAX_PROGRESS: u32 = 200;
/// Collecting evidence may take so long before the deployment ends without.
const EVIDENCE_TIME: Duration = Duration::from_secs(45);
/// The pause after a fault that passes, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The decider of deployments.
#[derive(Debug)]
pub enum Deployment {}

/// What happens to a deployment. Outcomes carry the key of the attempt that they come from.
#[derive(Debug, Clone)]
pub enum DeploymentCommand {
    /// The same id again changes nothing.
    Request(Box<DeploymentRequest>),
    Cancel {
        message: String,
    },
    Applied {
        key: EffectKey,
        applied: Applied,
    },
    RolledOut {
        key: EffectKey,
    },
    Checked {
        key: EffectKey,
        results: Vec<CheckResult>,
    },
    Evidence {
        key: EffectKey,
        evidence: Vec<PodEvidence>,
    },
    /// What is being waited for; `fault`: since the far side cannot be asked.
    Progress {
        key: EffectKey,
        message: String,
        fault: bool,
    },
    /// The far side's answer is no.
    Refused {
        key: EffectKey,
        reason: Reason,
    },
    /// The far side could not be asked.
    Stumbled {
        key: EffectKey,
        message: String,
    },
    LaneLeft,
    Wake,
}

/// What has happened to a deployment. Their JSON form is pinned by golden files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DeploymentEvent {
    Requested {
        request: Box<DeploymentRequest>,
        deadline: Timestamp,
    },
    Applied {
        applied: Applied,
    },
    RolledOut {},
    Checked {
        results: Vec<CheckResult>,
    },
    Progressed {
        message: String,
        #[serde(default)]
        fault: bool,
    },
    Stumbled {
        step: DeploymentStep,
        attempt: u32,
        message: String,
        retry_at: Timestamp,
    },
    Resumed {
        step: DeploymentStep,
        attempt: u32,
    },
    /// It has failed; evidence is collected next.
    Failing {
        reason: Reason,
    },
    Succeeded {},
    Failed {
        reason: Reason,
        #[serde(default)]
        evidence: Vec<PodEvidence>,
    },
    Errored {
        reason: Reason,
    },
    Cancelled {
        reason: Reason,
    },
    /// It gave the lane's turn back.
    LaneLeft {},
}

/// What must be going on; the state says the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentEffect {
    Revert,
    Before,
    Apply,
    Rollout,
    Checks,
    After,
    Bake,
    Evidence,
    LeaveLane,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentRefusal {
    #[error("deployment {0} does not exist")]
    Unknown(Id),
}

impl Decider for Deployment {
    const KIND: &'static str = "deployment";
    const STATE_VERSION: u32 = 1;

    type State = DeploymentState;
    type Command = DeploymentCommand;
    type Event = DeploymentEvent;
    type Effect = DeploymentEffect;
    type Refusal = DeploymentRefusal;

    fn decide(
        id: &Id,
        state: &DeploymentState,
        command: DeploymentCommand,
        now: Timestamp,
    ) -> Result<Vec<DeploymentEvent>, DeploymentRefusal> {
        use DeploymentCommand as Command;
        if state.request.is_none() {
            return match command {
                Command::Request(request) => {
                    let deadline = now + request.timeout;
                    Ok(vec![DeploymentEvent::Requested { request, deadline }])
                }
                _ => Err(DeploymentRefusal::Unknown(id.clone())),
            };
        }
        Ok(match command {
            Command::Request(_) => Vec::new(),
            Command::LaneLeft if state.status.is_final() && state.holds_lane() => {
                vec![DeploymentEvent::LaneLeft {}]
            }
            Command::Cancel { message } if state.active() => {
                vec![DeploymentEvent::Cancelled {
                    reason: Reason::new("CANCELLED", message),
                }]
            }
            Command::Wake if state.active() => wake(state, now),
            Command::Applied { key, applied } if state.expects(&key) => {
                vec![DeploymentEvent::Applied { applied }]
            }
            Command::RolledOut { key } if state.expects(&key) => {
                let mut events = vec![DeploymentEvent::RolledOut {}];
                if state
                    .request
                    .as_ref()
                    .is_some_and(|request| request.checks.is_empty())
                {
                    events.push(DeploymentEvent::Succeeded {});
                }
                events
            }
            Command::Checked { key, results } if state.expects(&key) => checked(results),
            Command::Evidence { key, evidence } if state.expects(&key) => failed(state, evidence),
            Command::Progress { key, message, fault } if state.expects(&key) => {
                progress(state, message, fault)
            }
            Command::Refused { key, reason } if state.expects(&key) => match state.step {
                // Nothing was written, or not all of it: there is no rollout to collect evidence of.
                DeploymentStep::Revert | DeploymentStep::Before | DeploymentStep::Apply => {
                    vec![DeploymentEvent::Failed {
                        reason,
                        evidence: Vec::new(),
                    }]
                }
                DeploymentStep::Rollout
                | DeploymentStep::Checks
                | DeploymentStep::After
                | DeploymentStep::Bake => vec![DeploymentEvent::Failing { reason }],
                DeploymentStep::Evidence => failed(state, Vec::new()),
            },
            Command::Stumbled { key, message } if state.expects(&key) => vec![DeploymentEvent::Stumbled {
                step: state.step,
                attempt: state.attempt,
                message,
                retry_at: now + pause(id, state.attempt),
            }],
            // Of an older attempt, or too late.
            _ => Vec::new(),
        })
    }

    fn evolve(state: &mut DeploymentState, event: &DeploymentEvent, at: Timestamp) {
        match event {
            DeploymentEvent::Requested { request, deadline } => {
                state.request = Some((**request).clone());
                state.status = DeploymentStatus::Applying;
                state.requested_at = Some(at);
                state.deadline = Some(*deadline);
                state.progress = match &request.source {
                    Some(source) => format!("applying {}", source.commit.short()),
                    None => format!("changing {}", request.target),
                };
                state.begin(DeploymentStep::Apply, at);
            }
            DeploymentEvent::Applied { applied } => {
                state.status = DeploymentStatus::Verifying;
                state.applied = Some(applied.clone());
                state.applied_at = Some(at);
                state.progress = "the cluster took the manifests".to_owned();
                state.begin(DeploymentStep::Rollout, at);
            }
            DeploymentEvent::RolledOut {} => {
                state.progress = "rolled out; checks are under way".to_owned();
                state.begin(DeploymentStep::Checks, at);
            }
            DeploymentEvent::Checked { results } => state.checks.clone_from(results),
            DeploymentEvent::Progressed { message, fault } => {
                state.progress.clone_from(message);
                state.progress_count += 1;
                state.fault = fault.then(|| message.clone());
            }
            DeploymentEvent::Stumbled {
                message, retry_at, ..
            } => {
                state.fault = Some(message.clone());
                state.retry_at = Some(*retry_at);
            }
            DeploymentEvent::Resumed { attempt, .. } => {
                state.attempt = *attempt;
                state.retry_at = None;
            }
            DeploymentEvent::Failing { reason } => {
                state.failing = Some(reason.clone());
                state.progress = "collecting evidence".to_owned();
                state.begin(DeploymentStep::Evidence, at);
            }
            DeploymentEvent::Succeeded {} => state.end(DeploymentStatus::Succeeded, None, at),
            DeploymentEvent::Failed { reason, evidence } => {
                state.evidence.clone_from(evidence);
                state.end(DeploymentStatus::Failed, Some(reason), at);
            }
            DeploymentEvent::Errored { reason } => state.end(DeploymentStatus::Errored, Some(reason), at),
            DeploymentEvent::Cancelled { reason } => state.end(DeploymentStatus::Cancelled, Some(reason), at),
            DeploymentEvent::LaneLeft {} => state.lane_left = true,
        }
    }

    fn effects(_: &Id, state: &DeploymentState) -> Vec<(EffectKey, DeploymentEffect)> {
        if state.status.is_final() && state.holds_lane() {
            return vec![(EffectKey::new("leave-lane", 1), DeploymentEffect::LeaveLane)];
        }
        if !state.active() || state.retry_at.is_some() {
            return Vec::new();
        }
        let effect = match state.step {
            DeploymentStep::Revert => DeploymentEffect::Revert,
            DeploymentStep::Before => DeploymentEffect::Before,
            DeploymentStep::After => DeploymentEffect::After,
            DeploymentStep::Bake => DeploymentEffect::Bake,
            DeploymentStep::Apply => DeploymentEffect::Apply,
            DeploymentStep::Rollout => DeploymentEffect::Rollout,
            DeploymentStep::Checks => DeploymentEffect::Checks,
            DeploymentStep::Evidence => DeploymentEffect::Evidence,
        };
        vec![(state.key(), effect)]
    }

    fn wake_at(state: &DeploymentState) -> Option<Timestamp> {
        if !state.active() {
            return None;
        }
        let end = if state.failing.is_some() {
            evidence_until(state)
        } else {
            state.deadline
        };
        [state.retry_at, end].into_iter().flatten().min()
    }

    fn wake() -> Option<DeploymentCommand> {
        Some(DeploymentCommand::Wake)
    }

    fn index(state: &DeploymentState) -> Index {
        let request = state.request.as_ref();
        let text = |of: fn(&DeploymentRequest) -> &str| request.map(of).unwrap_or_default().to_owned();
        Index {
            status: state.status.as_str().to_owned(),
            service: text(|request| request.service.as_str()),
            environment: text(|request| request.environment.as_str()),
            correlation: text(|request| &request.correlation_id),
            labels: request.map(|request| request.labels.clone()).unwrap_or_default(),
        }
    }

    fn is_final(state: &DeploymentState) -> bool {
        state.status.is_final() && !state.holds_lane()
    }
}

/// What a due timer means: the end of the time, of the evidence's time, or of a pause.
fn wake(state: &DeploymentState, now: Timestamp) -> Vec<DeploymentEvent> {
    let due = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    if state.failing.is_some() {
        if due(evidence_until(state)) {
            return failed(state, Vec::new());
        }
    } else if due(state.deadline) {
        let timeout = state
            .request
            .as_ref()
            .map(|request| request.timeout)
            .unwrap_or_default();
        let (reason, known) = match (&state.fault, state.step) {
            (Some(fault), _) => (fault.as_str(), false),
            (None, DeploymentStep::Apply) => ("the manifests were not applied in time", false),
            (None, _) => (state.progress.as_str(), true),
        };
        let reason = Reason::new(
            "DEADLINE_EXCEEDED",
            format!("not verified within {} s: {reason}", timeout.as_secs()),
        );
        return vec![if known {
            DeploymentEvent::Failing { reason }
        } else {
            DeploymentEvent::Errored { reason }
        }];
    }
    if due(state.retry_at) {
        return vec![DeploymentEvent::Resumed {
            step: state.step,
            attempt: state.attempt + 1,
        }];
    }
    Vec::new()
}

fn evidence_until(state: &DeploymentState) -> Option<Timestamp> {
    state.since.map(|since| since + EVIDENCE_TIME)
}

fn failed(state: &DeploymentState, evidence: Vec<PodEvidence>) -> Vec<DeploymentEvent> {
    let reason = state
        .failing
        .clone()
        .unwrap_or_else(|| Reason::new("INTERNAL", "failed for no reason; a defect"));
    vec![DeploymentEvent::Failed { reason, evidence }]
}

fn checked(results: Vec<CheckResult>) -> Vec<DeploymentEvent> {
    let failures: Vec<String> = results
        .iter()
        .filter(|result| !result.passed)
        .map(|result| {
            let attempts = if result.attempts == 1 {
                "1 attempt".to_owned()
            } else {
                format!("{} attempts", result.attempts)
            };
            format!(
                "check {} failed after {attempts}: {}",
                result.name, result.last_answer
            )
        })
        .collect();
    let end = if failures.is_empty() {
        DeploymentEvent::Succeeded {}
    } else {
        DeploymentEvent::Failing {
            reason: Reason::new("CHECK_FAILED", failures.join("; ")),
        }
    };
    vec![DeploymentEvent::Checked { results }, end]
}

fn progress(state: &DeploymentState, message: String, fault: bool) -> Vec<DeploymentEvent> {
    let news = message != state.progress || fault != state.fault.is_some();
    // Whether the far side can be asked decides how the deadline ends it, so that is recorded without limit.
    let room = state.progress_count < MAX_PROGRESS || fault != state.fault.is_some();
    if news && room {
        vec![DeploymentEvent::Progressed { message, fault }]
    } else {
        Vec::new()
    }
}

/// Exponential, with a spread of a fifth that is the same for the same attempt.
fn pause(id: &Id, attempt: u32) -> Duration {
    let doubled = FIRST_PAUSE
        .saturating_mul(1 << attempt.saturating_sub(1).min(10))
        .min(LONGEST_PAUSE);
    let seed = id.as_str().bytes().fold(attempt, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    doubled.mul_f64(0.9 + f64::from(seed % 1000) / 5000.0)
}
