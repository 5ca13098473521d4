//! Jobs before the change and after the rollout.

use deploy_domain::{
    catalog::Jobs,
    deployment::{
        Action, Deployment, DeploymentCommand as Command, DeploymentEffect as Effect,
        DeploymentEvent as Event, DeploymentRequest, DeploymentStatus as Status, DeploymentStep as Step,
        Stray,
    },
    result::JobResult,
};
use pretty_assertions::assert_eq;
use serde_json::json;
use slipway_ledger::{Decider, EffectKey};

use crate::life::{Life, away, check, request};

fn jobs(before: &[&str], after: &[&str]) -> Jobs {
    let list = |names: &[&str]| -> Vec<_> {
        let job = |name: &&str| json!({"name": name, "pod": {"containers": [{"name": "main"}]}});
        names.iter().map(job).collect()
    };
    serde_json::from_value(json!({"before": list(before), "after": list(after)})).unwrap()
}

fn with(jobs: Jobs) -> DeploymentRequest {
    DeploymentRequest {
        jobs,
        ..request(true)
    }
}

fn ended(life: &Life, name: &str, succeeded: bool) -> Command {
    Command::JobEnded {
        key: life.key(),
        result: result(name, succeeded),
    }
}

fn result(name: &str, succeeded: bool) -> JobResult {
    JobResult {
        name: name.parse().unwrap(),
        job: format!("{name}-0a1b2c"),
        succeeded,
        message: if succeeded { "" } else { "its pods failed 1 times" }.to_owned(),
        log_tail: vec![
            "migrating".to_owned(),
            "relation \"till\" does not exist".to_owned(),
            " ".to_owned(),
        ],
    }
}

fn stray(name: &str) -> Option<Stray> {
    let name = name.parse().unwrap();
    Some(Stray::Job { name })
}

#[test]
fn jobs_run_one_after_the_other_around_the_rollout() {
    let mut life = Life::new(with(jobs(&["migrate", "seed"], &["smoke"])));
    assert_eq!(
        (life.state.status, life.effect()),
        (Status::Applying, Some(Effect::Before))
    );
    assert_eq!(life.state.progress, "job migrate is under way");
    let first = life.key();
    life.tell(ended(&life, "migrate", true));
    assert_eq!(life.state.job().unwrap().name.as_str(), "seed");
    assert_eq!(
        (life.key(), life.effect()),
        (EffectKey::new("before", 2), Some(Effect::Before))
    );
    let late = Command::JobEnded {
        key: first,
        result: result("migrate", false),
    };
    assert_eq!(life.tell(late), vec![], "of the Job before");
    life.tell(ended(&life, "seed", true));
    assert_eq!(
        (life.effect(), life.state.stray.clone()),
        (Some(Effect::Apply), None)
    );

    life = life.applied().rolled_out();
    life.tell(Command::Checked {
        key: life.key(),
        results: vec![check(true)],
    });
    assert_eq!(
        (life.state.status, life.effect()),
        (Status::Verifying, Some(Effect::After))
    );
    assert_eq!(life.state.job().unwrap().name.as_str(), "smoke");
    let events = life.tell(ended(&life, "smoke", true));
    assert_eq!(events.last(), Some(&Event::Succeeded {}));
    assert_eq!(life.state.jobs.len(), 3);
    assert!(Deployment::is_final(&life.state));
}

#[test]
fn a_job_before_that_fails_ends_it_before_anything_else_changes() {
    let mut life = Life::new(with(jobs(&["migrate", "seed"], &[])));
    life.tell(ended(&life, "migrate", false));
    assert_eq!((life.state.status, life.reason()), (Status::Failed, "JOB_FAILED"));
    assert_eq!(
        life.words(),
        "job migrate failed: its pods failed 1 times; its last log line: relation \"till\" does not exist; nothing else \
         was changed"
    );
    assert_eq!(
        life.state.jobs[0].log_tail.len(),
        3,
        "its log stays with the deployment"
    );
    assert_eq!(life.state.applied, None);
    assert_eq!(
        (life.effect(), life.state.stray.clone()),
        (None, None),
        "it has ended by itself"
    );
}

#[test]
fn a_job_after_that_fails_is_a_failed_deployment_with_evidence() {
    let mut life = Life::new(DeploymentRequest {
        jobs: jobs(&["migrate"], &["smoke"]),
        ..request(false)
    });
    life.tell(ended(&life, "migrate", true));
    life = life.applied().rolled_out();
    assert_eq!(life.state.step, Step::After);
    life.tell(ended(&life, "smoke", false));
    assert_eq!(
        (life.effect(), life.state.stray.clone()),
        (Some(Effect::Evidence), None)
    );
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: Vec::new(),
    });
    assert_eq!((life.state.status, life.reason()), (Status::Failed, "JOB_FAILED"));
    assert!(
        !life.words().contains("nothing else was changed"),
        "{}",
        life.words()
    );
}

#[test]
fn only_the_jobs_are_run_where_nothing_else_is_asked_for() {
    let mut life = Life::new(DeploymentRequest {
        action: Action::Nothing,
        jobs: jobs(&["migrate"], &[]),
        ..request(true)
    });
    let events = life.tell(ended(&life, "migrate", true));
    assert_eq!(events.last(), Some(&Event::Succeeded {}));

    let life = Life::new(DeploymentRequest {
        action: Action::Nothing,
        ..request(true)
    });
    assert_eq!(life.state.status, Status::Succeeded, "there was nothing to do");
}

#[test]
fn a_job_that_nobody_waits_for_any_more_is_stopped_before_the_lane_is_left() {
    let holding = |jobs| DeploymentRequest {
        holds_lane: true,
        ..with(jobs)
    };
    // Cancelled.
    let mut life = Life::new(holding(jobs(&["migrate"], &[])));
    life.tell(Command::Cancel {
        message: "enough".to_owned(),
    });
    assert_eq!(
        (life.state.status, life.state.stray.clone()),
        (Status::Cancelled, stray("migrate"))
    );
    assert_eq!(life.effects(), [Effect::Stop]);
    assert!(!Deployment::is_final(&life.state));
    let key = EffectKey::new("stop", 1);
    assert_eq!(
        life.tell(Command::Stopped { key: key.clone() }),
        vec![Event::Stopped {}]
    );
    assert_eq!(life.effects(), [Effect::LeaveLane]);
    assert_eq!(life.tell(Command::Stopped { key: key.clone() }), vec![]);

    // Its time is over: the answer is no, since it is known what was missing.
    let mut life = Life::new(holding(jobs(&["migrate"], &[])));
    life.wake();
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "DEADLINE_EXCEEDED")
    );
    assert!(
        life.words().contains("job migrate is under way"),
        "{}",
        life.words()
    );
    assert_eq!(life.effects(), [Effect::Stop]);

    // After the rollout it is stopped while evidence is collected.
    let mut life = Life::new(DeploymentRequest {
        jobs: jobs(&[], &["smoke"]),
        ..request(false)
    })
    .applied()
    .rolled_out();
    life.wake();
    assert_eq!(life.effects(), [Effect::Stop, Effect::Evidence]);
    life.tell(Command::Stopped { key });
    assert_eq!(life.effects(), [Effect::Evidence]);
}

#[test]
fn what_keeps_a_job_from_being_created_is_told() {
    let mut life = Life::new(with(jobs(&["migrate"], &[])));
    life.tell(Command::Stumbled {
        key: life.key(),
        reason: away("connection refused"),
    });
    life.wake();
    assert_eq!(life.key(), EffectKey::new("before", 2));
    assert_eq!(
        life.state.job().unwrap().name.as_str(),
        "migrate",
        "the same Job again"
    );
    let reason = deploy_domain::deployment::Reason::new("JOB_REFUSED", "spec.containers: required");
    life.tell(Command::Refused {
        key: life.key(),
        reason,
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "JOB_REFUSED")
    );
}
