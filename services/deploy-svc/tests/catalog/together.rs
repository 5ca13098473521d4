//! `written_with`: environments whose images are written in one commit.

use deploy_domain::{
    catalog::Catalog,
    plan::{Plan, PlanRequest},
};
use pretty_assertions::assert_eq;
use slipway_model::Name;

use super::parse;

/// Three environments, with these keys of dev, staging and prod.
fn with(dev: &str, staging: &str, prod: &str) -> String {
    let environment = |name: &str, keys: &str| {
        let gitops = match keys.contains("gitops") {
            true => String::new(),
            false => format!("gitops: {{ repository: platform, path: apps/shop/{name} }}, "),
        };
        format!(
            "      - {{ name: {name}, policy: one, {gitops}target: {{ cluster: main, namespace: {name}, name: shop }}{keys} }}\n"
        )
    };
    format!(
        "
environments: [dev, staging, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
{}{}{}",
        environment("dev", dev),
        environment("staging", staging),
        environment("prod", prod)
    )
}

#[test]
fn the_first_environment_of_a_plan_has_the_change() {
    let text = with(
        "",
        ", written_with: dev, gate: before_sync",
        ", written_with: dev",
    );
    let catalog = parse(&text);
    let written = |environments: &[&str]| {
        let wanted = PlanRequest {
            service: "shop".to_owned(),
            commit: "1".repeat(40).parse().unwrap(),
            branch: None,
            git_tag: None,
            environments: environments.iter().map(ToString::to_string).collect(),
        };
        let plan = Plan::make(&catalog, &wanted).unwrap();
        let written = plan.environments.iter().map(|planned| {
            let leader = planned.written_with.as_ref();
            format!("{} {}", planned.name, leader.map_or("itself", Name::as_str))
        });
        written.collect::<Vec<_>>()
    };
    assert_eq!(written(&[]), ["dev itself", "staging dev", "prod dev"]);
    assert_eq!(written(&["staging", "prod"]), ["staging itself", "prod staging"]);
    assert_eq!(written(&["dev", "prod"]), ["dev itself", "prod dev"]);
    assert_eq!(written(&["prod"]), ["prod itself"]);
}

#[test]
fn what_cannot_be_written_together_is_refused() {
    let marker = ", action: restart, gitops: { repository: platform, strategy: marker }";
    let elsewhere = ", gitops: { repository: other, path: apps/shop/staging }, written_with: dev";
    for (dev, staging, path, words) in [
        ("", ", written_with: staging", 1, "does not come before staging"),
        (", written_with: prod", "", 0, "does not come before dev"),
        (
            "",
            ", written_with: test",
            1,
            "not one of this service's environments",
        ),
        ("", elsewhere, 1, "another repository or branch"),
        (
            marker,
            ", written_with: dev",
            1,
            "a marker commit writes no image",
        ),
        (
            "",
            ", gitops: , written_with: dev",
            1,
            "both environments need gitops",
        ),
    ] {
        let error = Catalog::parse(&with(dev, staging, "")).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("services.shop.environments[{path}].written_with: ")),
            "{error}"
        );
        assert!(error.contains(words), "{error}");
    }
    let chained = with("", ", written_with: dev", ", written_with: staging");
    let error = Catalog::parse(&chained).unwrap_err().to_string();
    assert!(
        error.contains("staging is itself written with dev: write dev"),
        "{error}"
    );
    let shared = format!(
        "{}  - name: mail
    repository: https://git.example/mail.git
    image: registry.example/mail
    environments:
      - {{ name: staging, policy: one, gitops: {{ repository: platform, path: apps/shop/staging }}, target: {{ cluster: main, namespace: mail, name: mail }} }}
",
        with("", ", written_with: dev", "")
    );
    let error = Catalog::parse(&shared).unwrap_err().to_string();
    assert!(
        error.contains("service mail shares this environment's target or folder"),
        "{error}"
    );
}
