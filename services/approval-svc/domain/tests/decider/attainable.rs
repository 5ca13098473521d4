//! A request that can never be approved is refused when it is made, and no other.

use std::collections::BTreeSet;

use approval_domain::{
    approval::{Command, Deciders, Refusal, Request, State, Status, Verdict},
    policy::Policy,
};
use proptest::prelude::*;
use slipway_model::{Actor, Principal};

use crate::{
    NOW, actor, apply,
    laws::{PEOPLE, chain, requests, some},
    policy, request, who, word,
};

fn ask(request: &Request) -> Result<State, Refusal> {
    let mut state = State::default();
    apply(&mut state, Command::Request(Box::new(request.clone())), NOW)?;
    Ok(state)
}

/// With the `approve` role; those of the second list also have the `delegate` role.
fn roles(approve: &[&str], delegate: &[&str]) -> Deciders {
    let both = approve.iter().chain(delegate);
    Deciders {
        approve: both.map(|name| who(name)).collect(),
        delegate: delegate.iter().map(|name| who(name)).collect(),
    }
}

/// alice asks, dave wrote it.
#[test]
fn what_can_never_be_approved_is_refused_at_once() {
    let from = |requested_by: &str, policy: Policy, deciders: Deciders| Request {
        requested_by: actor(requested_by),
        deciders,
        ..request(policy)
    };
    let of = |policy, deciders| from("alice", policy, deciders);
    let unmapped = |policy, deciders| Request {
        unmapped_authors: BTreeSet::from(["x@y".to_owned()]),
        ..of(policy, deciders)
    };
    let lax = |required, approvers: &[&str]| Policy {
        exclude_requester: false,
        exclude_authors: false,
        ..policy(required, approvers)
    };
    let listed = || roles(&["alice", "bob", "carol", "dave"], &[]);
    for (case, request, refusal) in [
        (
            "everyone on the list is excluded",
            of(policy(1, &["alice", "dave"]), listed()),
            "policy prod needs 1 approval here, but nobody may decide (token/alice requested it; token/dave wrote the \
             commit); add approvers to the policy, or let someone else request it",
        ),
        (
            "too few of the list are left",
            of(policy(2, &["alice", "bob"]), listed()),
            "policy prod needs 2 approvals here, but only 1 person may decide (token/alice requested it); add approvers to \
             the policy, or let someone else request it",
        ),
        (
            "enough of the list are left",
            of(policy(2, &["alice", "bob", "carol"]), listed()),
            "",
        ),
        (
            "no list, and everyone with the role is excluded",
            of(policy(1, &[]), roles(&["alice", "dave"], &[])),
            "policy prod needs 1 approval here, but nobody may decide (token/alice requested it; token/dave wrote the \
             commit); give more people the approve role for shop in prod, or let someone else request it",
        ),
        (
            "no list, and nobody has the role",
            of(lax(1, &[]), roles(&[], &[])),
            "policy prod needs 1 approval here, but nobody may decide (nobody else has the approve role here); give more \
             people the approve role for shop in prod, or let someone else request it",
        ),
        (
            "no list, and too few have the role",
            of(policy(3, &[]), roles(&["alice", "bob", "carol"], &[])),
            "policy prod needs 3 approvals here, but only 2 people may decide (token/alice requested it); give more people \
             the approve role for shop in prod, or let someone else request it",
        ),
        (
            "no list, and enough have the role",
            of(policy(2, &[]), roles(&["alice", "bob", "carol"], &[])),
            "",
        ),
        ("the rules are off", of(lax(1, &[]), roles(&["alice"], &[])), ""),
        (
            "the list is of people without the role, and no bot passes on decisions",
            of(policy(1, &["bob", "erin"]), roles(&["alice", "carol"], &[])),
            "policy prod needs 1 approval here, but nobody may decide (token/bob, token/erin lack the approve role here); \
             give them the approve role for shop in prod",
        ),
        (
            "a bot passes on the decisions of the list",
            of(policy(2, &["bob", "erin"]), roles(&[], &["bot"])),
            "",
        ),
        (
            "the only bot is what requested it",
            from("bot for alice", policy(1, &["bob"]), roles(&[], &["bot"])),
            "policy prod needs 1 approval here, but nobody may decide (token/bob lacks the approve role here); give them the \
             approve role for shop in prod",
        ),
        (
            "each of the requester's links is excluded",
            from(
                "deployer for relay for alice",
                policy(1, &[]),
                roles(&["alice", "relay", "deployer"], &[]),
            ),
            "policy prod needs 1 approval here, but nobody may decide (token/alice, token/deployer, token/relay requested \
             it); give more people the approve role for shop in prod, or let someone else request it",
        ),
        (
            "an unmapped author costs one more than the list has",
            unmapped(policy(2, &["bob", "carol"]), listed()),
            "policy prod needs 3 approvals here, but only 2 people may decide (unmapped authors raise the number from 2 to 3: \
             x@y); name the authors and map them to people, or add approvers",
        ),
        (
            "an unmapped author costs one more than have the role",
            unmapped(policy(1, &[]), roles(&["alice", "bob"], &[])),
            "policy prod needs 2 approvals here, but only 1 person may decide (token/alice requested it; unmapped authors \
             raise the number from 1 to 2: x@y); name the authors and map them to people, or add approvers",
        ),
        ("nothing is required", of(policy(0, &[]), roles(&[], &[])), ""),
    ] {
        let said = ask(&request).err().map(|error| error.to_string());
        assert_eq!(said.unwrap_or_default(), refusal, "{case}");
        if !refusal.is_empty() {
            let refused = ask(&request).unwrap_err();
            let kind = slipway_decider::Refusal::kind(&refused);
            let pinned = slipway_decider::RefusalKind::FailedPrecondition("NOT_ENOUGH_APPROVERS");
            assert_eq!(kind, pinned, "{case}");
        }
    }
}

/// What the API lets through: a decision by someone with the role, or by a bot on behalf of a person, who needs the role
/// too where the policy lists nobody.
fn decisions(deciders: &Deciders, policy: &Policy) -> Vec<Actor> {
    let mut found = Vec::new();
    for person in PEOPLE {
        let has_role = deciders.approve.contains(&who(person));
        if has_role {
            found.push(chain(None, person));
        }
        if has_role || !policy.approvers.is_empty() {
            for bot in PEOPLE.iter().filter(|bot| **bot != person) {
                if deciders.delegate.contains(&who(bot)) {
                    found.push(chain(Some(bot), person));
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn refused_is_exactly_what_no_decisions_could_approve(
        request in requests(),
        approve in some(proptest::collection::vec(0..PEOPLE.len(), 0..6)),
        delegate in some(proptest::collection::vec(0..PEOPLE.len(), 0..2)),
    ) {
        let approve: BTreeSet<Principal> = approve.union(&delegate).cloned().collect();
        let request = Request { deciders: Deciders { approve, delegate }, ..request };
        // The same request where roles exclude nobody shows which decisions the policy takes.
        let mut open = request.clone();
        open.deciders = roles(&[], &PEOPLE);
        let everyone = decisions(&request.deciders, &request.policy);
        match ask(&request) {
            Ok(mut state) => {
                for by in everyone {
                    let Command::Decide { binding, .. } = word(&state, Verdict::Approve, "bob") else { unreachable!() };
                    let command = Command::Decide { verdict: Verdict::Approve, binding, by, comment: String::new() };
                    let _ = apply(&mut state, command, NOW);
                }
                prop_assert_eq!(state.status, Status::Approved);
            }
            Err(Refusal::NotEnoughApprovers { required, .. }) => {
                let Ok(state) = ask(&open) else { return Ok(()) };
                let allowed = everyone.iter().filter(|by| {
                    let Command::Decide { binding, .. } = word(&state, Verdict::Approve, "bob") else { unreachable!() };
                    let by = (*by).clone();
                    let command = Command::Decide { verdict: Verdict::Approve, binding, by, comment: String::new() };
                    apply(&mut state.clone(), command, NOW).is_ok()
                });
                let people: BTreeSet<&Principal> = allowed.map(Actor::effective).collect();
                prop_assert!(people.len() < required as usize, "{people:?}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
