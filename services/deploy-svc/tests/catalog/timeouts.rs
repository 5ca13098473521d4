//! How long deployments may take: what is written, and what follows from the steps of a canary.

use std::time::Duration;

use deploy_domain::catalog::{Catalog, GitOps, Timeouts};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::parse;

fn with(kind: &str, more: &str) -> String {
    format!(
        "
environments: [prod]
services:
  - name: cart
    repository: https://git.example/cart.git
    image: registry.example/cart
    environments:
      - name: prod
        policy: two
        target: {{ cluster: main, namespace: cart, kind: {kind}, name: cart }}
        gitops: {{ repository: platform, path: apps/cart }}
        {more}
"
    )
}

fn timeout(kind: &str, more: &str) -> Timeouts {
    parse(&with(kind, more)).services()[0].environments[0].timeout
}

#[test]
fn a_time_that_is_not_written_follows_the_steps_where_there_can_be_some() {
    let ten = Duration::from_secs(600);
    for (kind, follows) in [
        ("Deployment", false),
        ("StatefulSet", false),
        ("DaemonSet", false),
        ("Application", true),
        ("Rollout", true),
        ("Canary", true),
    ] {
        for more in ["", "timeout: { gate: 1h }"] {
            let timeout = timeout(kind, more);
            assert_eq!(
                (timeout.deploy, timeout.follows_steps),
                (ten, follows),
                "{kind} {more}"
            );
        }
        let written = timeout(kind, "timeout: { deploy: 10m }");
        assert!(!written.follows_steps, "{kind}");
    }
    let json = serde_json::to_value(timeout("Deployment", "")).unwrap();
    assert_eq!(json, json!({"gate": "24h", "change": "10m", "deploy": "10m"}));
}

#[test]
fn a_written_time_that_is_shorter_than_the_steps_is_warned_of() {
    let rollout = |name: &str| {
        let pause = json!({"pause": {"duration": "10m"}});
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
            "spec": {"strategy": {"canary": {"steps": [pause, pause, pause]}}}
        })
    };
    let warned = |kind: &str, more: &str, objects: Vec<Value>| {
        let of = |gitops: &GitOps| {
            assert_eq!(gitops.path, "apps/cart");
            objects.clone()
        };
        let warnings = parse(&with(kind, more)).too_short(of);
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let short = "timeout: { deploy: 20m }";
    let warning = "services.cart.environments.prod.timeout.deploy: is 20m, and the rollout has 30m of pauses and \
                   analyses: it would be put back before it ends; write at least 47m 30s, or leave it out";
    assert_eq!(warned("Rollout", short, vec![rollout("cart")]), [warning]);
    assert_eq!(warned("Application", short, vec![rollout("any")]), [warning]);
    for (kind, more, objects) in [
        ("Rollout", "", vec![rollout("cart")]),
        ("Rollout", "timeout: { deploy: 30m }", vec![rollout("cart")]),
        ("Rollout", short, vec![rollout("other")]),
        ("Rollout", short, vec![]),
        ("Deployment", short, vec![rollout("cart")]),
    ] {
        assert_eq!(warned(kind, more, objects), [""; 0], "{kind} {more}");
    }
}

#[test]
fn a_canary_is_watched_after_its_release_where_there_can_be_one() {
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    for (kind, more, period) in [
        ("Rollout", "", None),
        ("Rollout", "canary_watch: 3h", Some(hours(3))),
        ("Canary", "canary_watch: 720h", Some(hours(720))),
        ("Application", "canary_watch: 0s", Some(Duration::ZERO)),
    ] {
        let catalog = parse(&with(kind, more));
        let read = catalog.services()[0].environments[0].canary_watch;
        assert_eq!(read, period, "{kind} {more}");
    }
    for (kind, more, words) in [
        ("Deployment", "canary_watch: 1h", "only a Rollout or a Canary"),
        ("Rollout", "canary_watch: 721h", "at most 30 days"),
        ("Rollout", "canary_watch: soon", "canary_watch"),
    ] {
        let error = Catalog::parse(&with(kind, more)).unwrap_err().to_string();
        assert!(
            error.contains("canary_watch") && error.contains(words),
            "{kind} {more}: {error}"
        );
    }
}
