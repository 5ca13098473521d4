//! Rollouts of Argo Rollouts that pause. The cluster has their definition and no controller: the tests write the status
//! that it would write.

use deploy_domain::{
    catalog::{Pauses, Verify, WorkloadKind},
    deployment::{DeploymentCommand, DeploymentRequest},
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use slipway_kubernetes::workload::resource;
use slipway_model::Id;
use slipway_testbed::{eventually, holds};

use crate::cluster::{Bench, definitions::define, failed, succeeded};

fn rollouts(bench: &Bench) -> Api<DynamicObject> {
    let kind = resource(WorkloadKind::Rollout);
    Api::namespaced_with(bench.cluster.client().clone(), bench.namespace.as_str(), &kind)
}

/// Starts a canary's deployment, and pauses the Rollout once it is applied.
async fn paused(bench: &Bench, pauses: Pauses) -> Id {
    define(
        bench.cluster.client(),
        "argo-rollouts-rollout.yaml",
        &resource(WorkloadKind::Rollout),
    )
    .await;
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "shop"}},
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
            "template": bench.template(&bench.a, "ok"),
        },
    });
    bench.render(&[rollout]).await;
    let request = bench.request_of(WorkloadKind::Rollout, &bench.a, 1);
    let id = bench
        .start(DeploymentRequest {
            pauses,
            // There are no pods to look into.
            verify: Verify {
                digest: false,
                ..request.verify
            },
            ..request
        })
        .await;
    bench.until(&id, |state| state.applied.is_some()).await;
    let pause = json!({"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"});
    status(
        bench,
        json!({
            "phase": "Paused", "message": "CanaryPauseStep", "controllerPause": true, "pauseConditions": [pause],
            "currentStepIndex": 1, "currentPodHash": "new", "stableRS": "old", "updatedReplicas": 1,
        }),
    )
    .await;
    id
}

/// Writes a status for the present generation.
async fn status(bench: &Bench, mut status: Value) {
    let generation = rollouts(bench)
        .get("shop")
        .await
        .unwrap()
        .metadata
        .generation
        .unwrap();
    status["observedGeneration"] = json!(generation.to_string());
    let patch = Patch::Merge(json!({"status": status}));
    rollouts(bench)
        .patch_status("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until the status is as wanted.
async fn seen(bench: &Bench, wanted: impl Fn(&Value) -> bool) {
    eventually("its status is as wanted", async || {
        let live = rollouts(bench).get("shop").await.unwrap();
        holds(live, |live| wanted(&live.data["status"]))
    })
    .await;
}

async fn healthy(bench: &Bench) {
    seen(bench, |status| status["pauseConditions"].is_null()).await;
    status(
        bench,
        json!({
            "phase": "Healthy", "message": null, "controllerPause": false, "currentStepIndex": 2,
            "stableRS": "new", "updatedReplicas": 2, "availableReplicas": 2,
        }),
    )
    .await;
}

pub(crate) async fn a_rollout_that_pauses_goes_on_when_somebody_promotes_it(bench: &Bench) {
    let id = paused(bench, Pauses::Wait).await;
    let waits = "until it is promoted or aborted";
    let state = bench.until(&id, |state| state.progress.contains(waits)).await;
    assert!(state.human, "{state:?}");
    bench.tell(&id, DeploymentCommand::Promote { full: false }).await;
    healthy(bench).await;
    let state = bench.end_of(&id).await;
    succeeded(&state);
    assert!(!state.human && state.declined.is_none(), "{state:?}");
}

pub(crate) async fn a_rollout_that_pauses_goes_on_by_itself_where_the_catalog_says_so(bench: &Bench) {
    let id = paused(bench, Pauses::Promote).await;
    healthy(bench).await;
    succeeded(&bench.end_of(&id).await);
}

pub(crate) async fn an_abort_fails_it_and_names_who(bench: &Bench) {
    let id = paused(bench, Pauses::Wait).await;
    let message = "aborted by token/alice: errors".to_owned();
    bench.tell(&id, DeploymentCommand::Abort { message }).await;
    seen(bench, |status| status["abort"] == json!(true)).await;
    failed(&bench.end_of(&id).await, "ABORTED", &["token/alice: errors"]);
}
