//! The decider of an approval: who asked for what under which policy, who said what, and what that comes to.
//!
//! Who may decide at all (the approve role in the subject's scope, a delegate's right to speak for somebody) was checked
//! by the time a command comes here; everything that depends on this one approval is decided here.

pub mod v1;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use slipway_ledger::{Decider, Index, RefusalKind};
use slipway_model::{Actor, Id, Principal, Reason, Timestamp};

use crate::{
    policy::{Policy, binding},
    subject::Subject,
};

/// What stands for the author when a policy excludes authors and none was named.
pub const UNKNOWN_AUTHOR: &str = "unknown";

/// The kind of aggregate; see [`Decider`].
#[derive(Debug)]
pub struct Approval;

/// Where an approval stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Was never asked for.
    #[default]
    Absent,
    Pending,
    Approved,
    Rejected,
    Expired,
    Cancelled,
}

impl Status {
    /// As lists filter by it.
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

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub subject: Subject,
    pub policy: Policy,
    /// Hash over both; a decision names it.
    pub binding: String,
    pub requested_by: Actor,
    /// Authors of the commit who are principals.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub authors: BTreeSet<Principal>,
    /// Authors who are nobody known here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unmapped_authors: BTreeSet<String>,
    /// How many different people must approve.
    pub required: u32,
    pub expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approve,
    Reject,
}

/// One person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub verdict: Verdict,
    pub by: Actor,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    pub asked: Option<Asked>,
    pub decisions: Vec<Decision>,
    pub reason: Option<Reason>,
    pub requested_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// What is asked of an approval.
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
    /// The timer's.
    Expire,
}

/// A request, with the policy as it is configured now and the authors as they map now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub subject: Subject,
    pub policy: Policy,
    pub requested_by: Actor,
    pub authors: BTreeSet<Principal>,
    pub unmapped_authors: BTreeSet<String>,
    pub correlation: String,
    pub labels: BTreeMap<String, String>,
}

/// What happened. The wire form is pinned by `tests/golden`; what has a newer form is read in the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    #[serde(rename = "requested")]
    RequestedV1(Box<v1::Asked>),
    #[serde(rename = "requested.v2")]
    Requested(Box<Asked>),
    /// Somebody gave their word; what it comes to is an event of its own.
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

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("approval {0} does not exist")]
    Absent(Id),
    #[error("approval {0} exists already")]
    Exists(Id),
    #[error("it is {} already and takes no more decisions", .0.as_str())]
    Final(Status),
    #[error("it expired at {0}; ask for a new one")]
    Expired(Timestamp),
    #[error(
        "the decision is on another subject or policy than this approval; read it again and decide on what it is for now"
    )]
    BindingMismatch,
    #[error("{0} asked for it and may not decide on it under policy {1}")]
    SelfApproval(Principal, String),
    #[error("{0} is an author of the commit and may not decide on it under policy {1}")]
    AuthorApproval(Principal, String),
    #[error("{who} is not an approver of policy {policy}; those are: {approvers}")]
    NotAnApprover {
        who: Principal,
        policy: String,
        approvers: String,
    },
    #[error("{0} has decided on it already")]
    AlreadyDecided(Principal),
    #[error(
        "policy {policy} needs {required} approvals here, but only {eligible} of its approvers may decide on this; {remedy}"
    )]
    NotEnoughApprovers {
        policy: String,
        required: u32,
        eligible: usize,
        remedy: String,
    },
}

/// There is nothing to do but wait for people, and that is state, not an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {}

impl Asked {
    fn of(request: Request, now: Timestamp) -> Self {
        let Request {
            subject,
            policy,
            requested_by,
            authors,
            mut unmapped_authors,
            correlation,
            labels,
        } = request;
        if policy.exclude_authors && authors.is_empty() && unmapped_authors.is_empty() {
            // A caller who names no author must not get past a rule about authors.
            unmapped_authors.insert(UNKNOWN_AUTHOR.to_owned());
        }
        let extra = if policy.exclude_authors && policy.required > 0 {
            unmapped_authors.len()
        } else {
            0
        };
        Self {
            binding: binding(&subject, &policy),
            required: policy
                .required
                .saturating_add(u32::try_from(extra).unwrap_or(u32::MAX)),
            expires_at: now + policy.expire_after(),
            subject,
            policy,
            requested_by,
            authors,
            unmapped_authors,
            correlation,
            labels,
        }
    }

    /// The listed approvers whom no rule excludes; `None` when the policy lists nobody and so leaves it to roles.
    pub fn eligible(&self) -> Option<Vec<&Principal>> {
        if self.policy.approvers.is_empty() {
            return None;
        }
        Some(
            self.policy
                .approvers
                .iter()
                .filter(|who| self.excluded(who).is_none())
                .collect(),
        )
    }

    /// Why someone may not decide, by the rules about requester and authors. Whoever stands anywhere in the chain that
    /// asked is a requester; whoever decides is looked at link by link, so that nobody gets past through a bot or as one.
    fn excluded(&self, who: &Principal) -> Option<Refusal> {
        let policy = self.policy.name.to_string();
        if self.policy.exclude_requester && self.requested_by.principals().any(|asked| asked == who) {
            return Some(Refusal::SelfApproval(who.clone(), policy));
        }
        if self.policy.exclude_authors && self.authors.contains(who) {
            return Some(Refusal::AuthorApproval(who.clone(), policy));
        }
        None
    }

    /// A request that nobody could ever grant is refused at once, in words, instead of waiting until it expires.
    fn grantable(&self) -> Result<(), Refusal> {
        let Some(eligible) = self.eligible().map(|eligible| eligible.len()) else {
            return Ok(());
        };
        if usize::try_from(self.required).is_ok_and(|required| required <= eligible) {
            return Ok(());
        }
        let unmapped: Vec<&str> = self.unmapped_authors.iter().map(String::as_str).collect();
        let remedy = if self.required > self.policy.required {
            format!(
                "name the authors and map them to people, or add approvers (not mapped: {})",
                unmapped.join(", ")
            )
        } else {
            "add approvers to the policy, or have somebody else ask".to_owned()
        };
        let policy = self.policy.name.to_string();
        Err(Refusal::NotEnoughApprovers {
            policy,
            required: self.required,
            eligible,
            remedy,
        })
    }
}

impl State {
    /// How many different people have approved.
    pub fn approvals(&self) -> u32 {
        let count = self
            .decisions
            .iter()
            .filter(|decision| decision.verdict == Verdict::Approve)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// For people: how far it is, and who could take it further. `None` unless it waits.
    pub fn waits_for(&self) -> Option<String> {
        let asked = self.asked.as_ref().filter(|_| self.status == Status::Pending)?;
        let (have, need) = (self.approvals(), asked.required);
        let more = need.saturating_sub(have);
        let who = match asked.eligible() {
            None => "anyone with the approve role".to_owned(),
            Some(eligible) => {
                let left: Vec<&str> = eligible
                    .into_iter()
                    .filter(|who| !self.has_decided(who))
                    .map(|who| who.subject.as_str())
                    .collect();
                left.join(", ")
            }
        };
        let why = if asked.required > asked.policy.required {
            let unmapped: Vec<&str> = asked.unmapped_authors.iter().map(String::as_str).collect();
            format!(
                " (policy {} asks for {}; authors who map to nobody: {})",
                asked.policy.name,
                asked.policy.required,
                unmapped.join(", ")
            )
        } else {
            String::new()
        };
        Some(format!("{have} of {need} approvals; {more} more by {who}{why}"))
    }

    fn has_decided(&self, who: &Principal) -> bool {
        self.decisions
            .iter()
            .any(|decision| decision.by.effective() == who)
    }

    fn begin(&mut self, asked: Asked, at: Timestamp) {
        self.status = Status::Pending;
        self.asked = Some(asked);
        self.requested_at = Some(at);
    }

    fn end(&mut self, status: Status, reason: &Reason, at: Timestamp) {
        self.status = status;
        self.reason = Some(reason.clone());
        self.ended_at = Some(at);
    }

    fn overdue(&self, now: Timestamp) -> Option<Timestamp> {
        self.asked
            .as_ref()
            .map(|asked| asked.expires_at)
            .filter(|expires_at| now >= *expires_at)
    }

    fn decide(
        &self,
        id: &Id,
        verdict: Verdict,
        named: &str,
        by: Actor,
        comment: String,
        now: Timestamp,
    ) -> Result<Vec<Event>, Refusal> {
        let asked = self.asked.as_ref().ok_or_else(|| Refusal::Absent(id.clone()))?;
        if self.status == Status::Expired {
            return Err(Refusal::Expired(asked.expires_at));
        }
        if self.status.is_final() {
            return Err(Refusal::Final(self.status));
        }
        if let Some(expired) = self.overdue(now) {
            return Err(Refusal::Expired(expired));
        }
        if named != asked.binding {
            return Err(Refusal::BindingMismatch);
        }
        if let Some(refusal) = by.principals().find_map(|who| asked.excluded(who)) {
            return Err(refusal);
        }
        let person = by.effective();
        if !asked.policy.approvers.is_empty() && !asked.policy.approvers.contains(person) {
            let approvers: Vec<String> = asked.policy.approvers.iter().map(ToString::to_string).collect();
            return Err(Refusal::NotAnApprover {
                who: person.clone(),
                policy: asked.policy.name.to_string(),
                approvers: approvers.join(", "),
            });
        }
        if self.has_decided(person) {
            return Err(Refusal::AlreadyDecided(person.clone()));
        }
        let end = match verdict {
            Verdict::Reject => {
                let message = if comment.is_empty() {
                    format!("rejected by {by}")
                } else {
                    format!("rejected by {by}: {comment}")
                };
                Some(Event::Rejected {
                    reason: Reason::new("REJECTED", message),
                })
            }
            Verdict::Approve if self.approvals() + 1 >= asked.required => {
                let mut names: Vec<String> = self
                    .decisions
                    .iter()
                    .map(|decision| decision.by.to_string())
                    .collect();
                names.push(by.to_string());
                let message = format!("approved by {}", names.join(", "));
                Some(Event::Approved {
                    reason: Reason::new("ENOUGH_APPROVALS", message),
                })
            }
            Verdict::Approve => None,
        };
        let mut events = vec![Event::Decided { verdict, by, comment }];
        events.extend(end);
        Ok(events)
    }
}

fn expired(at: Timestamp) -> Event {
    let message = format!("nobody decided before {at}");
    Event::Expired {
        reason: Reason::new("EXPIRED", message),
    }
}

impl slipway_ledger::Refusal for Refusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Absent(id) => RefusalKind::NotFound {
                kind: Approval::KIND,
                id: id.clone(),
            },
            Self::Exists(id) => RefusalKind::AlreadyExists {
                kind: Approval::KIND,
                id: id.clone(),
            },
            Self::Final(_) => RefusalKind::FailedPrecondition("FINAL"),
            Self::Expired(_) => RefusalKind::FailedPrecondition("EXPIRED"),
            Self::BindingMismatch => RefusalKind::FailedPrecondition("BINDING_MISMATCH"),
            Self::SelfApproval(..) => RefusalKind::FailedPrecondition("SELF_APPROVAL"),
            Self::AuthorApproval(..) => RefusalKind::FailedPrecondition("AUTHOR_APPROVAL"),
            Self::NotAnApprover { .. } => RefusalKind::FailedPrecondition("NOT_AN_APPROVER"),
            Self::AlreadyDecided(_) => RefusalKind::FailedPrecondition("ALREADY_DECIDED"),
            Self::NotEnoughApprovers { .. } => RefusalKind::FailedPrecondition("NOT_ENOUGH_APPROVERS"),
        }
    }
}

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
            Command::Request(_) if state.asked.is_some() => Err(Refusal::Exists(id.clone())),
            Command::Request(request) => {
                let asked = Asked::of(*request, now);
                asked.grantable()?;
                if asked.required > 0 {
                    return Ok(vec![Event::Requested(Box::new(asked))]);
                }
                let message = format!("policy {} asks nobody", asked.policy.name);
                let reason = Reason::new("POLICY_REQUIRES_NOBODY", message);
                Ok(vec![
                    Event::Requested(Box::new(asked)),
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
                (Status::Pending, Some(at)) => Ok(vec![expired(at)]),
                (Status::Pending, None) => {
                    let message = if comment.is_empty() {
                        format!("taken back by {by}")
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
                (Status::Pending, Some(at)) => Ok(vec![expired(at)]),
                _ => Ok(Vec::new()),
            },
        }
    }

    fn evolve(state: &mut State, event: &Event, at: Timestamp) {
        match event {
            Event::RequestedV1(old) => state.begin(v1::Asked::clone(old).into(), at),
            Event::Requested(asked) => state.begin(Asked::clone(asked), at),
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
            .asked
            .as_ref()
            .filter(|_| state.status == Status::Pending)
            .map(|asked| asked.expires_at)
    }

    fn wake() -> Option<Command> {
        Some(Command::Expire)
    }

    fn index(state: &State) -> Index {
        let Some(asked) = &state.asked else {
            return Index::default();
        };
        Index {
            status: state.status.as_str().to_owned(),
            service: asked.subject.scope.service.to_string(),
            environment: asked.subject.scope.environment().to_owned(),
            correlation: asked.correlation.clone(),
            labels: asked.labels.clone(),
        }
    }

    fn is_final(state: &State) -> bool {
        state.status.is_final()
    }
}
