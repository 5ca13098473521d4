//! StatefulSets and DaemonSets.

use std::time::Duration;

use deploy_domain::{
    catalog::{Verify, WorkloadKind},
    deployment::{DeploymentRequest, DeploymentState},
};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use serde_json::json;
use slipway_model::Digest;

use crate::{
    cluster::{Bench, failed, succeeded},
    patient,
};

async fn deploy(
    bench: &Bench,
    kind: WorkloadKind,
    digest: &Digest,
    mode: &str,
    epoch: u64,
) -> DeploymentState {
    bench.render(&bench.shop(kind, digest, mode)).await;
    bench.run(bench.request_of(kind, digest, epoch)).await
}

/// What a pod of the workload is to run.
async fn image_of(bench: &Bench, pod: &str) -> String {
    let pod = bench.api::<Pod>().get(pod).await.unwrap();
    pod.spec.unwrap().containers[0].image.clone().unwrap()
}

pub(crate) async fn a_stateful_set_rolls_out_pod_by_pod(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    succeeded(&deploy(bench, kind, &bench.a, "ok", 1).await);
    succeeded(&deploy(bench, kind, &bench.b, "ok", 2).await);
    for pod in ["shop-0", "shop-1"] {
        assert!(image_of(bench, pod).await.ends_with(bench.b.as_str()), "{pod}");
    }
}

pub(crate) async fn a_partition_is_where_a_stateful_set_stops(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    succeeded(&deploy(bench, kind, &bench.a, "ok", 1).await);
    let mut objects = bench.shop(kind, &bench.b, "ok");
    objects[1]["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    bench.render(&objects).await;
    succeeded(&bench.run(bench.request_of(kind, &bench.b, 2)).await);
    assert!(image_of(bench, "shop-1").await.ends_with(bench.b.as_str()));
    assert!(
        image_of(bench, "shop-0").await.ends_with(bench.a.as_str()),
        "below the partition"
    );
}

pub(crate) async fn a_daemon_set_rolls_out_on_every_node(bench: &Bench) {
    let kind = WorkloadKind::DaemonSet;
    succeeded(&deploy(bench, kind, &bench.a, "ok", 1).await);
    succeeded(&deploy(bench, kind, &bench.b, "ok", 2).await);
    let status = bench
        .api::<DaemonSet>()
        .get("shop")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(
        status.updated_number_scheduled,
        Some(status.desired_number_scheduled)
    );
    assert!(status.desired_number_scheduled > 0);
}

pub(crate) async fn a_stateful_set_that_crashes_fails_early(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    succeeded(&deploy(bench, kind, &bench.a, "ok", 1).await);
    let state = deploy(bench, kind, &bench.b, "crash", 2).await;
    failed(&state, "CRASH_LOOP", &["pod shop-1", "CrashLoopBackOff"]);
}

pub(crate) async fn a_daemon_set_that_crashes_fails_early(bench: &Bench) {
    let state = deploy(bench, WorkloadKind::DaemonSet, &bench.a, "crash", 1).await;
    failed(&state, "CRASH_LOOP", &["pod shop-", "CrashLoopBackOff"]);
}

pub(crate) async fn a_deadline_of_our_own_where_kubernetes_has_none(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    bench.render(&bench.shop(kind, &bench.a, "crash")).await;
    let request = patient(bench.request_of(kind, &bench.a, 1));
    let request = DeploymentRequest {
        verify: Verify {
            progress_deadline: Some(Duration::from_secs(3)),
            ..request.verify
        },
        ..request
    };
    failed(&bench.run(request).await, "PROGRESS_DEADLINE_EXCEEDED", &["3 s"]);
}

/// Under `OrderedReady` the controller waits for the broken pod for ever (kubernetes#67250).
pub(crate) async fn a_stateful_set_that_is_stuck_is_rolled_back(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    succeeded(&deploy(bench, kind, &bench.a, "ok", 1).await);
    let state = deploy(bench, kind, &bench.b, "crash", 2).await;
    failed(&state, "CRASH_LOOP", &["pod shop-1", "CrashLoopBackOff"]);
    back(bench, 3).await;
    succeeded(&deploy(bench, kind, &bench.b, "ok", 4).await);
}

/// The same where the pod runs and does not become ready.
pub(crate) async fn a_stateful_set_with_a_pod_that_is_never_ready_is_rolled_back(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    succeeded(&deploy(bench, kind, &bench.a, "ok", 1).await);
    let mut objects = bench.shop(kind, &bench.b, "ok");
    objects[1]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"port": 9}, "periodSeconds": 1});
    bench.render(&objects).await;
    let request = bench.request_of(kind, &bench.b, 2);
    let request = DeploymentRequest {
        verify: Verify {
            progress_deadline: Some(Duration::from_secs(5)),
            ..request.verify
        },
        ..request
    };
    failed(&bench.run(request).await, "PROGRESS_DEADLINE_EXCEEDED", &["5 s"]);
    back(bench, 3).await;
}

async fn back(bench: &Bench, epoch: u64) {
    let kind = WorkloadKind::StatefulSet;
    bench.render(&bench.shop(kind, &bench.a, "ok")).await;
    let request = DeploymentRequest {
        rolls_back: Some("dep-0".parse().unwrap()),
        ..bench.request_of(kind, &bench.a, epoch)
    };
    succeeded(&bench.run(request).await);
    for pod in ["shop-0", "shop-1"] {
        assert!(image_of(bench, pod).await.ends_with(bench.a.as_str()), "{pod}");
    }
}
