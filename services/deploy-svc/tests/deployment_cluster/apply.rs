//! Manifests applied, watched and checked; who else writes; an API server that is away.

use std::{collections::BTreeMap, time::Duration};

use deploy_domain::{
    catalog::{Check, Neighbour, Shared, WorkloadKind},
    deployment::{DeploymentCommand, DeploymentRequest, DeploymentStatus},
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use slipway_kubernetes::proxy::Get;
use slipway_model::{Digest, Reason};
use slipway_testbed::{eventually, holds};

use crate::{
    cluster::{Bench, World, failed, succeeded},
    patient,
};

/// Its health over HTTP, through the API server's proxy.
pub(crate) fn health() -> Check {
    let check = json!({"name": "health", "http": {
        "service": "shop", "port": "http", "path": "/health", "body_contains": "well", "attempts": 5, "interval": "100ms",
    }});
    serde_json::from_value(check).unwrap()
}

pub(crate) async fn a_check_that_passes_tells_the_answer(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let checked = bench
        .run(DeploymentRequest {
            checks: vec![health()],
            ..bench.request(&bench.a, 1)
        })
        .await;
    succeeded(&checked);
    assert!(
        checked.checks[0].passed && checked.checks[0].last_answer.contains("all is well"),
        "{:?}",
        checked.checks
    );
}

pub(crate) async fn a_new_image_rolls_out(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let second = bench.deploy(&bench.b, "ok", 2).await;
    succeeded(&second);
    let live = bench.deployments().get("shop").await.unwrap();
    let annotations = live.metadata.annotations.unwrap();
    assert_eq!(annotations["deploy.slipway.dev/epoch"], "2");
    assert_eq!(
        annotations["deploy.slipway.dev/commit"],
        "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
    );
    assert!(
        !live
            .spec
            .unwrap()
            .template
            .metadata
            .unwrap()
            .annotations
            .unwrap_or_default()
            .keys()
            .any(|key| key.contains("slipway")),
        "a new deployment of the same image restarts nothing"
    );
}

/// In a folder that services share, each deploys its own.
pub(crate) async fn a_neighbours_workload_in_the_same_folder_is_left_to_it(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    let mut mail = objects[1].clone();
    mail["metadata"]["name"] = json!("mail");
    *mail
        .pointer_mut("/spec/template/spec/containers/0/image")
        .unwrap() = json!("registry.example/mail:broken");
    objects.push(mail);
    bench.render(&objects).await;
    let neighbour = Neighbour {
        service: "mail".parse().unwrap(),
        image: "registry.example/mail".parse().unwrap(),
    };
    let request = DeploymentRequest {
        shared: Shared {
            lanes: Vec::new(),
            neighbours: vec![neighbour],
        },
        ..bench.request(&bench.a, 1)
    };
    succeeded(&bench.run(request).await);
    assert!(bench.deployments().get_opt("mail").await.unwrap().is_none());
}

pub(crate) async fn the_same_again_changes_nothing(bench: &Bench) {
    // The template's revision: annotations alone raise a Deployment's generation.
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let revision = async || {
        bench
            .deployments()
            .get("shop")
            .await
            .unwrap()
            .metadata
            .annotations
            .unwrap()[REVISION]
            .clone()
    };
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let before = revision().await;
    succeeded(&bench.deploy(&bench.a, "ok", 2).await);
    assert_eq!(revision().await, before);
}

pub(crate) async fn an_older_epoch_never_overwrites_a_newer_one(bench: &Bench) {
    succeeded(&bench.deploy(&bench.b, "ok", 5).await);
    let before = bench
        .deployments()
        .get("shop")
        .await
        .unwrap()
        .metadata
        .resource_version;
    let late = bench.deploy(&bench.a, "ok", 4).await;
    failed(
        &late,
        "SUPERSEDED_EPOCH",
        &["Deployment shop carries epoch 5", "this one's 4"],
    );
    let live = bench.deployments().get("shop").await.unwrap();
    let image = live.spec.unwrap().template.spec.unwrap().containers[0]
        .image
        .clone()
        .unwrap();
    assert!(image.ends_with(bench.b.as_str()), "{image} {before:?}");
}

pub(crate) async fn a_field_that_left_the_manifests_leaves_the_cluster(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    let env = objects[1]
        .pointer_mut("/spec/template/spec/containers/0/env")
        .unwrap();
    env.as_array_mut()
        .unwrap()
        .push(json!({"name": "EXTRA", "value": "old"}));
    bench.render(&objects).await;
    succeeded(&bench.run(bench.request(&bench.a, 1)).await);
    succeeded(&bench.deploy(&bench.a, "ok", 2).await);
    let live = bench.deployments().get("shop").await.unwrap();
    let env = live.spec.unwrap().template.spec.unwrap().containers[0]
        .env
        .clone()
        .unwrap_or_default();
    assert!(env.iter().all(|one| one.name != "EXTRA"), "{env:?}");
}

pub(crate) async fn a_crash_loop_fails_early_with_its_log(bench: &Bench) {
    let state = bench.deploy(&bench.a, "crash", 1).await;
    failed(
        &state,
        "CRASH_LOOP",
        &["pod shop-", "CrashLoopBackOff", "exit code 3"],
    );
    let evidence = &state.evidence[0];
    assert_eq!(
        (evidence.container.as_str(), evidence.exit_code),
        ("app", Some(3))
    );
    // It may be started again between the look at it and at its log: then the run that crashed is the one before.
    let runs = [&evidence.log_tail, &evidence.previous_log_tail];
    let crashed = |lines: &[String]| lines.iter().any(|line| line.contains("cannot open the database"));
    assert!(runs.iter().any(|lines| crashed(lines)), "{runs:?}");
    assert!(runs.iter().all(|lines| lines.len() <= 100), "{runs:?}");
    assert!(
        evidence.events.iter().any(|event| event.contains("BackOff")),
        "{:?}",
        evidence.events
    );
}

pub(crate) async fn an_image_that_is_not_there_fails_early(bench: &Bench) {
    let absent: Digest = format!("sha256:{}", "00".repeat(32)).parse().unwrap();
    let state = bench.deploy(&absent, "missing", 1).await;
    failed(&state, "IMAGE_NOT_FOUND", &["pod shop-", "not found"]);
}

pub(crate) async fn a_failed_check_tells_the_last_answer(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "sick", 1).await);
    // What a container wrote is in its log somewhat later: the evidence cannot be sure to have its last line.
    asked(bench, "GET /health: 503").await;
    let state = bench
        .run(DeploymentRequest {
            checks: vec![health()],
            ..bench.request(&bench.a, 2)
        })
        .await;
    failed(
        &state,
        "CHECK_FAILED",
        &[
            "check health failed after 5 attempts",
            "503",
            "the till is stuck",
            "expected 200",
        ],
    );
    assert!(!state.checks[0].passed);
    let lines = &state.evidence[0].log_tail;
    assert!(
        lines.iter().any(|line| line.contains("GET /health: 503")),
        "the logs of pods that are ready: {lines:?}"
    );
}

/// Asks for the health until the log of every pod has a line about it.
async fn asked(bench: &Bench, line: &str) {
    let get = Get {
        namespace: bench.namespace.as_str(),
        service: "shop",
        port: "http",
        path: "/health",
        headers: &BTreeMap::new(),
        timeout: Duration::from_secs(10),
    };
    let pods = bench.api::<Pod>();
    eventually("every pod was asked", async || {
        bench.cluster.get_service(&get).await.unwrap();
        let mut logs = Vec::new();
        for pod in pods.list(&Default::default()).await.unwrap() {
            let name = pod.metadata.name.unwrap();
            logs.push(pods.logs(&name, &Default::default()).await.unwrap());
        }
        holds(logs, |logs| {
            !logs.is_empty() && logs.iter().all(|log| log.contains(line))
        })
    })
    .await;
}

pub(crate) async fn a_deletion_while_watched_is_told(bench: &Bench) {
    let request = patient(bench.request(&bench.a, 1));
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "crash"))
        .await;
    let id = bench.start(request).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    bench
        .deployments()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    failed(&bench.end_of(&id).await, "DELETED", &["deleted"]);
}

pub(crate) async fn somebody_elses_image_is_told(bench: &Bench) {
    let request = patient(bench.request(&bench.a, 1));
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "crash"))
        .await;
    let id = bench.start(request).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    let theirs = format!("{}:theirs@{}", bench.image, bench.b);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": theirs}]}}}});
    let parameters = PatchParams {
        field_manager: Some("kubectl-set".to_owned()),
        ..PatchParams::default()
    };
    bench
        .deployments()
        .patch("shop", &parameters, &Patch::Strategic(patch))
        .await
        .unwrap();
    failed(
        &bench.end_of(&id).await,
        "SUPERSEDED",
        &["someone else's update", theirs.as_str()],
    );
}

pub(crate) async fn manifests_with_another_image_are_refused(bench: &Bench) {
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "ok"))
        .await;
    let id = bench.start(bench.request(&bench.b, 1)).await;
    failed(
        &bench.end_of(&id).await,
        "RENDERED_IMAGE_MISMATCH",
        &[bench.a.as_str(), bench.b.as_str()],
    );
    assert!(
        bench.deployments().get_opt("shop").await.unwrap().is_none(),
        "nothing was written"
    );
}

pub(crate) async fn what_the_api_server_refuses_is_told(bench: &Bench) {
    let mut broken = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    broken[1]["spec"]["replicas"] = json!(-2);
    bench.render(&broken).await;
    let id = bench.start(bench.request(&bench.a, 1)).await;
    failed(
        &bench.end_of(&id).await,
        "APPLY_REFUSED",
        &["Deployment shop", "spec.replicas"],
    );
    let mut unknown = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    unknown[0]["kind"] = json!("Gadget");
    bench.render(&unknown).await;
    let id = bench.start(bench.request(&bench.a, 1)).await;
    failed(
        &bench.end_of(&id).await,
        "APPLY_REFUSED",
        &["Gadget shop", "no kind Gadget"],
    );
}

pub(crate) async fn an_unknown_cluster_is_named(bench: &Bench) {
    let mut request = bench.request(&bench.a, 1);
    request.target.cluster = "moon".parse().unwrap();
    let id = bench.start(request).await;
    failed(
        &bench.end_of(&id).await,
        "UNKNOWN_CLUSTER",
        &["no cluster moon", "test"],
    );
}

pub(crate) async fn cancel_stops_the_watch(bench: &Bench) {
    let request = patient(bench.request(&bench.a, 1));
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "crash"))
        .await;
    let id = bench.start(request).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    let cancel = DeploymentCommand::Cancel {
        message: "enough".to_owned(),
    };
    let state = bench.tell(&id, cancel).await;
    assert_eq!(state.status, DeploymentStatus::Cancelled);
    assert!(
        bench.deployments().get_opt("shop").await.unwrap().is_some(),
        "what the cluster took stays"
    );
}

/// The API server goes away during a rollout and comes back: the rollout is seen through, and a second one, which
/// begins while it is away, too.
pub(crate) async fn an_api_server_that_restarts_costs_time_only(world: &mut World) {
    let bench = Bench::new(world, "restart").await;
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "crash"))
        .await;
    let id = bench.start(patient(bench.request(&bench.a, 1))).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    world.stop_local().await;
    let state = bench.until(&id, |state| state.fault.is_some()).await;
    let fault = state.fault.unwrap_or_else(|| Reason::new("", ""));
    assert_eq!(fault.code, "CLUSTER_UNAVAILABLE");
    assert!(
        fault.message.contains("cluster test cannot be watched"),
        "{fault}"
    );
    assert!(
        state.progress.contains("of 2 new pods ready"),
        "{}",
        state.progress
    );

    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.b, "ok"))
        .await;
    let second = bench.start(patient(bench.request(&bench.b, 2))).await;
    let state = bench.until(&second, |state| state.fault.is_some()).await;
    assert_eq!(state.status, DeploymentStatus::Applying);

    world.start_local().await;
    succeeded(&bench.end_of(&second).await);
    // The first one learns that its place was taken.
    failed(&bench.end_of(&id).await, "SUPERSEDED_EPOCH", &["epoch 2 after 1"]);
    bench.end().await;
}
