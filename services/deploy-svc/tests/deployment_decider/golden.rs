//! The stored form of events.

use std::time::Duration;

use deploy_domain::{
    catalog::Pauses,
    deployment::{
        Action, Ask, Deployment, DeploymentEvent as Event, DeploymentRequest, DeploymentState,
        DeploymentStatus, DeploymentStep as Step, Reason, Revert,
    },
    result::{JobResult, Measurement},
};
use pretty_assertions::assert_eq;
use serde_json::json;
use slipway_ledger::Decider;
use slipway_testbed::{golden, recorded};
use slipway_verdict::{Applied, Restored};

use crate::life::{START, check, pod, reason, request};

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
            code: String::new(),
            human: false,
        },
        Event::Stumbled {
            step: Step::Apply,
            attempt: 2,
            code: String::new(),
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
        Event::Reverting {
            change: "chg-2".parse().unwrap(),
        },
        Event::Reverted {
            commit: "2222222222222222222222222222222222222222".parse().unwrap(),
        },
        Event::JobEnded {
            result: JobResult {
                name: "migrate".parse().unwrap(),
                job: "migrate-0a1b2c3d4e5f".to_owned(),
                succeeded: false,
                message: "the Job failed; pod migrate-0a1b2c3d4e5f-x2x5z: exit code 3".to_owned(),
                log_tail: vec!["no such table".to_owned()],
            },
        },
        Event::Measured {
            measurements: vec![Measurement {
                metric: "errors".parse().unwrap(),
                at: START,
                value: Some(0.25),
                message: String::new(),
            }],
            unwell: Some("1 of 2 new pods ready".to_owned()),
            next_at: Some(START + Duration::from_secs(30)),
        },
        Event::Asked {
            ask: Ask::Promote { full: true },
        },
        Event::Promoted {},
        Event::Declined {
            message: "it does not pause".to_owned(),
        },
        Event::RollbackFailed {
            reason: reason(),
            evidence: vec![pod()],
        },
        Event::Stopped {},
        Event::Warned {
            warnings: vec!["synced, but Argo CD still finds a difference from git".to_owned()],
        },
        Event::DeadlineSet {
            deadline: START,
            basis: "it may take 47m 30s, since its rollout has 30m of pauses and analyses".to_owned(),
        },
    ];
    let asks = Event::Progressed {
        message: "it is paused at step 2 of 5".to_owned(),
        fault: false,
        code: String::new(),
        human: true,
    };
    let away = Event::Progressed {
        message: "cluster local cannot be watched: connection refused".to_owned(),
        fault: true,
        code: "CLUSTER_UNAVAILABLE".to_owned(),
        human: false,
    };
    let stumbled = Event::Stumbled {
        step: Step::Apply,
        attempt: 2,
        code: "CLUSTER_UNAVAILABLE".to_owned(),
        message: "connection refused".to_owned(),
        retry_at: START,
    };
    let (full, without_git) = requests();
    let types = events.map(|event| {
        let json = serde_json::to_value(&event).unwrap();
        (json["type"].as_str().unwrap().to_owned(), event)
    });
    let mut named: Vec<(&str, Event)> = types
        .iter()
        .map(|(name, event)| (name.as_str(), event.clone()))
        .collect();
    named.push(("progressed_human", asks));
    named.push(("progressed_away", away));
    named.push(("stumbled_code", stumbled));
    named.push(("requested_full.v2", full));
    named.push(("requested_without_git.v2", without_git));
    let restores = Event::Requested {
        request: Box::new(DeploymentRequest {
            restores: Some(Restored {
                image: "registry.example/shop:v1".parse().unwrap(),
                containers: vec!["shop".to_owned()],
                digests: vec![request(true).images.only().digest.clone()],
            }),
            ..request(true)
        }),
        deadline: START + Duration::from_secs(600),
    };
    named.push(("requested_restores.v2", restores));
    golden::<Deployment>(&named, &["requested", "requested_full", "requested_without_git"]);
}

/// A request that asks for everything that requests could not say at first, and one without git.
fn requests() -> (Event, Event) {
    let full = DeploymentRequest {
        action: Action::Sync {
            argo_cd: Default::default(),
        },
        jobs: serde_json::from_value(
            json!({"before": [{"name": "migrate", "pod": {"containers": [{"name": "main"}]}}]}),
        )
        .unwrap(),
        bake: Some(
            serde_json::from_value(
                json!({"for": "10m", "metrics": [{"name": "errors", "query": "up", "min": 1.0}]}),
            )
            .unwrap(),
        ),
        pauses: Pauses::Promote,
        rolls_back: Some("dep-0".parse().unwrap()),
        reverts: Some(Revert {
            change: "chg-1".parse().unwrap(),
            reason: "it crashes".to_owned(),
        }),
        ..request(false)
    };
    let without_git = DeploymentRequest {
        source: None,
        action: Action::SetImage,
        ..request(false)
    };
    let requested = |request| Event::Requested {
        request: Box::new(request),
        deadline: START + Duration::from_secs(600),
    };
    (requested(full), requested(without_git))
}

/// What was recorded before images had names and came in lists is read as it was, and comes to the same as the form of now.
#[test]
fn requests_of_the_first_form_come_to_the_same() {
    for name in ["requested", "requested_full", "requested_without_git"] {
        let (json, old) = recorded::<Deployment>(name);
        let (_, new) = recorded::<Deployment>(&format!("{name}.v2"));
        // But for who asked: an actor of before there were chains is read as one.
        let mut shown = serde_json::to_value(&old).unwrap();
        shown["request"]["requested_by"] = json["request"]["requested_by"].clone();
        assert_eq!(shown, json, "{name}");
        let [of_old, of_new] = [&old, &new].map(|event| {
            let mut state = DeploymentState::default();
            Deployment::evolve(&mut state, event, START);
            state
        });
        assert_eq!(of_old, of_new, "{name}");
        assert_eq!(of_old.request.unwrap().images.only().name.as_str(), "shop");
    }
}

/// A life as it was recorded before there were Jobs, bakes and reverts comes to the same.
#[test]
fn old_events_apply_as_they_did() {
    let mut state = DeploymentState::default();
    let mut steps = Vec::new();
    for name in [
        "requested",
        "progressed",
        "stumbled",
        "resumed",
        "applied",
        "rolled_out",
        "checked",
        "failing",
        "failed",
    ] {
        let (_, event) = recorded::<Deployment>(name);
        Deployment::evolve(&mut state, &event, START);
        steps.push(state.step);
    }
    use Step::{Apply, Checks, Evidence, Rollout};
    assert_eq!(
        steps,
        [
            Apply, Apply, Apply, Apply, Rollout, Checks, Checks, Evidence, Evidence
        ]
    );
    assert_eq!(state.status, DeploymentStatus::Failed);
    assert!(Deployment::effects(&crate::life::id(), &state).is_empty());
}
