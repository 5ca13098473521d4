use std::{collections::BTreeMap, time::Duration};

use pretty_assertions::assert_eq;
use slipway_model::Authentication;

use super::{
    decide::{MAX_BACKOFF_MS, backoff},
    *,
};

mod laws;

fn id() -> Id {
    "bld-1".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn digest() -> Digest {
    format!("sha256:{}", "ab".repeat(32)).parse().unwrap()
}

fn request() -> Box<Request> {
    Box::new(Request {
        service: "ms-identity".parse().unwrap(),
        recipe: Recipe {
            repository: "https://git.example/team/app.git".parse().unwrap(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
            branch: Some("main".parse().unwrap()),
            image: "registry.example/team/app".parse().unwrap(),
            context: "app".into(),
            dockerfile: "Containerfile".into(),
            arguments: BTreeMap::from([("FEATURE".into(), "on".into())]),
            version: "1.2.3".into(),
            latest: true,
            git_tag: None,
            target: "run".into(),
        },
        builder: "default".into(),
        limits: Limits {
            timeout_s: 600,
            attempts: 3,
            backoff_ms: 4000,
        },
        requested_by: Actor::direct("token/bot".parse().unwrap(), Authentication::StaticToken)
            .on_behalf_of("token/alice".parse().unwrap()),
        correlation_id: "rel-1".into(),
        labels: BTreeMap::from([("team".into(), "identity".into())]),
        rebuild: false,
    })
}

/// A build after a list of commands with their times.
fn after(commands: Vec<(i64, Command)>) -> State {
    let mut state = State::default();
    for (seconds, command) in commands {
        for event in Build::decide(&id(), &state, command, at(seconds)).unwrap() {
            Build::evolve(&mut state, &event, at(seconds));
        }
    }
    state
}

fn image(attempt: u32) -> EffectKey {
    EffectKey::new(STEP_IMAGE, attempt)
}

fn tags(attempt: u32) -> EffectKey {
    EffectKey::new(STEP_TAGS, attempt)
}

fn reason() -> Reason {
    Reason::new(
        codes::REGISTRY_UNAVAILABLE,
        "registry r cannot be used now: no answer in time",
    )
}

fn fault(key: EffectKey) -> Command {
    Command::Fault {
        key,
        reason: reason(),
        log_tail: vec!["last".into()],
    }
}

fn effects(state: &State) -> Vec<EffectKey> {
    Build::effects(&id(), state)
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

#[test]
fn a_build_goes_from_request_to_tags() {
    let mut commands = vec![(0, Command::Request(request()))];
    let state = after(commands.clone());
    assert_eq!(
        (state.status, effects(&state), Build::wake_at(&state)),
        (Status::Queued, vec![image(1)], None)
    );

    commands.push((5, Command::Begin { key: image(1) }));
    commands.push((
        6,
        Command::Fetched {
            key: image(1),
            authors: vec!["a@example.com".into()],
        },
    ));
    let state = after(commands.clone());
    assert_eq!(
        (state.status, state.phase, state.started_at),
        (Status::Running, Phase::Building, Some(at(5)))
    );
    assert_eq!(state.authors, ["a@example.com"]);
    assert_eq!(
        (effects(&state), Build::wake_at(&state)),
        (vec![image(1)], Some(at(605)))
    );

    commands.push((
        20,
        Command::Pushed {
            key: image(1),
            digest: digest(),
        },
    ));
    let state = after(commands.clone());
    assert_eq!(
        (state.status, state.phase, effects(&state)),
        (Status::Running, Phase::Tagging, vec![tags(1)])
    );

    commands.push((
        21,
        Command::Tagged {
            key: tags(1),
            tags: vec!["latest".parse().unwrap()],
            kept: vec![],
        },
    ));
    let state = after(commands);
    assert_eq!(
        (state.status, state.digest.clone(), state.ended_at),
        (Status::Succeeded, Some(digest()), Some(at(21)))
    );
    assert_eq!(
        (effects(&state), Build::wake_at(&state), Build::is_final(&state)),
        (vec![], None, true)
    );
}

/// The authors of the commit come with the image: nothing is fetched.
#[test]
fn the_image_of_an_earlier_build_is_only_tagged() {
    let found = Command::Found {
        key: image(1),
        build: "bld-0".parse().unwrap(),
        digest: digest(),
        authors: vec!["a@example.com".into()],
    };
    let state = after(vec![
        (0, Command::Request(request())),
        (5, Command::Begin { key: image(1) }),
        (6, found.clone()),
    ]);
    assert_eq!(
        (state.digest.clone(), state.made_by.as_ref().map(Id::as_str)),
        (Some(digest()), Some("bld-0"))
    );
    assert_eq!(state.authors, ["a@example.com"]);
    assert_eq!((state.phase, effects(&state)), (Phase::Tagging, vec![tags(1)]));
    let again = Build::decide(&id(), &state, found, at(7)).unwrap();
    assert_eq!(
        again,
        [],
        "the outcome of an effect that the state no longer asks for"
    );
}

#[test]
fn the_same_work_makes_the_same_image() {
    type Change = fn(&mut Request);
    let cases: [(&str, Change, bool); 17] = [
        ("the same", |_| {}, true),
        ("another branch", |r| r.recipe.branch = None, true),
        ("latest", |r| r.recipe.latest = false, true),
        ("a label of the build", |r| r.labels.clear(), true),
        ("another release", |r| r.correlation_id = "rel-2".into(), true),
        ("more time", |r| r.limits.timeout_s = 1, true),
        (
            "another commit",
            |r| r.recipe.commit = "2".repeat(40).parse().unwrap(),
            false,
        ),
        (
            "another repository",
            |r| r.recipe.repository = "https://git.example/team/fork.git".parse().unwrap(),
            false,
        ),
        (
            "another image",
            |r| r.recipe.image = "registry.example/app".parse().unwrap(),
            false,
        ),
        ("another context", |r| r.recipe.context.clear(), false),
        ("another Dockerfile", |r| r.recipe.dockerfile.clear(), false),
        ("another argument", |r| r.recipe.arguments.clear(), false),
        ("another version", |r| r.recipe.version.clear(), false),
        ("another stage", |r| r.recipe.target.clear(), false),
        ("another builder", |r| r.builder = "other".into(), false),
        ("another service", |r| r.service = "other".parse().unwrap(), false),
        ("asked to rebuild", |r| r.rebuild = true, true),
    ];
    for (case, change, same) in cases {
        let mut changed = request();
        change(&mut changed);
        assert_eq!(changed.makes_image_of(&request()), same, "{case}");
    }
    // What is left out is the same as its default.
    let (mut short, mut long) = (request(), request());
    (
        short.recipe.context,
        short.recipe.dockerfile,
        short.recipe.version,
    ) = Default::default();
    long.recipe.context = ".".into();
    long.recipe.dockerfile = "Dockerfile".into();
    long.recipe.version = long.recipe.commit.short().to_owned();
    assert!(short.makes_image_of(&long));
}

#[test]
fn lists_find_builds_by_their_commit() {
    let state = after(vec![(0, Command::Request(request()))]);
    let labels = Build::index(&state).labels;
    assert_eq!(labels[COMMIT_INDEX], request().recipe.commit.to_string());
    assert_eq!(labels["team"], "identity");
}

#[test]
fn a_pretended_build_ends_with_one_event() {
    let state = after(vec![(0, Command::Request(request()))]);
    let command = Command::Finished {
        key: image(1),
        digest: digest(),
        tags: vec![],
    };
    let events = Build::decide(&id(), &state, command, at(1)).unwrap();
    assert_eq!(
        events,
        [Event::Succeeded {
            digest: digest(),
            tags: vec![],
            kept_tags: vec![]
        }]
    );
}

#[test]
fn faults_are_waited_out_and_counted() {
    let state = after(vec![
        (0, Command::Request(request())),
        (0, Command::Begin { key: image(1) }),
        (10, fault(image(1))),
    ]);
    let retry_at = state.retry_at.unwrap();
    let wait = retry_at.since(at(10));
    assert!(
        wait >= Duration::from_millis(3000) && wait <= Duration::from_millis(4000),
        "{wait:?}"
    );
    assert_eq!(
        (effects(&state), Build::wake_at(&state), state.fault.clone()),
        (vec![], Some(retry_at), Some(reason()))
    );
    // The first try's late result changes nothing while the second is waited for.
    assert_eq!(Build::decide(&id(), &state, fault(image(1)), at(11)).unwrap(), []);
    assert_eq!(Build::decide(&id(), &state, Command::Wake, at(10)).unwrap(), []);

    let mut state = after(vec![
        (0, Command::Request(request())),
        (0, Command::Begin { key: image(1) }),
        (10, fault(image(1))),
        (30, Command::Wake),
        (40, fault(image(2))),
        (60, Command::Wake),
    ]);
    assert_eq!((state.attempt, effects(&state)), (3, vec![image(3)]));
    assert_eq!(
        Build::decide(&id(), &state, fault(image(2)), at(61)).unwrap(),
        [],
        "stale"
    );
    let events = Build::decide(&id(), &state, fault(image(3)), at(70)).unwrap();
    assert_eq!(
        events,
        [Event::Errored {
            reason: reason(),
            log_tail: vec!["last".into()]
        }]
    );
    Build::evolve(&mut state, &events[0], at(70));
    assert_eq!((state.status, state.log_tail.len()), (Status::Errored, 1));
}

#[test]
fn a_fault_of_the_tags_does_not_build_again() {
    let state = after(vec![
        (0, Command::Request(request())),
        (
            1,
            Command::Pushed {
                key: image(1),
                digest: digest(),
            },
        ),
        (2, fault(tags(1))),
        (30, Command::Wake),
    ]);
    assert_eq!((state.phase, effects(&state)), (Phase::Tagging, vec![tags(2)]));
}

#[test]
fn the_time_is_up_whatever_happens() {
    for commands in [
        vec![(0, Command::Begin { key: image(1) })],
        vec![(0, Command::Begin { key: image(1) }), (599, fault(image(1)))],
        vec![
            (0, Command::Begin { key: image(1) }),
            (
                9,
                Command::Pushed {
                    key: image(1),
                    digest: digest(),
                },
            ),
        ],
    ] {
        let mut all = vec![(0, Command::Request(request()))];
        all.extend(commands);
        let state = after(all.clone());
        assert_eq!(Build::wake_at(&state), Some(at(600)));
        all.push((600, Command::Wake));
        let state = after(all);
        assert_eq!(
            (state.status, state.reason.unwrap().code.as_str()),
            (Status::Errored, codes::TIMEOUT)
        );
    }
}

#[test]
fn a_cancelled_build_wants_nothing_more() {
    let state = after(vec![
        (0, Command::Request(request())),
        (1, Command::Begin { key: image(1) }),
        (
            2,
            Command::Cancel {
                reason: "superseded".into(),
            },
        ),
        (
            3,
            Command::Pushed {
                key: image(1),
                digest: digest(),
            },
        ),
        (
            4,
            Command::Cancel {
                reason: "again".into(),
            },
        ),
    ]);
    assert_eq!(
        (state.status, effects(&state), state.digest),
        (Status::Cancelled, vec![], None)
    );
    assert_eq!(state.reason.unwrap(), Reason::new(codes::CANCELLED, "superseded"));
}

#[test]
fn refusals() {
    let state = after(vec![(0, Command::Request(request()))]);
    assert_eq!(
        Build::decide(&id(), &state, Command::Request(request()), at(1)),
        Err(Refusal::Exists(id()))
    );
    assert_eq!(
        Build::decide(
            &id(),
            &State::default(),
            Command::Cancel {
                reason: String::new()
            },
            at(1)
        ),
        Err(Refusal::NotFound(id()))
    );
}

#[test]
fn what_does_not_fit_is_refused_and_what_is_stale_is_not() {
    let mut commands = vec![(0, Command::Request(request()))];
    let tagged = |key| Command::Tagged {
        key,
        tags: vec![],
        kept: vec![],
    };
    let pushed = |key| Command::Pushed {
        key,
        digest: digest(),
    };
    let finished = |key| Command::Finished {
        key,
        digest: format!("sha256:{}", "cd".repeat(32)).parse().unwrap(),
        tags: vec![],
    };
    let before = after(commands.clone());
    commands.push((1, pushed(image(1))));
    let behind = after(commands);
    for (state, command) in [
        (&before, tagged(image(1))),
        (&behind, pushed(tags(1))),
        (&behind, finished(tags(1))),
    ] {
        let refused = Build::decide(&id(), state, command, at(2));
        assert!(matches!(refused, Err(Refusal::Impossible(_))), "{refused:?}");
    }
    for command in [pushed(image(1)), finished(image(1)), tagged(tags(2))] {
        assert_eq!(Build::decide(&id(), &behind, command, at(2)), Ok(vec![]));
    }
}

#[test]
fn waits_grow_and_end() {
    let limits = Limits {
        timeout_s: 1,
        attempts: 50,
        backoff_ms: 4000,
    };
    let waits: Vec<_> = (1..40)
        .map(|attempt| backoff(&id(), &limits, attempt).as_millis())
        .collect();
    assert!(waits[1] > waits[0] && waits[3] > waits[2], "{waits:?}");
    assert!(
        waits.iter().all(|wait| *wait <= u128::from(MAX_BACKOFF_MS)),
        "{waits:?}"
    );
    assert_eq!(
        backoff(
            &id(),
            &Limits {
                backoff_ms: 0,
                ..limits
            },
            3
        ),
        Duration::ZERO
    );
}

/// The wire form of every event, which never changes once it is released.
#[test]
fn events_have_their_golden_form() {
    let kept = KeptTag {
        tag: "1a2b3c4".parse().unwrap(),
        digest: digest(),
    };
    let events = [
        ("requested.v2", Event::Requested { request: request() }),
        ("started", Event::Started { attempt: 1 }),
        (
            "fetched",
            Event::Fetched {
                authors: vec!["a@example.com".into()],
            },
        ),
        (
            "phase_reached",
            Event::PhaseReached {
                attempt: 1,
                phase: Phase::Building,
            },
        ),
        (
            "pushed",
            Event::Pushed {
                digest: digest(),
                made_by: None,
            },
        ),
        (
            "pushed.made_by",
            Event::Pushed {
                digest: digest(),
                made_by: Some("bld-0".parse().unwrap()),
            },
        ),
        (
            "succeeded",
            Event::Succeeded {
                digest: digest(),
                tags: vec!["latest".parse().unwrap()],
                kept_tags: vec![kept],
            },
        ),
        (
            "faulted",
            Event::Faulted {
                attempt: 1,
                reason: reason(),
                retry_at: at(0),
            },
        ),
        ("retried", Event::Retried { attempt: 2 }),
        (
            "failed",
            Event::Failed {
                reason: Reason::new(codes::BUILD_FAILED, "exit status 1"),
                log_tail: vec!["no".into()],
            },
        ),
        (
            "errored",
            Event::Errored {
                reason: Reason::new(codes::TIMEOUT, "not done after 1 s"),
                log_tail: vec![],
            },
        ),
        (
            "cancelled",
            Event::Cancelled {
                reason: Reason::new(codes::CANCELLED, ""),
            },
        ),
    ];
    slipway_testbed::golden::<Build>(&events, &["requested"]);
    // What was recorded before its form changed is the same event.
    let [old, new] = ["requested", "requested.v2"].map(|name| slipway_testbed::recorded::<Build>(name).1);
    assert_eq!(old, new);
}
