//! What holds whatever an approval is told, in whatever order.

use std::{collections::BTreeSet, time::Duration};

use approval_domain::{
    approval::{Approval, Command, Decision, Request, State, Status, Verdict},
    policy::Policy,
};
use proptest::prelude::*;
use slipway_decider::Decider;
use slipway_model::{Actor, Principal};
use slipway_testbed::{Origin, decider_laws};

use crate::{NOW, actor, apply, id, policy, request, who};

/// A person, perhaps through a bot.
pub(crate) fn chain(bot: Option<&str>, person: &str) -> Actor {
    match bot {
        Some(bot) => actor(&format!("{bot} for {person}")),
        None => actor(person),
    }
}

#[test]
fn it_keeps_to_the_laws_of_deciders() {
    let said = |_: &Command| Origin::Caller;
    decider_laws::<Approval, _>(&id(), said, |state, _| {
        let binding = state
            .request
            .as_ref()
            .map(|request| request.binding.clone())
            .unwrap_or_default();
        let person = || prop::sample::select(&PEOPLE[..]);
        let verdict = prop_oneof![3 => Just(Verdict::Approve), 1 => Just(Verdict::Reject)];
        let word = (
            verdict,
            person(),
            proptest::option::weighted(0.2, person()),
            any::<bool>(),
        )
            .prop_map(move |(verdict, by, on_behalf_of, wrong)| Command::Decide {
                verdict,
                binding: if wrong { String::new() } else { binding.clone() },
                by: match on_behalf_of {
                    Some(person) => chain(Some(by), person),
                    None => actor(by),
                },
                comment: "a word".to_owned(),
            });
        prop_oneof![
            3 => requests().prop_map(|request| Command::Request(Box::new(request))),
            8 => word,
            1 => person().prop_map(|by| Command::Cancel { by: actor(by), comment: String::new() }),
            1 => Just(Command::Expire),
        ]
    });
}

pub(crate) const PEOPLE: [&str; 7] = ["alice", "bob", "carol", "dave", "erin", "frank", "bot"];

#[derive(Debug, Clone)]
enum Step {
    Word {
        verdict: Verdict,
        by: usize,
        for_: Option<usize>,
        right: bool,
    },
    Cancel(usize),
    Expire,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![4 => Just(Verdict::Approve), 1 => Just(Verdict::Reject)];
    let person = 0..PEOPLE.len();
    let step = prop_oneof![
        12 => (verdict, person.clone(), proptest::option::weighted(0.3, person.clone()), proptest::bool::weighted(0.95))
            .prop_map(|(verdict, by, for_, right)| Step::Word { verdict, by, for_, right }),
        1 => person.prop_map(Step::Cancel),
        1 => Just(Step::Expire),
        3 => (0_u64..25).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..25)
}

pub(crate) fn some(people: impl Strategy<Value = Vec<usize>>) -> impl Strategy<Value = BTreeSet<Principal>> {
    people.prop_map(|people| people.into_iter().map(|at| who(PEOPLE[at])).collect())
}

pub(crate) fn requests() -> impl Strategy<Value = Request> {
    let people = |most| proptest::collection::vec(0..PEOPLE.len(), 0..=most);
    (
        0_u32..4,
        some(people(6)),
        any::<bool>(),
        any::<bool>(),
        some(people(2)),
        0..PEOPLE.len(),
        any::<bool>(),
        0_usize..3,
    )
        .prop_map(
            |(required, approvers, exclude_requester, exclude_authors, authors, asker, bot, unmapped)| {
                Request {
                    policy: Policy {
                        approvers,
                        exclude_requester,
                        exclude_authors,
                        ..policy(required, &[])
                    },
                    requested_by: chain(bot.then_some("bot"), PEOPLE[asker]),
                    authors,
                    unmapped_authors: (0..unmapped).map(|n| format!("{n}@x")).collect(),
                    ..request(policy(0, &[]))
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is tried in whatever order, no one gets past the gate.
    #[test]
    fn the_gate_holds(request in requests(), steps in steps()) {
        let (mut state, mut now) = (State::default(), NOW);
        let asked = apply(&mut state, Command::Request(Box::new(request.clone())), now);
        prop_assume!(asked.is_ok());
        for step in steps {
            let command = match step {
                Step::Pass(n) => {
                    now = now + Duration::from_secs(n);
                    continue;
                }
                Step::Word { verdict, by, for_, right } => {
                    let mut binding = state.request.as_ref().unwrap().binding.clone();
                    if !right { binding.push('0') }
                    let by = match for_ {
                        Some(person) => chain(Some(PEOPLE[by]), PEOPLE[person]),
                        None => actor(PEOPLE[by]),
                    };
                    Command::Decide { verdict, binding, by, comment: String::new() }
                }
                Step::Cancel(by) => Command::Cancel { by: actor(PEOPLE[by]), comment: String::new() },
                Step::Expire => Command::Expire,
            };
            // Refusals are a matter of the tables above.
            let _ = apply(&mut state, command, now);
        }
        let asked = state.request.clone().unwrap();
        let yes: Vec<&Decision> = state.decisions.iter().filter(|decision| decision.verdict == Verdict::Approve).collect();

        // Each decision is by a person who may decide, once, in time.
        let persons: BTreeSet<&Principal> = state.decisions.iter().map(|decision| decision.by.effective()).collect();
        prop_assert_eq!(persons.len(), state.decisions.len());
        for decision in &state.decisions {
            for person in decision.by.principals() {
                let asked = request.requested_by.principals().any(|asked| asked == person);
                prop_assert!(!(request.policy.exclude_requester && asked));
                prop_assert!(!(request.policy.exclude_authors && request.authors.contains(person)));
            }
            let approvers = &request.policy.approvers;
            prop_assert!(approvers.is_empty() || approvers.contains(decision.by.effective()));
            prop_assert!(decision.at < asked.expires_at);
        }
        // Approved when, and only when, enough approved and no one rejected. If each unmapped author were one of those who
        // approved, the policy's number would still be left.
        let enough = yes.len() as u32 >= asked.required;
        match state.status {
            Status::Approved => {
                prop_assert!(enough && yes.len() == state.decisions.len());
                let doubtful = if request.policy.exclude_authors { request.unmapped_authors.len() as u32 } else { 0 };
                if request.policy.required > 0 {
                    prop_assert!(yes.len() as u32 - doubtful >= request.policy.required);
                }
            }
            Status::Rejected => prop_assert!(yes.len() < state.decisions.len()),
            Status::Pending => {
                prop_assert!(!enough && yes.len() == state.decisions.len());
                prop_assert!(state.waits_for().is_some());
                prop_assert_eq!(Approval::wake_at(&state), Some(asked.expires_at));
            }
            Status::Expired | Status::Cancelled => prop_assert!(!enough),
            Status::Absent => prop_assert!(false, "it was asked for"),
        }
    }
}
