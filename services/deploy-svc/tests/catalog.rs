//! The catalog: what it accepts, what it refuses and in which words, and how it is reloaded.
#![allow(clippy::unwrap_used)]

#[path = "catalog/delivery.rs"]
mod delivery;
#[path = "catalog/naming.rs"]
mod naming;
#[path = "catalog/order.rs"]
mod order;
#[path = "catalog/shared.rs"]
mod shared;
#[path = "catalog/timeouts.rs"]
mod timeouts;
#[path = "catalog/together.rs"]
mod together;

use std::{fs, time::Duration};

use deploy_domain::catalog::{Catalog, CatalogError, CheckKind, Configured, Port, Supersede, WorkloadKind};
use deploy_svc::testing::CatalogStore;
use pretty_assertions::assert_eq;
use tokio_util::sync::CancellationToken;

const GOOD: &str = r#"
environments: [dev, staging, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    build: { context: app, args: { LOCALE: de }, builder: buildah, timeout: 20m }
    branches:
      - { pattern: "feature/*", environments: [dev] }
      - { pattern: main, environments: [prod, dev, staging] }
    environments:
      - name: staging
        policy: one-approver
        gitops: { repository: platform, branch: main, path: apps/shop/overlays/staging, image: shop }
        target: { cluster: local, namespace: staging, kind: Deployment, name: shop }
      - name: dev
        policy: none
        gitops: { repository: platform, path: apps/shop/overlays/dev }
        target: { cluster: local, namespace: dev, name: shop }
        supersede: wait
        timeout: { gate: 2h, deploy: 90s }
        checks:
          - name: health
            http: { service: shop, port: http, path: /health, body_contains: ok, attempts: 5, interval: 250ms }
          - name: number
            http: { service: shop, port: 8080 }
        verify: { fail_early: false, crash_loop_restarts: 7 }
      - name: prod
        policy: two-approvers
        gitops: { repository: platform, path: apps/shop/overlays/prod }
        target: { cluster: local, namespace: prod, name: shop }
"#;

fn parse(text: &str) -> Catalog {
    Catalog::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_good_catalog_has_defaults_and_the_order_of_promotion() {
    let catalog = parse(GOOD);
    assert!(catalog.hash().starts_with("sha256:"));
    assert_eq!(catalog.hash().len(), 71);
    let shop = catalog.service("shop").unwrap();
    let order: Vec<&str> = shop.environments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(order, ["dev", "staging", "prod"]);
    assert_eq!(shop.build.dockerfile, "Dockerfile");
    assert_eq!(shop.build.timeout, Duration::from_secs(1200));

    let dev = shop.environment("dev").unwrap();
    assert_eq!(dev.target.key(), "local/dev/Deployment/shop");
    assert_eq!(dev.target.kind, WorkloadKind::Deployment);
    assert_eq!(dev.supersede, Supersede::Wait);
    assert_eq!(
        dev.gitops.as_ref().unwrap().image,
        "registry.example/shop",
        "the image's own name where none is given"
    );
    assert_eq!(dev.timeout.deploy, Duration::from_secs(90));
    assert_eq!(dev.timeout.change, Duration::from_secs(600));
    assert_eq!(
        (
            dev.verify.fail_early,
            dev.verify.digest,
            dev.verify.crash_loop_restarts
        ),
        (false, true, 7)
    );
    let CheckKind::Http(health) = &dev.checks[0].kind else {
        panic!("an http check");
    };
    assert_eq!(
        (
            health.patience.attempts,
            health.expect_status,
            health.patience.interval
        ),
        (5, 200, Duration::from_millis(250))
    );
    let CheckKind::Http(number) = &dev.checks[1].kind else {
        panic!("an http check");
    };
    assert_eq!(
        (number.port.as_ref(), number.path.as_str()),
        (Some(&Port::Number(8080)), "/")
    );
}

#[test]
fn an_image_has_the_services_name_unless_the_catalog_gives_it_one() {
    let images = |text: &str| {
        let catalog = parse(text);
        serde_json::to_value(&catalog.service("shop").unwrap().images).unwrap()
    };
    let repository = "registry.example/shop";
    assert_eq!(
        images(GOOD),
        serde_json::json!([{ "name": "shop", "repository": repository }])
    );
    let longer = GOOD.replace(
        "    image: registry.example/shop\n",
        "    images:\n      - { name: web, repository: registry.example/shop }\n",
    );
    assert_eq!(
        images(&longer),
        serde_json::json!([{ "name": "web", "repository": repository }])
    );
    let gitops = parse(&longer).service("shop").unwrap().environments[0]
        .gitops
        .clone();
    assert_eq!(gitops.unwrap().image, repository, "as with the short form");
}

#[test]
fn branches_find_their_environments() {
    let catalog = parse(GOOD);
    let shop = catalog.service("shop").unwrap();
    let of = |branch: &str| {
        shop.environments_of(&branch.parse().unwrap()).map(|names| {
            names
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect::<Vec<_>>()
                .join(",")
        })
    };
    assert_eq!(of("main").as_deref(), Some("dev,staging,prod"));
    assert_eq!(of("feature/x").as_deref(), Some("dev"));
    assert_eq!(of("feature/x/y"), None, "one * does not cross a /");
    assert_eq!(of("mainline"), None);
    let deep = parse(&GOOD.replace("feature/*", "feature/**"));
    let branch = "feature/x/y".parse().unwrap();
    assert!(deep.service("shop").unwrap().environments_of(&branch).is_some());
}

#[test]
fn unknown_names_are_answered_with_those_there_are() {
    let catalog = parse(GOOD);
    assert_eq!(
        catalog.service("shopp").unwrap_err().to_string(),
        r#"no service "shopp" in the catalog: there are shop"#
    );
    assert_eq!(
        catalog
            .service("shop")
            .unwrap()
            .environment("test")
            .unwrap_err()
            .to_string(),
        r#"no environment "test" of service shop in the catalog: there are dev, staging, prod"#
    );
}

#[test]
fn a_wrong_shape_is_named_by_line_and_key() {
    for (from, to, line, path, words) in [
        (
            "supersede: wait",
            "superseed: wait",
            20,
            "services[0].environments[1]",
            "unknown field `superseed`",
        ),
        (
            "supersede: wait",
            "supersede: never",
            20,
            "services[0].environments[1].supersede",
            "never",
        ),
        (
            "policy: none",
            "policy: No_ne",
            17,
            "services[0].environments[1].policy",
            "RFC 1123",
        ),
        (
            "timeout: 20m",
            "timeout: soon",
            7,
            "services[0].build.timeout",
            "write it like",
        ),
        (
            "attempts: 5",
            "attempts: many",
            24,
            "services[0].environments[1].checks[0].http",
            "",
        ),
        (
            "kind: Deployment",
            "kind: Pod",
            15,
            "services[0].environments[0].target.kind",
            "Deployment",
        ),
        (
            "environments: [dev, staging, prod]\nservices",
            "environments: [dev\nservices",
            3,
            "",
            "",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = Catalog::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        let CatalogError::Shape {
            line: at,
            path: place,
            message,
            ..
        } = &error
        else {
            panic!("{to}: {error}");
        };
        assert!(message.contains(words), "{to}: {error}");
        assert!(place.starts_with(path), "{to}: {error}");
        assert_eq!(*at, line, "{to}: {error}");
    }
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let dev = "services.shop.environments[1]";
    for (from, to, path, words) in [
        (
            "[dev, staging, prod]",
            "[dev, staging]",
            "services.shop.environments[2].name",
            "dev, staging",
        ),
        (
            "[dev, staging, prod]",
            "[dev, staging, prod, dev]",
            "environments[3]",
            "unique",
        ),
        (
            "environments: [dev] }",
            "environments: [test] }",
            "services.shop.branches[0].environments[0]",
            "staging, dev, prod",
        ),
        (
            "\"feature/*\"",
            "\"feature/..\"",
            "services.shop.branches[0].pattern",
            "branch name",
        ),
        (
            "https://git.example",
            "https://bot:secret@git.example",
            "services.shop.repository",
            "password",
        ),
        (
            "context: app",
            "context: ../app",
            "services.shop.build.context",
            "without ..",
        ),
        (
            "timeout: 20m",
            "timeout: 20h",
            "services.shop.build.timeout",
            "at most 6h",
        ),
        (
            "overlays/dev ",
            "../dev ",
            &format!("{dev}.gitops.path"),
            "without ..",
        ),
        (
            "namespace: dev",
            "namespace: staging",
            &format!("{dev}.target"),
            "environment staging",
        ),
        (
            "path: /health",
            "path: health",
            &format!("{dev}.checks[0].http.path"),
            "absolute",
        ),
        (
            "name: number",
            "name: health",
            &format!("{dev}.checks[1]"),
            "unique",
        ),
        (
            "    image: registry.example/shop\n",
            "",
            "services.shop.image",
            "is missing",
        ),
        (
            "    image: registry.example/shop\n",
            "    image: registry.example/shop\n    images: [{ name: web, repository: registry.example/shop }]\n",
            "services.shop.images",
            "one of the two",
        ),
        (
            "    image: registry.example/shop\n",
            "    images: []\n",
            "services.shop.images",
            "give exactly one",
        ),
        (
            "    image: registry.example/shop\n",
            "    images: [{ name: web, repository: r.example/web }, { name: worker, repository: r.example/worker }]\n",
            "services.shop.images",
            "several images are not supported yet",
        ),
        (
            "interval: 250ms",
            "interval: 1h",
            &format!("{dev}.checks[0].http"),
            "one hour",
        ),
        (
            "timeout: { gate: 2h",
            "timeout: { gate: 0s",
            &format!("{dev}.timeout.gate"),
            "more than 0s",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = Catalog::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        let CatalogError::Meaning(faults) = &error else {
            panic!("{to}: {error}");
        };
        let fault = &faults[0];
        assert_eq!(fault.path, path, "{to}: {error}");
        assert!(fault.message.contains(words), "{to}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let text = GOOD
        .replace("context: app", "context: /app")
        .replace("pattern: main", "pattern: /main");
    let CatalogError::Meaning(faults) = Catalog::parse(&text).unwrap_err() else {
        panic!("expected faults");
    };
    assert_eq!(faults.len(), 2, "{faults:?}");
}

/// Without a follower: whoever saves the file and asks at once gets what was saved.
#[test]
fn a_miss_looks_at_the_file_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.yaml");
    fs::write(&path, "environments: [dev]\nservices: []\n").unwrap();
    let store = CatalogStore::open(&path).unwrap();
    let find = |name: &str| {
        store
            .find(|catalog| catalog.service(name).map(|service| service.name.to_string()))
            .map_err(|miss| miss.to_string())
    };
    assert!(find("shop").unwrap_err().contains("it is empty"));
    fs::write(&path, GOOD).unwrap();
    assert_eq!(find("shop").as_deref(), Ok("shop"));

    // Saved so soon that neither time nor size tell that it was: another name of the same length.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(
        &path,
        GOOD.replace("name: shop\n    repo", "name: sold\n    repo"),
    )
    .unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(find("sold").as_deref(), Ok("sold"));

    // What is in the catalog counts as it was saved last, too.
    fs::write(&path, GOOD.replace("policy: none", "policy: one-approver")).unwrap();
    let policy = |name: &str| {
        let found = store.find(|catalog| {
            let environment = catalog.service(name)?.environment("dev")?;
            Ok::<_, deploy_domain::catalog::UnknownName>(environment.policy.to_string())
        });
        found.unwrap()
    };
    assert_eq!(policy("shop"), "one-approver");

    // A file with a mistake: what is in force still answers, and a miss says why the file does not.
    fs::write(&path, GOOD.replace("name: shop\n    repo", "nam: mail\n    repo")).unwrap();
    assert_eq!(find("shop").as_deref(), Ok("shop"));
    let error = find("mail").unwrap_err();
    for words in [
        "in the catalog: there are shop",
        "the catalog file cannot be used",
        "catalog.yaml",
        "line 4",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn a_changed_file_comes_into_force_and_a_bad_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.yaml");
    fs::write(&path, GOOD).unwrap();
    let store = CatalogStore::open(&path).unwrap();
    let first = store.current().hash().to_owned();

    fs::write(&path, GOOD.replace("name: shop\n    repo", "nam: shop\n    repo")).unwrap();
    let error = store.reload().unwrap_err().to_string();
    assert!(
        error.contains("catalog.yaml") && error.contains("line 4"),
        "{error}"
    );
    assert_eq!(store.current().hash(), first);

    // The same through the follower: it picks up the next good file by itself.
    let shutdown = CancellationToken::new();
    let follower = tokio::spawn(store.clone().follow(shutdown.clone()));
    fs::write(&path, GOOD.replace("policy: none", "policy: one-approver")).unwrap();
    slipway_testbed::eventually("the new catalog comes into force", async || {
        slipway_testbed::holds(store.current().hash().to_owned(), |hash| *hash != first)
    })
    .await;
    shutdown.cancel();
    follower.await.unwrap();

    // What the configuration does not have is no better than a mistake.
    let other = Configured {
        clusters: vec!["other".parse().unwrap()],
        ..Configured::default()
    };
    let words = "services.shop.environments.dev.target.cluster: no cluster local in this service's configuration, \
                 which has other: fix";
    let error = store.clone().within(other).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
    let here = Configured {
        clusters: vec!["local".parse().unwrap(), "other".parse().unwrap()],
        ..Configured::default()
    };
    let store = store.within(here).unwrap();
    let before = store.current().hash().to_owned();
    fs::write(&path, GOOD.replacen("cluster: local", "cluster: moon", 1)).unwrap();
    let error = store.reload().unwrap_err().to_string();
    assert!(
        error.contains("environments.staging.target.cluster: no cluster moon")
            && error.contains("which has local, other"),
        "{error}"
    );
    assert_eq!(store.current().hash(), before);

    assert!(
        CatalogStore::open(folder.path().join("absent.yaml"))
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}
