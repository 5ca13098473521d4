//! A gate before the sync or the restart, and what the cluster says of what it is to hold back: local-cluster, or the
//! cluster of `SLIPWAY_TEST_KUBECONFIG`.
#![allow(clippy::unwrap_used)]

#[path = "cluster/definitions.rs"]
mod definitions;
mod release;

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use deploy_domain::release::{Release, ReleaseState, ReleaseStatus, StepKind};
use deploy_svc::testing::{Deployments, Order, ReleaseEffects, Tags};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use pretty_assertions::assert_eq;
use release::{Answers, Pointed, World, ended, images, until};
use serde_json::{Value, json};
use slipway_kubernetes::{Clusters, Kubernetes};
use slipway_ledger::{Decider, Executor};
use slipway_model::{Digest, Fault, Name, Reason, Tag};
use tokio_util::sync::CancellationToken;

fn api(client: &Client, namespace: &str, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        "" => Api::all_with(client.clone(), &kind),
        namespace => Api::namespaced_with(client.clone(), namespace, &kind),
    }
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

async fn application(applications: &Api<DynamicObject>, name: &str, policy: Value) {
    let application = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": name},
        "spec": {
            "project": "default",
            "source": {"repoURL": "https://git.example/platform.git", "path": name},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            "syncPolicy": policy,
        },
    });
    applications
        .create(&PostParams::default(), &object(application))
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_committed_for_an_application_that_would_take_it_unasked() {
    on_cluster(hold_back).await;
}

#[tokio::test]
async fn only_the_image_that_was_approved_is_restarted() {
    on_cluster(restart).await;
}

/// Runs a test in a namespace of its own.
async fn on_cluster(test: impl AsyncFnOnce(&Client, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let (local, kubeconfig) = match std::env::var_os("SLIPWAY_TEST_KUBECONFIG") {
        Some(path) => (None, path.into()),
        None => {
            let mut config = local_cluster::Config::new(folder.path().join("cluster"));
            config.pretend_pods = Some(local_cluster::PretendPods {
                ready_after: Duration::ZERO,
            });
            let local = local_cluster::Cluster::start(config).await.unwrap();
            let path = local.kubeconfig_path().to_owned();
            (Some(local), path)
        }
    };
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let client = Client::try_from(config.await.unwrap()).unwrap();
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
    definitions::define(&client, "argocd-application.yaml", &ApiResource::from_gvk(&kind)).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = format!("gate-{:05}", fastrand::u32(..100_000));
    let wanted = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &wanted).await.unwrap();
    let outcome = AssertUnwindSafe(test(&client, &namespace)).catch_unwind().await;
    namespaces
        .delete(&namespace, &DeleteParams::background())
        .await
        .unwrap();
    if let Some(local) = local {
        local.shutdown().await;
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

async fn hold_back(client: &Client, namespace: &str) {
    let applications = api(client, namespace, "argoproj.io", "v1alpha1", "Application");
    application(&applications, "by-hand", json!({})).await;
    application(
        &applications,
        "switched-off",
        json!({"automated": {"enabled": false}}),
    )
    .await;
    application(&applications, "by-itself", json!({"automated": {"prune": true}})).await;

    let world = World::new().await;
    let (hold, held) = tokio::sync::watch::channel(true);
    let orders = Arc::new(Mutex::new(Vec::new()));
    let answers = |held: Option<_>| {
        let orders = Arc::clone(&orders);
        Arc::new(Answers { held, orders })
    };
    let name: Name = "main".parse().unwrap();
    let cluster = Kubernetes::new(name.clone(), client.clone());
    let releases = ReleaseEffects {
        ledger: world.ledger.clone(),
        builds: answers(None),
        tags: Arc::new(Pointed),
        approvals: answers(Some(held)),
        changes: answers(None),
        deployments: Arc::new(Deployments::new(world.ledger.clone())),
        clusters: Clusters::of([(name, cluster)]),
    };
    let shutdown = CancellationToken::new();
    let executor = Executor::builder(world.ledger.clone())
        .register::<Release>(Arc::new(releases))
        .spawn(shutdown.clone());

    let keys = |application: &str| {
        let target = format!(
            "target: {{ cluster: main, namespace: {namespace}, kind: Application, name: {application} }}"
        );
        [
            target,
            "gate: before_sync".to_owned(),
            "gitops: { repository: platform, path: shop }".to_owned(),
        ]
    };
    for (release, application, further, words) in [
        ("rel-1", "by-itself", "", "Application by-itself syncs by itself"),
        (
            "rel-2",
            "by-hand",
            "argo_cd: { also: [switched-off, by-itself] }",
            "Application by-itself syncs by itself",
        ),
        (
            "rel-3",
            "missing",
            "",
            "there is no Application missing in namespace",
        ),
    ] {
        let keys = keys(application);
        let keys: Vec<&str> = keys.iter().map(String::as_str).chain([further]).collect();
        let release = world.start(release, &keys).await;
        let end = until(&world, &release, |state| state.status.is_final()).await;
        let (status, message) = ended(&end);
        assert_eq!(status, ReleaseStatus::Failed, "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(end.steps.last().map(|step| step.kind), Some(StepKind::Change));
    }
    assert!(
        orders
            .lock()
            .unwrap()
            .iter()
            .all(|order: &String| order.ends_with("build")),
        "{orders:?}"
    );

    // One that is turned on while people are asked is noticed before the sync, and the commit is taken out again.
    let keys = keys("by-hand");
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let release = world.start("rel-4", &keys).await;
    until(&world, &release, |state| {
        let step = state.active_step();
        step.is_some_and(|step| step.kind == StepKind::Gate && step.reference.is_some())
    })
    .await;
    let on = json!({"spec": {"syncPolicy": {"automated": {}}}});
    applications
        .patch("by-hand", &PatchParams::default(), &Patch::Merge(on))
        .await
        .unwrap();
    hold.send(false).unwrap();
    world.ledger.hint(Release::KIND, &release).await.unwrap();
    let reverted = until(&world, &release, |state| {
        state.steps.iter().any(|step| step.kind == StepKind::Revert)
    })
    .await;
    let failure = reverted.failure.unwrap();
    assert_eq!(failure.reason.code, "AUTO_SYNC");

    shutdown.cancel();
    executor.drain().await;
}

/// What the one tag points to.
struct Moving(Mutex<Digest>);

#[async_trait]
impl Tags for Moving {
    async fn resolve(&self, _: Order<'_>, tag: &Tag) -> Result<Digest, Fault<Reason>> {
        assert_eq!(tag.as_str(), "latest");
        Ok(self.0.lock().unwrap().clone())
    }
}

fn kinds(state: &ReleaseState) -> Vec<&str> {
    state.steps.iter().map(|step| step.kind.as_str()).collect()
}

/// A marker commit, then people, then the restart; and the tag moves.
async fn restart(client: &Client, namespace: &str) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [{"name": "app", "image": "registry.example/shop:latest"}]},
            },
        },
    });
    api(client, namespace, "apps", "v1", "Deployment")
        .create(&PostParams::default(), &object(deployment))
        .await
        .unwrap();

    let world = World::new().await;
    let (hold, held) = tokio::sync::watch::channel(false);
    let orders = Arc::new(Mutex::new(Vec::new()));
    let answers = |held: Option<_>| {
        let orders = Arc::clone(&orders);
        Arc::new(Answers { held, orders })
    };
    let (ours, other) = (
        images("b").only().digest.clone(),
        images("c").only().digest.clone(),
    );
    let latest = Arc::new(Moving(Mutex::new(other.clone())));
    let name: Name = "main".parse().unwrap();
    let cluster = Kubernetes::new(name.clone(), client.clone());
    let releases = ReleaseEffects {
        ledger: world.ledger.clone(),
        builds: answers(None),
        tags: latest.clone(),
        approvals: answers(Some(held)),
        changes: answers(None),
        deployments: answers(None),
        clusters: Clusters::of([(name, cluster)]),
    };
    let shutdown = CancellationToken::new();
    let executor = Executor::builder(world.ledger.clone())
        .register::<Release>(Arc::new(releases))
        .spawn(shutdown.clone());
    let target = format!("target: {{ cluster: main, namespace: {namespace}, name: shop }}");
    let keys = [
        target.as_str(),
        "gate: before_sync",
        "action: restart",
        "gitops: { repository: platform, strategy: marker }",
    ];
    let asked = |release: &str, step: &str| {
        let order = format!("{release} {step}");
        orders.lock().unwrap().contains(&order)
    };

    // The tag points elsewhere: nobody is asked, and a second marker says that nothing was restarted.
    let release = world.start("rel-1", &keys).await;
    let end = until(&world, &release, |state| state.status.is_final()).await;
    let (status, message) = ended(&end);
    assert_eq!(status, ReleaseStatus::Failed);
    let words = format!("registry.example/shop:latest is {other}, and this release is about {ours}");
    assert!(message.starts_with(&words), "{message}");
    assert_eq!(kinds(&end), ["build", "lane", "change", "gate", "revert"]);
    assert!(!asked("rel-1", "dev/gate"));

    *latest.0.lock().unwrap() = ours.clone();
    let release = world.start("rel-2", &keys).await;
    let end = until(&world, &release, |state| state.status.is_final()).await;
    assert_eq!(ended(&end), (ReleaseStatus::Succeeded, ""));
    assert_eq!(kinds(&end), ["build", "lane", "change", "gate", "deploy"]);

    // It moves while people are asked: what they approved is not what a restart would run.
    hold.send(true).unwrap();
    let release = world.start("rel-3", &keys).await;
    until(&world, &release, |state| {
        let step = state.active_step();
        step.is_some_and(|step| step.kind == StepKind::Gate && step.reference.is_some())
    })
    .await;
    *latest.0.lock().unwrap() = other;
    hold.send(false).unwrap();
    world.ledger.hint(Release::KIND, &release).await.unwrap();
    let end = until(&world, &release, |state| state.status.is_final()).await;
    assert_eq!(ended(&end).0, ReleaseStatus::Failed);
    assert_eq!(
        end.reason.as_ref().map(|reason| reason.code.as_str()),
        Some("TAG_MOVED")
    );
    assert_eq!(
        kinds(&end),
        ["build", "lane", "change", "gate", "deploy", "revert"]
    );
    assert!(asked("rel-3", "dev/gate") && !asked("rel-3", "dev/deploy"));

    shutdown.cancel();
    executor.drain().await;
}
