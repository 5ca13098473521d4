//! The workload stays watched while it bakes.

use deploy_domain::{
    catalog::WorkloadKind,
    deployment::{DeploymentRequest, DeploymentStep},
};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Bench, failed, succeeded};

async fn request(bench: &Bench, period: &str) -> DeploymentRequest {
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "ok"))
        .await;
    DeploymentRequest {
        bake: Some(serde_json::from_value(json!({"for": period, "interval": "1s"})).unwrap()),
        ..bench.request(&bench.a, 1)
    }
}

pub(crate) async fn a_version_that_keeps_running_has_passed(bench: &Bench) {
    let state = bench.run(request(bench, "3s").await).await;
    succeeded(&state);
    assert_eq!(state.step, DeploymentStep::Bake);
    assert!(
        state.ended_at >= state.bake_until,
        "{:?} {:?}",
        state.ended_at,
        state.bake_until
    );
}

pub(crate) async fn a_version_that_is_replaced_while_it_bakes_fails(bench: &Bench) {
    let id = bench.start(request(bench, "100s").await).await;
    bench.until(&id, |state| state.step == DeploymentStep::Bake).await;
    let theirs = bench.image(&bench.b);
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
    let state = bench.end_of(&id).await;
    failed(&state, "SUPERSEDED", &["while it was baking", theirs.as_str()]);
}
