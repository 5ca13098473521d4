//! DeployService and ReleaseService over a real connection, with people who may do different things.
#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::sync::Arc;

use async_trait::async_trait;
use deploy_domain::catalog::{Catalog, GitOps};
use deploy_svc::testing::{
    CatalogStore, DeployApi, Manifests, ReleaseApi, RevertOrder, RevertTarget, Revertible, Reverting, Reverts,
};
use slipway_kubernetes::Clusters;
use slipway_ledger::Ledger;
use slipway_model::{CommitSha, Fault, Id, Name, Reason, TraceContext};
use slipway_proto::{
    deploy::v1::{
        Deployment, WatchDeploymentRequest, deploy_service_client::DeployServiceClient,
        deploy_service_server::DeployServiceServer,
    },
    release::v1::{
        release_service_client::ReleaseServiceClient, release_service_server::ReleaseServiceServer,
    },
};
use slipway_server::{
    Channel, Server, ServerConfig, Wiring,
    config::{Action, PrincipalConfig, RoleConfig},
};
use slipway_testbed::InProcess;
use tokio::sync::Mutex;

/// The commit that puts back.
pub(crate) const REVERTED: &str = "2222222222222222222222222222222222222222";

/// A server of both APIs. It ends when it is dropped.
pub(crate) struct Service(InProcess<ServerConfig>);

impl Service {
    pub(crate) async fn start(
        ledger: Ledger,
        catalog: &str,
        clusters: Clusters,
        reverts: Arc<dyn Reverts>,
    ) -> Self {
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
        let catalog = Arc::new(CatalogStore::fixed(Catalog::parse(catalog).unwrap()));
        let releases = ReleaseApi::new(ledger.clone(), catalog.clone());
        let api = DeployApi::new(ledger, catalog, clusters, reverts);
        let serve = async move |config: ServerConfig, wiring: Wiring, shutdown| {
            let server = Server::builder("deploy-svc", &config, slipway_proto::DESCRIPTORS)?;
            let server = server
                .service(DeployServiceServer::new(api))
                .service(ReleaseServiceServer::new(releases));
            Ok(server.serve(wiring.listeners.grpc, shutdown).await?)
        };
        Self(InProcess::with("deploy-svc", config, serve).await.unwrap())
    }

    pub(crate) fn client(&self, subject: &str) -> DeployServiceClient<Channel> {
        DeployServiceClient::new(self.0.channel(Some(&format!("{subject}-token"))))
    }

    pub(crate) fn releases(&self, subject: &str) -> ReleaseServiceClient<Channel> {
        ReleaseServiceClient::new(self.0.channel(Some(&format!("{subject}-token"))))
    }
}

/// Waits for a deployment's end.
pub(crate) async fn end_of(client: &mut DeployServiceClient<Channel>, id: &str) -> Deployment {
    let watch = WatchDeploymentRequest {
        id: id.to_owned(),
        etag: String::new(),
    };
    let mut states = client.watch_deployment(watch).await.unwrap().into_inner();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        last = state.deployment;
    }
    last.expect("a state")
}

/// Renders nothing: deployments that succeed at once take no manifests.
pub(crate) struct Unused;

#[async_trait]
impl Manifests for Unused {
    async fn render(
        &self,
        _: &Name,
        _: &CommitSha,
        _: &str,
        _: TraceContext,
    ) -> Result<String, Fault<Reason>> {
        unreachable!("nothing is rendered")
    }
}

/// A GitOps repository that remembers one change, and what stood there before; gitops-svc's own tests have the rest.
pub(crate) struct History {
    /// None: nothing stood there before.
    pub(crate) before: Option<Revertible>,
    /// How often the revert is still waited for when it is looked at.
    pub(crate) waits: Mutex<u32>,
    /// The orders that were given.
    pub(crate) orders: Mutex<Vec<String>>,
}

impl History {
    pub(crate) fn new(before: Option<Revertible>) -> Arc<Self> {
        Arc::new(Self {
            before,
            waits: Mutex::new(1),
            orders: Mutex::default(),
        })
    }
}

#[async_trait]
impl Reverts for History {
    async fn find(&self, _: &RevertTarget<'_>) -> Result<Revertible, Fault<Reason>> {
        let nothing = || Fault::refused("NOTHING_TO_ROLL_BACK_TO", "nothing stood there before");
        self.before.clone().ok_or_else(nothing)
    }

    async fn moved_on(
        &self,
        _: &RevertTarget<'_>,
        _: &GitOps,
        _: &Id,
    ) -> Result<Option<Reason>, Fault<Reason>> {
        Ok(None)
    }

    async fn revert(&self, order: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>> {
        let words = format!(
            "{} {} {}",
            order.revert.change, order.revert.reason, order.on_behalf_of
        );
        self.orders.lock().await.push(words);
        Ok(Reverting::Pending {
            change: "chg-2".parse().unwrap(),
            message: "waits to be pushed".to_owned(),
        })
    }

    async fn observe(&self, change: &Id, _: TraceContext) -> Result<Reverting, Fault<Reason>> {
        let mut waits = self.waits.lock().await;
        let change = change.clone();
        if *waits > 0 {
            *waits -= 1;
            let message = "checks are running".to_owned();
            return Ok(Reverting::Pending { change, message });
        }
        let commit = REVERTED.parse().unwrap();
        Ok(Reverting::Pushed { change, commit })
    }
}
