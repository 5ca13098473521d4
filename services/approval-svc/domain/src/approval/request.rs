//! Requests for approvals: as they come, and as they are recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use slipway_model::{Actor, Principal, Timestamp};

use super::{Deciders, Refusal};
use crate::{
    people::UNKNOWN_AUTHOR,
    policy::{Policy, binding},
    subject::Subject,
};

/// A request, with the policy and the roles as they are configured now, and the authors as they are mapped now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub subject: Subject,
    pub policy: Policy,
    pub requested_by: Actor,
    pub authors: BTreeSet<Principal>,
    pub unmapped_authors: BTreeSet<String>,
    /// Who may decide on this subject by their roles. Not recorded: roles are checked again with each decision.
    pub deciders: Deciders,
    pub correlation: String,
    pub labels: BTreeMap<String, String>,
}

/// A request as it is recorded: later changes of policies and people do not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRequest {
    pub subject: Subject,
    pub policy: Policy,
    /// Hash over subject and policy; a decision names it.
    pub binding: String,
    pub requested_by: Actor,
    /// Authors of the commits who are mapped to principals.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub authors: BTreeSet<Principal>,
    /// Authors who are not mapped to a principal.
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

impl RecordedRequest {
    pub(super) fn new(request: Request, now: Timestamp) -> Self {
        let Request {
            subject,
            policy,
            requested_by,
            authors,
            mut unmapped_authors,
            deciders: _,
            correlation,
            labels,
        } = request;
        if policy.exclude_authors && authors.is_empty() && unmapped_authors.is_empty() {
            // Naming no author must not be a way around the rule about authors.
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

    /// The listed approvers whom no rule excludes; `None` when the policy lists none and leaves the decision to roles.
    pub fn eligible(&self) -> Option<Vec<&Principal>> {
        if self.policy.approvers.is_empty() {
            return None;
        }
        Some(
            self.policy
                .approvers
                .iter()
                .filter(|who| self.check_allowed(who).is_ok())
                .collect(),
        )
    }

    /// Checks a principal against the rules about requester and authors. Every link of the chain that requested the
    /// approval counts as requester; of a decider's chain every link is checked, so that no bot is a way around a rule.
    pub(super) fn check_allowed(&self, who: &Principal) -> Result<(), Refusal> {
        let policy = self.policy.name.to_string();
        if self.policy.exclude_requester && self.requested_by.principals().any(|link| link == who) {
            return Err(Refusal::SelfApproval(who.clone(), policy));
        }
        if self.policy.exclude_authors && self.authors.contains(who) {
            return Err(Refusal::AuthorApproval(who.clone(), policy));
        }
        Ok(())
    }
}
