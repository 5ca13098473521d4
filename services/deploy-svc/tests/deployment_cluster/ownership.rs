//! Workloads that others made before: what leaves the manifests leaves the cluster, as with `kubectl apply
//! --server-side` from 1.26 on and with Flux.

use deploy_domain::catalog::WorkloadKind;
use kube::api::{Patch, PatchParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::cluster::{Bench, succeeded};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The Deployment as it was: with a variable and a container more than the manifests have now.
fn earlier(bench: &Bench) -> Value {
    let mut deployment = bench.shop(WorkloadKind::Deployment, &bench.a, "ok").remove(1);
    let containers = deployment
        .pointer_mut("/spec/template/spec/containers")
        .and_then(Value::as_array_mut)
        .unwrap();
    let mut sidecar = containers[0].clone();
    sidecar["name"] = json!("legacy-sidecar");
    // Containers of a pod share its network.
    sidecar["ports"] = json!([{"name": "side", "containerPort": 9090, "protocol": "TCP"}]);
    sidecar["env"] = json!([{"name": "PORT", "value": "9090"}]);
    sidecar.as_object_mut().unwrap().remove("readinessProbe");
    containers.push(sidecar);
    let env = containers[0]["env"].as_array_mut().unwrap();
    env.push(json!({"name": "OLD_FLAG", "value": "on"}));
    deployment
}

async fn create(bench: &Bench, manager: &str, deployment: &Value) {
    let parameters = PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    };
    let object = serde_json::from_value(deployment.clone()).unwrap();
    bench.deployments().create(&parameters, &object).await.unwrap();
}

/// Containers, and the variables of the first.
async fn now(bench: &Bench) -> (Vec<String>, Vec<String>) {
    let live = bench.deployments().get("shop").await.unwrap();
    let annotations = live.metadata.annotations.unwrap_or_default();
    assert!(
        !annotations.contains_key(LAST_APPLIED),
        "it says what is not so any more"
    );
    let containers = live.spec.unwrap().template.spec.unwrap().containers;
    let env = containers[0].env.clone().unwrap_or_default();
    (
        containers.into_iter().map(|one| one.name).collect(),
        env.into_iter().map(|one| one.name).collect(),
    )
}

async fn leaves(bench: &Bench) {
    succeeded(&bench.deploy(&bench.b, "ok", 1).await);
    let (containers, env) = now(bench).await;
    assert_eq!(
        (containers, env),
        (vec!["app".to_owned()], vec!["MODE".to_owned()])
    );
}

pub(crate) async fn what_kubectl_applied_leaves_with_the_manifests(bench: &Bench) {
    let mut deployment = earlier(bench);
    deployment["metadata"]["annotations"] = json!({LAST_APPLIED: deployment.to_string()});
    create(bench, "kubectl-client-side-apply", &deployment).await;
    leaves(bench).await;
}

pub(crate) async fn what_kubectl_created_leaves_with_the_manifests(bench: &Bench) {
    create(bench, "kubectl-create", &earlier(bench)).await;
    leaves(bench).await;
}

pub(crate) async fn what_kubectl_applied_on_the_server_leaves_with_the_manifests(bench: &Bench) {
    let parameters = PatchParams::apply("kubectl");
    let patch = Patch::Apply(earlier(bench));
    bench
        .deployments()
        .patch("shop", &parameters, &patch)
        .await
        .unwrap();
    leaves(bench).await;
}

/// A controller that writes fields of its own goes on to own them.
pub(crate) async fn what_others_set_stays(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let parameters = PatchParams {
        field_manager: Some("injector".to_owned()),
        ..PatchParams::default()
    };
    let sidecar = json!({"spec": {"template": {"metadata": {"annotations": {"injected": "yes"}}}}});
    let patch = Patch::Strategic(sidecar);
    bench
        .deployments()
        .patch("shop", &parameters, &patch)
        .await
        .unwrap();
    succeeded(&bench.deploy(&bench.b, "ok", 2).await);
    let live = bench.deployments().get("shop").await.unwrap();
    let annotations = live.spec.unwrap().template.metadata.unwrap().annotations.unwrap();
    assert_eq!(annotations["injected"], "yes");
}
