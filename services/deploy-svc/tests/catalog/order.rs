//! What an environment is for, what it has to come after, and the keys that are kept for later.

use deploy_domain::{
    catalog::{Catalog, CatalogError, Tier},
    plan::{Plan, PlanError, PlanRequest},
    release::ReleaseEvent,
};
use pretty_assertions::assert_eq;
use sha2::{Digest as _, Sha256};

use super::parse;

/// Three environments, the service's in another order than the catalog's, with these keys of `prod`.
fn with(prod: &str) -> String {
    let target =
        |name: &str| format!("target: {{ cluster: main, namespace: {name}, kind: Deployment, name: shop }}");
    format!(
        "
environments: [dev, {{ name: staging }}, {{ name: prod, tier: production }}, elsewhere]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    branches:
      - {{ pattern: main, environments: [dev, staging, prod] }}
      - {{ pattern: hotfix, environments: [prod] }}
    environments:
      - name: prod
        policy: two
        {}
        {prod}
      - {{ name: staging, policy: one, requires: [dev], {} }}
      - {{ name: dev, policy: none, {} }}
",
        target("prod"),
        target("staging"),
        target("dev"),
    )
}

fn wanted(branch: Option<&str>, environments: &[&str]) -> PlanRequest {
    PlanRequest {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        branch: branch.map(|branch| branch.parse().unwrap()),
        git_tag: None,
        environments: environments.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_environment_says_what_it_is_for() {
    for (tier, read) in [
        ("development", Tier::Development),
        ("test", Tier::Test),
        ("staging", Tier::Staging),
        ("production", Tier::Production),
    ] {
        let catalog = parse(&with("").replace("tier: production", &format!("tier: {tier}")));
        let shop = &catalog.services()[0];
        let tiers: Vec<_> = shop
            .environments
            .iter()
            .map(|one| (one.name.as_str(), one.tier))
            .collect();
        assert_eq!(
            tiers,
            [("dev", None), ("staging", None), ("prod", Some(read))],
            "the order is that of the catalog's environments"
        );
    }
}

#[test]
fn a_wrong_environment_is_named_by_its_key() {
    let shape = "environments: [dev, { name: staging }, { name: prod, tier: production }, elsewhere]";
    assert!(with("").contains(shape));
    for (to, place, words) in [
        (
            "[dev, { name: prod, tier: prod }]",
            "environments[1].tier",
            "expected one of development, test, staging, production",
        ),
        ("[dev, { tier: production }]", "environments[1]", "name"),
        ("[{ name: prod, teir: production }]", "environments[0]", "teir"),
        ("[dev, { name: PROD }]", "environments[1].name", "RFC 1123"),
        ("[dev, PROD]", "environments[1]", "RFC 1123"),
        (
            "[dev, [prod]]",
            "environments[1]",
            "an environment's name, or {name: NAME, tier: TIER}",
        ),
    ] {
        let text = with("").replace(shape, &format!("environments: {to}"));
        let error = Catalog::parse(&text).unwrap_err();
        let CatalogError::Shape {
            line, path, message, ..
        } = &error
        else {
            panic!("{to}: {error}");
        };
        assert!(path.starts_with(place), "{to}: {error}");
        assert!(message.contains(words), "{to}: {error}");
        assert_eq!(*line, 2, "{to}: {error}");
    }
    let text = with("").replace("elsewhere]", "{ name: dev, tier: test }]");
    let error = Catalog::parse(&text).unwrap_err().to_string();
    assert_eq!(
        error,
        "environments[3]: dev is already used: names must be unique"
    );
}

#[test]
fn what_is_required_is_of_the_service_and_comes_earlier() {
    let prod = "services.shop.environments[0]";
    for (keys, path, words) in [
        (
            "requires: [staging, qa]",
            "requires[1]",
            "qa is not one of this service's environments: prod, staging, dev",
        ),
        (
            "requires: [elsewhere]",
            "requires[0]",
            "elsewhere is not one of this service's environments: prod, staging, dev",
        ),
        (
            "requires: [prod]",
            "requires[0]",
            "prod is this environment itself: leave it out",
        ),
        (
            "requires: [dev, dev]",
            "requires[1]",
            "dev is already used: names must be unique",
        ),
    ] {
        let error = Catalog::parse(&with(keys)).unwrap_err().to_string();
        assert_eq!(error, format!("{prod}.{path}: {words}"), "{keys}");
    }
    // The order is the catalog's, whatever the order within the service is.
    let text = with("").replace("requires: [dev]", "requires: [prod]");
    assert_eq!(
        Catalog::parse(&text).unwrap_err().to_string(),
        "services.shop.environments[1].requires[0]: prod comes after staging in the order of promotion, which is \
         dev, staging, prod, elsewhere: leave it out, or change the order in environments"
    );
}

/// Whatever they hold, and also where they hold nothing: nobody is to believe that they were heeded.
#[test]
fn reserved_keys_are_refused_with_what_they_will_mean() {
    let service = "    image: registry.example/shop\n";
    for value in ["[mongodb]", "{ a: [1, { b: c }] }", "true", "null", ""] {
        for (key, words) in [
            (
                "depends_on",
                "other services whose rollouts are verified before this one's",
            ),
            ("ci", "the checks that a commit has to pass before it is released"),
        ] {
            let one = with(&format!("{key}: {value}"));
            let all = with("").replacen(service, &format!("{service}    {key}: {value}\n"), 1);
            for (text, path) in [
                (one, format!("services.shop.environments[0].{key}")),
                (all, format!("services.shop.{key}")),
            ] {
                let error = Catalog::parse(&text).unwrap_err();
                let CatalogError::Meaning(faults) = &error else {
                    panic!("{key}: {value}: {error}");
                };
                assert_eq!(faults.len(), 1, "{key}: {value}: {error}");
                assert_eq!(faults[0].path, path, "{value}");
                let told = &faults[0].message;
                assert!(
                    told.starts_with("is not supported yet: leave it out. ") && told.ends_with(words),
                    "{told}"
                );
            }
        }
    }
}

#[test]
fn a_release_has_what_its_environments_require() {
    let catalog = parse(&with("requires: [staging]"));
    let names = |branch, environments: &[&str]| {
        Plan::make(&catalog, &wanted(branch, environments)).map(|plan| {
            let names: Vec<String> = plan.environments.iter().map(|one| one.name.to_string()).collect();
            names.join(" ")
        })
    };
    for (branch, environments, made) in [
        (None, &[][..], "dev staging prod"),
        (Some("main"), &[], "dev staging prod"),
        (None, &["prod", "dev", "staging"], "dev staging prod"),
        (Some("hotfix"), &["dev", "staging", "prod"], "dev staging prod"),
        (None, &["dev"], "dev"),
        (None, &["dev", "staging"], "dev staging"),
    ] {
        assert_eq!(names(branch, environments).as_deref(), Ok(made));
    }
    let refused = |environment: &str, requires: &[&str], add: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        PlanError::LeftOut {
            environment: environment.parse().unwrap(),
            requires: names(requires),
            add: names(add),
        }
    };
    for (branch, environments, refusal) in [
        (
            None,
            &["prod"][..],
            refused("prod", &["staging"], &["dev", "staging"]),
        ),
        (
            None,
            &["dev", "prod"],
            refused("prod", &["staging"], &["staging"]),
        ),
        (None, &["staging"], refused("staging", &["dev"], &["dev"])),
        (None, &["staging", "prod"], refused("staging", &["dev"], &["dev"])),
        (
            Some("hotfix"),
            &[],
            refused("prod", &["staging"], &["dev", "staging"]),
        ),
    ] {
        assert_eq!(names(branch, environments), Err(refusal), "{environments:?}");
    }
    assert_eq!(
        names(None, &["prod"]).unwrap_err().to_string(),
        "environment prod requires staging, which this release leaves out: add dev and staging, or leave prod out"
    );
}

#[test]
fn a_plan_records_tier_and_requirements_and_says_nothing_of_what_is_not_set() {
    let plan = Plan::make(&parse(&with("requires: [dev, staging]")), &wanted(None, &[])).unwrap();
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["environments"][2]["tier"], "production");
    assert_eq!(
        json["environments"][2]["requires"],
        serde_json::json!(["dev", "staging"])
    );
    assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan);

    // Plans that were recorded before there were these keys keep their hash: they say nothing of what is not set.
    for name in ["requested", "requested_full"] {
        let path = format!("{}/tests/golden/release/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let event: ReleaseEvent = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let ReleaseEvent::RequestedV1(request) = event else {
            panic!("{name} is a request of the first form");
        };
        let mut plan = request.plan.clone();
        assert_eq!(
            (plan.environments[0].tier, plan.environments[0].requires.len()),
            (None, 0)
        );
        let recorded = std::mem::take(&mut plan.hash);
        let hash = Sha256::digest(serde_json::to_vec(&plan).unwrap());
        assert_eq!(recorded, format!("sha256:{}", hex::encode(hash)), "{name}");
    }
}
