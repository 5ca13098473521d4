//! Outcomes that have their own names.

use std::time::Duration;

use deploy_domain::{
    catalog::{Verify, WorkloadKind},
    deployment::{DeploymentRequest, DeploymentStatus},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ResourceQuota};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use slipway_testbed::{eventually, holds};

use crate::{
    cluster::{Bench, failed, succeeded},
    patient,
};

/// What finds no place fails after two seconds.
fn impatient(request: DeploymentRequest) -> DeploymentRequest {
    DeploymentRequest {
        verify: Verify {
            unschedulable_after: Duration::from_secs(2),
            ..request.verify
        },
        ..request
    }
}

pub(crate) async fn a_quota_that_is_used_up_is_told(bench: &Bench) {
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    let quotas = bench.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    // It holds once its controller has counted.
    eventually("the quota is counted", async || {
        let status = quotas.get("one").await.unwrap().status.unwrap_or_default();
        let used = status.used.unwrap_or_default();
        holds(used, |used| used.contains_key("pods"))
    })
    .await;
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "ok"))
        .await;
    let state = bench.run(impatient(bench.request(&bench.a, 1))).await;
    failed(&state, "PODS_NOT_CREATED", &["exceeded quota"]);
}

pub(crate) async fn pods_that_find_no_node_are_told(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    objects[1]["spec"]["template"]["spec"]["nodeSelector"] = json!({"slipway.dev/test": "nowhere"});
    bench.render(&objects).await;
    let state = bench.run(impatient(bench.request(&bench.a, 1))).await;
    failed(&state, "UNSCHEDULABLE", &["pod shop-", "cannot be scheduled"]);
}

pub(crate) async fn paused_is_told_as_such(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.b, "ok");
    objects[1]["spec"]["paused"] = json!(true);
    bench.render(&objects).await;
    let id = bench
        .start(DeploymentRequest {
            timeout: Duration::from_secs(5),
            ..bench.request(&bench.b, 2)
        })
        .await;
    let state = bench.until(&id, |state| state.progress.contains("paused")).await;
    assert_eq!(state.status, DeploymentStatus::Verifying);
    failed(
        &bench.end_of(&id).await,
        "DEADLINE_EXCEEDED",
        &["within 5 s", "paused"],
    );
}

pub(crate) async fn scaled_to_zero_is_told(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    objects[1]["spec"]["replicas"] = json!(0);
    bench.render(&objects).await;
    failed(
        &bench.run(bench.request(&bench.a, 1)).await,
        "SCALED_TO_ZERO",
        &[],
    );
}

pub(crate) async fn an_image_name_that_is_none_fails_early(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    let containers = objects[1].pointer_mut("/spec/template/spec/containers").unwrap();
    let sidecar = json!({"name": "sidecar", "image": "registry.example.com/NOT-A-NAME:invalid1"});
    containers.as_array_mut().unwrap().push(sidecar);
    bench.render(&objects).await;
    let state = bench.run(bench.request(&bench.a, 1)).await;
    failed(&state, "INVALID_IMAGE_NAME", &["pod shop-", "InvalidImageName"]);
}

pub(crate) async fn kubernetes_own_deadline_is_told(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "crash");
    // A kubelet needs a while until the second crash.
    objects[1]["spec"]["progressDeadlineSeconds"] = json!(8);
    bench.render(&objects).await;
    let state = bench.run(patient(bench.request(&bench.a, 1))).await;
    failed(&state, "PROGRESS_DEADLINE_EXCEEDED", &["pod shop-"]);
}

pub(crate) async fn deleted_and_made_anew_by_someone_else_is_told(bench: &Bench) {
    let objects = bench.shop(WorkloadKind::Deployment, &bench.a, "crash");
    bench.render(&objects).await;
    let id = bench.start(patient(bench.request(&bench.a, 1))).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    // A creation time has full seconds: the younger one must be told from ours.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let api = bench.api::<Deployment>();
    api.delete("shop", &DeleteParams::background()).await.unwrap();
    let theirs: Deployment = serde_json::from_value(objects[1].clone()).unwrap();
    eventually("the old one is gone", async || {
        api.create(&PostParams::default(), &theirs).await
    })
    .await;
    let state = bench.end_of(&id).await;
    let code = state
        .reason
        .as_ref()
        .map(|reason| reason.code.clone())
        .unwrap_or_default();
    // Which of the two is seen depends on whether the watch shows the moment in between.
    assert!(code == "REPLACED" || code == "DELETED", "{:?}", state.reason);
    let live = api.get("shop").await.unwrap();
    assert!(
        !live
            .metadata
            .annotations
            .unwrap_or_default()
            .contains_key("deploy.slipway.dev/epoch"),
        "what somebody else made is left alone"
    );
}

pub(crate) async fn a_later_turn_takes_its_place(bench: &Bench) {
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "crash"))
        .await;
    let id = bench.start(patient(bench.request(&bench.a, 1))).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    succeeded(&bench.deploy(&bench.b, "ok", 2).await);
    failed(
        &bench.end_of(&id).await,
        "SUPERSEDED_EPOCH",
        &["took its place", "epoch 2 after 1"],
    );
}
