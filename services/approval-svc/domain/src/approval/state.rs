//! Where an approval stands, and what a decision changes.

use serde::{Deserialize, Serialize};
use slipway_model::{Actor, Id, Principal, Reason, Timestamp};

use super::{Event, RecordedRequest, Refusal, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approve,
    Reject,
}

/// The decision of one person.
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
    /// Absent before the request. Stored states call it `asked`.
    #[serde(rename = "asked")]
    pub request: Option<RecordedRequest>,
    pub decisions: Vec<Decision>,
    pub reason: Option<Reason>,
    pub requested_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
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

    /// For people: how many approvals there are, and who could give the missing ones. `None` unless it is pending.
    pub fn waits_for(&self) -> Option<String> {
        let request = self.request.as_ref().filter(|_| self.status == Status::Pending)?;
        let (have, need) = (self.approvals(), request.required);
        let more = need.saturating_sub(have);
        let who = match request.eligible() {
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
        let why = if request.required > request.policy.required {
            let unmapped: Vec<&str> = request.unmapped_authors.iter().map(String::as_str).collect();
            format!(
                " (policy {} requires {}; unmapped authors: {})",
                request.policy.name,
                request.policy.required,
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

    pub(super) fn begin(&mut self, request: RecordedRequest, at: Timestamp) {
        self.status = Status::Pending;
        self.request = Some(request);
        self.requested_at = Some(at);
    }

    pub(super) fn end(&mut self, status: Status, reason: &Reason, at: Timestamp) {
        self.status = status;
        self.reason = Some(reason.clone());
        self.ended_at = Some(at);
    }

    /// When it expired, if that is over.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<Timestamp> {
        self.request
            .as_ref()
            .map(|request| request.expires_at)
            .filter(|expires_at| now >= *expires_at)
    }

    /// Whether it waits for a decision that this actor may make, as far as the policy says; the API checks the role.
    pub fn waits_for_decision_of(&self, by: &Actor, now: Timestamp) -> bool {
        self.request.as_ref().is_some_and(|request| {
            self.check_open(request, now).is_ok() && self.check_decider(request, by).is_ok()
        })
    }

    fn check_open(&self, request: &RecordedRequest, now: Timestamp) -> Result<(), Refusal> {
        match self.overdue(now) {
            _ if self.status == Status::Expired => Err(Refusal::Expired(request.expires_at)),
            _ if self.status.is_final() => Err(Refusal::Final(self.status)),
            Some(expired) => Err(Refusal::Expired(expired)),
            None => Ok(()),
        }
    }

    fn check_decider(&self, request: &RecordedRequest, by: &Actor) -> Result<(), Refusal> {
        by.principals().try_for_each(|who| request.check_allowed(who))?;
        let person = by.effective();
        if !request.policy.approvers.is_empty() && !request.policy.approvers.contains(person) {
            let approvers: Vec<String> = request.policy.approvers.iter().map(ToString::to_string).collect();
            return Err(Refusal::NotAnApprover {
                who: person.clone(),
                policy: request.policy.name.to_string(),
                approvers: approvers.join(", "),
            });
        }
        if self.has_decided(person) {
            return Err(Refusal::AlreadyDecided(person.clone()));
        }
        Ok(())
    }

    pub(super) fn decide(
        &self,
        id: &Id,
        verdict: Verdict,
        named_binding: &str,
        by: Actor,
        comment: String,
        now: Timestamp,
    ) -> Result<Vec<Event>, Refusal> {
        let request = self.request.as_ref().ok_or_else(|| Refusal::Absent(id.clone()))?;
        self.check_open(request, now)?;
        if named_binding != request.binding {
            return Err(Refusal::BindingMismatch);
        }
        self.check_decider(request, &by)?;
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
            Verdict::Approve if self.approvals() + 1 >= request.required => {
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

pub(super) fn expired(at: Timestamp) -> Event {
    let message = format!("not decided before {at}");
    Event::Expired {
        reason: Reason::new("EXPIRED", message),
    }
}
