//! Rolling back, by way of the API; and what the API shows of the cluster.

use std::sync::Arc;

use deploy_domain::{
    catalog::WorkloadKind,
    deployment::{DeploymentRequest, DeploymentStatus, Revert},
};
use deploy_svc::testing::{NoReverts, Revertible};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use pretty_assertions::assert_eq;
use slipway_proto::{
    common::v1::Image,
    deploy::v1::{
        DeployRequest, GetLiveStateRequest, LiveState, RollbackRequest,
        deployment::{Status, Step},
        live_state::Health,
    },
};
use slipway_testbed::{eventually, holds};

use crate::{
    api::{History, REVERTED, Service, end_of},
    cluster::{Bench, succeeded},
};

async fn service(bench: &Bench) -> Service {
    let catalog = format!(
        "
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: {}
    environments:
      - name: dev
        policy: none
        target: {{ cluster: test, namespace: {}, kind: Deployment, name: shop }}
        verify: {{ crash_loop_restarts: 2 }}
        timeout: {{ deploy: 5m }}
",
        bench.image, bench.namespace
    );
    Service::start(
        bench.ledger.clone(),
        &catalog,
        bench.clusters.clone(),
        Arc::new(NoReverts),
    )
    .await
}

pub(crate) async fn a_rollback_that_fails_says_what_to_do(bench: &Bench) {
    bench
        .render(&bench.shop(WorkloadKind::Deployment, &bench.a, "crash"))
        .await;
    let request = DeploymentRequest {
        rolls_back: Some("dep-0".parse().unwrap()),
        ..bench.request(&bench.a, 1)
    };
    let state = bench.run(request).await;
    assert_eq!(state.status, DeploymentStatus::RollbackFailed, "{state:?}");
    let reason = state.reason.unwrap();
    assert_eq!(reason.code, "CRASH_LOOP");
    for words in [
        "pod shop-",
        "The rollback of dep-0 did not succeed",
        "slipway deployment live",
    ] {
        assert!(reason.message.contains(words), "{words:?} in {}", reason.message);
    }
    assert!(!state.evidence.is_empty());
}

/// The order is given once, what it comes to is waited for, and that commit is what is deployed then.
pub(crate) async fn a_revert_in_git_is_deployed(bench: &Bench) {
    let found = Revertible {
        change: "chg-1".parse().unwrap(),
        image: bench.built(&bench.a),
    };
    let history = History::new(Some(found));
    let second = Bench::beside(bench, history.clone()).await;
    second
        .render(&second.shop(WorkloadKind::Deployment, &second.a, "ok"))
        .await;
    let state = second
        .run(DeploymentRequest {
            rolls_back: Some("dep-0".parse().unwrap()),
            reverts: Some(Revert {
                change: "chg-1".parse().unwrap(),
                reason: "it crashes".to_owned(),
            }),
            ..second.request(&second.a, 1)
        })
        .await;
    succeeded(&state);
    assert_eq!(*history.orders.lock().await, ["chg-1 it crashes slipway/test"]);
    let live = bench.deployments().get("shop").await.unwrap();
    assert_eq!(
        live.metadata.annotations.unwrap()["deploy.slipway.dev/commit"],
        REVERTED
    );
    second.stop().await;
}

pub(crate) async fn without_git_the_version_before_is_put_back(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let service = service(bench).await;
    let mut client = service.client("root");
    let image = Image {
        repository: bench.image.clone(),
        digest: bench.b.to_string(),
        ..Image::default()
    };
    let request = DeployRequest {
        service: "shop".to_owned(),
        environment: "dev".to_owned(),
        images: vec![image],
        ..DeployRequest::default()
    };
    let started = client
        .deploy(request)
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    let set = end_of(&mut client, &started.id).await;
    assert_eq!(set.status(), Status::Succeeded, "{set:?}");
    assert_eq!((set.commit.as_str(), set.step()), ("", Step::Rollout));

    let request = RollbackRequest {
        service: "shop".to_owned(),
        environment: "dev".to_owned(),
        reason: "too slow".to_owned(),
        ..RollbackRequest::default()
    };
    let back = client
        .rollback(request.clone())
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!(
        (back.rolls_back.as_str(), back.epoch > set.epoch),
        (set.id.as_str(), true)
    );
    let back = end_of(&mut client, &back.id).await;
    assert_eq!(back.status(), Status::Succeeded, "{back:?}");
    let live: Deployment = bench.deployments().get("shop").await.unwrap();
    let image = live.spec.unwrap().template.spec.unwrap().containers[0]
        .image
        .clone()
        .unwrap();
    assert!(image.ends_with(bench.a.as_str()), "{image}");

    let again = client.rollback(request).await.unwrap_err();
    assert!(again.message().contains("was put back already"), "{again}");
}

pub(crate) async fn the_live_state_is_judged(bench: &Bench) {
    let service = service(bench).await;
    let mut client = service.client("dev");
    let mut look = async || -> LiveState {
        let request = GetLiveStateRequest {
            service: "shop".to_owned(),
            environment: "dev".to_owned(),
        };
        client
            .get_live_state(request)
            .await
            .unwrap()
            .into_inner()
            .state
            .unwrap()
    };
    assert_eq!(look().await.health(), Health::Missing);

    let deployed = bench.deploy(&bench.a, "ok", 4).await;
    succeeded(&deployed);
    let state = look().await;
    assert_eq!(state.health(), Health::Complete, "{state:?}");
    assert_eq!((state.pods, state.ready_pods, state.epoch), (2, 2, 4));
    assert_eq!(state.images, [bench.image(&bench.a)]);
    assert_eq!(state.running_digests, [bench.a.to_string()]);
    assert_eq!(state.commit, "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d");
    assert!(state.deployment_id.starts_with("dep-"), "{}", state.deployment_id);

    assert_eq!(
        bench.deploy(&bench.b, "crash", 5).await.status,
        DeploymentStatus::Failed
    );
    // Between two crashes its container runs for a moment.
    let failing = eventually("it fails", async || {
        holds(look().await, |state| state.health() == Health::Failed)
    })
    .await;
    assert!(
        failing.message.contains("CrashLoopBackOff"),
        "{}",
        failing.message
    );

    bench
        .deployments()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    eventually("it is missing", async || {
        holds(look().await, |state| state.health() == Health::Missing)
    })
    .await;
}
