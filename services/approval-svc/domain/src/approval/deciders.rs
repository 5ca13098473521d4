//! Whether a request can be approved at all: who may decide by roles, and whom the policy leaves of them.

use std::collections::BTreeSet;

use slipway_model::Principal;

use super::{RecordedRequest, Refusal};

/// How many names a refusal lists.
const NAMES: usize = 5;

/// Who may decide on a subject by the roles of its scope, whatever the policy says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deciders {
    /// They have the `approve` role.
    pub approve: BTreeSet<Principal>,
    /// They also have the `delegate` role, with the same token: they pass on decisions of people.
    pub delegate: BTreeSet<Principal>,
}

impl Deciders {
    /// Refuses a request that can never be approved, instead of letting it wait until it expires.
    pub(super) fn check_grantable(&self, request: &RecordedRequest) -> Result<(), Refusal> {
        let policy = &request.policy;
        // Without a list, the policy leaves the decision to whoever has the role, through a bot too.
        let candidates = if policy.approvers.is_empty() {
            &self.approve
        } else {
            &policy.approvers
        };
        let (allowed, excluded): (Vec<_>, Vec<_>) = candidates
            .iter()
            .partition(|who| request.check_allowed(who).is_ok());
        // Every link of a decider's chain is checked, so a bot that requested the approval passes on nothing.
        let passed_on = self.delegate.iter().any(|bot| request.check_allowed(bot).is_ok());
        let (eligible, without_role): (Vec<_>, Vec<_>) = allowed
            .into_iter()
            .partition(|who| passed_on || self.approve.contains(*who));
        if usize::try_from(request.required).is_ok_and(|required| required <= eligible.len()) {
            return Ok(());
        }
        Err(Refusal::NotEnoughApprovers {
            policy: policy.name.to_string(),
            required: request.required,
            eligible: eligible.len(),
            because: because(request, &excluded, &without_role),
            remedy: remedy(request, &without_role),
        })
    }
}

/// Why others may not decide.
fn because(request: &RecordedRequest, excluded: &[&Principal], without_role: &[&Principal]) -> String {
    let (requesters, authors): (Vec<&Principal>, Vec<&Principal>) = excluded
        .iter()
        .copied()
        .partition(|who| matches!(request.check_allowed(who), Err(Refusal::SelfApproval(..))));
    let mut parts = Vec::new();
    if !requesters.is_empty() {
        parts.push(format!("{} requested it", names(&requesters)));
    }
    if !authors.is_empty() {
        parts.push(format!("{} wrote the commit", names(&authors)));
    }
    if !without_role.is_empty() {
        let verb = if without_role.len() == 1 { "lacks" } else { "lack" };
        parts.push(format!("{} {verb} the approve role here", names(without_role)));
    }
    if request.required > request.policy.required {
        let unmapped: Vec<&String> = request.unmapped_authors.iter().collect();
        parts.push(format!(
            "unmapped authors raise the number from {} to {}: {}",
            request.policy.required,
            request.required,
            names(&unmapped)
        ));
    }
    if parts.is_empty() {
        "nobody else has the approve role here".to_owned()
    } else {
        parts.join("; ")
    }
}

fn remedy(request: &RecordedRequest, without_role: &[&Principal]) -> String {
    let scope = &request.subject.scope;
    let here = match &scope.environment {
        Some(environment) => format!("{} in {environment}", scope.service),
        None => format!("{} in every environment", scope.service),
    };
    if request.required > request.policy.required {
        "name the authors and map them to people, or add approvers".to_owned()
    } else if !without_role.is_empty() {
        format!("give them the approve role for {here}")
    } else if request.policy.approvers.is_empty() {
        format!("give more people the approve role for {here}, or let someone else request it")
    } else {
        "add approvers to the policy, or let someone else request it".to_owned()
    }
}

fn names<T: ToString>(all: &[T]) -> String {
    let mut shown: Vec<String> = all.iter().take(NAMES).map(ToString::to_string).collect();
    if all.len() > NAMES {
        shown.push(format!("{} more", all.len() - NAMES));
    }
    shown.join(", ")
}
