//! DeployService over a real connection and a real ledger, with a pretended cluster: input, roles, idempotency, lanes,
//! watches, lists and events.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use deploy_svc::{
    catalog::{Catalog, CatalogStore},
    deployment::Deployment,
    deployment_effects::{DeploymentEffects, Manifests, RenderError},
    grpc_deploy::DeployApi,
};
use slipway_kubernetes::{Cluster, Clusters};
use slipway_ledger::{Executor, ExecutorHandle, Ledger, LedgerConfig};
use slipway_model::{CommitSha, Name, TraceContext};
use slipway_proto::{
    common::v1::Image,
    deploy::v1::{
        CancelDeploymentRequest, DeployRequest, GetDeploymentRequest, ListDeploymentsRequest,
        StreamEventsRequest, WatchDeploymentRequest, deploy_service_client::DeployServiceClient,
        deploy_service_server::DeployServiceServer, deployment::Status,
    },
};
use slipway_server::{
    Channel, ClientConfig, ErrorView, Server, ServerConfig,
    config::{Action, PrincipalConfig, RoleConfig},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

const CATALOG: &str = "
environments: [dev, prod]
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
";

struct Unused;

#[async_trait]
impl Manifests for Unused {
    async fn render(&self, _: &Name, _: &CommitSha, _: &str, _: TraceContext) -> Result<String, RenderError> {
        unreachable!("a pretended cluster takes no manifests")
    }
}

struct Service {
    url: String,
    ledger: Ledger,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Service {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}", folder.path().join("deploy.db").display());
        let ledger = Ledger::open(LedgerConfig::new(database).origin("deploy"))
            .await
            .unwrap();
        let principal = |subject: &str, roles: Vec<RoleConfig>| {
            PrincipalConfig::new(subject, &format!("{subject}-token"), roles).unwrap()
        };
        let dev = RoleConfig {
            environments: vec!["dev".to_owned()],
            ..RoleConfig::everywhere([Action::Start, Action::Read])
        };
        let all = [Action::Start, Action::Read, Action::Cancel];
        let config = ServerConfig {
            principals: vec![
                principal("alice", vec![RoleConfig::everywhere(all)]),
                principal("root", vec![RoleConfig::everywhere(Action::ALL)]),
                principal("dev", vec![dev]),
                principal("nobody", vec![]),
            ],
            ..ServerConfig::default()
        };
        let catalog = Arc::new(CatalogStore::fixed(Catalog::parse(CATALOG).unwrap()));
        let api = DeployApi {
            ledger: ledger.clone(),
            catalog,
        };
        let server = Server::builder("deploy-svc", &config, slipway_proto::DESCRIPTORS).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(
            server
                .service(DeployServiceServer::new(api))
                .serve(listener, shutdown.clone()),
        );
        Self {
            url,
            ledger,
            shutdown,
            _folder: folder,
        }
    }

    fn client(&self, subject: &str) -> DeployServiceClient<Channel> {
        DeployServiceClient::new(
            ClientConfig::new(&self.url, format!("{subject}-token"))
                .connect("deploy")
                .unwrap(),
        )
    }

    fn execute(&self) -> ExecutorHandle {
        let name: Name = "bench".parse().unwrap();
        let effects = DeploymentEffects::new(Clusters::of([(name, Cluster::Pretend)]), Arc::new(Unused));
        Executor::builder(self.ledger.clone())
            .register::<Deployment>(Arc::new(effects))
            .spawn(self.shutdown.clone())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn request(environment: &str) -> DeployRequest {
    DeployRequest {
        request_id: String::new(),
        service: "shop".to_owned(),
        environment: environment.to_owned(),
        image: Some(Image {
            name: "registry.example/shop".to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            tags: Vec::new(),
        }),
        commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
        correlation_id: "job-7".to_owned(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
    }
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let service = Service::start().await;
    let mut client = service.client("root");
    type Bend = fn(&mut DeployRequest);
    let cases: [(Bend, &str, &str); 9] = [
        (|r| r.service = "shopp".to_owned(), "service", "there are shop"),
        (
            |r| r.environment = "test".to_owned(),
            "environment",
            "there are dev, prod",
        ),
        (|r| r.commit = "main".to_owned(), "commit", "full id"),
        (|r| r.image = None, "image", "required"),
        (
            |r| r.image.as_mut().unwrap().digest = String::new(),
            "image.digest",
            "required",
        ),
        (
            |r| r.image.as_mut().unwrap().name = "registry.example/other".to_owned(),
            "image.name",
            "registry.example/shop",
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
    let service = Service::start().await;
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
    let service = Service::start().await;
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
    assert_eq!(first.requested_by.as_ref().unwrap().principal, "token/alice");
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
    let service = Service::start().await;
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
        "requested",
        "applied",
        "rolled_out",
        "checked",
        "succeeded",
        "lane_left",
    ];
    assert_eq!(
        types,
        wanted.map(|name| format!("dev.slipway.deployment.{name}.v1"))
    );
    service.shutdown.cancel();
    executor.drain().await;
}
