//! The deciders: what may follow what, and the wire form of every event.
#![allow(clippy::unwrap_used)] // helpers of tests

#[path = "deciders/pull_request.rs"]
mod pull_request;

use std::time::Duration;

use gitops_domain::{
    branch::{self, Branch},
    change::{self, Change, Image, Outcome, Status},
    pull_request::Mode,
    reason::Code,
};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_edit::{
    Difference, Edit, Entry, EntryDifference, KustomizeImage, NewImage, RestoreImage, Scalar,
};
use slipway_ledger::{Decider, EffectKey};
use slipway_model::{Actor, Authentication, Id, Images, Principal, Reason, Timestamp};
use slipway_testbed::{Origin, decider_laws, golden, recorded};

const SHA: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

fn request() -> change::Request {
    change::Request {
        repository: "shop".to_owned(),
        branch: "main".parse().unwrap(),
        service: "identity".parse().unwrap(),
        environment: "dev".parse().unwrap(),
        edits: vec![Edit::KustomizeImage(
            KustomizeImage::new("apps/identity/dev", "app", NewImage::new("", "v1", "").unwrap()).unwrap(),
        )],
        source_commit: Some(SHA.parse().unwrap()),
        images: Some(Images::one(Image {
            name: "identity".parse().unwrap(),
            repository: "r.example/identity".parse().unwrap(),
            digest: None,
            tags: vec!["v1".parse().unwrap()],
        })),
        subject: String::new(),
        reverts: None,
        promoted_from: None,
        mode: Mode::Push,
        why: String::new(),
        correlation_id: "rel-1".to_owned(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        requested_by: Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken),
        traceparent: Some(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        ),
    }
}

fn entry(tag: &str) -> Entry {
    Entry {
        name: "app".to_owned(),
        new_name: None,
        new_tag: Some(Scalar {
            value: tag.to_owned(),
            written: format!("'{tag}'"),
        }),
        digest: None,
    }
}

fn difference() -> Difference {
    Difference::Entry(EntryDifference {
        path: "apps/identity/dev".parse().unwrap(),
        before: entry("v0"),
        after: entry("v1"),
        added: false,
        removed: false,
        exact: None,
    })
}

fn pushed() -> Outcome {
    Outcome::Pushed {
        commit: SHA.parse().unwrap(),
        differences: vec![difference()],
        attempts: 2,
        not_rendered: String::new(),
    }
}

fn id() -> Id {
    "chg-1".parse().unwrap()
}

fn act<D: Decider>(state: &mut D::State, command: D::Command, now: Timestamp) -> Result<usize, D::Refusal> {
    let events = D::decide(&id(), state, command, now)?;
    for event in &events {
        D::evolve(state, event, now);
    }
    Ok(events.len())
}

fn requested() -> change::State {
    let mut state = change::State::default();
    let command = change::Command::Request {
        request: Box::new(request()),
        timeout: Duration::from_secs(60),
    };
    act::<Change>(&mut state, command, at(0)).unwrap();
    state
}

#[test]
fn a_change_ends_once() {
    let no = Reason::new(Code::ImageNotFound, "no");
    for (outcome, status) in [
        (pushed(), Status::Pushed),
        (
            Outcome::Unchanged {
                commit: SHA.parse().unwrap(),
                differences: Vec::new(),
            },
            Status::Pushed,
        ),
        (Outcome::Failed(no.clone()), Status::Failed),
        (Outcome::Errored(no), Status::Errored),
        (Outcome::Cancelled, Status::Cancelled),
    ] {
        let mut state = requested();
        assert!(!Change::is_final(&state) && !Change::polls(&id(), &state).is_empty());
        assert_eq!(
            act::<Change>(&mut state, change::Command::Settle(outcome), at(1)),
            Ok(1)
        );
        assert_eq!((state.status, state.ended_at), (status, Some(at(1))));
        assert!(Change::is_final(&state) && Change::polls(&id(), &state).is_empty());
        // Nothing that comes later changes it.
        let over = state.clone();
        assert_eq!(
            act::<Change>(&mut state, change::Command::Settle(Outcome::Cancelled), at(2)),
            Ok(0)
        );
        assert_eq!(
            act::<Change>(&mut state, change::Command::Settle(pushed()), at(2)),
            Ok(0)
        );
        assert_eq!(
            act::<Change>(
                &mut state,
                change::Command::Cancel {
                    reason: String::new()
                },
                at(2)
            ),
            Ok(0)
        );
        assert_eq!(state, over);
    }
}

#[test]
fn a_cancellation_is_a_wish_until_the_branch_says_so() {
    let mut state = requested();
    let cancel = || change::Command::Cancel {
        reason: "never mind".to_owned(),
    };
    assert_eq!(act::<Change>(&mut state, cancel(), at(1)), Ok(1));
    assert_eq!(
        (state.status, state.cancel.as_deref()),
        (Status::Pending, Some("never mind"))
    );
    assert_eq!(
        act::<Change>(&mut state, cancel(), at(2)),
        Ok(0),
        "once is enough"
    );
    let mut late = state.clone();
    act::<Change>(&mut late, change::Command::Settle(pushed()), at(3)).unwrap();
    assert_eq!(late.status, Status::Pushed, "the push was faster");
    act::<Change>(&mut state, change::Command::Settle(Outcome::Cancelled), at(3)).unwrap();
    assert_eq!(state.reason.unwrap().message, "never mind");
}

#[test]
fn a_change_is_undone_from_its_last_edit_to_its_first() {
    let mut state = requested();
    let second = Difference::Entry(EntryDifference {
        path: "apps/identity/dev".parse().unwrap(),
        before: entry("v1"),
        after: entry("v2"),
        added: false,
        removed: false,
        exact: None,
    });
    let outcome = Outcome::Pushed {
        commit: SHA.parse().unwrap(),
        differences: vec![difference(), second],
        attempts: 1,
        not_rendered: String::new(),
    };
    act::<Change>(&mut state, change::Command::Settle(outcome), at(1)).unwrap();
    let put_back: Vec<(Entry, bool)> = state
        .undo(false, &[])
        .into_iter()
        .map(|edit| match edit {
            Edit::RestoreImage(edit) => (edit.entry, edit.written.is_some()),
            edit => panic!("not an undo: {edit:?}"),
        })
        .collect();
    assert_eq!(put_back, [(entry("v1"), true), (entry("v0"), true)]);
    assert!(
        state
            .undo(true, &[])
            .iter()
            .all(|edit| matches!(edit, Edit::RestoreImage(edit) if edit.written.is_none()))
    );
}

#[test]
fn nothing_is_done_to_a_change_that_is_not_there() {
    let mut state = change::State::default();
    let cancel = change::Command::Cancel {
        reason: String::new(),
    };
    let refused = act::<Change>(&mut state, cancel, at(0));
    assert!(matches!(refused, Err(change::Refusal::Unknown(_))), "{refused:?}");
    let mut state = requested();
    let again = change::Command::Request {
        request: Box::new(request()),
        timeout: Duration::ZERO,
    };
    let refused = act::<Change>(&mut state, again, at(0));
    assert!(matches!(refused, Err(change::Refusal::Exists(_))), "{refused:?}");
}

fn wake() -> branch::Command {
    branch::Command::ChangeWaits {
        repository: "shop".to_owned(),
        branch: "main".parse().unwrap(),
    }
}

fn rounds(state: &branch::State) -> Vec<u32> {
    Branch::effects(&id(), state)
        .into_iter()
        .map(|(key, _)| key.attempt)
        .collect()
}

#[test]
fn a_branch_runs_one_round_at_a_time() {
    let mut state = branch::State::default();
    assert!(rounds(&state).is_empty());
    assert_eq!(act::<Branch>(&mut state, wake(), at(0)), Ok(1));
    assert_eq!(act::<Branch>(&mut state, wake(), at(0)), Ok(0), "awake is awake");
    assert_eq!(rounds(&state), [1]);

    let base = |round| branch::Command::Base {
        round,
        head: SHA.parse().unwrap(),
    };
    assert_eq!(act::<Branch>(&mut state, base(1), at(1)), Ok(1));
    assert_eq!(
        act::<Branch>(&mut state, base(1), at(1)),
        Ok(0),
        "the base is fixed once"
    );

    let settle = |round, rest| branch::Command::Settle {
        round,
        head: None,
        rest,
    };
    assert_eq!(act::<Branch>(&mut state, settle(1, false), at(2)), Ok(1));
    assert_eq!(rounds(&state), [2], "more waits");
    assert_eq!(
        act::<Branch>(&mut state, settle(1, true), at(3)),
        Err(branch::Refusal::StaleRound(1))
    );
    assert_eq!(act::<Branch>(&mut state, settle(2, true), at(3)), Ok(1));
    assert!(rounds(&state).is_empty());
    assert_eq!(
        state.head,
        Some(SHA.parse().unwrap()),
        "kept when no round moved it"
    );
    assert_eq!(
        act::<Branch>(&mut state, settle(3, true), at(3)),
        Err(branch::Refusal::StaleRound(3)),
        "asleep"
    );
}

#[test]
fn a_remote_that_cannot_be_reached_is_tried_less_and_less_often() {
    let mut state = branch::State::default();
    act::<Branch>(&mut state, wake(), at(0)).unwrap();
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let round = state.round;
        let reason = Reason::new(Code::RemoteUnreachable, "no route");
        let postpone = branch::Command::Postpone {
            round,
            reason,
            jitter: 1000,
        };
        act::<Branch>(&mut state, postpone.clone(), now).unwrap();
        assert_eq!(
            act::<Branch>(&mut state, postpone, now),
            Err(branch::Refusal::StaleRound(round))
        );
        assert!(rounds(&state).is_empty());
        assert_eq!(
            act::<Branch>(&mut state, wake(), now),
            Ok(0),
            "a new change does not shorten the wait"
        );
        let retry_at = Branch::wake_at(&state).unwrap();
        assert_eq!(
            act::<Branch>(&mut state, branch::Command::Retry, now),
            Ok(0),
            "not yet"
        );
        waits.push(retry_at.since(now).as_millis());
        now = retry_at;
        assert_eq!(act::<Branch>(&mut state, branch::Command::Retry, now), Ok(1));
        assert_eq!(rounds(&state), [round + 1]);
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    let round = state.round;
    act::<Branch>(
        &mut state,
        branch::Command::Settle {
            round,
            head: None,
            rest: true,
        },
        now,
    )
    .unwrap();
    assert_eq!((state.failures, state.problem), (0, None));
}

#[test]
fn the_wire_form_of_events_is_pinned() {
    let reason = Reason::new(Code::PushRefused, "policy");
    let sha = || SHA.parse().unwrap();
    let restore = RestoreImage {
        path: "a".parse().unwrap(),
        entry: entry("v0"),
        written: Some(entry("v1")),
        remove: false,
        add: false,
        exact: None,
    };
    let mut revert = request();
    revert.edits = vec![Edit::RestoreImage(Box::new(restore))];
    revert.reverts = Some(id());
    revert.why = "it failed".to_owned();
    let mut changes = vec![
        (
            "requested.v2",
            change::Event::Requested {
                request: Box::new(request()),
                deadline: at(600),
            },
        ),
        (
            "requested_revert.v2",
            change::Event::Requested {
                request: Box::new(revert),
                deadline: at(600),
            },
        ),
        (
            "cancel_requested",
            change::Event::CancelRequested {
                reason: "never mind".to_owned(),
            },
        ),
        (
            "pushed",
            change::Event::Pushed {
                commit: sha(),
                differences: vec![difference()],
                attempts: 2,
                not_rendered: String::new(),
            },
        ),
        (
            "pushed_not_rendered",
            change::Event::Pushed {
                commit: sha(),
                differences: Vec::new(),
                attempts: 1,
                not_rendered:
                    "apps/shop/dev/kustomization.yaml: https://example.com/base is not in this repository"
                        .to_owned(),
            },
        ),
        (
            "unchanged",
            change::Event::Unchanged {
                commit: sha(),
                differences: Vec::new(),
            },
        ),
        (
            "failed",
            change::Event::Failed {
                reason: reason.clone(),
            },
        ),
        (
            "errored",
            change::Event::Errored {
                reason: reason.clone(),
            },
        ),
        (
            "cancelled",
            change::Event::Cancelled {
                reason: reason.clone(),
            },
        ),
    ];
    let branches = vec![
        (
            "woken",
            branch::Event::Woken {
                repository: "shop".to_owned(),
                branch: "main".parse().unwrap(),
            },
        ),
        ("based", branch::Event::Based { head: sha() }),
        (
            "settled",
            branch::Event::Settled {
                head: Some(sha()),
                rest: false,
            },
        ),
        (
            "settled_rest",
            branch::Event::Settled {
                head: None,
                rest: true,
            },
        ),
        (
            "postponed",
            branch::Event::Postponed {
                reason,
                retry_at: at(1),
            },
        ),
        ("resumed", branch::Event::Resumed),
    ];
    changes.extend(pull_request::events());
    golden::<Change>(&changes, &OLD);
    golden::<Branch>(&branches, &[]);
}

/// Requests before images had names and came in lists.
const OLD: [&str; 3] = ["requested", "requested_revert", "requested_pull_request"];

#[test]
fn changes_of_the_first_form_come_to_the_same() {
    for name in OLD {
        let (json, old) = recorded::<Change>(name);
        let (_, new) = recorded::<Change>(&format!("{name}.v2"));
        // But for who asked: an actor of before there were chains is read as one.
        let mut shown = serde_json::to_value(&old).unwrap();
        shown["requested_by"] = json["requested_by"].clone();
        assert_eq!(shown, json, "{name}");
        let [of_old, of_new] = [old, new].map(|event| {
            let mut state = change::State::default();
            Change::evolve(&mut state, &event, at(0));
            state
        });
        assert_eq!(of_old, of_new, "{name}");
        let images = serde_json::to_value(of_old.request.unwrap().images).unwrap();
        let wanted =
            serde_json::json!([{ "name": "identity", "repository": "r.example/identity", "tags": ["v1"] }]);
        assert_eq!(images, wanted, "{name}");
    }
}

#[test]
fn a_branch_keeps_to_the_laws_of_deciders() {
    let push = |round: &u32| Some(EffectKey::new("push", *round));
    let said = |command: &branch::Command| match command {
        branch::Command::ChangeWaits { .. } | branch::Command::Retry => Origin::Caller,
        branch::Command::Base { round, .. } => Origin::Report(push(round)),
        branch::Command::Settle { round, .. } | branch::Command::Postpone { round, .. } => {
            Origin::Outcome(push(round))
        }
    };
    decider_laws::<Branch, _>(&id(), said, |_, key| {
        (branch_command(), key).prop_map(|(mut command, key)| {
            if let branch::Command::Base { round, .. }
            | branch::Command::Settle { round, .. }
            | branch::Command::Postpone { round, .. } = &mut command
            {
                *round = key.attempt;
            }
            command
        })
    });
}

#[test]
fn a_change_keeps_to_the_laws_of_deciders() {
    let said = |command: &change::Command| match command {
        change::Command::Settle(_) => Origin::Outcome(None),
        change::Command::PullRequest(news) => pull_request::said(news),
        _ => Origin::Caller,
    };
    let settled = || {
        let reason = || Reason::new(Code::PushRefused, "policy");
        prop::sample::select(vec![
            pushed(),
            Outcome::Unchanged {
                commit: SHA.parse().unwrap(),
                differences: Vec::new(),
            },
            Outcome::Failed(reason()),
            Outcome::Errored(reason()),
            Outcome::Cancelled,
        ])
    };
    let asked = || {
        any::<bool>().prop_map(|push| change::Command::Request {
            request: Box::new(change::Request {
                mode: if push { Mode::Push } else { Mode::PullRequest },
                ..request()
            }),
            timeout: Duration::from_secs(600),
        })
    };
    decider_laws::<Change, _>(&id(), said, |state, _| {
        let first = if state.request.is_none() { 20 } else { 1 };
        prop_oneof![
            first => asked(),
            1 => settled().prop_map(change::Command::Settle),
            1 => Just(change::Command::Cancel { reason: "never mind".to_owned() }),
            8 => pull_request::news(state.tries).prop_map(change::Command::PullRequest),
            1 => Just(change::Command::Tick),
        ]
    });
}

fn branch_command() -> impl Strategy<Value = branch::Command> {
    prop_oneof![
        Just(wake()),
        (0_u32..6).prop_map(|round| branch::Command::Base {
            round,
            head: SHA.parse().unwrap()
        }),
        (0_u32..6, any::<bool>()).prop_map(|(round, rest)| branch::Command::Settle {
            round,
            head: None,
            rest
        }),
        (0_u32..6, 0_u16..2000).prop_map(|(round, jitter)| {
            branch::Command::Postpone {
                round,
                reason: Reason::new(Code::RemoteUnreachable, "x"),
                jitter,
            }
        }),
        Just(branch::Command::Retry),
    ]
}

proptest! {
    /// Whatever happens, a branch that is awake is doing something or waits for a time, and rounds only grow.
    #[test]
    fn an_awake_branch_never_hangs(commands in proptest::collection::vec(branch_command(), 0..40)) {
        let mut state = branch::State::default();
        let mut now = at(0);
        let mut round = 0;
        for command in commands {
            let _ = act::<Branch>(&mut state, command, now);
            now = now + Duration::from_secs(7);
            prop_assert!(state.round >= round);
            round = state.round;
            prop_assert_eq!(state.awake, !rounds(&state).is_empty() || Branch::wake_at(&state).is_some());
        }
    }
}
