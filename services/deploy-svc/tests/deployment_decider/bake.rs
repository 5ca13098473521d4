//! The bake: measured every so often, judged over all measurements, watched meanwhile.

use std::time::Duration;

use deploy_domain::{
    catalog::Bake,
    deployment::{
        Deployment, DeploymentCommand as Command, DeploymentEffect as Effect, DeploymentEvent as Event,
        DeploymentRequest, DeploymentStatus as Status, DeploymentStep as Step,
    },
    result::Measurement,
};
use pretty_assertions::assert_eq;
use serde_json::json;
use slipway_ledger::Decider;
use slipway_verdict::{Failure, FailureReason, Verdict};

use crate::life::{Life, away, request};

fn bake() -> Bake {
    serde_json::from_value(json!({
        "for": "2m", "interval": "30s",
        "metrics": [{"name": "errors", "query": "errors", "max": 0.05, "failure_limit": 1, "inconclusive_limit": 1}],
    }))
    .unwrap()
}

/// One that has rolled out, and bakes.
fn baking() -> Life {
    let life = Life::new(DeploymentRequest {
        bake: Some(bake()),
        ..request(false)
    });
    life.applied().rolled_out()
}

fn progressing(words: &str) -> Verdict {
    Verdict::Progressing {
        message: words.to_owned(),
        look_again: None,
    }
}

/// Waits for the next measurement to be due, and takes it.
fn measure(life: &mut Life, value: Option<f64>, verdict: Verdict) -> Vec<Event> {
    life.wake();
    assert_eq!(life.effect(), Some(Effect::Bake));
    let measurement = Measurement {
        metric: "errors".parse().unwrap(),
        at: life.now,
        value,
        message: if value.is_none() { "no data" } else { "" }.to_owned(),
    };
    life.tell(Command::Measured {
        key: life.key(),
        measurements: vec![measurement],
        verdict,
    })
}

#[test]
fn it_is_measured_until_its_time_is_over() {
    let mut life = baking();
    let begun = life.now;
    assert_eq!(
        (life.state.step, life.effect()),
        (Step::Bake, None),
        "there is nothing to measure yet"
    );
    assert_eq!(life.state.bake_until, Some(begun + Duration::from_secs(120)));
    let mut times = Vec::new();
    while life.state.status == Status::Verifying {
        measure(&mut life, Some(0.01), Verdict::Complete);
        times.push(life.now.since(begun).as_secs());
    }
    assert_eq!(times, [30, 60, 90, 120]);
    assert_eq!(life.state.status, Status::Succeeded);
    let (_, tally) = life.state.measured().next().unwrap();
    assert_eq!((tally.good, tally.count()), (4, 4));
}

#[test]
fn the_deployments_own_deadline_does_not_count_while_it_bakes() {
    let mut life = Life::new(DeploymentRequest {
        bake: Some(Bake {
            period: Duration::from_secs(3600),
            ..bake()
        }),
        ..request(false)
    });
    life = life.applied().rolled_out();
    for _ in 0..40 {
        measure(&mut life, Some(0.01), Verdict::Complete);
    }
    assert!(life.now > life.state.deadline.unwrap());
    assert_eq!(life.state.status, Status::Verifying);
}

#[test]
fn bad_values_beyond_the_limit_fail_it_at_once() {
    let mut life = baking();
    measure(&mut life, Some(0.2), Verdict::Complete);
    assert_eq!(life.state.step, Step::Bake, "one is borne");
    assert!(life.state.progress.contains("1 bad"), "{}", life.state.progress);
    let events = measure(&mut life, Some(0.3), Verdict::Complete);
    assert!(
        matches!(&events[0], Event::Measured { next_at: None, .. }),
        "{events:?}"
    );
    assert_eq!(life.effect(), Some(Effect::Evidence));
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: Vec::new(),
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "ANALYSIS_FAILED")
    );
    assert!(life.words().contains("0.3 is above max 0.05"), "{}", life.words());
}

#[test]
fn silence_is_no_success() {
    let mut life = baking();
    measure(&mut life, None, Verdict::Complete);
    measure(&mut life, None, Verdict::Complete);
    assert_eq!(life.state.failing.as_ref().unwrap().code, "ANALYSIS_INCONCLUSIVE");
    assert!(life.state.failing.as_ref().unwrap().message.contains("no data"));

    // A last measurement that does not come at all.
    let mut life = baking();
    measure(&mut life, Some(0.01), Verdict::Complete);
    life.wake();
    assert_eq!(life.effect(), Some(Effect::Bake));
    life.wake();
    assert_eq!(life.state.failing.as_ref().unwrap().code, "ANALYSIS_INCONCLUSIVE");
}

#[test]
fn a_version_that_stops_running_while_it_bakes_fails_with_that_reason() {
    let mut life = baking();
    let failure = Failure {
        reason: FailureReason::CrashLoop,
        message: "pod shop-1: CrashLoopBackOff".to_owned(),
    };
    measure(&mut life, Some(0.01), Verdict::Failed(failure));
    assert_eq!(life.state.failing.as_ref().unwrap().code, "CRASH_LOOP");
    assert!(
        life.state
            .failing
            .as_ref()
            .unwrap()
            .message
            .contains("baking: pod shop-1")
    );

    // A pod that is moved may be away once, not twice in a row, and not at the end.
    let mut life = baking();
    measure(&mut life, Some(0.01), progressing("1 of 2 new pods ready"));
    assert_eq!(life.state.progress, "1 of 2 new pods ready");
    measure(&mut life, Some(0.01), Verdict::Complete);
    measure(&mut life, Some(0.01), progressing("1 of 2 new pods ready"));
    assert_eq!(life.state.failing, None);
    measure(&mut life, Some(0.01), progressing("1 of 2 new pods ready"));
    let failing = life.state.failing.as_ref().unwrap();
    assert_eq!(failing.code, "NOT_READY");
    assert!(failing.message.contains("1 of 2 new pods ready"), "{failing:?}");
}

#[test]
fn a_cluster_that_cannot_be_watched_costs_time_and_then_errors() {
    let mut life = baking();
    life.wake();
    let mut tries = 0;
    while life.state.status == Status::Verifying {
        life.tell(Command::Stumbled {
            key: life.key(),
            reason: away("connection refused"),
        });
        life.wake();
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Errored, "DEADLINE_EXCEEDED")
    );
    assert!(life.words().contains("connection refused"), "{}", life.words());
    assert!(Deployment::is_final(&life.state));
}

#[test]
fn without_metrics_the_pods_alone_are_watched() {
    let mut life = Life::new(DeploymentRequest {
        bake: Some(serde_json::from_value(json!({"for": "1m"})).unwrap()),
        ..request(false)
    });
    life = life.applied().rolled_out();
    for _ in 0..2 {
        life.wake();
        life.tell(Command::Measured {
            key: life.key(),
            measurements: Vec::new(),
            verdict: Verdict::Complete,
        });
    }
    assert_eq!(life.state.status, Status::Succeeded);
}
