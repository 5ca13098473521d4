//! Whatever happens in whatever order.

use std::time::Duration;

use deploy_domain::{
    catalog::{Target, WorkloadKind},
    deployment::{
        Action, Deployment, DeploymentCommand as Command, DeploymentEffect as Effect, DeploymentRefusal,
        DeploymentRequest, DeploymentStep as Step, Revert,
    },
    result::{JobResult, Measurement},
};
use proptest::prelude::*;
use serde_json::json;
use slipway_ledger::{Decider, EffectKey};
use slipway_testbed::{Origin, decider_laws};
use slipway_verdict::{Applied, Verdict, steps::Steps};

use crate::life::{Life, START, away, check, id, pod, reason, request};

/// All sorts of deployments: `bits` say what is asked for.
fn any_request(bits: u8) -> DeploymentRequest {
    let has = |bit: u8| bits & (1 << bit) != 0;
    let jobs = |names: &[&str]| -> Vec<_> {
        names
            .iter()
            .map(|name| json!({"name": name, "pod": {"containers": [{"name": "main"}]}}))
            .collect()
    };
    let plain = request(has(0));
    DeploymentRequest {
        jobs: serde_json::from_value(json!({
            "before": jobs(if has(1) { &["migrate", "seed"] } else { &[] }),
            "after": jobs(if has(2) { &["smoke"] } else { &[] }),
        }))
        .unwrap(),
        bake: has(3).then(|| {
            let metric = json!({"name": "errors", "query": "e", "max": 1.0});
            serde_json::from_value(json!({"for": "5m", "metrics": [metric]})).unwrap()
        }),
        reverts: has(4).then(|| Revert {
            change: "chg-1".parse().unwrap(),
            reason: String::new(),
        }),
        create_namespace: false,
        restores: None,
        rolls_back: has(4).then(|| "dep-0".parse().unwrap()),
        action: if has(5) {
            Action::Sync {
                argo_cd: Default::default(),
            }
        } else {
            Action::Apply
        },
        target: Target {
            kind: if has(6) {
                WorkloadKind::Rollout
            } else {
                WorkloadKind::Deployment
            },
            ..plain.target.clone()
        },
        follows_steps: has(0),
        holds_lane: has(7),
        ..plain
    }
}

/// A key that is wanted, or one that never was.
fn any_key(life: &Life, flag: bool, seconds: u64) -> EffectKey {
    match (flag, seconds % 5) {
        (false, _) => EffectKey::new("rollout", 9),
        (true, 0) => life.state.observe_key(),
        (true, 1) => life.state.ask_key(),
        (true, _) => life.key(),
    }
}

fn any_command(key: EffectKey, what: u8, seconds: u64) -> Command {
    let even = seconds.is_multiple_of(2);
    match what {
        0 => Command::Applied {
            key,
            applied: Applied::default(),
        },
        1 if seconds.is_multiple_of(5) => Command::StepsKnown {
            key,
            steps: Steps {
                time: Duration::from_secs(60 * seconds),
                people: even,
            },
        },
        1 => Command::RolledOut { key },
        2 => Command::Checked {
            key,
            results: vec![check(!even)],
        },
        3 => Command::Evidence {
            key,
            evidence: vec![pod()],
        },
        4 if even => Command::Away {
            key,
            reason: away(&seconds.to_string()),
        },
        4 if seconds.is_multiple_of(3) => Command::Warn {
            key,
            warnings: vec![seconds.to_string()],
        },
        4 => Command::Progress {
            key,
            message: seconds.to_string(),
            human: false,
        },
        5 => Command::Refused {
            key,
            reason: reason(),
        },
        6 => Command::Stumbled {
            key,
            reason: away("away"),
        },
        7 => Command::Wake,
        8 => Command::Request(Box::new(request(false))),
        9 => Command::Reverting {
            key,
            change: "chg-2".parse().unwrap(),
        },
        10 => Command::Reverted {
            key,
            commit: "2".repeat(40).parse().unwrap(),
        },
        11 => Command::JobEnded {
            key,
            result: JobResult {
                name: "migrate".parse().unwrap(),
                job: "migrate-1".to_owned(),
                succeeded: !seconds.is_multiple_of(4),
                message: String::new(),
                log_tail: Vec::new(),
            },
        },
        12 => Command::Measured {
            key,
            measurements: vec![Measurement {
                metric: "errors".parse().unwrap(),
                at: START,
                value: even.then_some(0.5),
                message: String::new(),
            }],
            verdict: if seconds.is_multiple_of(7) {
                Verdict::Progressing {
                    message: "1 of 2".to_owned(),
                    look_again: None,
                }
            } else {
                Verdict::Complete
            },
        },
        13 => Command::Promote { full: even },
        14 => Command::Abort {
            message: "enough".to_owned(),
        },
        15 => Command::Told {
            key,
            declined: even.then(|| "no".to_owned()),
        },
        16 => Command::Stopped { key },
        17 => Command::LaneLeft,
        _ => Command::Cancel {
            message: "enough".to_owned(),
        },
    }
}

fn said(command: &Command) -> Origin {
    match command {
        Command::Request(_)
        | Command::Cancel { .. }
        | Command::Promote { .. }
        | Command::Abort { .. }
        | Command::LaneLeft
        | Command::Wake => Origin::Caller,
        Command::StepsKnown { key, .. }
        | Command::Progress { key, .. }
        | Command::Warn { key, .. }
        | Command::Away { key, .. } => Origin::Report(Some(key.clone())),
        Command::Reverting { key, .. }
        | Command::Reverted { key, .. }
        | Command::JobEnded { key, .. }
        | Command::Applied { key, .. }
        | Command::RolledOut { key }
        | Command::Checked { key, .. }
        | Command::Measured { key, .. }
        | Command::Evidence { key, .. }
        | Command::Refused { key, .. }
        | Command::Stumbled { key, .. }
        | Command::Told { key, .. }
        | Command::Stopped { key } => Origin::Outcome(Some(key.clone())),
    }
}

#[test]
fn it_keeps_to_the_laws_of_deciders() {
    decider_laws::<Deployment, _>(&id(), said, |state, key| {
        if state.request.is_none() {
            let requests = any::<u8>().prop_map(|bits| Command::Request(Box::new(any_request(bits))));
            return requests.boxed();
        }
        // Cancels are rare, or nothing else would be tried.
        let any = (key, 0..40_u8, 0..200_u64).prop_map(|(key, what, seconds)| {
            any_command(key, if what > 18 { what % 18 } else { what }, seconds)
        });
        any.boxed()
    });
}

#[test]
fn the_word_of_one_step_in_the_name_of_another_is_refused() {
    let mut life = Life::new(request(false));
    let key = life.key();
    for command in [Command::RolledOut { key: key.clone() }, Command::LaneLeft] {
        let refused = life.try_tell(command);
        assert!(
            matches!(refused, Err(DeploymentRefusal::Impossible(_))),
            "{refused:?}"
        );
    }
    // Of an older try, it comes too late and to nothing.
    let late = Command::RolledOut {
        key: EffectKey::new("rollout", 1),
    };
    assert_eq!(life.try_tell(late), Ok(vec![]));
    let late = Command::Applied {
        key: EffectKey::new("apply", 2),
        applied: Applied::default(),
    };
    assert_eq!(life.try_tell(late), Ok(vec![]));
    assert_eq!(life.key(), key);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A deployment that has ended stays as it is, timers lead to an end, and something is always going on or being
    /// waited for until then.
    #[test]
    fn every_life_ends(
        bits in any::<u8>(),
        steps in proptest::collection::vec((0..24u8, proptest::bool::weighted(0.8), 0..200u64), 0..60),
    ) {
        let mut life = Life::new(any_request(bits));
        let order = |step: Step| [Step::Revert, Step::Before, Step::Apply, Step::Rollout, Step::Checks, Step::After, Step::Bake, Step::Evidence]
            .iter().position(|one| *one == step);
        for (what, flag, seconds) in steps {
            life.now = life.now + Duration::from_secs(seconds);
            let before = life.state.clone();
            // Cancels are rare, or nothing else would be tried.
            let what = if what > 18 { what % 19 } else { what };
            let key = any_key(&life, flag, seconds);
            let refused = life.try_tell(any_command(key, what, seconds)).is_err();
            if refused {
                prop_assert_eq!(&life.state, &before);
            }
            prop_assert!(order(life.state.step) >= order(before.step), "steps go one way");
            if before.status.is_final() {
                prop_assert_eq!(life.state.status, before.status);
                prop_assert_eq!(&life.state.reason, &before.reason);
            }
            if !life.state.status.is_final() {
                let effects = Deployment::effects(&id(), &life.state);
                let polls = Deployment::polls(&id(), &life.state);
                prop_assert!(!effects.is_empty() || !polls.is_empty() || life.state.retry_at.is_some());
                prop_assert!(Deployment::wake_at(&life.state).is_some());
            }
        }
        let mut turns = 0;
        while !life.state.status.is_final() {
            life.wake();
            turns += 1;
            prop_assert!(turns < 6, "timers alone end it: {:?}", life.state);
        }
        // What it leaves behind is put away, and then nothing is left to do.
        for _ in 0..2 {
            match life.effect() {
                Some(Effect::Stop) => drop(life.tell(Command::Stopped { key: EffectKey::new("stop", 1) })),
                Some(Effect::LeaveLane) => drop(life.tell(Command::LaneLeft)),
                other => prop_assert_eq!(other, None),
            }
        }
        prop_assert!(Deployment::is_final(&life.state));
    }
}
