//! Apply, rollout, checks and evidence; stale results; deadlines; the lane.

use std::time::Duration;

use deploy_domain::{
    deployment::{
        Deployment, DeploymentCommand as Command, DeploymentEffect as Effect, DeploymentEvent as Event,
        DeploymentRefusal, DeploymentRequest, DeploymentState, DeploymentStatus as Status, Reason,
    },
    result::CheckResult,
};
use pretty_assertions::assert_eq;
use slipway_ledger::{Decider, EffectKey};
use slipway_model::Retry;
use slipway_verdict::Applied;

use crate::life::{Life, START, away, check, id, pod, reason, request};

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
        human: false,
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
        reason: away("connection refused"),
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
    let left = life.try_tell(Command::LaneLeft);
    assert!(
        matches!(left, Err(DeploymentRefusal::Impossible(_))),
        "only what has ended leaves its lane: {left:?}"
    );
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
fn failed_checks_are_named_and_the_first_one_tells_how_its_answer_begins() {
    let mut life = Life::new(request(true)).applied().rolled_out();
    let failed = |name: &str, attempts, last_answer: String| CheckResult {
        name: name.parse().unwrap(),
        passed: false,
        attempts,
        last_answer,
    };
    life.tell(Command::Checked {
        key: life.key(),
        results: vec![
            check(true),
            failed("page", 3, format!("500 {}\nsecond line", "x".repeat(500))),
            failed("version", 1, "tcp: refused".to_owned()),
        ],
    });
    let words = life.state.failing.as_ref().unwrap().message.clone();
    assert_eq!(
        words,
        format!(
            "check page failed after 3 attempts: 500 {}…; check version failed after 1 attempt",
            "x".repeat(196)
        )
    );
    assert_eq!(life.state.checks[2].last_answer, "tcp: refused", "in full there");
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
            reason: away("connection refused"),
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
            reason: away("connection refused"),
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
fn what_is_tried_again_is_shown() {
    let mut life = Life::new(request(true));
    assert_eq!(Deployment::retry(&life.state), None);
    for attempt in 1..=3 {
        life.tell(Command::Stumbled {
            key: life.key(),
            reason: away("connection refused"),
        });
        let mut retry = Retry {
            error: away("connection refused"),
            attempt,
            next_time: Deployment::wake_at(&life.state),
        };
        assert_eq!(Deployment::retry(&life.state), Some(retry.clone()));
        let next = retry.next_time.unwrap().in_seconds();
        assert_eq!(
            life.state.progress_words(),
            format!(
                "applying 1a2b3c4; attempt {attempt} failed: connection refused; the next one is at {next}"
            )
        );
        life.wake();
        retry.next_time = None;
        assert_eq!(Deployment::retry(&life.state), Some(retry), "it is under way");
    }
    life = life.applied();
    assert_eq!(Deployment::retry(&life.state), None);
    assert_eq!(life.state.progress_words(), life.state.progress);

    // Nobody counts what a watch goes through; what it showed last stands.
    let progress = Command::Progress {
        key: life.key(),
        message: "1 of 3 new pods ready".to_owned(),
        human: false,
    };
    life.tell(progress.clone());
    life.tell(Command::Away {
        key: life.key(),
        reason: away("cannot be watched"),
    });
    let retry = Retry {
        error: away("cannot be watched"),
        attempt: 0,
        next_time: None,
    };
    assert_eq!(Deployment::retry(&life.state), Some(retry));
    assert_eq!(life.state.progress, "1 of 3 new pods ready");
    let other = Reason::new("CLUSTER_REFUSED", "cannot be watched");
    let told = life.tell(Command::Away {
        key: life.key(),
        reason: other.clone(),
    });
    assert_eq!(told.len(), 1, "another code");
    assert_eq!(Deployment::retry(&life.state).unwrap().error, other);
    life.tell(progress);
    assert_eq!(Deployment::retry(&life.state), None);
}

#[test]
fn the_deadline_of_a_rollout_tells_what_was_missing() {
    // What is known: the answer is no.
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Progress {
        key: life.key(),
        message: "2 of 3 new pods ready".to_owned(),
        human: false,
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
    life.tell(Command::Away {
        key: life.key(),
        reason: away("cluster local cannot be watched"),
    });
    life.wake();
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Errored, "DEADLINE_EXCEEDED")
    );

    // A fault that passed is forgotten.
    let mut life = Life::new(request(true)).applied();
    life.tell(Command::Away {
        key: life.key(),
        reason: away("cluster local cannot be watched"),
    });
    life.tell(Command::Progress {
        key: life.key(),
        message: "2 of 3 new pods ready".to_owned(),
        human: false,
    });
    life.wake();
    assert!(life.state.failing.is_some());
}

#[test]
fn progress_is_recorded_once_and_not_without_end() {
    let mut life = Life::new(request(true)).applied();
    let mut say = |words: &str, fault: bool| {
        let key = life.key();
        let command = if fault {
            let reason = away(words);
            Command::Away { key, reason }
        } else {
            Command::Progress {
                key,
                message: words.to_owned(),
                human: false,
            }
        };
        life.tell(command).len()
    };
    assert_eq!(
        (say("a", false), say("a", false), say("b", true), say("b", true)),
        (1, 0, 1, 0)
    );
    assert_eq!(
        (say("a", false), say("a", false)),
        (1, 0),
        "it can be asked again"
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
