//! The decider of approvals: tables, golden files and properties.
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use approval_domain::{
    approval::{
        Approval, Command, Decision, Event, RecordedRequest, Refusal, Request, State, Status, Verdict,
    },
    policy::{Policy, binding},
    subject::{Body, CommitRange, Image, Kind, Scope, Section, Subject, Table},
};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_decider::Decider;
use slipway_model::{Actor, Authentication, Id, Principal, Reason, Timestamp};
use slipway_testbed::{Said, decider_laws, golden, recorded};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn who(name: &str) -> Principal {
    Principal::new("token", name)
}

fn actor(text: &str) -> Actor {
    let mut links = text.split(" for ").map(who);
    let caller = Actor::direct(links.next().unwrap(), Authentication::StaticToken);
    links.fold(caller, Actor::on_behalf_of)
}

/// A person, perhaps through a bot.
fn chain(bot: Option<&str>, person: &str) -> Actor {
    match bot {
        Some(bot) => actor(&format!("{bot} for {person}")),
        None => actor(person),
    }
}

fn policy(required: u32, approvers: &[&str]) -> Policy {
    Policy {
        name: "prod".parse().unwrap(),
        required,
        approvers: approvers.iter().map(|name| who(name)).collect(),
        exclude_requester: true,
        exclude_authors: true,
        expire_after_seconds: 60,
    }
}

fn subject() -> Subject {
    let table = Table {
        columns: vec!["environment".to_owned(), "image".to_owned()],
        rows: vec![vec!["prod".to_owned(), "shop:1a2b3c4".to_owned()]],
    };
    let mut rendered = Section::new(
        "Rendered",
        "gitops-svc",
        &Body::Diff("+replicas: 2\n".repeat(1000)),
    );
    rendered.take_large().unwrap();
    Subject {
        kind: Kind::Release,
        scope: Scope {
            service: "shop".parse().unwrap(),
            environment: Some("prod".parse().unwrap()),
            target: "prod/shop/Deployment/web".to_owned(),
        },
        images: vec![Image {
            name: "shop".parse().unwrap(),
            repository: Some("registry.example/shop".parse().unwrap()),
            digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
            tags: vec!["1a2b3c4".parse().unwrap()],
        }],
        commits: Some(CommitRange {
            repository_url: "https://git.example/shop.git".to_owned(),
            branch: Some("main".parse().unwrap()),
            base: Some("0".repeat(40).parse().unwrap()),
            head: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        }),
        plan_hash: "plan-1".to_owned(),
        summary: "shop 1a2b3c4 to prod".to_owned(),
        sections: vec![
            Section::new("What changes", "deploy-svc", &Body::Table(table)),
            rendered,
        ],
    }
}

/// Requested by alice, written by dave.
fn request(policy: Policy) -> Request {
    Request {
        subject: subject(),
        policy,
        requested_by: actor("alice"),
        authors: BTreeSet::from([who("dave")]),
        unmapped_authors: BTreeSet::new(),
        correlation: "rel-1".to_owned(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
    }
}

fn id() -> Id {
    "apr-1".parse().unwrap()
}

fn seconds(n: u64) -> Timestamp {
    NOW + Duration::from_secs(n)
}

/// Decides and applies.
fn apply(state: &mut State, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let events = Approval::decide(&id(), state, command, now)?;
    for event in &events {
        Approval::evolve(state, event, now);
    }
    Ok(events)
}

fn asked_for(request: Request) -> State {
    let mut state = State::default();
    apply(&mut state, Command::Request(Box::new(request)), NOW).unwrap();
    state
}

fn word(state: &State, verdict: Verdict, by: &str) -> Command {
    let binding = state
        .request
        .as_ref()
        .map(|request| request.binding.clone())
        .unwrap_or_default();
    Command::Decide {
        verdict,
        binding,
        by: actor(by),
        comment: String::new(),
    }
}

fn approve(state: &mut State, by: &str) -> Result<Status, Refusal> {
    let command = word(state, Verdict::Approve, by);
    apply(state, command, seconds(1)).map(|_| state.status)
}

fn reject(state: &mut State, by: &str) -> Result<Status, Refusal> {
    let command = word(state, Verdict::Reject, by);
    apply(state, command, seconds(1)).map(|_| state.status)
}

fn code(state: &State) -> &str {
    state.reason.as_ref().map_or("", |reason| &reason.code)
}

#[test]
fn n_different_people_approve() {
    let mut state = asked_for(request(policy(2, &["bob", "carol", "erin"])));
    assert_eq!(state.status, Status::Pending);
    assert_eq!(
        state.waits_for().unwrap(),
        "0 of 2 approvals; 2 more by bob, carol, erin"
    );
    assert_eq!(approve(&mut state, "bob"), Ok(Status::Pending));
    assert_eq!(
        state.waits_for().unwrap(),
        "1 of 2 approvals; 1 more by carol, erin"
    );
    assert_eq!(
        approve(&mut state, "bob"),
        Err(Refusal::AlreadyDecided(who("bob")))
    );
    assert_eq!(
        reject(&mut state, "bob"),
        Err(Refusal::AlreadyDecided(who("bob")))
    );
    assert_eq!(
        approve(&mut state, "bot for bob"),
        Err(Refusal::AlreadyDecided(who("bob")))
    );
    assert_eq!(approve(&mut state, "carol"), Ok(Status::Approved));
    assert_eq!(code(&state), "ENOUGH_APPROVALS");
    assert_eq!(
        state.reason.as_ref().unwrap().message,
        "approved by token/bob, token/carol"
    );
    assert_eq!(state.ended_at, Some(seconds(1)));
    assert_eq!(state.waits_for(), None);
    assert_eq!(approve(&mut state, "erin"), Err(Refusal::Final(Status::Approved)));
}

#[test]
fn who_may_decide() {
    let listed = || request(policy(1, &["alice", "bob", "carol", "dave"]));
    let through_bot = || Request {
        requested_by: actor("deployer for alice"),
        ..listed()
    };
    let through_two = || Request {
        requested_by: actor("deployer for relay for alice"),
        ..listed()
    };
    let name = || "prod".to_owned();
    let not_an_approver = |name: &str| Refusal::NotAnApprover {
        who: who(name),
        policy: "prod".to_owned(),
        approvers: "token/alice, token/bob, token/carol, token/dave".to_owned(),
    };
    for (request, by, refusal) in [
        (listed(), "bob", None),
        (listed(), "bot for bob", None),
        (
            listed(),
            "alice",
            Some(Refusal::SelfApproval(who("alice"), name())),
        ),
        // Neither through a bot, nor as the bot of a person who may.
        (
            listed(),
            "bot for alice",
            Some(Refusal::SelfApproval(who("alice"), name())),
        ),
        (
            listed(),
            "alice for bob",
            Some(Refusal::SelfApproval(who("alice"), name())),
        ),
        (
            through_bot(),
            "alice",
            Some(Refusal::SelfApproval(who("alice"), name())),
        ),
        (
            through_bot(),
            "deployer for bob",
            Some(Refusal::SelfApproval(who("deployer"), name())),
        ),
        (through_bot(), "bob", None),
        // However long the chain is that asked, or that decides: each of its links is looked at.
        (
            through_two(),
            "relay for bob",
            Some(Refusal::SelfApproval(who("relay"), name())),
        ),
        (
            through_two(),
            "alice",
            Some(Refusal::SelfApproval(who("alice"), name())),
        ),
        (
            through_two(),
            "bot for relay for carol",
            Some(Refusal::SelfApproval(who("relay"), name())),
        ),
        (
            listed(),
            "bot for dave for carol",
            Some(Refusal::AuthorApproval(who("dave"), name())),
        ),
        (
            listed(),
            "bot for carol for mallory",
            Some(not_an_approver("mallory")),
        ),
        (through_two(), "bot for mallory for carol", None),
        (
            listed(),
            "dave",
            Some(Refusal::AuthorApproval(who("dave"), name())),
        ),
        (
            listed(),
            "bot for dave",
            Some(Refusal::AuthorApproval(who("dave"), name())),
        ),
        (
            listed(),
            "dave for bob",
            Some(Refusal::AuthorApproval(who("dave"), name())),
        ),
        (listed(), "mallory", Some(not_an_approver("mallory"))),
        (listed(), "bot for mallory", Some(not_an_approver("mallory"))),
        // The bot itself is not an approver, whoever it speaks for otherwise.
        (listed(), "bot", Some(not_an_approver("bot"))),
    ] {
        for verdict in [Verdict::Approve, Verdict::Reject] {
            let mut state = asked_for(request.clone());
            let before = state.clone();
            let command = word(&state, verdict, by);
            let result = apply(&mut state, command, seconds(1));
            assert_eq!(result.err(), refusal, "{by} {verdict:?}");
            assert_eq!(state == before, refusal.is_some(), "a refusal changes nothing");
        }
    }
}

#[test]
fn rules_that_are_off_do_not_exclude() {
    let lax = Policy {
        exclude_requester: false,
        exclude_authors: false,
        ..policy(1, &["alice", "dave"])
    };
    for by in ["alice", "dave"] {
        assert_eq!(
            approve(&mut asked_for(request(lax.clone())), by),
            Ok(Status::Approved),
            "{by}"
        );
    }
}

#[test]
fn without_a_list_the_roles_decide() {
    let mut state = asked_for(request(policy(1, &[])));
    assert_eq!(
        state.waits_for().unwrap(),
        "0 of 1 approvals; 1 more by anyone with the approve role"
    );
    assert!(matches!(
        approve(&mut state, "alice"),
        Err(Refusal::SelfApproval(..))
    ));
    assert_eq!(approve(&mut state, "whoever"), Ok(Status::Approved));
}

#[test]
fn one_rejection_ends_it() {
    let mut state = asked_for(request(policy(2, &["bob", "carol"])));
    approve(&mut state, "bob").unwrap();
    let Command::Decide { binding, .. } = word(&state, Verdict::Reject, "carol") else {
        unreachable!()
    };
    let comment = "not on a friday".to_owned();
    let command = Command::Decide {
        verdict: Verdict::Reject,
        binding,
        by: actor("carol"),
        comment,
    };
    apply(&mut state, command, seconds(2)).unwrap();
    assert_eq!((state.status, code(&state)), (Status::Rejected, "REJECTED"));
    assert_eq!(
        state.reason.as_ref().unwrap().message,
        "rejected by token/carol: not on a friday"
    );
    assert_eq!(approve(&mut state, "erin"), Err(Refusal::Final(Status::Rejected)));
}

#[test]
fn a_policy_that_requires_no_approvals_approves_at_once() {
    // Also when the author is unknown: there is nobody whose word could be doubted.
    let nobody = Request {
        authors: BTreeSet::new(),
        ..request(policy(0, &[]))
    };
    let state = asked_for(nobody);
    assert_eq!(
        (state.status, code(&state)),
        (Status::Approved, "POLICY_REQUIRES_NOBODY")
    );
    assert_eq!(Approval::wake_at(&state), None);
}

#[test]
fn a_decision_holds_for_what_it_names() {
    let mut state = asked_for(request(policy(1, &["bob"])));
    let elsewhere = Subject {
        plan_hash: "plan-2".to_owned(),
        ..subject()
    };
    for other in [
        binding(&elsewhere, &policy(1, &["bob"])),
        binding(&subject(), &policy(2, &["bob"])),
        String::new(),
    ] {
        let command = Command::Decide {
            verdict: Verdict::Approve,
            binding: other,
            by: actor("bob"),
            comment: String::new(),
        };
        assert_eq!(
            apply(&mut state, command, seconds(1)),
            Err(Refusal::BindingMismatch)
        );
    }
    assert_eq!(approve(&mut state, "bob"), Ok(Status::Approved));
}

#[test]
fn time_runs_out() {
    let mut state = asked_for(request(policy(1, &["bob"])));
    assert_eq!(Approval::wake_at(&state), Some(seconds(60)));
    // A timer that fires early does nothing; the last moment before still counts.
    assert_eq!(apply(&mut state, Command::Expire, seconds(59)), Ok(vec![]));
    let mut in_time = state.clone();
    let command = word(&state, Verdict::Approve, "bob");
    apply(&mut in_time, command, seconds(59)).unwrap();
    assert_eq!(in_time.status, Status::Approved);
    assert_eq!(apply(&mut in_time, Command::Expire, seconds(60)), Ok(vec![]));

    // A decision that comes before the timer does, but after the time, is too late.
    let command = word(&state, Verdict::Approve, "bob");
    assert_eq!(
        apply(&mut state, command, seconds(60)),
        Err(Refusal::Expired(seconds(60)))
    );
    apply(&mut state, Command::Expire, seconds(61)).unwrap();
    assert_eq!((state.status, code(&state)), (Status::Expired, "EXPIRED"));
    assert_eq!(Approval::wake_at(&state), None);
    let command = word(&state, Verdict::Approve, "bob");
    assert_eq!(
        apply(&mut state, command, seconds(62)),
        Err(Refusal::Expired(seconds(60)))
    );
    assert_eq!(apply(&mut state, Command::Expire, seconds(62)), Ok(vec![]));
}

#[test]
fn cancelling() {
    let cancel = || Command::Cancel {
        by: actor("alice"),
        comment: "superseded".to_owned(),
    };
    let mut state = asked_for(request(policy(1, &["bob"])));
    apply(&mut state, cancel(), seconds(1)).unwrap();
    assert_eq!((state.status, code(&state)), (Status::Cancelled, "CANCELLED"));
    assert_eq!(
        apply(&mut state, cancel(), seconds(2)),
        Ok(vec![]),
        "a second time changes nothing"
    );
    assert_eq!(approve(&mut state, "bob"), Err(Refusal::Final(Status::Cancelled)));

    let mut late = asked_for(request(policy(1, &["bob"])));
    apply(&mut late, cancel(), seconds(60)).unwrap();
    assert_eq!(
        late.status,
        Status::Expired,
        "after its time it is not cancelled but expired"
    );

    assert_eq!(
        apply(&mut State::default(), cancel(), NOW),
        Err(Refusal::Absent(id()))
    );
    assert_eq!(approve(&mut State::default(), "bob"), Err(Refusal::Absent(id())));
    let again = Command::Request(Box::new(request(policy(1, &["bob"]))));
    assert_eq!(apply(&mut state, again, NOW), Err(Refusal::Exists(id())));
}

/// An unmapped author could be any of the approvers; with one more approval than the policy requires, enough others
/// approved even then.
#[test]
fn an_unmapped_author_costs_one_more_approval() {
    let unmapped = |authors: &[&str], unmapped: &[&str], policy| Request {
        authors: authors.iter().map(|name| who(name)).collect(),
        unmapped_authors: unmapped.iter().map(|&author| author.to_owned()).collect(),
        ..request(policy)
    };
    let three = policy(1, &["bob", "carol", "erin"]);
    for (request, required) in [
        (unmapped(&["dave"], &[], three.clone()), 1),
        (unmapped(&["dave"], &["x@y"], three.clone()), 2),
        (unmapped(&[], &["x@y", "z@y"], three.clone()), 3),
        // No author named counts as one unmapped author: leaving authors out does not weaken the policy.
        (unmapped(&[], &[], three.clone()), 2),
        (
            unmapped(
                &[],
                &["x@y"],
                Policy {
                    exclude_authors: false,
                    ..three.clone()
                },
            ),
            1,
        ),
        (unmapped(&[], &["x@y", "z@y"], policy(1, &[])), 3),
    ] {
        let state = asked_for(request.clone());
        assert_eq!(state.request.unwrap().required, required, "{request:?}");
    }

    let mut state = asked_for(unmapped(&[], &["x@y"], three));
    assert_eq!(
        state.waits_for().unwrap(),
        "0 of 2 approvals; 2 more by bob, carol, erin (policy prod requires 1; unmapped authors: x@y)"
    );
    assert_eq!(approve(&mut state, "bob"), Ok(Status::Pending));
    assert_eq!(approve(&mut state, "carol"), Ok(Status::Approved));
}

#[test]
fn what_can_never_be_approved_is_refused_at_once() {
    let ask =
        |request: Request| apply(&mut State::default(), Command::Request(Box::new(request)), NOW).map(|_| ());
    let refused = |required, eligible, words: &str, result: Result<(), Refusal>| {
        let Err(refusal) = result else {
            panic!("was not refused")
        };
        let Refusal::NotEnoughApprovers {
            required: r,
            eligible: e,
            ..
        } = &refusal
        else {
            panic!("{refusal}")
        };
        assert_eq!((*r, *e), (required, eligible));
        assert!(refusal.to_string().contains(words), "{refusal}");
    };
    // alice asks, dave wrote it.
    refused(
        1,
        0,
        "let someone else request it",
        ask(request(policy(1, &["alice", "dave"]))),
    );
    refused(
        2,
        1,
        "let someone else request it",
        ask(request(policy(2, &["alice", "bob"]))),
    );
    let unmapped = Request {
        unmapped_authors: BTreeSet::from(["x@y".to_owned()]),
        ..request(policy(2, &["bob", "carol"]))
    };
    refused(3, 2, "unmapped: x@y", ask(unmapped));
    assert_eq!(ask(request(policy(2, &["alice", "bob", "carol"]))), Ok(()));
}

#[test]
fn lists_find_it() {
    let index = Approval::index(&asked_for(request(policy(1, &["bob"]))));
    assert_eq!(
        (
            index.status.as_str(),
            index.service.as_str(),
            index.environment.as_str(),
            index.correlation.as_str()
        ),
        ("pending", "shop", "prod", "rel-1")
    );
    assert_eq!(index.labels["team"], "shop");
}

/// The wire form of each event: others read it, and old ones are read for ever.
#[test]
fn events_keep_their_wire_form() {
    let reason = |code: &str, message: &str| Reason {
        code: code.to_owned(),
        message: message.to_owned(),
    };
    let policy = policy(2, &["bob", "carol", "erin"]);
    let events = [
        (
            "requested.v2",
            Event::Requested(Box::new(RecordedRequest {
                subject: subject(),
                binding: "b1".to_owned(),
                policy,
                requested_by: actor("deployer for alice"),
                authors: BTreeSet::from([who("dave")]),
                unmapped_authors: BTreeSet::from(["x@y".to_owned()]),
                required: 3,
                expires_at: seconds(60),
                correlation: "rel-1".to_owned(),
                labels: [("team".to_owned(), "shop".to_owned())].into(),
            })),
        ),
        (
            "decided.v2",
            Event::Decided {
                verdict: Verdict::Approve,
                by: actor("bot for bob"),
                comment: "looks good".to_owned(),
            },
        ),
        (
            "approved",
            Event::Approved {
                reason: reason("ENOUGH_APPROVALS", "approved by token/bob, token/carol"),
            },
        ),
        (
            "rejected",
            Event::Rejected {
                reason: reason("REJECTED", "rejected by token/carol"),
            },
        ),
        (
            "expired",
            Event::Expired {
                reason: reason("EXPIRED", "nobody decided in time"),
            },
        ),
        (
            "cancelled.v2",
            Event::Cancelled {
                by: actor("alice"),
                reason: reason("CANCELLED", "superseded"),
            },
        ),
    ];
    golden::<Approval>(&events, &["requested", "decided", "cancelled"]);
}

#[test]
fn it_keeps_to_the_laws_of_deciders() {
    let said = |_: &Command| Said::Asked;
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

/// What was recorded before actors were chains is the same event.
#[test]
fn deeds_of_the_first_form_are_the_same_events() {
    for name in ["decided", "cancelled"] {
        let [old, new] = [name.to_owned(), format!("{name}.v2")].map(|name| recorded::<Approval>(&name).1);
        assert_eq!(old, new);
    }
}

/// A request recorded when all approvals were for releases of one image waits as before, and is decided on by the binding
/// that it has.
#[test]
fn a_request_of_the_first_form_is_still_decided_on() {
    let (_, old) = recorded::<Approval>("requested");
    let mut state = State::default();
    Approval::evolve(&mut state, &old, NOW);
    let recorded = state.request.clone().unwrap();
    let expected = Subject {
        images: vec![Image {
            repository: None,
            tags: Vec::new(),
            ..subject().images.remove(0)
        }],
        commits: Some(CommitRange {
            repository_url: String::new(),
            branch: None,
            base: None,
            ..subject().commits.unwrap()
        }),
        sections: Vec::new(),
        ..subject()
    };
    assert_eq!(recorded.subject, expected);
    assert_eq!(recorded.binding, "b1");
    assert_eq!(recorded.requested_by, actor("deployer for alice"));
    assert_eq!(Approval::index(&state).environment, "prod");
    assert_eq!(Approval::wake_at(&state), Some(recorded.expires_at));

    let word = |binding: &str, by: &str| Command::Decide {
        verdict: Verdict::Approve,
        binding: binding.to_owned(),
        by: actor(by),
        comment: String::new(),
    };
    // Not by one that would be made of it today.
    let today = word(&binding(&recorded.subject, &recorded.policy), "bob");
    assert_eq!(apply(&mut state, today, NOW), Err(Refusal::BindingMismatch));
    for (by, status) in [
        ("bob", Status::Pending),
        ("carol", Status::Pending),
        ("erin", Status::Approved),
    ] {
        apply(&mut state, word("b1", by), NOW).unwrap();
        assert_eq!(state.status, status, "{by}");
    }
}

const PEOPLE: [&str; 7] = ["alice", "bob", "carol", "dave", "erin", "frank", "bot"];

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

fn some(people: impl Strategy<Value = Vec<usize>>) -> impl Strategy<Value = BTreeSet<Principal>> {
    people.prop_map(|people| people.into_iter().map(|at| who(PEOPLE[at])).collect())
}

fn requests() -> impl Strategy<Value = Request> {
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
