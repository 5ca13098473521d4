//! Restart, set image, undo.

use deploy_domain::{
    catalog::WorkloadKind,
    deployment::{Action, DeploymentRequest, DeploymentState},
};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Pod, PodTemplateSpec},
};
use slipway_model::Digest;

use crate::cluster::{Bench, failed, succeeded};

async fn act(
    bench: &Bench,
    kind: WorkloadKind,
    action: Action,
    digest: &Digest,
    epoch: u64,
) -> DeploymentState {
    let request = DeploymentRequest {
        action,
        source: None,
        ..bench.request_of(kind, digest, epoch)
    };
    bench.run(request).await
}

async fn pods(bench: &Bench) -> Vec<String> {
    let listed = bench.api::<Pod>().list(&Default::default()).await.unwrap();
    let living = listed
        .items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    living.filter_map(|pod| pod.metadata.name).collect()
}

fn image(template: PodTemplateSpec) -> String {
    template.spec.unwrap().containers[0].image.clone().unwrap()
}

pub(crate) async fn a_restart_makes_new_pods_of_the_same_image(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let before = pods(bench).await;
    succeeded(&act(bench, WorkloadKind::Deployment, Action::Restart, &bench.a, 2).await);
    let after = pods(bench).await;
    assert_eq!(after.len(), 2);
    assert!(
        before.iter().all(|pod| !after.contains(pod)),
        "{before:?} {after:?}"
    );
}

pub(crate) async fn an_image_is_set_and_undone(bench: &Bench) {
    let kind = WorkloadKind::Deployment;
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let set = act(bench, kind, Action::SetImage, &bench.b, 2).await;
    succeeded(&set);
    let live = bench.api::<Deployment>().get("shop").await.unwrap();
    assert!(image(live.spec.unwrap().template).ends_with(bench.b.as_str()));
    let to = set.applied.unwrap().previous.expect("what ran before");
    assert_eq!(to.image.digest.as_ref(), Some(&bench.a));
    succeeded(&act(bench, kind, Action::Undo { to }, &bench.a, 3).await);
    let live = bench.api::<Deployment>().get("shop").await.unwrap();
    assert!(image(live.spec.unwrap().template).ends_with(bench.a.as_str()));
}

pub(crate) async fn a_stateful_set_is_undone(bench: &Bench) {
    let kind = WorkloadKind::StatefulSet;
    bench.render(&bench.shop(kind, &bench.a, "ok")).await;
    succeeded(&bench.run(bench.request_of(kind, &bench.a, 1)).await);
    let set = act(bench, kind, Action::SetImage, &bench.b, 2).await;
    succeeded(&set);
    let to = set.applied.unwrap().previous.expect("what ran before");
    succeeded(&act(bench, kind, Action::Undo { to }, &bench.a, 3).await);
    let live = bench.api::<StatefulSet>().get("shop").await.unwrap();
    assert!(image(live.spec.unwrap().template).ends_with(bench.a.as_str()));
}

pub(crate) async fn nothing_to_change_is_told(bench: &Bench) {
    let state = act(bench, WorkloadKind::Deployment, Action::SetImage, &bench.a, 1).await;
    failed(&state, "APPLY_REFUSED", &["Deployment shop is not in namespace"]);
}
