//! Deployments: every outcome of every step, stale results, deadlines, and the events' JSON form.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use deploy_svc::{
    catalog::{Target, Verify, WorkloadKind},
    deployment::{
        Action, Deployment, DeploymentCommand as Command, DeploymentEffect as Effect,
        DeploymentEvent as Event, DeploymentRefusal, DeploymentRequest, DeploymentState,
        DeploymentStatus as Status, DeploymentStep as Step, Reason, Source,
    },
    result::CheckResult,
};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_ledger::{Decider, EffectKey};
use slipway_model::{Actor, Id, Principal, Timestamp};
use slipway_verdict::{Applied, evidence::PodEvidence};

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn id() -> Id {
    "dep-1".parse().unwrap()
}

fn request(checks: bool) -> DeploymentRequest {
    let check =
        serde_json::json!({"name": "health", "http": {"service": "shop", "port": "http", "path": "/health"}});
    DeploymentRequest {
        service: "shop".parse().unwrap(),
        environment: "dev".parse().unwrap(),
        target: Target {
            cluster: "local".parse().unwrap(),
            namespace: "dev".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: "shop".to_owned(),
        },
        image: "registry.example/shop".parse().unwrap(),
        digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
        source: Some(Source {
            repository: "platform".parse().unwrap(),
            path: "apps/shop/overlays/dev".to_owned(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        }),
        epoch: 7,
        action: Action::Apply,
        jobs: Default::default(),
        bake: None,
        pauses: Default::default(),
        rolls_back: None,
        reverts: None,
        checks: if checks {
            vec![serde_json::from_value(check).unwrap()]
        } else {
            Vec::new()
        },
        verify: Verify::default(),
        timeout: Duration::from_secs(600),
        correlation_id: "rel-1".to_owned(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        requested_by: Actor::direct(Principal::new("token", "alice")),
        holds_lane: false,
    }
}

fn check(passed: bool) -> CheckResult {
    CheckResult {
        name: "health".parse().unwrap(),
        passed,
        attempts: 10,
        last_answer: "GET /health: 503 \"no\", expected 200".to_owned(),
    }
}

fn pod() -> PodEvidence {
    PodEvidence {
        pod: "shop-7d9-abc".to_owned(),
        container: "app".to_owned(),
        state: "CrashLoopBackOff".to_owned(),
        exit_code: Some(1),
        log_tail: vec!["panic".to_owned()],
        previous_log_tail: Vec::new(),
        events: vec!["Warning BackOff (3x): Back-off restarting failed container".to_owned()],
    }
}

fn reason() -> Reason {
    Reason::new(
        "CRASH_LOOP",
        "pod shop-7d9-abc: CrashLoopBackOff, exit code 1, 3 restarts",
    )
}

/// A deployment under test, with its clock.
struct Life {
    state: DeploymentState,
    now: Timestamp,
}

impl Life {
    fn new(request: DeploymentRequest) -> Self {
        let mut life = Self {
            state: DeploymentState::default(),
            now: START,
        };
        life.tell(Command::Request(Box::new(request)));
        life
    }

    fn tell(&mut self, command: Command) -> Vec<Event> {
        let events = Deployment::decide(&id(), &self.state, command, self.now).unwrap();
        for event in &events {
            Deployment::evolve(&mut self.state, event, self.now);
        }
        events
    }

    fn key(&self) -> EffectKey {
        self.state.key()
    }

    fn effect(&self) -> Option<Effect> {
        let effects = Deployment::effects(&id(), &self.state);
        assert!(effects.len() <= 1);
        effects.first().map(|(_, effect)| *effect)
    }

    fn applied(mut self) -> Self {
        let applied = Applied {
            uid: "u-1".to_owned(),
            generation: 3,
            created_at: Some(START),
            previous: None,
        };
        self.tell(Command::Applied {
            key: self.key(),
            applied,
        });
        self
    }

    fn rolled_out(mut self) -> Self {
        self.tell(Command::RolledOut { key: self.key() });
        self
    }

    /// Lets the time pass to the next timer, and fires it.
    fn wake(&mut self) -> Vec<Event> {
        self.now = Deployment::wake_at(&self.state).expect("a timer");
        self.tell(Command::Wake)
    }

    fn reason(&self) -> &str {
        self.state
            .reason
            .as_ref()
            .map_or("", |reason| reason.code.as_str())
    }
}

#[test]
fn it_applies_watches_checks_and_succeeds() {
    let mut life = Life::new(request(true));
    assert_eq!(
        (life.state.status, life.effect()),
        (Status::Applying, Some(Effect::Apply))
    );
    life = life.applied();
    assert_eq!(
        (life.state.status, life.effect()),
        (Status::Verifying, Some(Effect::Rollout))
    );
    life.tell(Command::Progress {
        key: life.key(),
        message: "1 of 3 new pods ready".to_owned(),
        fault: false,
    });
    assert_eq!(life.state.progress, "1 of 3 new pods ready");
    life = life.rolled_out();
    assert_eq!(life.effect(), Some(Effect::Checks));
    life.tell(Command::Checked {
        key: life.key(),
        results: vec![check(true)],
    });
    assert_eq!((life.state.status, life.effect()), (Status::Succeeded, None));
    assert_eq!(life.state.checks.len(), 1);
    assert!(Deployment::is_final(&life.state));
    assert_eq!(Deployment::wake_at(&life.state), None);
}

#[test]
fn without_checks_the_rollout_is_the_end() {
    let mut life = Life::new(request(false)).applied();
    let events = life.tell(Command::RolledOut { key: life.key() });
    assert_eq!(events, vec![Event::RolledOut {}, Event::Succeeded {}]);
}

#[test]
fn the_same_request_again_and_stale_results_change_nothing() {
    let mut life = Life::new(request(false));
    assert_eq!(life.tell(Command::Request(Box::new(request(true)))), vec![]);
    let old = life.key();
    life.tell(Command::Stumbled {
        key: old.clone(),
        message: "connection refused".to_owned(),
    });
    let applied = Command::Applied {
        key: old.clone(),
        applied: Applied::default(),
    };
    assert_eq!(life.tell(applied.clone()), vec![], "while it pauses");
    life.wake();
    assert_eq!(life.key(), EffectKey::new("apply", 2));
    assert_eq!(life.tell(applied), vec![], "of the attempt before");
    assert_eq!(life.effect(), Some(Effect::Apply));
    life = life.applied();
    assert_eq!(
        life.tell(Command::RolledOut { key: old }),
        vec![],
        "of another step"
    );
    assert_eq!(life.tell(Command::LaneLeft), vec![]);
}

#[test]
fn nothing_happens_to_what_does_not_exist() {
    let refused = Deployment::decide(&id(), &DeploymentState::default(), Command::Wake, START);
    assert_eq!(refused.unwrap_err(), DeploymentRefusal::Unknown(id()));
}

#[test]
fn a_refused_apply_fails_at_once() {
    let mut life = Life::new(request(true));
    let refused = Reason::new("RENDERED_IMAGE_MISMATCH", "…");
    life.tell(Command::Refused {
        key: life.key(),
        reason: refused,
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "RENDERED_IMAGE_MISMATCH")
    );
}

#[test]
fn a_failed_rollout_tells_why_before_its_evidence_is_there() {
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Refused {
        key: life.key(),
        reason: reason(),
    });
    assert_eq!(
        (life.state.status, life.effect()),
        (Status::Verifying, Some(Effect::Evidence))
    );
    assert_eq!(life.state.failing, Some(reason()));
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: vec![pod()],
    });
    assert_eq!((life.state.status, life.reason()), (Status::Failed, "CRASH_LOOP"));
    assert_eq!(life.state.evidence, vec![pod()]);
}

#[test]
fn a_failed_check_names_its_last_answer() {
    let mut life = Life::new(request(true)).applied().rolled_out();
    life.tell(Command::Checked {
        key: life.key(),
        results: vec![check(false)],
    });
    assert_eq!(life.effect(), Some(Effect::Evidence));
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: Vec::new(),
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "CHECK_FAILED")
    );
    let words = &life.state.reason.as_ref().unwrap().message;
    assert!(
        words.contains("check health failed after 10 attempts: GET /health: 503"),
        "{words}"
    );
}

#[test]
fn evidence_that_cannot_be_had_does_not_hold_up_the_end() {
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Refused {
        key: life.key(),
        reason: reason(),
    });
    let mut pauses = 0;
    while life.state.status == Status::Verifying {
        life.tell(Command::Stumbled {
            key: life.key(),
            message: "connection refused".to_owned(),
        });
        life.wake();
        pauses += 1;
        assert!(pauses < 100);
    }
    assert_eq!((life.state.status, life.reason()), (Status::Failed, "CRASH_LOOP"));
    assert!(life.now.since(START) <= Duration::from_secs(60));
}

#[test]
fn an_api_server_that_is_away_costs_time_and_then_errors() {
    let mut life = Life::new(request(true));
    let mut pauses = Vec::new();
    while life.state.status == Status::Applying {
        life.tell(Command::Stumbled {
            key: life.key(),
            message: "connection refused".to_owned(),
        });
        assert_eq!(life.effect(), None, "nothing runs while it pauses");
        let before = life.now;
        life.wake();
        pauses.push(life.now.since(before));
    }
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Errored, "DEADLINE_EXCEEDED")
    );
    assert!(
        life.state
            .reason
            .as_ref()
            .unwrap()
            .message
            .contains("connection refused")
    );
    assert_eq!(
        life.now,
        START + Duration::from_secs(600),
        "exactly at the deadline"
    );
    assert!(
        pauses[0] < Duration::from_secs(1) && pauses[1] > pauses[0],
        "{pauses:?}"
    );
    assert!(
        pauses.iter().all(|pause| *pause <= Duration::from_secs(33)),
        "{pauses:?}"
    );
}

#[test]
fn the_deadline_of_a_rollout_tells_what_was_missing() {
    // What is known: the answer is no.
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Progress {
        key: life.key(),
        message: "2 of 3 new pods ready".to_owned(),
        fault: false,
    });
    life.wake();
    assert_eq!(life.effect(), Some(Effect::Evidence));
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: vec![pod()],
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "DEADLINE_EXCEEDED")
    );
    assert!(
        life.state
            .reason
            .as_ref()
            .unwrap()
            .message
            .contains("600 s: 2 of 3 new pods ready")
    );

    // What is not: we could not tell.
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Progress {
        key: life.key(),
        message: "cluster local cannot be watched".to_owned(),
        fault: true,
    });
    life.wake();
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Errored, "DEADLINE_EXCEEDED")
    );

    // A fault that passed is forgotten.
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Progress {
        key: life.key(),
        message: "cluster local cannot be watched".to_owned(),
        fault: true,
    });
    life.tell(Command::Progress {
        key: life.key(),
        message: "2 of 3 new pods ready".to_owned(),
        fault: false,
    });
    life.wake();
    assert!(life.state.failing.is_some());
}

#[test]
fn progress_is_recorded_once_and_not_without_end() {
    let mut life = Life::new(request(true)).applied();
    let mut say = |words: &str, fault| {
        let command = Command::Progress {
            key: life.key(),
            message: words.to_owned(),
            fault,
        };
        life.tell(command).len()
    };
    assert_eq!(
        (say("a", false), say("a", false), say("a", true), say("a", true)),
        (1, 0, 1, 0)
    );
    let recorded: usize = (0..1000).map(|number| say(&number.to_string(), false)).sum();
    assert!(recorded <= 200, "{recorded}");
    assert_eq!(say("away", true), 1, "whether it can be asked is always recorded");
}

#[test]
fn cancel_ends_it_wherever_it_is_and_the_lane_is_given_back() {
    for stage in 0..4 {
        let mut life = Life::new(DeploymentRequest {
            holds_lane: true,
            ..request(true)
        });
        if stage > 0 {
            life = life.applied();
        }
        if stage > 1 {
            life = life.rolled_out();
        }
        if stage > 2 {
            life.tell(Command::Checked {
                key: life.key(),
                results: vec![check(false)],
            });
        }
        let key = life.key();
        life.tell(Command::Cancel {
            message: "cancelled by token/alice".to_owned(),
        });
        assert_eq!(
            (life.state.status, life.reason()),
            (Status::Cancelled, "CANCELLED")
        );
        assert_eq!(
            life.tell(Command::Cancel {
                message: String::new()
            }),
            vec![]
        );
        assert_eq!(life.tell(Command::RolledOut { key }), vec![]);
        assert_eq!(life.effect(), Some(Effect::LeaveLane));
        assert!(!Deployment::is_final(&life.state), "the lane is still to be left");
        life.tell(Command::LaneLeft);
        assert_eq!(life.effect(), None);
        assert!(Deployment::is_final(&life.state));
        assert_eq!(life.tell(Command::LaneLeft), vec![]);
    }
}

#[test]
fn lists_filter_by_what_was_requested() {
    let life = Life::new(request(true));
    let index = Deployment::index(&life.state);
    assert_eq!(
        (index.status.as_str(), index.service.as_str()),
        ("applying", "shop")
    );
    assert_eq!(
        (index.environment.as_str(), index.correlation.as_str()),
        ("dev", "rel-1")
    );
    assert_eq!(index.labels["team"], "web");
}

/// The stored form of every event. A file that differs breaks what is stored already: add a field with a default
/// instead. `SLIPWAY_BLESS=1` writes files that are missing.
#[test]
fn events_keep_their_json_form() {
    let applied = Applied {
        uid: "6f1c".to_owned(),
        generation: 3,
        created_at: Some(START),
        previous: None,
    };
    let events = [
        Event::Requested {
            request: Box::new(request(true)),
            deadline: START + Duration::from_secs(600),
        },
        Event::Applied { applied },
        Event::RolledOut {},
        Event::Checked {
            results: vec![check(false)],
        },
        Event::Progressed {
            message: "1 of 3 new pods ready".to_owned(),
            fault: false,
        },
        Event::Stumbled {
            step: Step::Apply,
            attempt: 2,
            message: "connection refused".to_owned(),
            retry_at: START,
        },
        Event::Resumed {
            step: Step::Apply,
            attempt: 3,
        },
        Event::Failing { reason: reason() },
        Event::Succeeded {},
        Event::Failed {
            reason: reason(),
            evidence: vec![pod()],
        },
        Event::Errored {
            reason: Reason::new("DEADLINE_EXCEEDED", "not verified within 600 s"),
        },
        Event::Cancelled {
            reason: Reason::new("CANCELLED", "cancelled by token/alice"),
        },
        Event::LaneLeft {},
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/deployment");
    for event in events {
        let json = serde_json::to_value(&event).unwrap();
        let path = folder.join(format!("{}.json", json["type"].as_str().unwrap()));
        if !path.exists() && std::env::var_os("SLIPWAY_BLESS").is_some() {
            fs::write(&path, serde_json::to_string_pretty(&json).unwrap() + "\n").unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json, golden, "{}", path.display());
        assert_eq!(serde_json::from_value::<Event>(golden).unwrap(), event);
    }
}

proptest! {
    /// Whatever happens in whatever order: a final deployment stays as it is, timers lead to an end, a stored state
    /// reads back, and something is always going on or being waited for until then.
    #[test]
    fn every_life_ends(steps in proptest::collection::vec((0..9u8, any::<bool>(), 0..900u64), 0..60)) {
        let mut life = Life::new(request(true));
        for (what, flag, seconds) in steps {
            life.now = life.now + Duration::from_secs(seconds);
            let key = if flag { life.key() } else { EffectKey::new("rollout", 9) };
            let before = life.state.clone();
            life.tell(match what {
                0 => Command::Applied { key, applied: Applied::default() },
                1 => Command::RolledOut { key },
                2 => Command::Checked { key, results: vec![check(seconds % 2 == 0)] },
                3 => Command::Evidence { key, evidence: vec![pod()] },
                4 => Command::Progress { key, message: seconds.to_string(), fault: seconds % 2 == 0 },
                5 => Command::Refused { key, reason: reason() },
                6 => Command::Stumbled { key, message: "away".to_owned() },
                7 => Command::Wake,
                _ => Command::Request(Box::new(request(false))),
            });
            if before.status.is_final() {
                prop_assert_eq!(&life.state, &before);
            }
            let text = serde_json::to_string(&life.state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<DeploymentState>(&text).unwrap(), &life.state);
            if !life.state.status.is_final() {
                prop_assert_eq!(life.effect().is_some(), life.state.retry_at.is_none());
                prop_assert!(Deployment::wake_at(&life.state).is_some());
            }
        }
        let mut turns = 0;
        while !life.state.status.is_final() {
            life.wake();
            turns += 1;
            prop_assert!(turns < 5, "timers alone end it: {:?}", life.state);
        }
    }
}
