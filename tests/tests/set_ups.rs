//! Set-ups of teams, from a commit to a verified rollout and back: local-cluster, or the cluster of
//! `SLIPWAY_TEST_KUBECONFIG`.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use slipway_proto::release::v1::{Release, StartReleaseRequest, release::Status, step};
use slipway_tests::{
    Options, Suite, Version,
    clients::told,
    eventually, holds,
    scene::{SetUp, trailer},
    suite::Shared,
};

static SUITE: Shared = Shared::new();

async fn suite() -> Arc<Suite> {
    SUITE
        .get(|| Options {
            replicas: 1,
            set_ups: vec![
                one_folder(),
                one_application(),
                moving_tag(),
                canary(),
                together(),
            ],
            ..Options::default()
        })
        .await
}

#[track_caller]
fn assert_status(release: &Release, wanted: Status) {
    assert_eq!(release.status(), wanted, "{}", told(Some(release)));
}

fn file(path: impl Into<String>, text: impl Into<String>) -> (String, String) {
    (path.into(), text.into())
}

/// A Deployment and its Service.
fn workload(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: {image}
          ports: [{{ name: http, containerPort: 8080, protocol: TCP }}]
          readinessProbe: {{ httpGet: {{ path: /version, port: http }}, periodSeconds: 1 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  selector: {{ app: {name} }}
  ports: [{{ name: http, port: 80, targetPort: http, protocol: TCP }}]
"
    )
}

/// An entry of the catalog: the environments follow.
fn entry(name: &str, more: &str, environments: &[&str]) -> String {
    format!(
        "  - name: {name}\n    repository: \"${{SOURCES}}/{name}.git\"\n    image: \"${{IMAGES}}/{name}\"\n{more}    \
         branches: [{{ pattern: main, environments: [{}] }}]\n    environments:\n",
        environments.join(", ")
    )
}

fn health(name: &str) -> String {
    format!(
        "        checks: [{{ name: health, http: {{ service: {name}, port: http, path: /health, attempts: 3, interval: 100ms }} }}]\n"
    )
}

// --- several services in one folder -----------------------------------------------------------------------------------

const SHOP: [&str; 3] = ["payment", "campaign", "frontend"];

/// Three services in `environments/production`, each deployed by itself.
fn one_folder() -> SetUp {
    let catalog = SHOP.map(|name| {
        entry(name, "", &["prod"])
            + &format!(
                "      - name: prod\n        policy: one\n        \
                 gitops: {{ repository: platform, branch: main, path: environments/production, image: {name} }}\n        \
                 target: {{ cluster: local, namespace: \"shop${{SCOPE}}\", name: {name} }}\n"
            )
            + &health(name)
    });
    let resources = SHOP.map(|name| format!("{name}.yaml")).join(", ");
    let images = SHOP
        .map(|name| format!("  - name: {name}\n    newTag: none\n"))
        .concat();
    let kustomization = format!("namespace: shop${{SCOPE}}\nresources: [{resources}]\nimages:\n{images}");
    let mut files = vec![file("environments/production/kustomization.yaml", kustomization)];
    files.extend(SHOP.map(|name| {
        let path = format!("environments/production/{name}.yaml");
        file(path, workload(name, name))
    }));
    SetUp {
        services: SHOP.to_vec(),
        namespaces: vec!["shop"],
        catalog: catalog.concat(),
        files,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_share_a_folder_take_turns() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    take_turns(&suite, &SHOP).await;
    let namespace = suite.scoped("shop");
    for name in SHOP {
        assert_eq!(suite.cluster.get(&namespace, name, "version").unwrap(), "A");
    }

    // A bad version of one of them: that one is put back, and the others are not touched.
    let pods = |name: &str| suite.cluster.pods(&namespace, name);
    let before = [pods("campaign"), pods("frontend")];
    let commit = suite.application("payment").commit(Version::Sick("B"));
    let release = alice.start("payment", &commit).await;
    bob.approve(&bob.approval_for(&release.id, "prod").await)
        .await
        .unwrap();
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::RolledBack);
    assert_eq!(suite.cluster.get(&namespace, "payment", "version").unwrap(), "A");
    assert_eq!([pods("campaign"), pods("frontend")], before);
}

/// Releases of all of them at once: each is approved in its turn, and none takes the place of another.
async fn take_turns(suite: &Suite, services: &[&'static str]) {
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    let mut releases = Vec::new();
    for service in services {
        let commit = suite.application(service).commit(Version::Good("A"));
        releases.push(alice.start(service, &commit).await);
    }
    let through = releases.iter().map(|release| {
        let (alice, bob) = (&alice, &bob);
        async move {
            let approval = bob.approval_for(&release.id, "prod").await;
            bob.approve(&approval).await.unwrap();
            alice.finished(&release.id).await
        }
    });
    let mut turns = Vec::new();
    for release in futures::future::join_all(through).await {
        assert_status(&release, Status::Succeeded);
        let entered = release
            .steps
            .iter()
            .find(|step| step.kind() == step::Kind::Lane)
            .unwrap();
        let nanos = |time: prost_types::Timestamp| (time.seconds, time.nanos);
        turns.push((nanos(entered.end_time.unwrap()), nanos(release.end_time.unwrap())));
    }
    turns.sort_unstable();
    for pair in turns.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "one after the other: {turns:?}");
    }
    for service in services {
        assert_eq!(suite.gitops.commits_of(service).len(), 1);
    }
}

// --- several services in one Application ------------------------------------------------------------------------------

const MALL: [&str; 2] = ["till", "mail"];

/// Two services in one folder, which one Application syncs.
fn one_application() -> SetUp {
    let catalog = MALL.map(|name| {
        entry(name, "", &["prod"])
            + &format!(
                "      - name: prod\n        policy: one\n        \
                 gitops: {{ repository: platform, branch: main, path: environments/mall, image: {name} }}\n        \
                 target: {{ cluster: local, namespace: argocd, kind: Application, name: mall }}\n"
            )
    });
    let images = MALL
        .map(|name| format!("  - name: {name}\n    newTag: none\n"))
        .concat();
    let mut files = vec![file(
        "environments/mall/kustomization.yaml",
        format!("namespace: mall${{SCOPE}}\nresources: [till.yaml, mail.yaml]\nimages:\n{images}"),
    )];
    files.extend(MALL.map(|name| file(format!("environments/mall/{name}.yaml"), workload(name, name))));
    SetUp {
        services: MALL.to_vec(),
        namespaces: vec!["mall", "argocd"],
        catalog: catalog.concat(),
        files,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_share_an_application_warn_of_each_other_through_applications_of_argo_cd() {
    let suite = suite().await;
    assert!(
        suite.has_argo_cd(),
        "nothing is known to sync Applications in the cluster that is given: leave this test out with \
         --skip through_applications_of_argo_cd"
    );
    suite.cluster.apply(&json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": "mall", "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": suite.gitops.repository.url(), "targetRevision": "main", "path": "environments/mall"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "mall"},
        },
    }));
    // The first of them is released while the other's image does not exist yet: that is a warning, which names it.
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    for (service, warned) in [("till", true), ("mail", false)] {
        let commit = suite.application(service).commit(Version::Good("A"));
        let release = alice.start(service, &commit).await;
        bob.approve(&bob.approval_for(&release.id, "prod").await)
            .await
            .unwrap();
        let release = alice.finished(&release.id).await;
        assert_status(&release, Status::Succeeded);
        assert_eq!(suite.cluster.get("mall", service, "version").unwrap(), "A");
        let deploy = release
            .steps
            .iter()
            .rfind(|step| step.kind() == step::Kind::Deploy)
            .unwrap();
        let warnings = alice.deployment(&deploy.r#ref).await.warnings;
        assert_eq!(
            warnings.iter().any(|words| words.contains("mail")),
            warned,
            "{warnings:?}"
        );
    }
}

// --- a moving tag ------------------------------------------------------------------------------------------------------

/// A marker commit, then the gate, then the restart; staging pulls `latest`, and releases of Git tags are named by them.
fn moving_tag() -> SetUp {
    let build = "    build: { latest: main, version: \"{{git_tag|short_commit}}\" }\n";
    SetUp {
        services: vec!["docs"],
        namespaces: vec!["docs"],
        catalog: entry("docs", build, &["staging"])
            + "      - name: staging\n        policy: one\n        gate: before_sync\n        action: restart\n        \
               gitops: { repository: platform, branch: main, strategy: marker }\n        \
               target: { cluster: local, namespace: \"docs${SCOPE}\", name: docs }\n",
        files: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moving_tag_is_restarted_by_its_digest_after_the_gate() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    let namespace = suite.scoped("docs");
    // It is there before Slipway, and its image is not: nothing has been pushed yet.
    let latest = format!("{}:latest", suite.image("docs"));
    suite.cluster.apply_text(&workload("docs", &latest), &namespace);
    let application = suite.application("docs");
    let commit = application.commit(Version::Good("one"));
    let request = |commit: &str, git_tag: &str| StartReleaseRequest {
        service: "docs".to_owned(),
        commit: commit.to_owned(),
        branch: "main".to_owned(),
        git_tag: git_tag.to_owned(),
        ..StartReleaseRequest::default()
    };
    let release = alice.try_start(request(&commit, "")).await.unwrap();
    let approval = bob.approval_for(&release.id, "staging").await;
    let markers = suite.gitops.commits_of("docs");
    assert_eq!(markers.len(), 1, "the marker comes before the gate: {markers:?}");
    for (name, value) in [
        ("Environment", "staging"),
        ("Slipway-Release", release.id.as_str()),
        ("Commit", commit.as_str()),
    ] {
        assert_eq!(trailer(&markers[0], name), Some(value), "{}", markers[0].message);
    }
    bob.approve(&approval).await.unwrap();
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::Succeeded);
    let digest = release.images[0].digest.clone();
    assert_eq!(suite.cluster.get(&namespace, "docs", "version").unwrap(), "one");
    // The pods of before are going.
    let running = || {
        suite
            .cluster
            .running_digests(&namespace)
            .into_iter()
            .collect::<BTreeSet<_>>()
    };
    eventually("only the new pods are there", async || {
        holds(running(), |running| {
            running.len() == 1 && running.contains(&digest)
        })
    })
    .await;
    let tags = suite.tags("docs").await;
    for tag in ["latest", commit.as_str(), &commit[..7]] {
        assert!(tags.iter().any(|one| one == tag), "{tag} in {tags:?}");
    }

    // A no: nothing is restarted, and a second marker says so. A Git tag names the image.
    let commit = application.commit(Version::Good("two"));
    let release = alice.try_start(request(&commit, "v2.0.0")).await.unwrap();
    bob.reject(&bob.approval_for(&release.id, "staging").await)
        .await
        .unwrap();
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::Failed);
    assert_eq!(release.reason.unwrap().code, "REJECTED");
    assert_eq!(running(), BTreeSet::from([digest]));
    let markers = suite.gitops.commits_of("docs");
    assert_eq!(markers.len(), 3, "{markers:?}");
    let tags = suite.tags("docs").await;
    assert!(tags.iter().any(|tag| tag == "v2.0.0"), "{tags:?}");
}

// --- a canary of three pauses -------------------------------------------------------------------------------------------

/// A Rollout that pauses for ten minutes three times. The cluster has its definition and no controller: the test writes
/// the status that it would write.
fn canary() -> SetUp {
    let rollout = "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: cart }
spec:
  replicas: 4
  selector: { matchLabels: { app: cart } }
  strategy:
    canary:
      steps:
        - setWeight: 25
        - pause: { duration: 10m }
        - setWeight: 50
        - pause: { duration: 10m }
        - setWeight: 75
        - pause: { duration: 10m }
  template:
    metadata: { labels: { app: cart } }
    spec: { containers: [{ name: app, image: cart }] }
";
    SetUp {
        services: vec!["cart"],
        namespaces: vec!["cart"],
        catalog: entry("cart", "", &["prod"])
            + "      - name: prod\n        policy: none\n        \
               gitops: { repository: platform, branch: main, path: apps/cart, image: cart }\n        \
               target: { cluster: local, namespace: \"cart${SCOPE}\", kind: Rollout, name: cart }\n        \
               verify: { digest: false }\n",
        files: vec![
            file("apps/cart/rollout.yaml", rollout),
            file(
                "apps/cart/kustomization.yaml",
                "namespace: cart${SCOPE}\nresources: [rollout.yaml]\nimages:\n  - name: cart\n    newTag: none\n",
            ),
        ],
    }
}

fn condition(kind: &str, reason: &str) -> Value {
    let now = "2026-01-01T00:00:00Z";
    json!({"type": kind, "status": "True", "reason": reason, "message": "", "lastUpdateTime": now, "lastTransitionTime": now})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_three_pauses_has_the_time_that_it_takes() {
    let suite = suite().await;
    suite.cluster.define("argo-rollouts-rollout.yaml").await;
    let alice = suite.client("alice", 0);
    let commit = suite.application("cart").commit(Version::Good("A"));
    let release = alice.start("cart", &commit).await;
    let release = alice
        .release_until(&release.id, "deploying", |release| {
            let last = release.steps.last();
            last.is_some_and(|step| step.kind() == step::Kind::Deploy && !step.r#ref.is_empty())
        })
        .await;
    let deployment = release.steps.last().unwrap().r#ref.clone();
    let followed = eventually("the deadline follows from the steps", async || {
        holds(alice.deployment(&deployment).await, |deployment| {
            !deployment.deadline_basis.is_empty()
        })
    })
    .await;
    let seconds = followed.deadline.unwrap().seconds - followed.create_time.unwrap().seconds;
    assert!(seconds > 30 * 60, "{seconds} s: {}", followed.deadline_basis);

    let namespace = suite.scoped("cart");
    eventually("it is applied", async || {
        holds(suite.cluster.rollout(&namespace, "cart"), Option::is_some)
    })
    .await;
    let healthy = json!({"phase": "Healthy", "stableRS": "new", "currentPodHash": "new", "currentStepIndex": 6,
        "replicas": 4, "updatedReplicas": 4, "readyReplicas": 4, "availableReplicas": 4,
        "conditions": [condition("Available", "AvailableReason"), condition("Progressing", "NewReplicaSetAvailable")]});
    for step in [1, 3, 5] {
        let pause = json!({"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"});
        suite.cluster.set_rollout_status(&namespace, "cart", json!({
            "phase": "Paused", "message": "CanaryPauseStep", "controllerPause": true, "pauseConditions": [pause],
            "currentPodHash": "new", "stableRS": "old", "currentStepIndex": step, "updatedReplicas": (step + 1) / 2,
        }));
        let seen = alice.release(&release.id).await.unwrap();
        assert_status(&seen, Status::Running);
    }
    suite.cluster.set_rollout_status(&namespace, "cart", healthy);
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::Succeeded);
}

// --- the overlays of all environments in one commit ---------------------------------------------------------------------

const STAGES: [&str; 3] = ["dev", "staging", "prod"];

/// One commit moves all overlays; staging and production are synced when people say so.
fn together() -> SetUp {
    let mut catalog = entry("books", "", &STAGES);
    for stage in STAGES {
        let more = match stage {
            "dev" => "        policy: none\n",
            _ => "        policy: one\n        gate: before_sync\n        written_with: dev\n",
        };
        catalog += &format!(
            "      - name: {stage}\n{more}        \
             gitops: {{ repository: platform, branch: main, path: apps/books/overlays/{stage}, image: books }}\n        \
             target: {{ cluster: local, namespace: \"books-{stage}${{SCOPE}}\", name: books }}\n"
        );
        catalog += &health("books");
    }
    let mut files = vec![
        file("apps/books/base/kustomization.yaml", "resources: [books.yaml]\n"),
        file("apps/books/base/books.yaml", workload("books", "books")),
    ];
    files.extend(STAGES.map(|stage| {
        file(
            format!("apps/books/overlays/{stage}/kustomization.yaml"),
            format!(
                "namespace: books-{stage}${{SCOPE}}\nresources: [../../base]\nimages:\n  - name: books\n    newTag: none\n"
            ),
        )
    }));
    SetUp {
        services: vec!["books"],
        namespaces: vec!["books-dev", "books-staging", "books-prod"],
        catalog,
        files,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlays_of_all_environments_move_in_one_commit_and_go_back_in_one() {
    let suite = suite().await;
    let (alice, bob) = (suite.client("alice", 0), suite.client("bob", 0));
    let application = suite.application("books");
    let release = alice
        .start("books", &application.commit(Version::Good("A")))
        .await;
    let staging = bob.approval_for(&release.id, "staging").await;
    let wanted = || STAGES.map(|stage| suite.gitops.wanted_digest("books", stage));
    let digest = alice.release(&release.id).await.unwrap().images[0].digest.clone();
    assert_eq!(
        wanted(),
        [0; 3].map(|_| Some(digest.clone())),
        "git has all of them"
    );
    let commits = suite.gitops.commits_of("books").len();
    let served = |stage: &str| {
        suite
            .cluster
            .get(&suite.scoped(&format!("books-{stage}")), "books", "version")
    };
    assert_eq!(served("dev").unwrap(), "A");
    assert!(served("staging").is_err(), "nobody has said yes");
    bob.approve(&staging).await.unwrap();
    bob.approve(&bob.approval_for(&release.id, "prod").await)
        .await
        .unwrap();
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::Succeeded);
    assert_eq!(STAGES.map(|stage| served(stage).unwrap()), ["A"; 3]);
    assert_eq!(
        suite.gitops.commits_of("books").len(),
        commits,
        "no further commit"
    );

    // It fails in dev: what was not synced goes back as well.
    let release = alice
        .start("books", &application.commit(Version::Sick("B")))
        .await;
    let release = alice.finished(&release.id).await;
    assert_status(&release, Status::RolledBack);
    assert_eq!(wanted(), [0; 3].map(|_| Some(digest.clone())));
    assert_eq!(STAGES.map(|stage| served(stage).unwrap()), ["A"; 3]);
}
