//! Deployments that put another one back.

use deploy_domain::{
    catalog::{Target, WorkloadKind},
    deployment::{
        Action, Deployment, DeploymentCommand as Command, DeploymentEffect as Effect, DeploymentRequest,
        DeploymentStatus as Status, Reason, Revert, Stray,
    },
};
use pretty_assertions::assert_eq;
use slipway_ledger::Decider;
use slipway_model::{CommitSha, Id, ImageRef};
use slipway_verdict::Previous;

use crate::life::{Life, away, id, reason, request};

fn rollback() -> DeploymentRequest {
    DeploymentRequest {
        rolls_back: Some("dep-0".parse().unwrap()),
        reverts: Some(Revert {
            change: "chg-1".parse().unwrap(),
            reason: "it crashes".to_owned(),
        }),
        ..request(false)
    }
}

fn change() -> Id {
    "chg-2".parse().unwrap()
}

fn commit() -> CommitSha {
    "2222222222222222222222222222222222222222".parse().unwrap()
}

#[test]
fn the_change_is_taken_out_of_git_and_that_commit_is_deployed() {
    let mut life = Life::new(rollback());
    assert_eq!(
        (life.state.status, life.effect()),
        (Status::Applying, Some(Effect::Revert))
    );
    assert!(Deployment::polls(&id(), &life.state).is_empty());
    life.tell(Command::Reverting {
        key: life.key(),
        change: change(),
    });
    // It is waited for as state: nothing runs but a look now and then.
    assert_eq!(life.effect(), None);
    assert_eq!(
        Deployment::polls(&id(), &life.state),
        [(life.state.observe_key(), Effect::ObserveRevert)]
    );
    let again = Command::Reverting {
        key: life.key(),
        change: change(),
    };
    assert_eq!(life.tell(again), vec![]);
    life.tell(Command::Progress {
        key: life.state.observe_key(),
        message: "checks are running".to_owned(),
        human: false,
    });
    assert_eq!(life.state.progress, "checks are running");
    life.tell(Command::Reverted {
        key: life.state.observe_key(),
        commit: commit(),
    });
    assert_eq!(life.effect(), Some(Effect::Apply));
    assert!(Deployment::polls(&id(), &life.state).is_empty());
    assert_eq!(
        life.state
            .request
            .as_ref()
            .unwrap()
            .source
            .as_ref()
            .unwrap()
            .commit,
        commit()
    );
    life = life.applied().rolled_out();
    assert_eq!(life.state.status, Status::Succeeded);
}

#[test]
fn a_revert_that_is_through_at_once_needs_no_look() {
    let mut life = Life::new(rollback());
    life.tell(Command::Reverted {
        key: life.key(),
        commit: commit(),
    });
    assert_eq!(life.effect(), Some(Effect::Apply));
}

#[test]
fn what_fails_or_cannot_be_told_is_a_failed_rollback_that_says_what_to_do() {
    // In git.
    let mut life = Life::new(rollback());
    life.tell(Command::Reverting {
        key: life.key(),
        change: change(),
    });
    let refused = Reason::new("REVERT_FAILED", "someone changed the image since");
    life.tell(Command::Refused {
        key: life.state.observe_key(),
        reason: refused,
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::RollbackFailed, "REVERT_FAILED")
    );
    for words in [
        "someone changed the image since. The rollback of dep-0 did not succeed",
        "local/dev/Deployment/shop may run the version that failed",
        "`slipway deployment live shop dev` shows what runs, `slipway deployment get dep-0`",
        "release a commit that works",
        "apps/shop/overlays/dev of platform",
    ] {
        assert!(life.words().contains(words), "{words:?} in {}", life.words());
    }
    assert!(!life.words().contains("undo"), "{}", life.words());

    // In the cluster.
    let mut life = Life::new(DeploymentRequest {
        reverts: None,
        ..rollback()
    })
    .applied();
    life.tell(Command::Refused {
        key: life.key(),
        reason: reason(),
    });
    assert_eq!(
        life.effect(),
        Some(Effect::Evidence),
        "its evidence is collected as of any other"
    );
    life.tell(Command::Evidence {
        key: life.key(),
        evidence: vec![crate::life::pod()],
    });
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::RollbackFailed, "CRASH_LOOP")
    );
    assert_eq!(life.state.evidence.len(), 1);

    // Nobody can tell.
    let mut life = Life::new(rollback());
    life.tell(Command::Stumbled {
        key: life.key(),
        reason: away("connection refused"),
    });
    while !life.state.status.is_final() {
        if life.effect().is_some() {
            life.tell(Command::Stumbled {
                key: life.key(),
                reason: away("connection refused"),
            });
        }
        life.wake();
    }
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::RollbackFailed, "DEADLINE_EXCEEDED")
    );
    assert_eq!(Deployment::index(&life.state).status, "rollback_failed");

    // Who cancels it knows.
    let mut life = Life::new(rollback());
    life.tell(Command::Cancel {
        message: "cancelled by token/alice".to_owned(),
    });
    assert_eq!(life.state.status, Status::Cancelled);
}

#[test]
fn a_sync_that_nobody_waits_for_any_more_is_stopped() {
    let synced = || {
        Life::new(DeploymentRequest {
            action: Action::Sync {
                argo_cd: Default::default(),
            },
            ..request(false)
        })
    };
    let mut life = synced().applied();
    life.tell(Command::Cancel {
        message: String::new(),
    });
    assert_eq!(
        (life.state.stray.clone(), life.effects()),
        (Some(Stray::Sync), vec![Effect::Stop])
    );

    // What it waits for is known: Argo CD is asked only when it may sync.
    let mut life = synced();
    life.tell(Command::Progress {
        key: life.key(),
        message: "the window \"nights\" does not let it be synced before 22:00".to_owned(),
        human: false,
    });
    life.wake();
    assert_eq!(
        (life.state.status, life.reason()),
        (Status::Failed, "DEADLINE_EXCEEDED")
    );
    assert!(life.words().contains("before 22:00"), "{}", life.words());

    let life = synced().applied().rolled_out();
    assert_eq!((life.state.status, life.effects()), (Status::Succeeded, vec![]));
    assert_eq!(life.state.stray, None);
}

#[test]
fn an_undo_is_advised_with_its_revision_and_only_before_it_was_done() {
    let image: ImageRef = "registry.example/shop:1a2b3c4".parse().unwrap();
    let undo = |kind| {
        let plain = request(false);
        Life::new(DeploymentRequest {
            target: Target {
                kind,
                ..plain.target.clone()
            },
            rolls_back: Some("dep-0".parse().unwrap()),
            source: None,
            action: Action::Undo {
                to: Previous {
                    revision: 4,
                    image: image.clone(),
                },
            },
            ..plain
        })
    };
    for (kind, advice) in [
        (
            WorkloadKind::Deployment,
            "`kubectl -n dev rollout undo deployment/shop --to-revision=4`",
        ),
        (
            WorkloadKind::StatefulSet,
            "`kubectl -n dev rollout undo statefulset/shop --to-revision=4`",
        ),
        (
            WorkloadKind::Rollout,
            "`kubectl argo rollouts undo shop -n dev --to-revision=4`",
        ),
    ] {
        let mut life = undo(kind);
        life.tell(Command::Refused {
            key: life.key(),
            reason: reason(),
        });
        assert_eq!(life.state.status, Status::RollbackFailed);
        assert!(life.words().contains(advice), "{advice:?} in {}", life.words());

        // Revision 4 is a later one by now, and the one before it is what failed.
        let mut life = undo(kind).applied();
        life.tell(Command::Refused {
            key: life.key(),
            reason: reason(),
        });
        life.tell(Command::Evidence {
            key: life.key(),
            evidence: Vec::new(),
        });
        assert_eq!(life.state.status, Status::RollbackFailed);
        assert!(!life.words().contains("undo "), "{}", life.words());
        assert!(
            life.words().contains("`slipway deployment live shop dev`"),
            "{}",
            life.words()
        );
    }
}
