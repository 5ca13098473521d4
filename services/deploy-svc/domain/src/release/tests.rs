//! Releases from request to end, as tables of what their step backends answer, and properties over random answers.

mod ends;
mod first;
mod laws;
mod order;
mod play;
mod run;
mod together;
mod watched;

use std::time::Duration;

use pretty_assertions::assert_eq;
use proptest::prelude::*;
use slipway_decider::{Decider, EffectKey};
use slipway_model::{Actor, Authentication, Id, Image, Principal, Retry, Timestamp};

use super::*;
use crate::{catalog::Catalog, plan::PlanRequest};
use run::Run;

const CATALOG: &str = r"
environments: [dev, staging]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: { repository: platform, branch: main, path: apps/shop/dev, image: shop }
        target: { cluster: local, namespace: dev, kind: Deployment, name: shop }
      - name: staging
        policy: one-of-sre
        gitops: { repository: platform, branch: main, path: apps/shop/staging, image: shop }
        target: { cluster: local, namespace: staging, kind: Deployment, name: shop }
";

fn request() -> Request {
    request_by(CATALOG)
}

fn request_by(catalog: &str) -> Request {
    let catalog = Catalog::parse(catalog).unwrap_or_else(|error| panic!("{error}"));
    let wanted = PlanRequest {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        branch: None,
        git_tag: None,
        environments: Vec::new(),
    };
    Request {
        plan: Plan::make(&catalog, &wanted).unwrap(),
        requested_by: Actor::direct(Principal::new("token", "alice"), Authentication::StaticToken),
        labels: Default::default(),
        images: None,
        rebuild: false,
        caller: None,
    }
}

fn images(fill: &str) -> Images {
    Images::one(Image {
        name: "shop".parse().unwrap(),
        repository: "registry.example/shop".parse().unwrap(),
        digest: format!("sha256:{}", fill.repeat(64)).parse().unwrap(),
        tags: Vec::new(),
    })
}

fn change(previous: Option<Images>, no_op: bool) -> Facts {
    let commit = "2".repeat(40).parse().unwrap();
    Facts::Changed(ChangeMade {
        change: "chg-1".parse().unwrap(),
        commit,
        no_op,
        previous_tag: previous
            .is_none()
            .then(|| "registry.example/shop:v1".parse().unwrap()),
        previous,
        previous_of_others: Vec::new(),
    })
}

#[test]
fn a_good_commit_goes_through_every_environment_in_order() {
    let mut run = Run::requested();
    for step in [
        "build",
        "dev/lane",
        "dev/change",
        "dev/deploy",
        "staging/lane",
        "staging/gate",
        "staging/change",
        "staging/deploy",
    ] {
        run.succeed(step);
    }
    assert_eq!(run.ended(), (ReleaseStatus::Succeeded, ""));
    let gate = run
        .state
        .steps
        .iter()
        .find(|step| step.name == "dev/gate")
        .unwrap();
    assert_eq!(gate.result, "policy none requires no approval");
    assert_eq!(
        run.state.lane(),
        None,
        "the lane is given back with the last event"
    );
}

#[test]
fn the_times_of_the_steps_sum_to_the_whole() {
    let mut run = Run::requested();
    for step in [
        "build",
        "dev/lane",
        "dev/change",
        "dev/deploy",
        "staging/lane",
        "staging/gate",
        "staging/change",
        "staging/deploy",
    ] {
        run.succeed(step);
    }
    let spent = run.state.time_spent(run.now);
    let whole = run.state.ended_at.unwrap().since(run.state.requested_at.unwrap());
    assert_eq!(spent.total, whole);
    assert_eq!(spent.machine + spent.human + spent.lane, whole);
    for pair in run.state.steps.windows(2) {
        assert_eq!(pair[0].ended_at, Some(pair[1].queued_at));
    }
}

#[test]
fn a_deployment_that_fails_is_put_back() {
    let mut run = Run::requested();
    for step in ["build", "dev/lane", "dev/change"] {
        run.succeed(step);
    }
    run.fail("dev/deploy", "CHECK_FAILED");
    run.succeed("dev/revert");
    assert_eq!(
        run.state.lane(),
        Some(0),
        "the lane is kept until the environment is verified back"
    );
    run.succeed("dev/redeploy");
    assert_eq!(run.ended(), (ReleaseStatus::RolledBack, "CHECK_FAILED"));
}

#[test]
fn without_a_previous_digest_it_ends_failed() {
    let mut run = Run::requested();
    run.succeed("build");
    run.succeed("dev/lane");
    run.end(
        "dev/change",
        Observation::Succeeded {
            result: String::new(),
            facts: change(None, false),
        },
    );
    run.fail("dev/deploy", "CHECK_FAILED");
    run.succeed("dev/revert");
    assert_eq!(run.ended(), (ReleaseStatus::Failed, "CHECK_FAILED"));
}

#[test]
fn a_change_that_changed_nothing_is_not_reverted() {
    let mut run = Run::requested();
    run.succeed("build");
    run.succeed("dev/lane");
    run.end(
        "dev/change",
        Observation::Succeeded {
            result: String::new(),
            facts: change(Some(images("b")), true),
        },
    );
    run.fail("dev/deploy", "CHECK_FAILED");
    assert_eq!(run.ended(), (ReleaseStatus::Failed, "CHECK_FAILED"));
}

#[test]
fn a_rollback_that_fails_says_both_reasons_and_what_to_do() {
    let mut run = Run::requested();
    for step in ["build", "dev/lane", "dev/change"] {
        run.succeed(step);
    }
    run.fail("dev/deploy", "CHECK_FAILED");
    run.fail("dev/revert", "CHANGED_SINCE");
    assert_eq!(run.ended(), (ReleaseStatus::RollbackFailed, "ROLLBACK_FAILED"));
    let message = &run.state.reason.as_ref().unwrap().message;
    assert!(
        message.contains("CHECK_FAILED") && message.contains("CHANGED_SINCE"),
        "{message}"
    );
}

#[test]
fn a_refused_gate_ends_it_before_anything_changed() {
    let mut run = Run::requested();
    for step in ["build", "dev/lane", "dev/change", "dev/deploy", "staging/lane"] {
        run.succeed(step);
    }
    run.fail("staging/gate", "APPROVAL_REJECTED");
    assert_eq!(run.ended(), (ReleaseStatus::Failed, "APPROVAL_REJECTED"));
    assert!(run.state.steps.iter().all(|step| step.name != "staging/change"));
}

#[test]
fn superseded_at_its_gate_it_takes_its_request_back_and_ends() {
    let mut run = Run::requested();
    for step in ["build", "dev/lane", "dev/change", "dev/deploy", "staging/lane"] {
        run.succeed(step);
    }
    let waiting = Waiting::new(WaitingKind::Human, "1 more");
    let reference: Id = "apr-1".parse().unwrap();
    let observation = Observation::Pending(waiting);
    run.tell(ReleaseCommand::Started {
        key: run.key(),
        reference: reference.clone(),
        observation,
    });
    run.tell(ReleaseCommand::Supersede {
        by: "rel-2".parse().unwrap(),
    });
    assert_eq!(run.state.lane(), None, "the lane is the other's");
    let effects = Release::effects(&run.id, &run.state);
    assert!(
        matches!(&effects[..], [(_, ReleaseEffect::Stop { reference: stopped })] if *stopped == reference)
    );
    let observation = Observation::Cancelled(Reason::new("APPROVAL_CANCELLED", "taken back"));
    run.tell(ReleaseCommand::Observed {
        key: run.key(),
        observation,
    });
    assert_eq!(run.ended(), (ReleaseStatus::Superseded, "SUPERSEDED"));
}

#[test]
fn superseded_just_before_its_first_write_it_ends_without_one() {
    for cancelled_before in [false, true] {
        let mut run = Run::requested();
        run.succeed("build");
        run.succeed("dev/lane");
        assert_eq!(run.active(), "dev/change");
        if cancelled_before {
            let by = Actor::system("test");
            run.tell(ReleaseCommand::Cancel {
                by,
                reason: String::new(),
            });
        }
        run.tell(ReleaseCommand::Supersede {
            by: "rel-2".parse().unwrap(),
        });
        // The lane refuses the mark, so the order is never given.
        let observation = Observation::Cancelled(Reason::new("SUPERSEDED", "lane lost"));
        run.tell(ReleaseCommand::Observed {
            key: run.key(),
            observation,
        });
        let wanted = if cancelled_before {
            ReleaseStatus::Cancelled
        } else {
            ReleaseStatus::Superseded
        };
        assert_eq!(run.state.status, wanted);
        assert!(run.state.steps.iter().all(|step| step.kind != StepKind::Revert));
    }
}

#[test]
fn cancelled_while_deploying_it_puts_back_what_it_changed() {
    let mut run = Run::requested();
    for step in ["build", "dev/lane", "dev/change"] {
        run.succeed(step);
    }
    let by = Actor::direct(Principal::new("token", "bob"), Authentication::StaticToken);
    run.tell(ReleaseCommand::Cancel {
        by,
        reason: "wrong commit".to_owned(),
    });
    // The deployment was quicker than the cancel: it is put back all the same.
    run.succeed("dev/deploy");
    run.succeed("dev/revert");
    run.succeed("dev/redeploy");
    assert_eq!(run.ended(), (ReleaseStatus::Cancelled, "CANCELLED"));
}

#[test]
fn cancelled_in_line_it_ends_at_once() {
    let mut run = Run::requested();
    run.succeed("build");
    run.tell(ReleaseCommand::Cancel {
        by: Actor::system("test"),
        reason: String::new(),
    });
    assert_eq!(run.ended(), (ReleaseStatus::Cancelled, "CANCELLED"));
}

#[test]
fn a_call_that_fails_is_made_again_later_and_later() {
    let mut run = Run::requested();
    let mut waits = Vec::new();
    let reason = Reason::new("UNAVAILABLE", "build-svc: connection refused");
    for attempt in 1..=12 {
        run.tell(ReleaseCommand::Stumbled {
            key: run.key(),
            reason: reason.clone(),
        });
        assert!(
            Release::effects(&run.id, &run.state).is_empty(),
            "not before its time"
        );
        let retry_at = Release::wake_at(&run.state).unwrap();
        waits.push(retry_at.since(run.now).as_millis());
        let mut retry = Retry {
            error: reason.clone(),
            attempt,
            next_time: Some(retry_at),
        };
        assert_eq!(Release::retry(&run.state), Some(retry.clone()));
        run.now = retry_at;
        run.tell(ReleaseCommand::Wake);
        retry.next_time = None;
        assert_eq!(Release::retry(&run.state), Some(retry), "it is under way");
    }
    assert_eq!(waits[..4], [500, 1000, 2000, 4000]);
    assert_eq!(*waits.last().unwrap(), 30_000);
    run.succeed("build");
    assert_eq!(run.active(), "dev/lane");
    assert_eq!(Release::retry(&run.state), None);
    assert_eq!(run.state.steps[0].reason, None, "it ended well");
}

#[test]
fn what_the_step_backend_tries_again_is_told_once() {
    let mut run = Run::requested();
    let observe = |run: &mut Run, retry: Option<Reason>| {
        let waiting = Waiting::new(WaitingKind::Machine, "working").retrying(retry);
        let observation = Observation::Pending(waiting);
        let key = run.key();
        run.tell(ReleaseCommand::Observed { key, observation }).len()
    };
    run.tell(ReleaseCommand::Started {
        key: run.key(),
        reference: "bld-1".parse().unwrap(),
        observation: Observation::Pending(Waiting::new(WaitingKind::Machine, "working")),
    });
    let reason = |words: &str| Some(Reason::new("GIT_UNAVAILABLE", words));
    assert_eq!(observe(&mut run, None), 0);
    assert_eq!(observe(&mut run, reason("timed out after 9 s")), 1);
    assert_eq!(
        observe(&mut run, reason("timed out after 10 s")),
        0,
        "the same code"
    );
    let retry = Release::retry(&run.state).unwrap();
    assert_eq!(retry.error.message, "timed out after 9 s");
    assert_eq!(
        (retry.attempt, retry.next_time),
        (0, None),
        "the step backend's to tell"
    );
    assert_eq!(observe(&mut run, None), 1);
    assert_eq!(Release::retry(&run.state), None);
}

#[test]
fn the_outcome_of_an_older_step_changes_nothing() {
    let mut run = Run::requested();
    let stale = run.key();
    run.succeed("build");
    let observation = Observation::Failed(Reason::new("LATE", "from before"));
    assert_eq!(
        run.tell(ReleaseCommand::Observed {
            key: stale,
            observation
        }),
        vec![]
    );
}

#[test]
fn a_step_whose_backend_never_answers_ends_errored_after_its_deadline_and_grace() {
    let mut run = Run::requested();
    run.now = Release::wake_at(&run.state).unwrap();
    run.tell(ReleaseCommand::Wake);
    assert!(matches!(run.state.stop, Some(Stop::Deadline { .. })));
    run.now = Release::wake_at(&run.state).unwrap();
    run.tell(ReleaseCommand::Wake);
    let effects = Release::effects(&run.id, &run.state);
    assert!(matches!(&effects[..], [(_, ReleaseEffect::GiveUp)]));
    run.tell(ReleaseCommand::GiveUp { key: run.key() });
    assert_eq!(run.ended(), (ReleaseStatus::Errored, "DEADLINE_EXCEEDED"));
}

#[test]
fn requested_twice_is_refused_and_unknown_is_unknown() {
    let mut run = Run::requested();
    let again = Release::decide(
        &run.id,
        &run.state,
        ReleaseCommand::Request(Box::new(request())),
        run.now,
    );
    assert_eq!(again, Err(ReleaseRefusal::Exists(run.id.clone())));
    run.state = ReleaseState::default();
    let unknown = Release::decide(&run.id, &run.state, ReleaseCommand::Wake, run.now);
    assert_eq!(unknown, Err(ReleaseRefusal::Unknown(run.id)));
}

proptest! {
    /// Whatever the step backends answer, in whatever order: one active step, ends are final, times sum up.
    #[test]
    fn every_release_ends(answers in proptest::collection::vec((0..7u8, any::<bool>()), 0..40)) {
        let mut run = Run::requested();
        for (answer, no_op) in answers {
            if run.state.status.is_final() {
                prop_assert_eq!(run.tell(ReleaseCommand::Wake), vec![]);
                prop_assert_eq!(run.tell(ReleaseCommand::Cancel { by: Actor::system("x"), reason: String::new() }), vec![]);
                break;
            }
            let step = run.active();
            let kind = run.state.active_step().unwrap().kind;
            let reason = Reason::new("X", "x");
            let running = run.state.active_step().unwrap().status == StepStatus::Running;
            match answer {
                0 => { run.tell(ReleaseCommand::Cancel { by: Actor::system("x"), reason: String::new() }); }
                1 if matches!(kind, StepKind::Lane | StepKind::Gate) => {
                    run.tell(ReleaseCommand::Supersede { by: "rel-9".parse().unwrap() });
                }
                2 if kind != StepKind::Lane && !running => run.end(&step, Observation::Errored(reason)),
                3 if kind != StepKind::Lane && !running => run.end(&step, Observation::Cancelled(reason)),
                4 if kind != StepKind::Lane && !running => run.end(&step, Observation::Failed(reason)),
                5 if kind == StepKind::Change && !running => {
                    run.end(&step, Observation::Succeeded { result: String::new(), facts: change(None, no_op) });
                }
                _ if !running => run.succeed(&step),
                _ => {}
            }
            let open = run.state.steps.iter().filter(|step| !step.status.is_final()).count();
            prop_assert_eq!(open, usize::from(!run.state.status.is_final()));
            let spent = run.state.time_spent(run.now);
            prop_assert_eq!(spent.total, spent.machine + spent.human + spent.lane);
            if run.state.status.is_final() {
                prop_assert_eq!(run.state.lane(), None);
                prop_assert!(Release::effects(&run.id, &run.state).is_empty());
                prop_assert!(Release::polls(&run.id, &run.state).is_empty());
                prop_assert_eq!(Release::wake_at(&run.state), None);
            }
        }
    }
}
