//! Canaries that are aborted after their release has ended, in a cluster, and what people see of it.
#![allow(clippy::unwrap_used)]

#[path = "../api/mod.rs"]
mod api;
mod bench;
#[path = "../cluster/definitions.rs"]
mod definitions;
#[path = "../release/mod.rs"]
mod release;

use std::sync::Arc;

use bench::{Bench, image, on_cluster, putting_back, with_target};
use deploy_domain::{
    canary_watch::CanaryWatchStatus as Status,
    catalog::WorkloadKind,
    deployment::{Deployment, DeploymentStatus, Reason},
    lane::{Lane, LaneCommand},
    release::{Release, ReleaseStatus},
};
use deploy_svc::testing::Reverts;
use pretty_assertions::assert_eq;
use release::{ended, id, meta, until};
use slipway_model::Id;
use slipway_proto::release::v1::{
    CanaryWatch as Shown, GetReleaseRequest, Release as ShownRelease, StreamEventsRequest,
    canary_watch::Status as ShownStatus, release::Status as ShownReleaseStatus,
};

const CATALOG: &str = "
environments: [dev]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments: [{ name: dev, policy: none, target: { cluster: main, namespace: shop, name: shop } }]
";

/// The release as people see it, and its one canary.
async fn shown(bench: &Bench, release: &Id) -> (ShownRelease, Shown) {
    let reverts = Arc::clone(&bench.git) as Arc<dyn Reverts>;
    let ledger = bench.world.ledger.clone();
    let service = api::Service::start(ledger, CATALOG, bench.clusters.clone(), reverts).await;
    let request = GetReleaseRequest {
        id: release.to_string(),
    };
    let answer = service.releases("alice").get_release(request).await.unwrap();
    let release = answer.into_inner().release.unwrap();
    let [canary] = &release.canary_watches[..] else {
        panic!("one canary: {release:?}")
    };
    let canary = canary.clone();
    (release, canary)
}

/// The types of the events of a release's watch, in their order.
async fn told(bench: &Bench, release: &Id) -> Vec<String> {
    let reverts = Arc::clone(&bench.git) as Arc<dyn Reverts>;
    let ledger = bench.world.ledger.clone();
    let service = api::Service::start(ledger, CATALOG, bench.clusters.clone(), reverts).await;
    let request = StreamEventsRequest {
        correlation_id: release.to_string(),
        ..StreamEventsRequest::default()
    };
    let events = service.releases("alice").stream_events(request).await.unwrap();
    let mut events = events.into_inner();
    let mut types = Vec::new();
    while let Some(answer) = events.message().await.unwrap() {
        let kind = answer.event.map(|event| event.r#type).unwrap_or_default();
        let last = kind.ends_with(".put_back.v1");
        types.extend(kind.strip_prefix("dev.slipway.canary_watch.").map(str::to_owned));
        if last {
            break;
        }
    }
    types
}

/// The put-back deployment takes the version before, which serves already.
async fn is_put_back(bench: &Bench, release: &Id) {
    let (deployment, ledger) = (putting_back(release), &bench.world.ledger);
    let state = bench.until_applied(&deployment).await;
    let request = state.request.unwrap();
    assert_eq!(request.requested_by.to_string(), "slipway/deploy");
    let live = bench.live().await;
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"][0]["image"],
        image("a")
    );
    bench.healthy("old").await;
    let end = bench.watch(release, |state| state.status.is_final()).await;
    assert_eq!(end.status, Status::PutBack, "{:?}", end.reason);
    let found = ledger.get::<Deployment>(&deployment).await.unwrap();
    assert_eq!(found.unwrap().state.status, DeploymentStatus::Succeeded);
    // The lane is free, and a release that was started meanwhile still gets its turn.
    let lane = ledger.get::<Lane>(&id("main/shop/Rollout/shop")).await.unwrap();
    let lane = lane.unwrap().state;
    let through = lane.last_through(Some(&"shop".parse().unwrap())).unwrap().started;
    let release = ledger.get::<Release>(release).await.unwrap().unwrap().state;
    assert_eq!((&lane.holder, Some(through)), (&None, release.requested_at));
}

#[tokio::test]
async fn a_canary_that_is_aborted_after_its_release_is_put_back() {
    on_cluster(async |bench| {
        // Two replicas: only one of them acts.
        let replicas = [bench.replica(), bench.replica()];
        let release = bench.succeeded("rel-1", "").await;
        let (_, canary) = shown(bench, &release).await;
        assert_eq!(canary.status(), ShownStatus::Watching);
        assert!(canary.until_time.is_some());

        bench.aborted().await;
        is_put_back(bench, &release).await;
        let orders = bench.git.orders.lock().unwrap().clone();
        let once = [(format!("{}/revert", putting_back(&release)), 1)];
        assert_eq!(orders, once.into());
        assert_eq!(bench.deployments().await.len(), 2);

        let (seen, canary) = shown(bench, &release).await;
        assert_eq!(seen.status(), ShownReleaseStatus::Succeeded, "final stays final");
        assert_eq!(
            (canary.environment.as_str(), canary.status()),
            ("dev", ShownStatus::PutBack)
        );
        assert_eq!(canary.deployment_id, putting_back(&release).as_str());
        let failure = canary.failure.unwrap();
        assert_eq!(failure.code, "ABORTED");
        assert!(
            failure.message.contains("aborted by an analysis"),
            "{}",
            failure.message
        );
        assert_eq!(
            told(bench, &release).await,
            ["began.v1", "failed.v1", "putting_back.v1", "put_back.v1"]
        );
        for replica in replicas {
            replica.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn git_that_has_moved_on_stays_as_it_is() {
    on_cluster(async |bench| {
        let replica = bench.replica();
        let release = bench.succeeded("rel-1", "").await;
        let words = "chg-9 was written to dev after chg-1";
        *bench.git.moved_on.lock().unwrap() = Some(Reason::new("CHANGED_SINCE", words));
        bench.aborted().await;
        let end = bench.watch(&release, |state| state.status.is_final()).await;
        assert_eq!(end.status, Status::NotPutBack);
        let (_, canary) = shown(bench, &release).await;
        assert_eq!(canary.status(), ShownStatus::NotPutBack);
        assert_eq!(canary.deployment_id, "");
        let reason = canary.reason.unwrap();
        assert_eq!(
            (reason.code.as_str(), reason.message.as_str()),
            ("CHANGED_SINCE", words)
        );
        assert_eq!(canary.failure.unwrap().code, "ABORTED");
        assert_eq!((bench.git.reverted(), bench.deployments().await.len()), (0, 1));
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_canary_of_another_image_is_not_ours() {
    on_cluster(async |bench| {
        let replica = bench.replica();
        let release = bench.succeeded("rel-1", "canary_watch: 3s").await;
        bench.set_image("registry.example/shop:other").await;
        bench.aborted().await;
        let end = bench.watch(&release, |state| state.status.is_final()).await;
        assert_eq!((end.status, end.failure), (Status::Passed, None));
        assert_eq!((bench.git.reverted(), bench.deployments().await.len()), (0, 1));
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_newer_release_ends_it() {
    on_cluster(async |bench| {
        let replica = bench.replica();
        let first = bench.succeeded("rel-1", "").await;
        let second = bench.succeeded("rel-2", "").await;
        let end = bench.watch(&first, |state| state.status.is_final()).await;
        assert_eq!(end.status, Status::Superseded);
        let reason = end.reason.unwrap();
        assert!(
            reason
                .message
                .contains("was deployed to main/shop/Rollout/shop after")
                || reason.code == "SUPERSEDED_EPOCH",
            "{reason:?}"
        );
        let follows = bench.watch(&second, |state| state.watched.is_some()).await;
        assert_eq!(follows.status, Status::Watching);
        assert_eq!(bench.git.reverted(), 0);
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_lane_that_is_held_is_waited_for() {
    on_cluster(async |bench| {
        let replica = bench.replica();
        let release = bench.succeeded("rel-1", "").await;
        let (lane, ledger) = (id("main/shop/Rollout/shop"), &bench.world.ledger);
        let enter = || LaneCommand::Enter {
            holder: id("dep-held"),
            service: "shop".parse().unwrap(),
            yields: false,
            started: None,
        };
        ledger.execute::<Lane>(&lane, enter, &meta()).await.unwrap();
        bench.aborted().await;
        bench.watch(&release, |state| state.lane_holder.is_some()).await;
        let (_, canary) = shown(bench, &release).await;
        assert_eq!(
            (canary.status(), canary.waits_for.as_str()),
            (ShownStatus::Failed, "dep-held")
        );
        assert_eq!(bench.git.reverted(), 0);
        let leave = || LaneCommand::Leave {
            holder: id("dep-held"),
            through: false,
        };
        ledger.execute::<Lane>(&lane, leave, &meta()).await.unwrap();
        is_put_back(bench, &release).await;
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_dies_on_the_way_is_done_once() {
    on_cluster(async |bench| {
        let replica = bench.replica();
        let release = bench.succeeded("rel-1", "").await;
        // It dies while it asks what is to be reverted, and again when that is done and the answer has not come.
        let finds = bench.git.finds.acquire().await.unwrap();
        let reverts = bench.git.reverts.acquire().await.unwrap();
        bench.aborted().await;
        bench.git.called("find").await;
        replica.stop().await;
        drop(finds);
        let replica = bench.replica();
        bench.git.called("revert").await;
        replica.stop().await;
        drop(reverts);

        let replica = bench.replica();
        let deployment = putting_back(&release);
        is_put_back(bench, &release).await;
        let orders = bench.git.orders.lock().unwrap().clone();
        assert_eq!(
            orders.keys().collect::<Vec<_>>(),
            [&format!("{deployment}/revert")],
            "one change, however often it is ordered"
        );
        assert_eq!(bench.deployments().await.len(), 2);
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_canary_that_flagger_rolls_back_after_its_release_is_put_back() {
    with_target(WorkloadKind::Canary, "flagger.yaml", async |bench| {
        let replica = bench.replica();
        let (release, deployment) = bench.deploying("rel-1", &[]).await;
        bench.until_applied(&deployment).await;
        bench.flagger("Succeeded", "b", "b").await;
        let state = until(&bench.world, &release, |state| state.status.is_final()).await;
        assert_eq!(ended(&state), (ReleaseStatus::Succeeded, ""));

        bench.flagger("Failed", "a", "b").await;
        bench.until_applied(&putting_back(&release)).await;
        // Flagger has nothing to try: what is asked for serves.
        bench.flagger("Failed", "a", "a").await;
        let end = bench.watch(&release, |state| state.status.is_final()).await;
        assert_eq!(end.status, Status::PutBack, "{:?}", end.reason);
        assert_eq!(end.failure.unwrap().code, "ABORTED");
        replica.stop().await;
    })
    .await;
}

/// The release ended, and its canary went on, since the catalog leaves what fails for people to look at.
#[tokio::test]
async fn a_canary_that_outlives_the_time_of_its_release_is_put_back() {
    on_cluster(async |bench| {
        let replica = bench.replica();
        let keys = ["on_failure: stay", "timeout: { deploy: 8s }"];
        let (release, deployment) = bench.deploying("rel-1", &keys).await;
        bench.until_applied(&deployment).await;
        let state = until(&bench.world, &release, |state| state.status.is_final()).await;
        assert!(
            matches!(ended(&state).0, ReleaseStatus::Failed | ReleaseStatus::Errored),
            "{:?}",
            state.reason
        );
        bench.aborted().await;
        is_put_back(bench, &release).await;
        let found = bench.world.ledger.get::<Release>(&release).await.unwrap();
        assert_eq!(found.unwrap().state.status, state.status, "final stays final");
        replica.stop().await;
    })
    .await;
}
