//! How an environment takes a change: kinds of targets, gates, strategies, Jobs, and what does not go together.

use std::time::Duration;

use deploy_domain::{
    catalog::{
        Action, Blocked, Catalog, CatalogError, Gate, Mode, OnFailure, Pauses, Strategy, WorkloadKind,
    },
    plan::{Plan, PlanRequest},
};
use pretty_assertions::assert_eq;

use super::parse;

/// A service with one environment of these keys.
fn with(keys: &str) -> String {
    let keys = keys.trim().replace('\n', "\n        ");
    format!(
        "
environments: [prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: prod
        policy: two
        {keys}
"
    )
}

/// A target of this kind.
fn target(kind: &str) -> String {
    format!("target: {{ cluster: main, namespace: shop, kind: {kind}, name: shop }}")
}

const GIT: &str = "gitops: { repository: platform, path: apps/shop/prod }";

fn plan(catalog: &Catalog) -> Plan {
    let wanted = PlanRequest {
        service: "shop".to_owned(),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
        branch: None,
        git_tag: None,
        environments: Vec::new(),
    };
    Plan::make(catalog, &wanted).unwrap()
}

#[test]
fn every_kind_of_target_has_its_catalog() {
    for kind in [
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Application",
        "Rollout",
        "Canary",
    ] {
        let catalog = parse(&with(&format!("{}\n{GIT}", target(kind))));
        let prod = &catalog.services()[0].environments[0];
        assert_eq!(prod.target.kind.as_str(), kind);
        assert_eq!((prod.gate, prod.action), (Gate::BeforeCommit, Action::Apply));
        assert_eq!(prod.on_failure, OnFailure::RollBack);
    }
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        let catalog = parse(&with(&target(kind)));
        assert_eq!(catalog.services()[0].environments[0].gitops, None);
    }
}

#[test]
fn everything_that_an_environment_can_say_is_in_the_plan() {
    let catalog = parse(&with(
        r"
target: { cluster: main, namespace: argocd, kind: Application, name: shop }
gitops: { repository: platform, branch: main, strategy: helm, file: charts/shop/prod.yaml, value: web.image, mode: pull_request }
gate: before_sync
argo_cd: { also: [shop-jobs], when_busy: refuse, when_closed: wait, prune: true, sync_options: [ServerSideApply=true], appear_within: 5m, require_synced: true }
pauses: promote
jobs:
  before:
    - name: migrate
      namespace: shop
      retries: 2
      timeout: 20m
      pod:
        serviceAccountName: migrate
        containers:
          - { name: migrate, args: [migrate], resources: { limits: { cpu: 1, memory: 1Gi } }, env: [{ name: A, value: b }] }
          - { name: proxy, image: registry.example/proxy:1 }
        volumes: [{ name: scratch, emptyDir: {} }]
  after: [{ name: smoke, namespace: shop, pod: { containers: [{ name: smoke }] } }]
bake: { for: 15m, interval: 1m, metrics: [{ name: errors, query: 'sum(rate(errors[5m]))', max: 0.01 }] }
verify: { progress_deadline: 8m }
on_failure: stay
timeout: { change: 168h, deploy: 240h }",
    ));
    let prod = &plan(&catalog).environments[0];
    let gitops = prod.gitops.as_ref().unwrap();
    assert_eq!(prod.gate, Gate::BeforeSync);
    assert_eq!(gitops.mode, Mode::PullRequest);
    assert_eq!(
        gitops.strategy,
        Strategy::Helm {
            file: "charts/shop/prod.yaml".to_owned(),
            value: "web.image".to_owned()
        }
    );
    assert_eq!(
        gitops.path, "charts/shop",
        "the file's folder where none is named"
    );
    assert_eq!(prod.argo_cd.also, ["shop-jobs"]);
    assert_eq!(
        (prod.argo_cd.when_busy, prod.argo_cd.when_closed),
        (Blocked::Refuse, Blocked::Wait)
    );
    assert!(prod.argo_cd.prune);
    assert_eq!(prod.argo_cd.appear_within, Duration::from_secs(300));
    assert!(prod.argo_cd.require_synced);
    assert_eq!(prod.pauses, Pauses::Promote, "of a Rollout inside");
    let [migrate] = &prod.jobs.before[..] else {
        panic!("one Job before")
    };
    assert_eq!((migrate.retries, migrate.timeout), (2, Duration::from_secs(1200)));
    assert_eq!(migrate.pod["containers"][1]["image"], "registry.example/proxy:1");
    assert_eq!(prod.jobs.after[0].name.as_str(), "smoke");
    assert_eq!(
        prod.bake.as_ref().map(|bake| bake.period),
        Some(Duration::from_secs(900))
    );
    assert_eq!(prod.verify.progress_deadline, Some(Duration::from_secs(480)));
    assert_eq!(prod.on_failure, OnFailure::Stay);

    let json = serde_json::to_string(prod).unwrap();
    let read: deploy_domain::plan::PlannedEnvironment = serde_json::from_str(&json).unwrap();
    assert_eq!(&read, prod, "plans are stored as JSON");
}

#[test]
fn strategies_have_what_they_need() {
    let strategy = |gitops: &str, more: &str| {
        let catalog = parse(&with(&format!(
            "{}\ngitops: {gitops}\n{more}",
            target("Deployment")
        )));
        catalog.services()[0].environments[0].clone()
    };
    let manifest = strategy(
        "{ repository: platform, path: apps/shop, strategy: manifest, file: apps/shop/web.yaml }",
        "",
    );
    assert_eq!(
        manifest.gitops.unwrap().strategy,
        Strategy::Manifest {
            file: "apps/shop/web.yaml".to_owned()
        }
    );
    let marker = strategy("{ repository: platform, strategy: marker }", "action: restart");
    assert_eq!(
        (marker.action, marker.gitops.unwrap().strategy),
        (Action::Restart, Strategy::Marker)
    );
    let asks = strategy(
        "{ repository: platform, strategy: marker }",
        "action: restart\ngate: before_sync",
    );
    assert_eq!(asks.gate, Gate::BeforeSync);
    let pauses = parse(&with(&format!("{}\n{GIT}\npauses: promote", target("Rollout"))));
    assert_eq!(pauses.services()[0].environments[0].pauses, Pauses::Promote);
    let grouped = parse(&with(&format!("{}\n{GIT}", target("Application"))));
    assert_eq!(
        grouped.services()[0].environments[0].target.kind,
        WorkloadKind::Application
    );
}

#[test]
fn what_does_not_go_together_is_refused_with_a_remedy() {
    let deployment = target("Deployment");
    let application = target("Application");
    let kinds = |kind: &str| target(kind);
    let job =
        |pod: &str| format!("{deployment}\n{GIT}\njobs: {{ before: [{{ name: migrate, pod: {pod} }}] }}");
    for (keys, path, words) in [
        // gitops
        (
            kinds("Application"),
            "gitops",
            "of an Application, the image comes from git",
        ),
        (kinds("Rollout"), "gitops", "of a Rollout"),
        (
            format!("{deployment}\ngitops: {{ repository: platform }}"),
            "gitops.path",
            "folder of the kustomization",
        ),
        (
            format!(
                "{deployment}\ngitops: {{ repository: platform, path: a, strategy: helm, file: a/values.yaml, value: image }}"
            ),
            "gitops.strategy",
            "rendered by Argo CD alone",
        ),
        (
            format!("{application}\ngitops: {{ repository: platform, strategy: helm, file: a/values.yaml }}"),
            "gitops.value",
            "such as image or web.image.tag",
        ),
        (
            format!("{application}\ngitops: {{ repository: platform, strategy: helm, value: image }}"),
            "gitops.file",
            "edit one file",
        ),
        (
            format!(
                "{application}\ngitops: {{ repository: platform, strategy: helm, file: ../values.yaml, value: image }}"
            ),
            "gitops.file",
            "without ..",
        ),
        (
            format!(
                "{application}\ngitops: {{ repository: platform, strategy: helm, file: values.yaml, value: web..image }}"
            ),
            "gitops.value",
            "with dots between",
        ),
        (
            format!("{deployment}\ngitops: {{ repository: platform, path: a, file: a/values.yaml }}"),
            "gitops.file",
            "not for this strategy",
        ),
        (
            format!("{deployment}\ngitops: {{ repository: platform, strategy: manifest, file: a/web.yaml }}"),
            "gitops.path",
            "its kustomization lists the file",
        ),
        (
            format!(
                "{deployment}\ngitops: {{ repository: platform, path: a, strategy: manifest, file: a/web.yaml, image: shop }}"
            ),
            "gitops.image",
            "leave it out",
        ),
        (
            format!(
                "{deployment}\naction: restart\ngitops: {{ repository: platform, path: a, strategy: marker }}"
            ),
            "gitops.path",
            "a marker commit changes no folder",
        ),
        // action
        (
            format!("{deployment}\n{GIT}\naction: restart"),
            "action",
            "strategy marker",
        ),
        (
            format!("{deployment}\naction: restart"),
            "action",
            "strategy marker",
        ),
        (
            format!(
                "{}\ngitops: {{ repository: platform, strategy: marker }}\naction: restart",
                kinds("Rollout")
            ),
            "action",
            "only a Deployment, StatefulSet or DaemonSet can be restarted",
        ),
        (
            format!("{deployment}\ngitops: {{ repository: platform, strategy: marker }}"),
            "gitops.strategy",
            "action: restart",
        ),
        // gate
        (
            format!("{deployment}\ngate: before_sync"),
            "gate",
            "there is no commit",
        ),
        // argo_cd and pauses
        (
            format!("{deployment}\n{GIT}\nargo_cd: {{ prune: true }}"),
            "argo_cd",
            "Application only",
        ),
        (
            format!("{application}\n{GIT}\nargo_cd: {{ also: [shop] }}"),
            "argo_cd.also[0]",
            "synced already",
        ),
        (
            format!("{application}\n{GIT}\nargo_cd: {{ appear_within: 2h }}"),
            "argo_cd.appear_within",
            "at most 1h",
        ),
        (
            format!("{application}\n{GIT}\nargo_cd: {{ also: [Shop] }}"),
            "argo_cd.also[0]",
            "RFC 1123",
        ),
        (
            format!("{application}\n{GIT}\nargo_cd: {{ sync_options: [Prune] }}"),
            "argo_cd.sync_options[0]",
            "NAME=VALUE",
        ),
        (
            format!("{deployment}\n{GIT}\npauses: promote"),
            "pauses",
            "Rollout or a Canary",
        ),
        (
            format!("{}\n{GIT}\npauses: promote", target("Canary")),
            "pauses",
            "the service that answers Flagger's webhooks",
        ),
        // times
        (
            format!("{deployment}\n{GIT}\ntimeout: {{ change: 48h }}"),
            "timeout.change",
            "more than 0s and at most 24h",
        ),
        (
            format!("{deployment}\n{GIT}\ntimeout: {{ deploy: 48h }}"),
            "timeout.deploy",
            "more than 0s and at most 24h",
        ),
        (
            format!("{application}\n{GIT}\ntimeout: {{ deploy: 721h }}"),
            "timeout.deploy",
            "at most 720h",
        ),
        (
            format!("{deployment}\n{GIT}\nverify: {{ progress_deadline: 0s }}"),
            "verify.progress_deadline",
            "more than 0s",
        ),
        // Jobs
        (
            job("{ containers: [] }"),
            "jobs.before[0].pod.containers",
            "at least one container",
        ),
        (
            job("{ containers: [{ name: a, arg: [b] }] }"),
            "jobs.before[0].pod.containers[0].arg",
            "is not a field of a Kubernetes PodSpec",
        ),
        (
            job("{ containers: [{ name: a, securityContext: { runAsRoot: false } }] }"),
            "jobs.before[0].pod.containers[0].securityContext.runAsRoot",
            "is not a field of a Kubernetes PodSpec",
        ),
        (
            job("{ containers: [{ name: a, env: [{ name: A, value: 1 }] }] }"),
            "jobs.before[0].pod.containers[0].env[0].value",
            "as Kubernetes has it",
        ),
        (
            job("{ containers: [{ name: a }, { name: a }] }"),
            "jobs.before[0].pod.containers[1].name",
            "unique",
        ),
        (
            job("{ containers: [{ name: a, image: '' }] }"),
            "jobs.before[0].pod.containers[0].image",
            "leave it out",
        ),
        (
            job("{ restartPolicy: Always, containers: [{ name: a }] }"),
            "jobs.before[0].pod.restartPolicy",
            "has to end",
        ),
        (
            format!(
                "{deployment}\n{GIT}\njobs: {{ before: [{{ name: a, pod: {{ containers: [{{ name: a }}] }} }}], after: [{{ name: a, pod: {{ containers: [{{ name: a }}] }} }}] }}"
            ),
            "jobs.after[0]",
            "before and after together",
        ),
        (
            format!(
                "{application}\n{GIT}\njobs: {{ before: [{{ name: a, pod: {{ containers: [{{ name: a }}] }} }}] }}"
            ),
            "jobs.before[0].namespace",
            "name the one that the Job runs in",
        ),
        (
            format!(
                "{deployment}\n{GIT}\njobs: {{ before: [{{ name: a, timeout: 25h, pod: {{ containers: [{{ name: a }}] }} }}] }}"
            ),
            "jobs.before[0].timeout",
            "more than 0s and at most 24h",
        ),
        // checks
        (
            format!("{deployment}\n{GIT}\nchecks: [{{ name: smoke, job: {{}} }}]"),
            "checks[0].job",
            "jobs.after",
        ),
        (
            format!("{deployment}\n{GIT}\nchecks: [{{ name: none }}]"),
            "checks[0]",
            "give http, grpc or tcp",
        ),
        (
            format!(
                "{deployment}\n{GIT}\nchecks: [{{ name: two, tcp: {{ address: 'a:1' }}, grpc: {{ address: 'a:1' }} }}]"
            ),
            "checks[0]",
            "a check of its own",
        ),
    ] {
        let error = Catalog::parse(&with(&keys)).expect_err(&keys);
        let CatalogError::Meaning(faults) = &error else {
            panic!("{keys}: {error}");
        };
        let path = format!("services.shop.environments[0].{path}");
        let found = faults
            .iter()
            .find(|fault| fault.path == path && fault.message.contains(words));
        assert!(found.is_some(), "{keys}\n{path}: {words}\n{error}");
        assert_eq!(faults.len(), 1, "{keys}: {error}");
    }
}

/// Where another environment of the service deploys the same folder, its sync would take the commit along before anybody
/// approved it.
#[test]
fn a_gate_before_the_sync_needs_a_folder_that_no_other_environment_of_the_service_deploys() {
    let shared = |strategy: &str, other: &str| {
        let gitops = |place: &str| match strategy {
            "helm" => format!("strategy: helm, file: charts/shop/{place}.yaml, value: image"),
            _ => format!("path: apps/{place}"),
        };
        format!(
            "
environments: [dev, prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: {{ repository: platform, {} }}
        target: {{ cluster: main, namespace: argocd, kind: Application, name: shop-dev }}
      - name: prod
        policy: two
        gate: before_sync
        gitops: {{ repository: platform, {} }}
        target: {{ cluster: main, namespace: argocd, kind: Application, name: shop }}
",
            gitops(other),
            gitops("prod")
        )
    };
    parse(&shared("kustomize", "dev"));
    parse(&shared("helm", "dev"));
    for strategy in ["kustomize", "helm"] {
        let error = Catalog::parse(&shared(strategy, "prod")).unwrap_err().to_string();
        assert!(
            error.starts_with("services.shop.environments[1].gate: "),
            "{error}"
        );
        assert!(
            error.contains("environment dev of service shop") && error.contains("write before_commit"),
            "{error}"
        );
    }
}

/// The complete example is one, and really complete.
#[test]
fn the_example_is_valid_and_names_every_key() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(folder.join("catalog.example.yaml")).unwrap();
    let catalog = parse(&text);
    assert_eq!(catalog.services().len(), 4);
    // Serde names all keys that a place knows when it meets one that it does not.
    let unknown = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let error = Catalog::parse(&text.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        let (_, known) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
        let keys: Vec<String> = known
            .trim_start_matches("one of ")
            .split([',', ' '])
            .map(|key| key.trim_matches('`').to_owned())
            .filter(|key| !key.is_empty() && key != "or")
            .collect();
        assert!(keys.len() > 1, "{error}");
        keys
    };
    let reference = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for (from, to) in [
        ("{ name: dev, tier", "{ no: 1, name: dev, tier"),
        ("    repository: https", "    no: 1\n    repository: https"),
        ("      context: .", "      no: 1\n      context: ."),
        ("        policy: none", "        no: 1\n        policy: none"),
        (
            "          cluster: main ",
            "          no: 1\n          cluster: main ",
        ),
        (
            "          branch: main",
            "          no: 1\n          branch: main",
        ),
        ("{ gate: 24h, ", "{ no: 1, gate: 24h, "),
        (
            "              retries: 0",
            "              no: 1\n              retries: 0",
        ),
        ("          for: 15m", "          no: 1\n          for: 15m"),
        (
            "              failure_limit: 1",
            "              no: 1\n              failure_limit: 1",
        ),
        (
            "          fail_early: true",
            "          no: 1\n          fail_early: true",
        ),
        (
            "          when_busy: wait",
            "          no: 1\n          when_busy: wait",
        ),
    ] {
        for key in unknown(from, to) {
            let shown = text.contains(&format!("{key}:"));
            assert!(shown || key == "job", "{key} is not in the example");
            let documented = [format!("`{key}"), format!(".{key}`"), format!(".{key}[")];
            assert!(
                documented.iter().any(|form| reference.contains(form)) || key == "job",
                "{key} is not in the reference"
            );
        }
    }
}

/// What the documentation shows can be copied.
#[test]
fn the_examples_of_the_documentation_are_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let catalogs: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.starts_with("environments:"))
        .collect();
    assert_eq!(catalogs.len(), 1, "the README has one catalog");
    parse(catalogs[0]);
    let reference = std::fs::read_to_string(root.join("services/deploy-svc/README.md")).unwrap();
    let targets: Vec<&str> = reference
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.contains("\nservices:"))
        .collect();
    assert_eq!(targets.len(), 6, "the reference has one catalog for each kind");
    for catalog in targets {
        parse(catalog);
    }
    parse(&std::fs::read_to_string(root.join("deploy/kubernetes/base/config/catalog.yaml")).unwrap());
}
