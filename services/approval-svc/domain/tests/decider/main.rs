//! The decider of approvals: tables here, the JSON of its events in `events`, what holds whatever is tried in `laws`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files
// A failure of what a test builds on is the test's failure.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use approval_domain::{
    approval::{Approval, Command, Deciders, Event, Refusal, Request, State, Status, Verdict},
    policy::{Policy, binding},
    subject::{Body, CommitRange, Image, Kind, Scope, Section, Subject, Table},
};
use pretty_assertions::assert_eq;
use slipway_decider::Decider;
use slipway_model::{Actor, Authentication, Id, Principal, Timestamp};

mod attainable;
mod events;
mod laws;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn who(name: &str) -> Principal {
    Principal::new("token", name)
}

fn actor(text: &str) -> Actor {
    let mut links = text.split(" for ").map(who);
    let caller = Actor::direct(links.next().unwrap(), Authentication::StaticToken);
    links.fold(caller, Actor::on_behalf_of)
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

/// Everyone whom the tests name may decide, and `bot` passes decisions on.
fn everyone() -> Deciders {
    let names = ["alice", "bob", "carol", "dave", "erin", "frank", "bot"];
    Deciders {
        approve: names.map(who).into(),
        delegate: [who("bot")].into(),
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
        deciders: everyone(),
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
