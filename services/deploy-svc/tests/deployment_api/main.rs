//! DeployService over a real connection and a real ledger, without a cluster: input, roles, idempotency, lanes,
//! watches, lists, events, rollbacks.
#![allow(clippy::unwrap_used)]

#[path = "../api/mod.rs"]
mod api;
#[path = "../at_once/mod.rs"]
mod at_once;
mod kinds;
mod order;
mod rollback;

use std::{ops::Deref, sync::Arc, time::Duration};

use api::{History, Service, Unused};
use at_once::AtOnce;
use deploy_domain::deployment::Deployment;
use deploy_svc::testing::{DeploymentEffects, Revertible};
use slipway_kubernetes::Clusters;
use slipway_ledger::{Executor, ExecutorHandle, Ledger, LedgerConfig};
use slipway_proto::{
    common::v1::Image,
    deploy::v1::{
        CancelDeploymentRequest, DeployRequest, GetDeploymentRequest, ListDeploymentsRequest,
        StreamEventsRequest, WatchDeploymentRequest, deployment::Status,
    },
};
use slipway_server::{ErrorView, convert};
use tokio_util::sync::CancellationToken;
use tonic::Code;

const CATALOG: &str = "
environments: [dev, prod, local, canary]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: dev
        policy: none
        gitops: { repository: platform, path: apps/shop/overlays/dev }
        target: { cluster: bench, namespace: dev, name: shop }
        checks: [{ name: health, http: { service: shop, port: 80 } }]
      - name: prod
        policy: two-approvers
        gitops: { repository: platform, path: apps/shop/overlays/prod }
        target: { cluster: bench, namespace: prod, name: shop }
      - name: local
        policy: none
        target: { cluster: bench, namespace: local, name: shop }
      - name: canary
        policy: none
        gitops: { repository: platform, path: apps/shop/overlays/canary }
        target: { cluster: bench, namespace: canary, kind: Rollout, name: shop }
        jobs:
          before: [{ name: migrate, pod: { containers: [{ name: main }] } }]
        bake:
          for: 2s
          interval: 1s
          metrics: [{ name: errors, query: up, max: 0.05 }]
";

/// The API, its ledger, and what may carry out what it starts.
struct Bench {
    service: Service,
    ledger: Ledger,
    history: Arc<History>,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Deref for Bench {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Bench {
    fn execute(&self) -> ExecutorHandle {
        let reverts =
            DeploymentEffects::new(Clusters::default(), Arc::new(Unused)).reverts(self.history.clone());
        let effects = AtOnce {
            beside: Some(Arc::new(reverts)),
        };
        Executor::builder(self.ledger.clone())
            .register::<Deployment>(Arc::new(effects))
            .spawn(self.shutdown.clone())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn serve() -> Bench {
    let before = Revertible {
        change: "chg-1".parse().unwrap(),
        image: slipway_model::Image {
            name: "shop".parse().unwrap(),
            repository: "registry.example/shop".parse().unwrap(),
            digest: format!("sha256:{}", "cd".repeat(32)).parse().unwrap(),
            tags: Vec::new(),
        },
    };
    serve_with(Some(before)).await
}

async fn serve_with(before: Option<Revertible>) -> Bench {
    serve_by(CATALOG, before).await
}

async fn serve_by(catalog: &str, before: Option<Revertible>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("deploy.db").display());
    let ledger = Ledger::open(LedgerConfig::new(database).origin("deploy"))
        .await
        .unwrap();
    let history = History::new(before);
    let service = Service::start(ledger.clone(), catalog, Clusters::default(), history.clone()).await;
    Bench {
        service,
        ledger,
        history,
        shutdown: CancellationToken::new(),
        _folder: folder,
    }
}

fn request(environment: &str) -> DeployRequest {
    DeployRequest {
        request_id: String::new(),
        service: "shop".to_owned(),
        environment: environment.to_owned(),
        images: vec![Image {
            repository: "registry.example/shop".to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            ..Image::default()
        }],
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
        correlation_id: "job-7".to_owned(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
    }
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let service = serve().await;
    let mut client = service.client("root");
    type Bend = fn(&mut DeployRequest);
    let cases: [(Bend, &str, &str); 11] = [
        (|r| r.service = "shopp".to_owned(), "service", "there are shop"),
        (
            |r| r.environment = "test".to_owned(),
            "environment",
            "there are dev, prod, local, canary",
        ),
        (|r| r.commit = "main".to_owned(), "commit", "full id"),
        (|r| r.images.clear(), "images", "give exactly one"),
        (
            |r| r.images.push(r.images[0].clone()),
            "images",
            "several images are not supported yet",
        ),
        (|r| r.images[0].digest.clear(), "images[0].digest", "required"),
        (
            |r| r.images[0].repository = "registry.example/other".to_owned(),
            "images[0].repository",
            "registry.example/shop",
        ),
        (
            |r| r.images[0].name = "worker".to_owned(),
            "images[0].name",
            "has the name shop",
        ),
        (|r| r.correlation_id = "a b".to_owned(), "correlation_id", ""),
        (|r| r.request_id = "a b".to_owned(), "request_id", ""),
        (
            |r| drop(r.labels.insert(String::new(), "x".to_owned())),
            "labels",
            "",
        ),
    ];
    for (bend, field, words) in cases {
        let mut message = request("dev");
        bend(&mut message);
        let error = client.deploy(message).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(
            error.message().contains(field) && error.message().contains(words),
            "{field} {words}: {error}"
        );
    }
    let error = client
        .get_deployment(GetDeploymentRequest {
            id: "dep-0".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn roles_are_asked_for_and_a_gate_is_not_walked_around() {
    let service = serve().await;
    for (who, environment, code) in [
        ("nobody", "dev", Some(Code::PermissionDenied)),
        ("dev", "prod", Some(Code::PermissionDenied)),
        // prod has a policy: deploying without a release gets past it, and is for those who may override.
        ("alice", "prod", Some(Code::PermissionDenied)),
        ("root", "prod", None),
        ("dev", "dev", None),
    ] {
        let outcome = service.client(who).deploy(request(environment)).await;
        assert_eq!(
            outcome.as_ref().err().map(tonic::Status::code),
            code,
            "{who} {environment}: {outcome:?}"
        );
    }
    // What may not be read is not listed.
    let listed = service
        .client("dev")
        .list_deployments(ListDeploymentsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.deployments.len(), 1);
    let listed = service
        .client("root")
        .list_deployments(ListDeploymentsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.deployments.len(), 2);
}

#[tokio::test]
async fn the_same_request_is_the_same_deployment_and_the_target_is_busy_for_others() {
    let service = serve().await;
    let mut client = service.client("alice");
    let message = DeployRequest {
        request_id: "r-1".to_owned(),
        ..request("dev")
    };
    let first = client
        .deploy(message.clone())
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!((first.status(), first.epoch), (Status::Applying, 2));
    assert_eq!(first.target.as_ref().unwrap().namespace, "dev");
    assert_eq!(convert::effective(first.requested_by.as_ref()), "token/alice");
    let again = client
        .deploy(message.clone())
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!(again.id, first.id);

    let other = DeployRequest {
        correlation_id: "job-8".to_owned(),
        ..message
    };
    let error = client.deploy(other).await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).reason.as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );

    let error = client.deploy(request("dev")).await.unwrap_err();
    assert_eq!(
        (error.code(), ErrorView::of(&error).reason.as_str()),
        (Code::FailedPrecondition, "TARGET_BUSY")
    );
    assert!(error.message().contains(&first.id), "{error}");

    // Cancelled, it gives the target back, and the next turn has a higher epoch. Each turn has two of them: what is
    // put back under it stands above what it replaces.
    let cancel = CancelDeploymentRequest {
        id: first.id.clone(),
        reason: "never mind".to_owned(),
    };
    let cancelled = client
        .cancel_deployment(cancel)
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!(cancelled.status(), Status::Cancelled);
    assert!(
        cancelled
            .reason
            .as_ref()
            .unwrap()
            .message
            .contains("token/alice: never mind")
    );
    let executor = service.execute();
    let watch = WatchDeploymentRequest {
        id: first.id,
        etag: String::new(),
    };
    let mut states = client.watch_deployment(watch).await.unwrap().into_inner();
    while states.message().await.unwrap().is_some() {}
    let next = client
        .deploy(request("dev"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    assert_eq!(next.epoch, 4);
    service.shutdown.cancel();
    executor.drain().await;
}

#[tokio::test]
async fn a_watch_shows_each_state_and_ends_with_the_last() {
    let service = serve().await;
    let mut client = service.client("alice");
    let started = client
        .deploy(request("dev"))
        .await
        .unwrap()
        .into_inner()
        .deployment
        .unwrap();
    let watch = WatchDeploymentRequest {
        id: started.id.clone(),
        etag: String::new(),
    };
    let mut states = client.watch_deployment(watch).await.unwrap().into_inner();
    let first = states.message().await.unwrap().unwrap().deployment.unwrap();
    assert_eq!(first.status(), Status::Applying);
    assert_eq!(first.waiting_on.unwrap().r#ref, "bench/dev/Deployment/shop");
    let executor = service.execute();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        last = state.deployment;
    }
    let last = last.unwrap();
    assert_eq!(
        (last.status(), last.checks.len()),
        (Status::Succeeded, 1),
        "{last:?}"
    );
    assert!(last.apply_time.is_some() && last.end_time.is_some() && last.waiting_on.is_none());

    // Lists by what they are filtered by.
    for (filter, count) in [
        (
            ListDeploymentsRequest {
                status: Status::Succeeded.into(),
                ..Default::default()
            },
            1,
        ),
        (
            ListDeploymentsRequest {
                status: Status::Failed.into(),
                ..Default::default()
            },
            0,
        ),
        (
            ListDeploymentsRequest {
                correlation_id: "job-7".to_owned(),
                ..Default::default()
            },
            1,
        ),
        (
            ListDeploymentsRequest {
                environment: "prod".to_owned(),
                ..Default::default()
            },
            0,
        ),
        (
            ListDeploymentsRequest {
                labels: [("team".to_owned(), "web".to_owned())].into(),
                ..Default::default()
            },
            1,
        ),
    ] {
        let listed = client
            .list_deployments(filter.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(listed.deployments.len(), count, "{filter:?}");
    }

    // And its events in order, from the beginning.
    let stream = StreamEventsRequest {
        cursor: String::new(),
        correlation_id: "job-7".to_owned(),
    };
    let mut events = client.stream_events(stream).await.unwrap().into_inner();
    let mut types = Vec::new();
    while types.last().map(String::as_str) != Some("dev.slipway.deployment.lane_left.v1") {
        let next = tokio::time::timeout(Duration::from_secs(30), events.message())
            .await
            .expect("an event in time");
        types.extend(next.unwrap().unwrap().event.map(|event| event.r#type));
    }
    let wanted = [
        "requested.v2",
        "applied.v1",
        "rolled_out.v1",
        "checked.v1",
        "succeeded.v1",
        "lane_left.v1",
    ];
    assert_eq!(types, wanted.map(|name| format!("dev.slipway.deployment.{name}")));
    service.shutdown.cancel();
    executor.drain().await;
}
