//! The decider of an approval: who requested what under which policy, who decided how, and the outcome.
//!
//! The API has checked roles before a command comes here (the approve role in the subject's scope, a delegate's right to
//! speak for another principal). Everything that depends on this one approval is decided here.

use serde::{Deserialize, Serialize};
use slipway_decider::{Decider, Index};
use slipway_model::{Actor, Id, Reason, Timestamp};

mod deciders;
mod refusal;
mod request;
mod state;
pub mod v1;

pub use deciders::Deciders;
pub use refusal::Refusal;
pub use request::{RecordedRequest, Request};
pub use state::{Decision, State, Verdict};

/// The kind of aggregate; see [`Decider`].
#[derive(Debug)]
pub struct Approval;

/// Where an approval stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Never requested.
    #[default]
    Absent,
    Pending,
    Approved,
    Rejected,
    Expired,
    Cancelled,
}

impl Status {
    /// The name by which lists filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Absent => "absent",
            Status::Pending => "pending",
            Status::Approved => "approved",
            Status::Rejected => "rejected",
            Status::Expired => "expired",
            Status::Cancelled => "cancelled",
        }
    }

    pub fn is_final(self) -> bool {
        matches!(
            self,
            Status::Approved | Status::Rejected | Status::Expired | Status::Cancelled
        )
    }
}

/// What an approval can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Request(Box<Request>),
    Decide {
        verdict: Verdict,
        binding: String,
        by: Actor,
        comment: String,
    },
    Cancel {
        by: Actor,
        comment: String,
    },
    /// Given by the timer.
    Expire,
}

/// What happened. The JSON is pinned by `tests/golden`; older forms stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    #[serde(rename = "requested")]
    RequestedV1(Box<v1::RecordedRequest>),
    #[serde(rename = "requested.v2")]
    Requested(Box<RecordedRequest>),
    /// One person decided. The outcome, if this decision brings one, is an event of its own.
    #[serde(rename = "decided.v2", alias = "decided")]
    Decided {
        verdict: Verdict,
        by: Actor,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        comment: String,
    },
    Approved {
        reason: Reason,
    },
    Rejected {
        reason: Reason,
    },
    Expired {
        reason: Reason,
    },
    #[serde(rename = "cancelled.v2", alias = "cancelled")]
    Cancelled {
        by: Actor,
        reason: Reason,
    },
}

/// An approval has no effects: waiting for people is state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {}

impl Decider for Approval {
    const KIND: &'static str = "approval";
    const STATE_VERSION: u32 = 2;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    fn decide(id: &Id, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Request(_) if state.request.is_some() => Err(Refusal::Exists(id.clone())),
            Command::Request(request) => {
                let deciders = request.deciders.clone();
                let request = RecordedRequest::new(*request, now);
                deciders.check_grantable(&request)?;
                if request.required > 0 {
                    return Ok(vec![Event::Requested(Box::new(request))]);
                }
                let message = format!("policy {} requires no approvals", request.policy.name);
                let reason = Reason::new("POLICY_REQUIRES_NOBODY", message);
                Ok(vec![
                    Event::Requested(Box::new(request)),
                    Event::Approved { reason },
                ])
            }
            Command::Decide {
                verdict,
                binding,
                by,
                comment,
            } => state.decide(id, verdict, &binding, by, comment, now),
            Command::Cancel { by, comment } => match (state.status, state.overdue(now)) {
                (Status::Absent, _) => Err(Refusal::Absent(id.clone())),
                (Status::Pending, Some(at)) => Ok(vec![state::expired(at)]),
                (Status::Pending, None) => {
                    let message = if comment.is_empty() {
                        format!("cancelled by {by}")
                    } else {
                        comment
                    };
                    Ok(vec![Event::Cancelled {
                        by,
                        reason: Reason::new("CANCELLED", message),
                    }])
                }
                _ => Ok(Vec::new()),
            },
            Command::Expire => match (state.status, state.overdue(now)) {
                (Status::Pending, Some(at)) => Ok(vec![state::expired(at)]),
                _ => Ok(Vec::new()),
            },
        }
    }

    fn evolve(state: &mut State, event: &Event, at: Timestamp) {
        match event {
            Event::RequestedV1(old) => state.begin(v1::RecordedRequest::clone(old).into(), at),
            Event::Requested(request) => state.begin(RecordedRequest::clone(request), at),
            Event::Decided { verdict, by, comment } => {
                state.decisions.push(Decision {
                    verdict: *verdict,
                    by: by.clone(),
                    comment: comment.clone(),
                    at,
                });
            }
            Event::Approved { reason } => state.end(Status::Approved, reason, at),
            Event::Rejected { reason } => state.end(Status::Rejected, reason, at),
            Event::Expired { reason } => state.end(Status::Expired, reason, at),
            Event::Cancelled { reason, .. } => state.end(Status::Cancelled, reason, at),
        }
    }

    fn wake_at(state: &State) -> Option<Timestamp> {
        state
            .request
            .as_ref()
            .filter(|_| state.status == Status::Pending)
            .map(|request| request.expires_at)
    }

    fn wake() -> Option<Command> {
        Some(Command::Expire)
    }

    fn index(state: &State) -> Index {
        let Some(request) = &state.request else {
            return Index::default();
        };
        Index {
            status: state.status.as_str().to_owned(),
            service: request.subject.scope.service.to_string(),
            environment: request.subject.scope.environment().to_owned(),
            correlation: request.correlation.clone(),
            labels: request.labels.clone(),
        }
    }

    fn is_final(state: &State) -> bool {
        state.status.is_final()
    }
}
