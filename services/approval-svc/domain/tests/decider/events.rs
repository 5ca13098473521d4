//! The JSON of each event, and events of older forms.

use std::collections::BTreeSet;

use approval_domain::{
    approval::{Approval, Command, Event, RecordedRequest, Refusal, State, Status, Verdict},
    policy::binding,
    subject::{CommitRange, Image, Subject},
};
use pretty_assertions::assert_eq;
use slipway_decider::Decider;
use slipway_model::Reason;
use slipway_testbed::{golden, recorded};

use crate::{NOW, actor, apply, policy, seconds, subject, who};

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
