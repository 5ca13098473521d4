//! Changes that go by pull request.

use std::time::Duration;

use gitops_domain::{
    change::{Change, Command, Effect, Event, News, Outcome, State, Status},
    pull_request::{self, Method, Mode, ModeRefusal, Policy, PullState, Stage},
    reason::Code,
};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_ledger::Decider;
use slipway_model::{CommitSha, Reason, Timestamp};
use slipway_testbed::Origin;

use super::{SHA, act, at, difference, id, request};

const OTHER: &str = "2222222222222222222222222222222222222222";

fn sha(text: &str) -> CommitSha {
    text.parse().unwrap()
}

fn requested() -> State {
    let mut request = request();
    request.mode = Mode::PullRequest;
    let mut state = State::default();
    let command = Command::Request {
        request: Box::new(request),
        timeout: Duration::from_secs(3600),
    };
    act::<Change>(&mut state, command, at(0)).unwrap();
    state
}

fn tell(state: &mut State, news: News, now: Timestamp) -> usize {
    act::<Change>(state, Command::PullRequest(news), now).unwrap()
}

fn opened() -> News {
    News::Opened {
        number: 12,
        url: "https://github.com/acme/shop/pull/12".to_owned(),
        branch: pull_request::branch(&id()),
        commit: sha(SHA),
        base: Some(sha(OTHER)),
        differences: vec![difference()],
        not_rendered: String::new(),
        poll: Duration::from_millis(1500),
    }
}

fn merged() -> News {
    News::Merged {
        commit: sha(OTHER),
        differences: vec![difference()],
        by: "alice".to_owned(),
        method: Method::Squash,
    }
}

fn closed() -> News {
    News::Closed {
        by: "bob".to_owned(),
        outcome: Outcome::Failed(Reason::new(Code::PullRequestClosed, "closed")),
    }
}

fn later(attempt: u32) -> News {
    News::Postponed {
        attempt,
        reason: Reason::new(Code::RemoteUnreachable, "no route"),
        not_before: None,
        jitter: 1000,
    }
}

fn postpone(state: &mut State, now: Timestamp) -> usize {
    let news = later(state.tries);
    tell(state, news, now)
}

fn cancel(state: &mut State, now: Timestamp) {
    let reason = "never mind".to_owned();
    act::<Change>(state, Command::Cancel { reason }, now).unwrap();
}

/// What is going on: effects by their keys, then polls.
fn work(state: &State) -> Vec<String> {
    let effects = Change::effects(&id(), state);
    let polls = Change::polls(&id(), state);
    effects
        .into_iter()
        .chain(polls)
        .map(|(key, _)| key.to_string())
        .collect()
}

#[test]
fn it_is_proposed_then_followed_until_it_is_merged() {
    let mut state = requested();
    assert_eq!(work(&state), ["propose#0"]);
    assert!(
        Change::index(&state).labels.keys().all(|label| label == "team"),
        "no round takes it"
    );
    assert_eq!(Change::wake_at(&state), Some(at(3600)));
    assert_eq!(tell(&mut state, opened(), at(1)), 1);
    assert_eq!(work(&state), ["follow#1"]);
    assert_eq!(Change::poll_every(&state), Duration::from_millis(1500));
    assert_eq!(
        state.differences,
        [difference()],
        "what it would change is seen before"
    );

    let noted = || News::Noted("a person to merge it".to_owned());
    assert_eq!(tell(&mut state, noted(), at(2)), 1);
    assert_eq!(
        tell(&mut state, noted(), at(3)),
        0,
        "a look that finds nothing new leaves no record"
    );
    assert_eq!(postpone(&mut state, at(3)), 0, "nor does one that fails");
    let revised = News::Revised {
        commit: sha(OTHER),
        base: sha(SHA),
        differences: Vec::new(),
        not_rendered: String::new(),
    };
    assert_eq!(tell(&mut state, revised.clone(), at(4)), 1);
    assert_eq!(tell(&mut state, revised, at(4)), 0);
    assert_eq!(work(&state), ["follow#1"]);

    assert_eq!(tell(&mut state, merged(), at(5)), 2);
    assert_eq!((state.status, state.attempts), (Status::Pushed, 2));
    let pull = state.pull_request.clone().unwrap();
    assert_eq!(
        (pull.status, pull.by.as_str(), pull.method),
        (PullState::Merged, "alice", Some(Method::Squash))
    );
    assert!(work(&state).is_empty() && Change::wake_at(&state).is_none());
    let over = state.clone();
    for news in [opened(), merged(), closed(), later(state.tries), News::Withdrawn] {
        assert_eq!(tell(&mut state, news, at(6)), 0);
    }
    assert_eq!(state, over);
}

#[test]
fn a_remote_or_github_that_is_away_is_tried_less_and_less_often() {
    let mut state = requested();
    let mut now = at(0);
    let mut waits = Vec::new();
    for attempt in 0..11 {
        assert_eq!(work(&state), [format!("propose#{attempt}")]);
        assert_eq!(postpone(&mut state, now), 1);
        assert!(work(&state).is_empty());
        assert_eq!(act::<Change>(&mut state, Command::Tick, now), Ok(0), "not yet");
        let retry_at = Change::wake_at(&state).unwrap();
        waits.push(retry_at.since(now).as_secs());
        now = retry_at;
        assert_eq!(act::<Change>(&mut state, Command::Tick, now), Ok(1));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    // GitHub's own time is kept to.
    let limited = News::Postponed {
        attempt: state.tries,
        reason: Reason::new(Code::RateLimited, "slow down"),
        not_before: Some(now + Duration::from_secs(900)),
        jitter: 0,
    };
    tell(&mut state, limited, now);
    assert_eq!(state.retry_at, Some(now + Duration::from_secs(900)));
}

#[test]
fn a_cancellation_waits_for_a_proposal_that_is_under_way() {
    // It is opened after all, and closed again.
    let mut state = requested();
    cancel(&mut state, at(1));
    assert_eq!(work(&state), ["propose#0"]);
    tell(&mut state, opened(), at(2));
    assert_eq!(work(&state), ["withdraw#1"]);
    assert_eq!(tell(&mut state, closed(), at(3)), 0, "that was us");
    assert_eq!(tell(&mut state, News::Withdrawn, at(3)), 2);
    assert_eq!(
        (state.status, state.reason.unwrap().message.as_str()),
        (Status::Cancelled, "never mind")
    );
    assert_eq!(state.pull_request.unwrap().status, PullState::Closed);

    // It failed: nobody knows how far it came, so it is looked for.
    let mut state = requested();
    cancel(&mut state, at(1));
    postpone(&mut state, at(2));
    assert_eq!(work(&state), ["withdraw#1"]);
    assert_eq!(tell(&mut state, News::Withdrawn, at(3)), 1);
    assert_eq!(state.status, Status::Cancelled);

    // It waits to be tried again.
    let mut state = requested();
    postpone(&mut state, at(1));
    cancel(&mut state, at(1));
    assert_eq!(
        (work(&state), state.retry_at),
        (vec!["withdraw#1".to_owned()], None)
    );

    // The merge was faster.
    let mut state = requested();
    tell(&mut state, opened(), at(1));
    cancel(&mut state, at(2));
    assert_eq!(work(&state), ["withdraw#2"]);
    tell(&mut state, merged(), at(3));
    assert_eq!(state.status, Status::Pushed);
}

#[test]
fn the_deadline_closes_it() {
    let mut state = requested();
    tell(&mut state, opened(), at(1));
    tell(
        &mut state,
        News::Noted("required checks or reviews".to_owned()),
        at(1),
    );
    assert_eq!(act::<Change>(&mut state, Command::Tick, at(3599)), Ok(0));
    assert_eq!(act::<Change>(&mut state, Command::Tick, at(3600)), Ok(1));
    assert_eq!(
        (work(&state), Change::wake_at(&state)),
        (vec!["withdraw#2".to_owned()], None)
    );
    let mut late = state.clone();
    tell(&mut state, News::Withdrawn, at(3601));
    let reason = state.reason.unwrap();
    assert_eq!(
        (state.status, reason.code),
        (Status::Errored, Code::DeadlineExceeded.into())
    );
    assert!(
        reason.message.contains("#12") && reason.message.contains("reviews"),
        "{}",
        reason.message
    );

    // GitHub does not come back.
    postpone(&mut late, at(3601));
    assert_eq!((late.status, late.stage), (Status::Pending, Stage::Withdraw));
    act::<Change>(&mut late, Command::Tick, at(7300)).unwrap();
    postpone(&mut late, at(7300));
    assert_eq!(late.status, Status::Errored);
    assert!(late.reason.unwrap().message.contains("could not be closed"));
}

#[test]
fn the_configuration_asks_for_pull_requests_and_callers_may_ask_for_more() {
    let (dev, prod): (slipway_model::Name, slipway_model::Name) =
        ("dev".parse().unwrap(), "prod".parse().unwrap());
    let week = Duration::from_secs(7 * 24 * 3600);
    let policy = |environments: Vec<slipway_model::Name>| Policy {
        environments,
        deadline: week,
    };
    let (all, some) = (policy(Vec::new()), policy(vec![prod.clone()]));
    let (push, pull) = (Mode::Push, Mode::PullRequest);
    for (config, environment, asked, wanted) in [
        (None, &dev, None, Ok(push)),
        (None, &dev, Some(push), Ok(push)),
        (None, &dev, Some(pull), Err(ModeRefusal::NotConfigured)),
        (Some(&all), &dev, None, Ok(pull)),
        (Some(&all), &dev, Some(pull), Ok(pull)),
        (
            Some(&all),
            &dev,
            Some(push),
            Err(ModeRefusal::Required(dev.clone())),
        ),
        (Some(&some), &dev, None, Ok(push)),
        (Some(&some), &dev, Some(push), Ok(push)),
        (Some(&some), &dev, Some(pull), Ok(pull)),
        (Some(&some), &prod, None, Ok(pull)),
        (
            Some(&some),
            &prod,
            Some(push),
            Err(ModeRefusal::Required(prod.clone())),
        ),
    ] {
        assert_eq!(
            pull_request::mode(config, environment, asked),
            wanted,
            "{environment} {asked:?}"
        );
    }
}

/// One of each, with the names of their files.
pub(super) fn events() -> Vec<(&'static str, Event)> {
    let mut request = request();
    request.mode = Mode::PullRequest;
    request.promoted_from = Some(gitops_domain::change::Promotion {
        environment: "staging".parse().unwrap(),
        commit: sha(OTHER),
    });
    let reason = Reason::new(Code::RateLimited, "slow down");
    vec![
        (
            "requested_pull_request.v2",
            Event::Requested {
                request: Box::new(request),
                deadline: at(600),
            },
        ),
        (
            "pull_request_opened",
            Event::PullRequestOpened {
                number: 12,
                url: "https://github.com/acme/shop/pull/12".to_owned(),
                branch: "slipway/chg-1".parse().unwrap(),
                commit: sha(SHA),
                base: Some(sha(OTHER)),
                differences: vec![difference()],
                not_rendered: String::new(),
                poll_ms: 15_000,
            },
        ),
        (
            "pull_request_revised",
            Event::PullRequestRevised {
                commit: sha(OTHER),
                base: sha(SHA),
                differences: Vec::new(),
                not_rendered: String::new(),
            },
        ),
        (
            "pull_request_noted",
            Event::PullRequestNoted {
                message: "a person to merge it".to_owned(),
            },
        ),
        (
            "pull_request_merged",
            Event::PullRequestMerged {
                by: "alice".to_owned(),
                method: Method::Squash,
            },
        ),
        (
            "pull_request_closed",
            Event::PullRequestClosed { by: String::new() },
        ),
        (
            "pull_request_closed_by",
            Event::PullRequestClosed { by: "bob".to_owned() },
        ),
        (
            "postponed",
            Event::Postponed {
                reason,
                retry_at: at(1),
            },
        ),
        ("resumed", Event::Resumed),
        ("expired", Event::Expired),
    ]
}

/// Polls say what they see, effects how they ended. None of it names its try.
pub(super) fn said(news: &News) -> Origin {
    match news {
        News::Revised { .. } | News::Noted(_) => Origin::Report(None),
        _ => Origin::Outcome(None),
    }
}

pub(super) fn news(tries: u32) -> impl Strategy<Value = News> {
    prop_oneof![
        3 => Just(opened()),
        3 => (0_u32..2).prop_map(move |old| later(tries.saturating_sub(old))),
        2 => any::<bool>().prop_map(|other| News::Revised {
            commit: sha(if other { OTHER } else { SHA }),
            base: sha(OTHER),
            differences: Vec::new(),
            not_rendered: String::new(),
        }),
        1 => any::<bool>().prop_map(|checks| News::Noted(if checks { "checks" } else { "a review" }.to_owned())),
        1 => Just(merged()),
        1 => Just(closed()),
        1 => Just(News::Withdrawn),
        1 => Just(News::Ended(Outcome::Failed(Reason::new(Code::PushRefused, "policy")))),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        12 => news(0).prop_map(Command::PullRequest),
        1 => Just(Command::Cancel { reason: "never mind".to_owned() }),
        4 => Just(Command::Tick),
    ]
}

proptest! {
    /// Whatever comes in whatever order: until it ends it is doing exactly one thing or waits for a time, and no effect
    /// is tried twice under one key.
    #[test]
    fn it_never_hangs(commands in proptest::collection::vec((command(), 0_i64..2000), 0..40)) {
        let mut state = requested();
        let mut now = at(0);
        for (mut command, seconds) in commands {
            now = now + Duration::from_secs(seconds.unsigned_abs());
            if let Command::PullRequest(News::Postponed { attempt, .. }) = &mut command {
                *attempt = state.tries;
            }
            let before = work(&state);
            let told = act::<Change>(&mut state, command.clone(), now).unwrap_or_default();
            if state.status == Status::Pending {
                let busy = work(&state).len();
                prop_assert!(busy == 1 || (busy == 0 && state.retry_at.is_some()), "{:?}", &state);
                // A proposal that opened something is over.
                let proposing = Change::effects(&id(), &state).iter().any(|(_, effect)| *effect == Effect::Propose);
                prop_assert!(!(proposing && state.pull_request.is_some()));
                if told > 0 && matches!(command, Command::PullRequest(News::Opened { .. } | News::Postponed { .. })) {
                    prop_assert!(work(&state) != before, "an outcome moves its effect on");
                }
            } else {
                prop_assert!(work(&state).is_empty() && Change::wake_at(&state).is_none());
            }
        }
    }
}
