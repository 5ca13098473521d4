//! What unsuccessful ends say, where the time went, and what holds for every release whatever happens to it.

use Ends::*;
use ReleaseStatus as Status;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::{play::*, *};

/// A reader of the reason learns the state that was left and what to do.
#[test]
fn bad_ends_say_what_to_do() {
    for (keys, but, words) in [
        (
            &[GIT, "on_failure: stay"][..],
            &[("deploy", Failed)][..],
            &[
                "BROKEN happened",
                "stays in dev",
                "revert change chg-1 of repository platform",
                "deployment ref-dev/deploy",
                "release a good commit",
            ][..],
        ),
        (
            &["on_failure: stay"],
            &[("deploy", Failed)],
            &["roll back deployment ref-dev/deploy"],
        ),
        (
            &[MARKER, "action: restart"],
            &[("deploy", Failed)],
            &["local/dev/Deployment/shop follows a moving tag"],
        ),
        (
            &[GIT],
            &[("change", Unnamed), ("deploy", Failed)],
            &["repository platform is as it was", "not verified"],
        ),
        (
            &[GIT],
            &[("deploy", Failed), ("revert", Errored)],
            &[
                "BROKEN happened; then",
                "UNKNOWN happened",
                "repository platform still asks for the new image in dev (commit 2222222)",
                "revert change chg-1 by hand",
            ],
        ),
        (
            &[GIT],
            &[("deploy", Failed), ("redeploy", Failed)],
            &[
                "asks for the previous image again",
                "local/dev/Deployment/shop was not seen to run it",
            ],
        ),
        (
            &[],
            &[("deploy", Failed), ("redeploy", Failed)],
            &[
                "may run the new image, the previous one, or neither: look at it (`slipway deployment get ref-dev/redeploy`)",
                "`kubectl -n dev rollout history deployment/shop`",
                "`kubectl -n dev rollout undo deployment/shop --to-revision=N`",
            ],
        ),
        (
            &[],
            &[("deploy", Failed), ("redeploy", Skipped)],
            &["BROKEN happened. NOTHING_TO_PUT_BACK happened"],
        ),
    ] {
        let run = play(&environment(keys), but);
        for word in words {
            assert!(
                message(&run).contains(word),
                "{keys:?} {but:?}: {}",
                message(&run)
            );
        }
    }
}

#[test]
fn steps_have_the_time_of_what_they_wait_for() {
    let catalog = environment(&[
        GIT,
        "timeout: { deploy: 5m }",
        "bake: { for: 15m, metrics: [{ name: errors, query: up, max: 1 }] }",
        "jobs: { before: [{ name: a, timeout: 20m, pod: { containers: [{ name: a }] } }, { name: b, timeout: 10m, pod: { containers: [{ name: b }] } }], after: [{ name: c, timeout: 7m, pod: { containers: [{ name: c }] } }] }",
    ]);
    let plan = request_by(&catalog).plan;
    let minutes = |kind| limit::limit(&plan, kind, Some(0)).as_secs() / 60;
    assert_eq!(minutes(StepKind::Prepare), 30 + 2);
    assert_eq!(
        minutes(StepKind::Deploy),
        5 + 7 + 15 + 2,
        "with Jobs after and the bake"
    );
    assert_eq!(
        minutes(StepKind::Redeploy),
        5 + 2,
        "what is put back does not bake"
    );
}

#[test]
fn waiting_for_a_promotion_is_a_persons_time() {
    let mut run = Run::by(&environment(&[GIT]));
    for step in ["build", "dev/lane", "dev/gate", "dev/change"] {
        run.succeed(step);
    }
    let spent = run.state.time_spent(run.now);
    begin(&mut run, "dev/deploy");
    let waits = |kind| Observation::Pending(Waiting::new(kind, "for a person"));
    observe(&mut run, waits(WaitingKind::Human));
    run.now = run.now + Duration::from_secs(3600);
    let during = run.state.time_spent(run.now);
    assert_eq!((during.human - spent.human).as_secs(), 3600);
    observe(&mut run, waits(WaitingKind::Machine));
    run.succeed_running();
    let after = run.state.time_spent(run.now);
    assert_eq!((after.human - spent.human).as_secs(), 3601);
    assert_eq!(after.total, after.machine + after.human + after.lane);
    assert!(
        after.machine > spent.machine,
        "the rest of the step is the machine's"
    );
}

fn shapes() -> Vec<Vec<&'static str>> {
    let gits: [&[&str]; 4] = [
        &[],
        &[GIT],
        &[GIT, "gate: before_sync"],
        &[MARKER, "action: restart"],
    ];
    let mut shapes = Vec::new();
    for git in gits {
        for jobs in ["", JOBS] {
            for stay in ["", "on_failure: stay"] {
                let keys = git
                    .iter()
                    .copied()
                    .chain([jobs, stay])
                    .filter(|key| !key.is_empty());
                shapes.push(keys.collect());
            }
        }
    }
    shapes
}

proptest! {
    /// Whatever happens at any step: nothing reaches the cluster without passing its gate, what was committed and did
    /// not succeed is reverted unless the catalog says otherwise, and nothing is restored that was not there.
    #[test]
    fn nothing_is_left_behind(
        shape in 0..16usize,
        ends in proptest::collection::vec(
            prop_oneof![
                4 => Just(Well), 1 => Just(Failed), 1 => Just(Errored), 1 => Just(Cancelled),
                1 => Just(CancelledTooLate), 1 => Just(Late), 1 => Just(Silent), 1 => Just(NoOp), 1 => Just(Unnamed),
            ],
            8,
        ),
    ) {
        let keys = shapes()[shape].clone();
        let kinds = ["build", "gate", "prepare", "change", "deploy", "revert", "redeploy", "lane"];
        // A change alone can be one that changed nothing.
        let fits = |kind: &str, ends: Ends| kind == "change" || !matches!(ends, NoOp | Unnamed);
        let but: Vec<(&str, Ends)> = kinds.into_iter().zip(ends).filter(|(kind, ends)| fits(kind, *ends) && *kind != "lane").collect();
        let run = play(&environment(&keys), &but);
        let state = &run.state;
        let step = |kind: StepKind| state.steps.iter().find(|step| step.kind == kind);
        let good = |kind: StepKind| step(kind).is_some_and(|step| step.status == StepStatus::Succeeded);
        if step(StepKind::Deploy).is_some() || step(StepKind::Prepare).is_some() {
            prop_assert!(good(StepKind::Gate), "past its gate");
        }
        if keys.contains(&JOBS) && step(StepKind::Deploy).is_some() {
            prop_assert!(good(StepKind::Prepare), "deployed without its Jobs");
        }
        let change = state.environments[0].change.as_ref();
        let committed = change.is_some_and(|change| !change.no_op);
        let stays = keys.contains(&"on_failure: stay") && step(StepKind::Deploy).is_some();
        if committed && state.status != Status::Succeeded && !keys.contains(&MARKER) && !stays {
            prop_assert!(step(StepKind::Revert).is_some(), "{} left in git", steps(&run));
        }
        prop_assert!(step(StepKind::Revert).is_none() || committed, "reverted what was never there");
        prop_assert!(step(StepKind::Redeploy).is_none() || step(StepKind::Deploy).is_some());
        if state.status == Status::RolledBack {
            prop_assert!(good(StepKind::Redeploy), "rolled back and not verified");
        }
        let spent = state.time_spent(run.now);
        prop_assert_eq!(spent.total, spent.machine + spent.human + spent.lane);
        prop_assert_eq!(state.lane(), None);
        if state.status != Status::Succeeded {
            prop_assert!(state.reason.is_some(), "without a word");
        }
    }
}

/// Such as a deployment whose canary has longer steps than was planned for.
#[test]
fn a_step_whose_backend_needs_longer_is_given_that_time() {
    let mut run = Run::requested();
    for step in ["build", "dev/lane", "dev/change"] {
        run.succeed(step);
    }
    let deadline = |run: &Run| run.state.active_step().unwrap().deadline;
    let planned = deadline(&run);
    let pending = |until: Timestamp| {
        let waiting = Waiting::new(WaitingKind::Machine, "paused at step 2 of 6");
        Observation::Pending(Waiting {
            until: Some(until),
            ..waiting
        })
    };
    run.tell(ReleaseCommand::Started {
        key: run.key(),
        reference: "dep-1".parse().unwrap(),
        observation: pending(run.now),
    });
    assert_eq!(deadline(&run), planned, "it never becomes shorter");
    let until = planned + Duration::from_secs(3600);
    run.tell(ReleaseCommand::Observed {
        key: run.key(),
        observation: pending(until),
    });
    assert_eq!(deadline(&run), until + Duration::from_secs(120));
}
