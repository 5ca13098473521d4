//! Environments without git, Jobs and bakes, rollouts by steps, the live state.

use slipway_proto::deploy::v1::{
    AbortDeploymentRequest, DeployRequest, GetLiveStateRequest, PromoteDeploymentRequest,
    deployment::{Status, Step},
    metric_result::Verdict,
};
use slipway_server::ErrorView;
use tonic::Code;

use crate::{api::end_of, request, serve};

#[tokio::test]
async fn where_git_knows_nothing_there_is_no_commit() {
    let service = serve().await;
    let mut client = service.client("alice");
    let error = client.deploy(request("local")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        error.message().contains("commit") && error.message().contains("shop/local"),
        "{error}"
    );
    let message = DeployRequest {
        commit: String::new(),
        ..request("local")
    };
    let started = client
        .deploy(message)
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!((started.commit.as_str(), started.step()), ("", Step::Apply));
    assert!(
        started.progress.contains("bench/local/Deployment/shop"),
        "{}",
        started.progress
    );
}

#[tokio::test]
async fn jobs_and_measurements_are_shown() {
    let service = serve().await;
    let mut client = service.client("alice");
    let started = client
        .deploy(request("canary"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!(
        (started.step(), started.progress.as_str()),
        (Step::Before, "job migrate is under way")
    );
    assert!(
        started.metrics.is_empty() && started.bake_end_time.is_none(),
        "{started:?}"
    );
    let executor = service.execute();
    let last = end_of(&mut client, &started.id).await;
    assert_eq!(
        (last.status(), last.step()),
        (Status::Succeeded, Step::Bake),
        "{last:?}"
    );
    let job = &last.jobs[0];
    assert_eq!((job.name.as_str(), job.succeeded), ("migrate", true));
    let metric = &last.metrics[0];
    assert_eq!(
        (metric.name.as_str(), metric.verdict()),
        ("errors", Verdict::Passed)
    );
    assert_eq!(
        (metric.measurements, metric.failures, metric.max),
        (2, 0, Some(0.05))
    );
    assert!(last.bake_end_time.is_some());
    service.shutdown.cancel();
    executor.drain().await;
}

#[tokio::test]
async fn promote_and_abort_are_for_rollouts_under_way() {
    let service = serve().await;
    let mut client = service.client("alice");
    let plain = client
        .deploy(request("dev"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    let canary = client
        .deploy(request("canary"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    for (id, reason) in [(&plain.id, "NO_STEPS"), (&canary.id, "NOT_ROLLING_OUT")] {
        let promote = PromoteDeploymentRequest {
            id: id.clone(),
            full: false,
        };
        let error = client.promote_deployment(promote).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(ErrorView::of(&error).reason, reason);
        let abort = AbortDeploymentRequest {
            id: id.clone(),
            reason: String::new(),
        };
        let error = client.abort_deployment(abort).await.unwrap_err();
        assert_eq!(ErrorView::of(&error).reason, reason);
    }
    let abort = AbortDeploymentRequest {
        id: plain.id.clone(),
        reason: String::new(),
    };
    let error = service.client("dev").abort_deployment(abort).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let unknown = PromoteDeploymentRequest {
        id: "dep-0".to_owned(),
        full: true,
    };
    assert_eq!(
        client.promote_deployment(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn live_state_is_of_what_the_catalog_has_and_a_caller_may_read() {
    let service = serve().await;
    let look = |service: &str, environment: &str| GetLiveStateRequest {
        service: service.to_owned(),
        environment: environment.to_owned(),
    };
    for (who, wanted, code) in [
        ("alice", look("shopp", "dev"), Code::InvalidArgument),
        ("alice", look("shop", "moon"), Code::InvalidArgument),
        ("dev", look("shop", "prod"), Code::PermissionDenied),
        ("alice", look("shop", "dev"), Code::FailedPrecondition),
    ] {
        let error = service
            .client(who)
            .get_live_state(wanted.clone())
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{wanted:?}: {error}");
    }
}
