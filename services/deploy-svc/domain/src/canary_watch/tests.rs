//! Watches from begin to end, as tables and over random commands.

use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_testbed::{Origin, decider_laws};

use super::*;
use CanaryWatchCommand as Command;
use CanaryWatchEvent as Event;
use CanaryWatchStatus as Status;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn reason(code: &str) -> Reason {
    Reason::new(code, "for this reason")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn watched() -> Watched {
    Watched {
        release: id("rel-1"),
        service: "shop".parse().unwrap(),
        environment: "prod".parse().unwrap(),
        deployment: id("dep-1"),
        period: Duration::from_secs(3600),
    }
}

/// A watch that has begun at second 0.
struct Run {
    state: CanaryWatchState,
    now: i64,
}

impl Run {
    fn begun() -> Self {
        let mut run = Self {
            state: CanaryWatchState::default(),
            now: 0,
        };
        run.tell(Command::Begin(Box::new(watched())));
        run
    }

    fn tell(&mut self, command: Command) -> Vec<Event> {
        let now = at(self.now);
        let events = CanaryWatch::decide(&watched().id(), &self.state, command, now).unwrap();
        for event in &events {
            CanaryWatch::evolve(&mut self.state, event, now);
        }
        events
    }

    /// The key of what must be running.
    fn key(&self) -> EffectKey {
        let id = watched().id();
        let mut wanted = CanaryWatch::effects(&id, &self.state);
        wanted.extend(CanaryWatch::polls(&id, &self.state));
        assert_eq!(wanted.len(), 1, "{wanted:?}");
        wanted.remove(0).0
    }

    fn failed() -> Self {
        let mut run = Self::begun();
        let key = run.key();
        run.tell(Command::Failed {
            key,
            reason: reason("ABORTED"),
        });
        run
    }

    fn putting_back() -> Self {
        let mut run = Self::failed();
        let key = run.key();
        run.tell(Command::PuttingBack {
            key,
            deployment: id("dep-2"),
        });
        run
    }

    #[track_caller]
    fn ends(&self, status: Status, code: Option<&str>) {
        let told = self.state.reason.as_ref().map(|reason| reason.code.as_str());
        assert_eq!((self.state.status, told), (status, code));
        assert!(CanaryWatch::is_final(&self.state));
        assert_eq!(self.state.ended_at, Some(at(self.now)));
    }
}

#[test]
fn nothing_happens_until_its_time_is_over() {
    let mut run = Run::begun();
    assert_eq!(run.key().step, "follow");
    assert_eq!(CanaryWatch::wake_at(&run.state), Some(at(3600)));
    assert_eq!(run.tell(Command::Begin(Box::new(watched()))), [], "once");
    run.now = 3599;
    assert_eq!(run.tell(Command::Wake), []);
    run.now = 3600;
    run.tell(Command::Wake);
    run.ends(Status::Passed, None);
    assert_eq!(
        run.state.failure, None,
        "what nobody has seen fail is not put back"
    );
}

#[test]
fn a_cluster_that_could_not_be_watched_is_told_at_the_end() {
    let mut run = Run::begun();
    let key = run.key();
    let away = |key| Command::Away {
        key,
        reason: reason("CLUSTER_UNAVAILABLE"),
    };
    run.tell(away(key.clone()));
    let retried = CanaryWatch::retry(&run.state).map(|retry| retry.error.code);
    assert_eq!(retried.as_deref(), Some("CLUSTER_UNAVAILABLE"));
    assert_eq!(run.tell(away(key.clone())), [], "once");
    assert_eq!(run.key(), key, "it goes on");
    let mut back = Run {
        state: run.state.clone(),
        now: 10,
    };
    back.tell(Command::Back { key });
    back.now = 3600;
    back.tell(Command::Wake);
    back.ends(Status::Passed, None);
    run.now = 3600;
    run.tell(Command::Wake);
    run.ends(Status::Passed, Some("CLUSTER_UNAVAILABLE"));
}

#[test]
fn a_canary_that_fails_is_put_back_by_a_deployment() {
    let mut run = Run::failed();
    assert_eq!(run.state.status, Status::Failed);
    assert_eq!(run.key().step, "put-back");
    run.now = 7200;
    assert_eq!(run.tell(Command::Wake), [], "its time does not end that");
    let key = run.key();
    run.tell(Command::PuttingBack {
        key,
        deployment: id("dep-2"),
    });
    assert_eq!(run.state.deployment, Some(id("dep-2")));
    let other = Command::DeploymentEnded {
        deployment: id("dep-3"),
        status: DeploymentStatus::Succeeded,
        reason: None,
    };
    assert_eq!(run.tell(other), [], "another deployment");
    run.tell(Command::DeploymentEnded {
        deployment: id("dep-2"),
        status: DeploymentStatus::Succeeded,
        reason: None,
    });
    run.ends(Status::PutBack, None);
    let why = run.state.failure.as_ref().map(|reason| reason.code.as_str());
    assert_eq!(why, Some("ABORTED"));
}

#[test]
fn a_deployment_that_does_not_succeed_is_told() {
    for (status, given, code) in [
        (
            DeploymentStatus::RollbackFailed,
            Some(reason("CHANGED_SINCE")),
            "CHANGED_SINCE",
        ),
        (
            DeploymentStatus::Cancelled,
            Some(reason("CANCELLED")),
            "CANCELLED",
        ),
        (DeploymentStatus::Failed, None, "NOT_PUT_BACK"),
    ] {
        let mut run = Run::putting_back();
        run.tell(Command::DeploymentEnded {
            deployment: id("dep-2"),
            status,
            reason: given,
        });
        run.ends(Status::NotPutBack, Some(code));
    }
}

#[test]
fn what_is_newer_in_the_cluster_or_in_git_stays() {
    let mut run = Run::begun();
    let (key, newer) = (run.key(), reason("SUPERSEDED"));
    run.tell(Command::Superseded {
        key,
        reason: newer.clone(),
    });
    run.ends(Status::Superseded, Some("SUPERSEDED"));

    let mut run = Run::failed();
    let key = run.key();
    run.tell(Command::Superseded { key, reason: newer });
    run.ends(Status::Superseded, Some("SUPERSEDED"));

    let mut run = Run::failed();
    let key = run.key();
    run.tell(Command::Declined {
        key,
        reason: reason("CHANGED_SINCE"),
    });
    run.ends(Status::NotPutBack, Some("CHANGED_SINCE"));
}

#[test]
fn a_lane_that_another_one_holds_is_waited_for() {
    let mut run = Run::failed();
    let held = |key, holder: &str| Command::LaneHeld {
        key,
        holder: id(holder),
    };
    let key = run.key();
    run.tell(held(key, "rel-2"));
    assert_eq!(run.state.lane_holder, Some(id("rel-2")));
    let key = run.key();
    assert_eq!(key.step, "lane");
    assert_eq!(CanaryWatch::effects(&watched().id(), &run.state), []);
    assert_eq!(run.tell(held(key.clone(), "rel-2")), [], "nothing new");
    assert_eq!(run.tell(held(key.clone(), "rel-3")).len(), 1);
    run.tell(Command::PuttingBack {
        key,
        deployment: id("dep-2"),
    });
    assert_eq!(
        (run.state.status, &run.state.lane_holder),
        (Status::PuttingBack, &None)
    );
}

#[test]
fn a_service_that_is_away_is_asked_again() {
    let mut run = Run::failed();
    let key = run.key();
    run.tell(Command::Stumbled {
        key: key.clone(),
        reason: reason("UNAVAILABLE"),
    });
    let retry = CanaryWatch::retry(&run.state).unwrap();
    assert_eq!((retry.error.code.as_str(), retry.attempt), ("UNAVAILABLE", 1));
    let next = retry.next_time.unwrap();
    assert_eq!(CanaryWatch::wake_at(&run.state), Some(next));
    assert_eq!(CanaryWatch::effects(&watched().id(), &run.state), []);
    run.now = 60;
    run.tell(Command::Wake);
    assert_ne!(run.key(), key, "another attempt");
}

#[test]
fn a_canary_that_is_tried_again_is_followed_further() {
    for (now, ended) in [(60, false), (3600, true)] {
        let mut run = Run::failed();
        run.now = now;
        let key = run.key();
        run.tell(Command::Recovered { key });
        assert_eq!(run.state.failure, None);
        if ended {
            run.ends(Status::Passed, None);
        } else {
            assert_eq!(run.key().step, "follow");
        }
    }
}

#[test]
fn the_outcome_of_another_effect_is_a_defect() {
    let run = Run::failed();
    let failed = Command::Failed {
        key: run.key(),
        reason: reason("ABORTED"),
    };
    let refused = CanaryWatch::decide(&watched().id(), &run.state, failed, at(1)).unwrap_err();
    assert!(matches!(refused, CanaryWatchRefusal::Impossible(_)), "{refused}");
    let unknown = CanaryWatch::decide(&id("watch-9"), &CanaryWatchState::default(), Command::Wake, at(1));
    assert_eq!(unknown, Err(CanaryWatchRefusal::Unknown(id("watch-9"))));
}

fn said(command: &Command) -> Origin {
    match command {
        Command::Away { key, .. } | Command::Back { key } => Origin::Report(Some(key.clone())),
        Command::LaneHeld { key, .. } if key.step == "lane" => Origin::Report(Some(key.clone())),
        Command::Failed { key, .. }
        | Command::Recovered { key }
        | Command::Passed { key, .. }
        | Command::Superseded { key, .. }
        | Command::LaneHeld { key, .. }
        | Command::PuttingBack { key, .. }
        | Command::Declined { key, .. }
        | Command::Stumbled { key, .. } => Origin::Outcome(Some(key.clone())),
        Command::Begin(_) | Command::DeploymentEnded { .. } | Command::Wake => Origin::Caller,
    }
}

fn any_command(key: EffectKey) -> impl Strategy<Value = Command> {
    let of_key = (0_u8..10, 0_u8..3).prop_map(move |(which, other)| {
        let key = key.clone();
        let reason = reason(["ABORTED", "SUPERSEDED", "UNAVAILABLE"][usize::from(other)]);
        match which {
            0 => Command::Away { key, reason },
            1 => Command::Back { key },
            2 => Command::Failed { key, reason },
            3 => Command::Recovered { key },
            4 => Command::Passed { key, reason },
            5 => Command::Superseded { key, reason },
            6 => Command::LaneHeld {
                key,
                holder: id(["rel-2", "rel-3", "dep-9"][usize::from(other)]),
            },
            7 => Command::PuttingBack {
                key,
                deployment: id("dep-2"),
            },
            8 => Command::Declined { key, reason },
            _ => Command::Stumbled { key, reason },
        }
    });
    let statuses = prop::sample::select(vec![
        DeploymentStatus::Succeeded,
        DeploymentStatus::RollbackFailed,
        DeploymentStatus::Cancelled,
    ]);
    let ended =
        (any::<bool>(), statuses, any::<bool>()).prop_map(|(ours, status, says)| Command::DeploymentEnded {
            deployment: id(if ours { "dep-2" } else { "dep-3" }),
            status,
            reason: says.then(|| reason("CHANGED_SINCE")),
        });
    prop_oneof![
        2 => Just(Command::Begin(Box::new(watched()))),
        8 => of_key,
        1 => ended,
        1 => Just(Command::Wake),
    ]
}

#[test]
fn it_obeys_the_laws_of_deciders() {
    decider_laws::<CanaryWatch, _>(&watched().id(), said, |_, key| key.prop_flat_map(any_command));
}

proptest! {
    /// At most one deployment is ever ordered, and only for a canary that was seen to fail.
    #[test]
    fn one_deployment_puts_back_what_failed(commands in prop::collection::vec((0_u8..12, 0_u8..3), 1..40)) {
        let mut run = Run::begun();
        let mut ordered = 0;
        for (which, other) in commands {
            let mut wanted = CanaryWatch::effects(&watched().id(), &run.state);
            wanted.extend(CanaryWatch::polls(&watched().id(), &run.state));
            let Some((key, _)) = wanted.pop() else {
                run.now += 60;
                run.tell(Command::Wake);
                continue;
            };
            let reason = reason("ABORTED");
            let command = match which {
                0..4 => Command::Failed { key, reason },
                4 => Command::Recovered { key },
                5 => Command::LaneHeld { key, holder: id(["rel-2", "rel-3", "dep-9"][usize::from(other)]) },
                6 => Command::Stumbled { key, reason },
                7 => Command::Away { key, reason },
                _ => Command::PuttingBack { key, deployment: id("dep-2") },
            };
            let failed = run.state.failure.is_some();
            let decided = CanaryWatch::decide(&watched().id(), &run.state, command, at(run.now));
            for event in decided.unwrap_or_default() {
                if let Event::PuttingBack { .. } = event {
                    prop_assert!(failed, "what has not failed stays");
                    ordered += 1;
                }
                CanaryWatch::evolve(&mut run.state, &event, at(run.now));
            }
        }
        prop_assert!(ordered <= 1);
        prop_assert_eq!(ordered == 1, run.state.deployment.is_some());
    }
}
