//! What a person asks of a rollout that pauses.

use deploy_domain::{
    catalog::{Target, WorkloadKind},
    deployment::{
        Ask, DeploymentCommand as Command, DeploymentEffect as Effect, DeploymentEvent as Event,
        DeploymentRefusal, DeploymentRequest, DeploymentStatus as Status, Reason,
    },
};
use pretty_assertions::assert_eq;
use slipway_ledger::EffectKey;

use crate::life::{Life, request};

fn canary() -> Life {
    let plain = request(false);
    Life::new(DeploymentRequest {
        target: Target {
            kind: WorkloadKind::Rollout,
            ..plain.target.clone()
        },
        ..plain
    })
}

fn abort() -> Command {
    Command::Abort {
        message: "aborted by token/alice".to_owned(),
    }
}

#[test]
fn a_promotion_is_carried_out_beside_the_rollout() {
    let mut life = canary().applied();
    assert_eq!(
        life.tell(Command::Promote { full: false }),
        vec![Event::Asked {
            ask: Ask::Promote { full: false }
        }]
    );
    assert_eq!(life.effects(), [Effect::Promote, Effect::Rollout]);
    assert_eq!(
        life.tell(Command::Promote { full: false }),
        vec![],
        "it is asked for already"
    );
    let told = |key| Command::Told { key, declined: None };
    assert_eq!(
        life.tell(told(EffectKey::new("promote", 7))),
        vec![],
        "of another one"
    );
    assert_eq!(life.tell(told(life.state.ask_key())), vec![Event::Promoted {}]);
    assert_eq!(life.effects(), [Effect::Rollout]);

    // The next pause is the next promotion.
    life.tell(Command::Promote { full: true });
    assert_eq!(life.state.ask_key(), EffectKey::new("promote", 2));
    let declined = Some("it does not pause".to_owned());
    life.tell(Command::Told {
        key: life.state.ask_key(),
        declined,
    });
    assert_eq!(
        (life.effects(), life.state.progress.as_str()),
        (vec![Effect::Rollout], "it does not pause")
    );
    assert_eq!(life.state.declined.as_deref(), Some("it does not pause"));

    // The watch may be faster than the answer.
    life.tell(Command::Promote { full: true });
    assert_eq!(life.state.declined, None, "the next one is asked for");
    life = life.rolled_out();
    assert_eq!(
        (life.state.status, &life.state.declined),
        (Status::Succeeded, &None)
    );
}

#[test]
fn an_abort_fails_the_deployment() {
    let mut life = canary().applied();
    life.tell(Command::Promote { full: false });
    life.tell(abort());
    assert_eq!(life.effects(), [Effect::Abort, Effect::Rollout]);
    assert_eq!(
        life.tell(Command::Promote { full: true }),
        vec![],
        "who wants out is not overruled"
    );
    life.tell(Command::Told {
        key: life.state.ask_key(),
        declined: None,
    });
    assert_eq!(life.effects(), [Effect::Evidence]);
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: Vec::new(),
    });
    assert_eq!((life.state.status, life.reason()), (Status::Failed, "ABORTED"));
    assert_eq!(life.words(), "aborted by token/alice");
    assert_eq!((&life.state.ask, &life.state.declined), (&None, &None));
}

#[test]
fn what_comes_too_late_is_declined() {
    let mut life = canary().applied();
    life.tell(abort());
    life = life.rolled_out();
    assert_eq!(life.state.status, Status::Succeeded);
    let declined = life.state.declined.as_deref();
    assert_eq!(declined, Some("the rollout was over before it could be aborted"));

    let mut life = canary().applied();
    life.tell(Command::Promote { full: false });
    life.tell(Command::Refused {
        key: life.key(),
        reason: Reason::new("CRASH_LOOP", "it crashes"),
    });
    let declined = life.state.declined.as_deref();
    assert_eq!(declined, Some("the rollout was over before it could be promoted"));
}

#[test]
fn who_is_waited_for_is_recorded() {
    let mut life = canary().applied();
    let paused = |life: &Life, human| Command::Progress {
        key: life.key(),
        message: "paused".to_owned(),
        human,
    };
    assert_eq!(life.tell(paused(&life, true)).len(), 1);
    assert!(life.state.human);
    assert_eq!(life.tell(paused(&life, true)), vec![]);
    assert_eq!(life.tell(paused(&life, false)).len(), 1);
    assert!(!life.state.human);
    life.tell(paused(&life, true));
    life.tell(Command::Promote { full: false });
    let told = Command::Told {
        key: life.state.ask_key(),
        declined: None,
    };
    life.tell(told);
    assert!(!life.state.human, "it was promoted");
}

#[test]
fn whoever_aborts_is_named_also_where_the_watch_is_faster() {
    let mut life = canary().applied();
    life.tell(abort());
    let seen = Reason::new(
        "ABORTED",
        "the rollout was aborted, and the version before serves everything",
    );
    life.tell(Command::Refused {
        key: life.key(),
        reason: seen,
    });
    let failing = life.state.failing.clone().unwrap();
    assert_eq!(failing.code, "ABORTED");
    assert!(
        failing
            .message
            .starts_with("aborted by token/alice; the rollout was aborted"),
        "{failing:?}"
    );
    let late = EffectKey::new("abort", 1);
    assert_eq!(
        life.tell(Command::Told {
            key: late,
            declined: None
        }),
        vec![]
    );
}

#[test]
fn what_does_not_pause_is_refused_with_words() {
    let mut plain = Life::new(request(false)).applied();
    let refused = plain.try_tell(abort()).unwrap_err();
    assert_eq!(refused, DeploymentRefusal::NoSteps(WorkloadKind::Deployment));
    assert!(
        refused.to_string().contains("a Deployment has no steps"),
        "{refused}"
    );

    let mut life = canary();
    let refused = life.try_tell(Command::Promote { full: false }).unwrap_err();
    assert!(refused.to_string().contains("at its step apply"), "{refused}");
    life = life.applied().rolled_out();
    let refused = life.try_tell(abort()).unwrap_err();
    assert!(refused.to_string().contains("succeeded"), "{refused}");
}

#[test]
fn what_is_inside_an_application_can_be_asked_for() {
    let plain = request(false);
    let mut life = Life::new(DeploymentRequest {
        target: Target {
            kind: WorkloadKind::Application,
            ..plain.target.clone()
        },
        ..plain
    })
    .applied();
    life.tell(Command::Promote { full: false });
    assert_eq!(life.effects(), [Effect::Promote, Effect::Rollout]);
    // Whether there are steps in it shows when it is told.
    let declined = Some("Application shop has no Rollout".to_owned());
    life.tell(Command::Told {
        key: life.state.ask_key(),
        declined: declined.clone(),
    });
    assert_eq!(life.state.declined, declined);
}

#[test]
fn warnings_are_kept_and_told_once() {
    let mut life = Life::new(request(false)).applied();
    let warn = |life: &Life| Command::Warn {
        key: life.key(),
        warnings: vec!["it still differs from git".to_owned()],
    };
    let warned = Event::Warned {
        warnings: vec!["it still differs from git".to_owned()],
    };
    assert_eq!(life.tell(warn(&life)), vec![warned]);
    assert_eq!(life.tell(warn(&life)), vec![], "it is known");
    life = life.rolled_out();
    assert_eq!(life.state.status, Status::Succeeded);
    assert_eq!(life.state.warnings, ["it still differs from git"]);
}
