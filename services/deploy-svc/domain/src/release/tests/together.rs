//! Environments whose images are written in one commit: the commit comes with the first one's turn, and what has not had
//! its turn goes back.

use ReleaseStatus as Status;
use pretty_assertions::assert_eq;

use super::{play::*, *};

/// People approve staging before its sync, and prod up front.
fn catalog(staging: &str) -> String {
    let environment = |name: &str, keys: &str| {
        format!(
            "      - name: {name}
        gitops: {{ repository: platform, path: apps/shop/{name} }}
        target: {{ cluster: local, namespace: {name}, name: shop }}
        {keys}
"
        )
    };
    [
        "
environments: [dev, staging, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
"
        .to_owned(),
        environment("dev", "policy: none"),
        environment(
            "staging",
            &format!("policy: one\n        gate: before_sync\n        written_with: dev\n        {staging}"),
        ),
        environment("prod", "policy: two\n        written_with: dev"),
    ]
    .concat()
}

/// Plays until the active step is this one, or the release has ended.
fn until(run: &mut Run, step: &str) {
    while !run.state.status.is_final() && run.active() != step {
        let name = run.active();
        if name == "dev/change" {
            let Facts::Changed(made) = change(Some(images("a")), false) else {
                unreachable!("a change")
            };
            let facts = Facts::Changed(ChangeMade {
                previous_of_others: vec![Some(images("c")), Some(images("d"))],
                ..made
            });
            let result = String::new();
            run.end(&name, Observation::Succeeded { result, facts });
        } else {
            play_step(run, &name, Ends::Well);
        }
    }
}

/// The release up to this step, which ends like this, and what follows well.
fn played(catalog: &str, step: &str, ends: Ends) -> Run {
    let mut run = Run::by(catalog);
    until(&mut run, step);
    play_step(&mut run, step, ends);
    until(&mut run, "");
    run
}

fn names(run: &Run) -> Vec<&str> {
    run.state.steps.iter().map(|step| step.name.as_str()).collect()
}

const BEFORE: [&str; 6] = [
    "build",
    "dev/lane",
    "dev/gate",
    "prod/gate",
    "dev/change",
    "dev/deploy",
];

fn with<'a>(further: &[&'a str]) -> Vec<&'a str> {
    BEFORE.iter().chain(further).copied().collect()
}

#[test]
fn one_commit_is_made_with_the_first_turn_after_all_that_must_approve_it() {
    let mut run = Run::by(&catalog(""));
    until(&mut run, "");
    assert_eq!(run.state.status, Status::Succeeded);
    assert_eq!(
        names(&run),
        with(&[
            "staging/lane",
            "staging/gate",
            "staging/deploy",
            "prod/lane",
            "prod/deploy"
        ])
    );
    let previous: Vec<Option<Images>> = run
        .state
        .environments
        .iter()
        .map(|one| one.change.as_ref().unwrap().previous.clone())
        .collect();
    assert_eq!(
        previous,
        [Some(images("a")), Some(images("c")), Some(images("d"))]
    );
}

#[test]
fn people_are_asked_about_prod_in_the_lane_of_dev() {
    let mut run = Run::by(&catalog(""));
    until(&mut run, "prod/gate");
    assert_eq!(run.state.lane(), Some(0));
    play_step(&mut run, "prod/gate", Ends::Failed);
    assert_eq!(
        (run.state.status, names(&run).last()),
        (Status::Failed, Some(&"prod/gate"))
    );
    assert_eq!(run.state.environments[0].change, None, "nothing was written");
}

#[test]
fn what_has_not_had_its_turn_goes_back() {
    let back = |run: &mut Run, step: &str| {
        until(run, step);
        let names = run.state.to_take_back();
        names
            .iter()
            .map(|planned| planned.name.to_string())
            .collect::<Vec<_>>()
    };
    for (step, further, status, taken) in [
        (
            "dev/deploy",
            vec!["dev/revert", "dev/redeploy"],
            Status::RolledBack,
            vec!["dev", "staging", "prod"],
        ),
        (
            "staging/gate",
            vec!["staging/lane", "staging/gate", "staging/revert"],
            Status::Failed,
            vec!["staging", "prod"],
        ),
        (
            "staging/deploy",
            vec![
                "staging/lane",
                "staging/gate",
                "staging/deploy",
                "staging/revert",
                "staging/redeploy",
            ],
            Status::RolledBack,
            vec!["staging", "prod"],
        ),
        (
            "prod/deploy",
            vec![
                "staging/lane",
                "staging/gate",
                "staging/deploy",
                "prod/lane",
                "prod/deploy",
                "prod/revert",
                "prod/redeploy",
            ],
            Status::RolledBack,
            vec!["prod"],
        ),
    ] {
        let run = played(&catalog(""), step, Ends::Failed);
        assert_eq!(
            (names(&run), run.state.status),
            (with(&further), status),
            "{step}"
        );
        let mut run = Run::by(&catalog(""));
        until(&mut run, step);
        play_step(&mut run, step, Ends::Failed);
        let revert = run.active();
        assert_eq!(back(&mut run, &revert), taken, "{step}");
    }
}

#[test]
fn one_that_stays_is_left_alone_and_the_later_ones_go_back() {
    let stays = catalog("on_failure: stay");
    let mut run = Run::by(&stays);
    until(&mut run, "staging/deploy");
    play_step(&mut run, "staging/deploy", Ends::Failed);
    assert_eq!(run.active(), "staging/revert");
    let back: Vec<&str> = run
        .state
        .to_take_back()
        .iter()
        .map(|planned| planned.name.as_str())
        .collect();
    assert_eq!(back, ["prod"]);
    until(&mut run, "");
    assert_eq!(run.state.status, Status::Failed);
    assert!(message(&run).contains("It stays in staging"), "{}", message(&run));
}

#[test]
fn one_that_is_stopped_while_it_waits_for_its_turn_takes_back_what_was_written_for_it() {
    let mut run = Run::by(&catalog(""));
    until(&mut run, "staging/lane");
    cancel(&mut run);
    assert_eq!(run.active(), "staging/revert");
    // It was still in the queue.
    let events = run.tell(ReleaseCommand::LaneGranted {
        environment: 1,
        epoch: 9,
    });
    assert_eq!(events, []);
    until(&mut run, "");
    assert_eq!(run.state.status, Status::Cancelled);

    let mut run = Run::by(&catalog(""));
    until(&mut run, "staging/lane");
    run.tell(ReleaseCommand::Supersede {
        by: "rel-9".parse().unwrap(),
    });
    assert_eq!(
        (run.active().as_str(), run.state.lane()),
        ("staging/revert", None)
    );
    play_step(&mut run, "staging/revert", Ends::Skipped);
    assert_eq!(run.state.status, Status::Superseded);
}
