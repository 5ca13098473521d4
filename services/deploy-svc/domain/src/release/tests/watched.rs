//! Which canaries are watched after a release has ended, and for how long.

use Ends::*;
use pretty_assertions::assert_eq;

use super::{play::*, *};
use crate::canary_watch::at_end;

/// Rollouts in dev and prod, with these keys in addition.
fn catalog(kind: &str, keys: &str) -> String {
    let environment = |name: &str| {
        format!(
            "
      - name: {name}
        policy: two
        gitops: {{ repository: platform, path: apps/shop/{name} }}
        target: {{ cluster: local, namespace: {name}, kind: {kind}, name: shop }}
        {keys}"
        )
    };
    format!(
        "
environments: [dev, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:{}{}
",
        environment("dev"),
        environment("prod")
    )
}

/// The environments that are watched, each with its deployment.
fn watched(run: &Run) -> Vec<(String, String)> {
    let all = at_end(&run.id, &run.state).into_iter();
    all.map(|one| (one.environment.to_string(), one.deployment.to_string()))
        .collect()
}

fn of(environments: &[&str]) -> Vec<(String, String)> {
    let all = environments.iter();
    all.map(|one| ((*one).to_owned(), format!("ref-{one}/deploy")))
        .collect()
}

/// The steps of one environment end like this.
fn play_one(run: &mut Run, environment: &str, but: &[(&str, Ends)]) {
    while let Some(step) = run.state.active_step() {
        let (name, kind) = (step.name.clone(), step.kind.as_str());
        if !name.starts_with(environment) && name != "build" {
            return;
        }
        let ends = but
            .iter()
            .find(|(of, _)| *of == kind)
            .map_or(Well, |(_, ends)| *ends);
        play_step(run, &name, ends);
    }
}

#[test]
fn every_environment_whose_image_git_names_is_watched() {
    let stays = catalog("Rollout", "on_failure: stay");
    let rolls_back = catalog("Rollout", "");
    for (catalog, in_prod, environments) in [
        (&rolls_back, &[][..], &["dev", "prod"][..]),
        (&rolls_back, &[("deploy", Failed)], &["dev"]),
        (&rolls_back, &[("deploy", Cancelled)], &["dev"]),
        (&rolls_back, &[("gate", Failed)], &["dev"]),
        (&rolls_back, &[("deploy", Failed), ("revert", Failed)], &["dev"]),
        (&stays, &[("deploy", Failed)], &["dev", "prod"]),
        (&stays, &[("deploy", Late)], &["dev", "prod"]),
        (&stays, &[("deploy", Cancelled)], &["dev"]),
        // Nothing was written that could be reverted.
        (&rolls_back, &[("change", NoOp)], &["dev"]),
    ] {
        let mut run = Run::by(catalog);
        play_one(&mut run, "dev", &[]);
        assert_eq!(watched(&run), [], "not before its end");
        play_one(&mut run, "prod", in_prod);
        assert!(run.state.status.is_final(), "{in_prod:?}");
        assert_eq!(watched(&run), of(environments), "{in_prod:?}");
    }
}

#[test]
fn a_canary_that_failed_during_the_release_stays_as_the_catalog_says() {
    for (code, environments) in [
        ("ABORTED", &["dev"][..]),
        ("DEGRADED", &["dev"]),
        ("CHECK_FAILED", &["dev", "prod"]),
        ("DEADLINE_EXCEEDED", &["dev", "prod"]),
    ] {
        let mut run = Run::by(&catalog("Rollout", "on_failure: stay"));
        play_one(&mut run, "dev", &[]);
        for step in ["lane", "gate", "change"] {
            play_step(&mut run, &format!("prod/{step}"), Well);
        }
        run.fail("prod/deploy", code);
        assert!(run.state.status.is_final(), "{code}");
        assert_eq!(watched(&run), of(environments), "{code}");
    }
}

#[test]
fn it_is_watched_where_there_can_be_a_canary_for_as_long_as_the_catalog_says() {
    for (kind, keys, period) in [
        ("Rollout", "", Some(3600)),
        ("Canary", "", Some(3600)),
        ("Application", "", Some(3600)),
        ("Rollout", "canary_watch: 30m", Some(1800)),
        ("Application", "canary_watch: 48h", Some(172_800)),
        ("Canary", "canary_watch: 0s", None),
        ("Deployment", "", None),
        ("StatefulSet", "", None),
    ] {
        let run = play(&catalog(kind, keys), &[]);
        let periods: Vec<u64> = at_end(&run.id, &run.state)
            .iter()
            .map(|one| one.period.as_secs())
            .collect();
        let wanted: Vec<u64> = period.into_iter().flat_map(|period| [period; 2]).collect();
        assert_eq!(periods, wanted, "{kind} {keys}");
    }
}
