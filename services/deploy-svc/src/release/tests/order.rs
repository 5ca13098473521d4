//! The order of steps for every shape of environment, and what is put back when one of them ends badly.

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;

const HEAD: &str = r"
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        target: { cluster: local, namespace: dev, name: shop }
";
const GIT: &str = "gitops: { repository: platform, path: apps/shop/dev }";
const MARKER: &str = "gitops: { repository: platform, strategy: marker }";
const JOBS: &str = "jobs: { before: [{ name: migrate, pod: { containers: [{ name: migrate }] } }] }";

/// One environment with these keys beside its name and target.
fn environment(keys: &[&str]) -> String {
    let policy = if keys.iter().any(|key| key.starts_with("policy:")) {
        ""
    } else {
        "policy: two"
    };
    let keys = keys.iter().chain([&policy]).filter(|key| !key.is_empty());
    keys.fold(HEAD.to_owned(), |text, key| format!("{text}        {key}\n"))
}

/// How a step's owner ends it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    Well,
    /// The image or change was there already.
    NoOp,
    /// Without an image by digest before it.
    Unnamed,
    Failed,
    Errored,
    Skipped,
    /// Somebody cancels while it runs, and its owner stops it.
    Cancelled,
    /// Somebody cancels while it runs, and its owner was faster.
    CancelledTooLate,
    /// The lane was lost before its order was given.
    Lost,
    /// Its time is up, and its owner stops it.
    Late,
    /// Its time is up, and its owner never says a word.
    Silent,
}

/// A release whose steps all end well but for these. Steps are named by their kind.
fn play(catalog: &str, but: &[(&str, Ends)]) -> Run {
    let mut run = Run::by(catalog);
    for _ in 0..20 {
        let Some(step) = run.state.active_step() else {
            break;
        };
        let (name, kind) = (step.name.clone(), step.kind.as_str());
        let ends = but
            .iter()
            .find(|(of, _)| *of == kind)
            .map_or(Ends::Well, |(_, ends)| *ends);
        play_step(&mut run, &name, ends);
    }
    assert!(run.state.status.is_final(), "it does not end");
    run
}

fn begin(run: &mut Run, name: &str) {
    if run.active().ends_with("/lane") {
        return;
    }
    let waiting = Waiting {
        kind: WaitingKind::Machine,
        message: "working".to_owned(),
    };
    run.tell(ReleaseCommand::Started {
        key: run.key(),
        reference: format!("ref-{name}").parse().unwrap(),
        observation: Observation::Pending(waiting),
    });
}

fn observe(run: &mut Run, observation: Observation) {
    if !run.state.status.is_final() {
        run.tell(ReleaseCommand::Observed {
            key: run.key(),
            observation,
        });
    }
}

fn cancel(run: &mut Run) {
    run.tell(ReleaseCommand::Cancel {
        by: Actor::system("test"),
        reason: String::new(),
    });
}

fn facts(name: &str, ends: Ends) -> Facts {
    match (name.rsplit('/').next().unwrap(), ends) {
        ("build", _) => Facts::Built {
            image: image("b"),
            authors: Vec::new(),
        },
        ("change", Ends::NoOp) => change(Some(image("b")), true),
        ("change", Ends::Unnamed) => change(None, false),
        ("change", _) => change(Some(image("a")), false),
        ("revert", _) => change(Some(image("b")), false),
        _ => Facts::None,
    }
}

fn play_step(run: &mut Run, name: &str, ends: Ends) {
    let reason = |code: &str| Reason::new(code, format!("{code} happened"));
    let well = Observation::Succeeded {
        result: String::new(),
        facts: facts(name, ends),
    };
    match ends {
        Ends::Well | Ends::NoOp | Ends::Unnamed => run.end(name, well),
        Ends::Failed => run.end(name, Observation::Failed(reason("BROKEN"))),
        Ends::Errored => run.end(name, Observation::Errored(reason("UNKNOWN"))),
        Ends::Skipped => run.end(name, Observation::Skipped(reason("NOTHING_TO_PUT_BACK"))),
        Ends::Cancelled | Ends::CancelledTooLate => {
            begin(run, name);
            cancel(run);
            let late = ends == Ends::CancelledTooLate;
            observe(
                run,
                if late {
                    well
                } else {
                    Observation::Cancelled(reason("CANCELLED"))
                },
            );
        }
        Ends::Lost => {
            run.tell(ReleaseCommand::Supersede {
                by: "rel-9".parse().unwrap(),
            });
            observe(run, Observation::Cancelled(reason("SUPERSEDED")));
        }
        Ends::Late | Ends::Silent => {
            begin(run, name);
            run.now = Release::wake_at(&run.state).unwrap();
            run.tell(ReleaseCommand::Wake);
            if ends == Ends::Late {
                observe(run, Observation::Cancelled(reason("CANCELLED")));
                return;
            }
            run.now = Release::wake_at(&run.state).unwrap();
            run.tell(ReleaseCommand::Wake);
            run.tell(ReleaseCommand::GiveUp { key: run.key() });
        }
    }
}

/// The kinds of the steps in their order, without the build.
fn steps(run: &Run) -> String {
    let kinds: Vec<&str> = run
        .state
        .steps
        .iter()
        .skip(1)
        .map(|step| step.kind.as_str())
        .collect();
    kinds.join(" ")
}

fn message(run: &Run) -> &str {
    run.state.reason.as_ref().map_or("", |reason| &reason.message)
}

type Row<'a> = (&'a [(&'a str, Ends)], &'a str, ReleaseStatus, &'a str);

fn table(keys: &[&str], rows: &[Row<'_>]) {
    let catalog = environment(keys);
    for (but, wanted, status, code) in rows {
        let run = play(&catalog, but);
        assert_eq!(
            (steps(&run).as_str(), run.ended()),
            (*wanted, (*status, *code)),
            "{keys:?} {but:?}: {}",
            message(&run)
        );
    }
}

use Ends::*;
use ReleaseStatus as Status;

#[test]
fn a_gate_before_the_commit() {
    table(
        &[GIT],
        &[
            (&[], "lane gate change deploy", Status::Succeeded, ""),
            (&[("gate", Failed)], "lane gate", Status::Failed, "BROKEN"),
            (&[("gate", Lost)], "lane gate", Status::Superseded, "SUPERSEDED"),
            (
                &[("gate", Late)],
                "lane gate",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("change", Failed)],
                "lane gate change",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", Errored)],
                "lane gate change",
                Status::Errored,
                "UNKNOWN",
            ),
            (
                &[("change", Cancelled)],
                "lane gate change",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("change", CancelledTooLate)],
                "lane gate change revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", Failed)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
            (
                &[("deploy", Errored)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "UNKNOWN",
            ),
            (
                &[("deploy", Late)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Silent)],
                "lane gate change deploy revert redeploy",
                Status::RolledBack,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Cancelled)],
                "lane gate change deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", CancelledTooLate)],
                "lane gate change deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("change", NoOp), ("deploy", Failed)],
                "lane gate change deploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", Unnamed), ("deploy", Failed)],
                "lane gate change deploy revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", Unnamed), ("deploy", Late)],
                "lane gate change deploy revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Failed), ("revert", Failed)],
                "lane gate change deploy revert",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
            (
                &[("deploy", Failed), ("redeploy", Failed)],
                "lane gate change deploy revert redeploy",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
            (
                &[("deploy", Failed), ("redeploy", Silent)],
                "lane gate change deploy revert redeploy",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
        ],
    );
}

#[test]
fn a_gate_before_the_sync() {
    table(
        &[GIT, "gate: before_sync"],
        &[
            (&[], "lane change gate deploy", Status::Succeeded, ""),
            (&[("change", Failed)], "lane change", Status::Failed, "BROKEN"),
            (
                &[("change", Lost)],
                "lane change",
                Status::Superseded,
                "SUPERSEDED",
            ),
            (
                &[("change", CancelledTooLate)],
                "lane change revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            // Nothing was synced: git is put back, and the answer stands.
            (
                &[("gate", Failed)],
                "lane change gate revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("gate", Cancelled)],
                "lane change gate revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("gate", Late)],
                "lane change gate revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("gate", Silent)],
                "lane change gate revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("gate", CancelledTooLate)],
                "lane change gate revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("change", NoOp), ("gate", Failed)],
                "lane change gate",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("gate", Failed), ("revert", Failed)],
                "lane change gate revert",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
            (
                &[("deploy", Failed)],
                "lane change gate deploy revert redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
            (
                &[("deploy", Cancelled)],
                "lane change gate deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
        ],
    );
    let nobody = play(&environment(&[GIT, "gate: before_sync", "policy: none"]), &[]);
    assert_eq!(steps(&nobody), "lane change gate deploy");
    let gate = nobody
        .state
        .steps
        .iter()
        .find(|step| step.kind == StepKind::Gate)
        .unwrap();
    assert_eq!(gate.result, "policy none asks nobody");
}

#[test]
fn jobs_before_anything_else_is_changed() {
    table(
        &[GIT, JOBS],
        &[
            (&[], "lane gate prepare change deploy", Status::Succeeded, ""),
            (
                &[("prepare", Failed)],
                "lane gate prepare",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("prepare", Errored)],
                "lane gate prepare",
                Status::Errored,
                "UNKNOWN",
            ),
            (
                &[("prepare", Lost)],
                "lane gate prepare",
                Status::Superseded,
                "SUPERSEDED",
            ),
            (
                &[("prepare", Cancelled)],
                "lane gate prepare",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", CancelledTooLate)],
                "lane gate prepare",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", Late)],
                "lane gate prepare",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Failed)],
                "lane gate prepare change deploy revert redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
        ],
    );
    table(
        &[GIT, JOBS, "gate: before_sync"],
        &[
            (&[], "lane change gate prepare deploy", Status::Succeeded, ""),
            (
                &[("prepare", Failed)],
                "lane change gate prepare revert",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("prepare", Cancelled)],
                "lane change gate prepare revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", CancelledTooLate)],
                "lane change gate prepare revert",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("prepare", Late)],
                "lane change gate prepare revert",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
        ],
    );
}

#[test]
fn without_git_the_rollout_is_undone_in_the_cluster() {
    table(
        &[],
        &[
            (&[], "lane gate deploy", Status::Succeeded, ""),
            (&[("gate", Failed)], "lane gate", Status::Failed, "BROKEN"),
            (
                &[("deploy", Failed)],
                "lane gate deploy redeploy",
                Status::RolledBack,
                "BROKEN",
            ),
            (
                &[("deploy", Late)],
                "lane gate deploy redeploy",
                Status::RolledBack,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Cancelled)],
                "lane gate deploy redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", CancelledTooLate)],
                "lane gate deploy redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
            (
                &[("deploy", Lost)],
                "lane gate deploy",
                Status::Superseded,
                "SUPERSEDED",
            ),
            // Nothing was there before, or nothing was changed.
            (
                &[("deploy", Failed), ("redeploy", Skipped)],
                "lane gate deploy redeploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("deploy", Errored), ("redeploy", Skipped)],
                "lane gate deploy redeploy",
                Status::Errored,
                "UNKNOWN",
            ),
            (
                &[("deploy", Failed), ("redeploy", Failed)],
                "lane gate deploy redeploy",
                Status::RollbackFailed,
                "ROLLBACK_FAILED",
            ),
        ],
    );
    table(
        &[JOBS],
        &[
            (&[], "lane gate prepare deploy", Status::Succeeded, ""),
            (
                &[("prepare", Failed)],
                "lane gate prepare",
                Status::Failed,
                "BROKEN",
            ),
        ],
    );
}

#[test]
fn a_version_that_is_to_stay_stays_but_for_somebodys_wish() {
    table(
        &[GIT, "on_failure: stay"],
        &[
            (
                &[("deploy", Failed)],
                "lane gate change deploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("deploy", Late)],
                "lane gate change deploy",
                Status::Errored,
                "DEADLINE_EXCEEDED",
            ),
            (
                &[("deploy", Cancelled)],
                "lane gate change deploy revert redeploy",
                Status::Cancelled,
                "CANCELLED",
            ),
        ],
    );
    table(
        &[GIT, "on_failure: stay", "gate: before_sync"],
        &[(
            &[("gate", Failed)],
            "lane change gate revert",
            Status::Failed,
            "BROKEN",
        )],
    );
    table(
        &["on_failure: stay"],
        &[(
            &[("deploy", Failed)],
            "lane gate deploy",
            Status::Failed,
            "BROKEN",
        )],
    );
}

#[test]
fn a_moving_tag_is_not_moved_back() {
    table(
        &[MARKER, "action: restart"],
        &[
            (&[], "lane gate change deploy", Status::Succeeded, ""),
            (
                &[("deploy", Failed)],
                "lane gate change deploy",
                Status::Failed,
                "BROKEN",
            ),
            (
                &[("change", CancelledTooLate)],
                "lane gate change",
                Status::Cancelled,
                "CANCELLED",
            ),
        ],
    );
}

/// Whoever reads how it ended knows what state it left and what to do.
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
            &["kubectl --namespace dev rollout undo deployment/shop"],
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
    let minutes = |kind| plan.limit(kind, Some(0)).as_secs() / 60;
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
    let waits = |kind| {
        Observation::Pending(Waiting {
            kind,
            message: "for somebody".to_owned(),
        })
    };
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
    /// Whatever happens at whichever step: nothing reaches the cluster past its gate, what was committed and did not
    /// succeed is taken out again unless the catalog says otherwise, and nothing is put back that was not there.
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
