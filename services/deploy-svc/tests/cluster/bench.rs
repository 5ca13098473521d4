//! One test's namespace, ledger and executor.

use std::sync::Arc;

use async_trait::async_trait;
use deploy_domain::{
    catalog::{Target, Verify, WorkloadKind},
    deployment::{
        Action, Deployment, DeploymentCommand, DeploymentRequest, DeploymentState, DeploymentStatus, Source,
    },
};
use deploy_svc::testing::{DeploymentEffects, Manifests, NoReverts, Reverts};
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1,
        core::v1::{Namespace, ServiceAccount},
    },
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use slipway_kubernetes::{Clusters, Kubernetes};
use slipway_ledger::{Executor, ExecutorHandle, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, CommitSha, Digest, Fault, Id, Image, Images, Name, Reason, TraceContext};
use slipway_testbed::{Images as Layout, eventually, patience};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::World;

/// The commit that all deployments name.
pub(crate) const COMMIT: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

/// Renders what the test says, instead of gitops-svc.
#[derive(Default)]
pub(crate) struct Rendered(pub(crate) Mutex<String>);

#[async_trait]
impl Manifests for Rendered {
    async fn render(
        &self,
        _: &Name,
        _: &CommitSha,
        _: &str,
        _: TraceContext,
    ) -> Result<String, Fault<Reason>> {
        Ok(self.0.lock().await.clone())
    }
}

/// Where a test is, and with what.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) cluster: Kubernetes,
    pub(crate) clusters: Clusters,
    /// Made for this test, and deleted after it.
    pub(crate) namespace: Name,
    /// Name of the application's image, without tag and digest.
    pub(crate) image: String,
    layout: Layout,
    /// Its two versions.
    pub(crate) a: Digest,
    pub(crate) b: Digest,
}

/// One test's namespace, ledger and executor.
pub(crate) struct Bench {
    place: Place,
    pub(crate) rendered: Arc<Rendered>,
    pub(crate) ledger: Ledger,
    executor: ExecutorHandle,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Bench {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Bench {
    /// Opens a namespace, and runs deployments with what the service runs them.
    pub(crate) async fn new(world: &World, test: &str) -> Self {
        let (clusters, cluster) = world.clusters().await;
        let short = test.rsplit("::").next().unwrap_or(test);
        let short: String = short.replace('_', "-").chars().take(40).collect();
        let namespace: Name = format!("{}-{:05}", short.trim_matches('-'), fastrand::u32(..100_000))
            .parse()
            .unwrap();
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        let api: Api<Namespace> = Api::all(cluster.client().clone());
        api.create(&PostParams::default(), &object).await.unwrap();
        // A real cluster refuses pods until its controller has made their account.
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client().clone(), namespace.as_str());
        eventually("the namespace has its default service account", async || {
            accounts.get("default").await.map(drop)
        })
        .await;

        let place = Place {
            cluster,
            clusters,
            namespace,
            image: world.image.clone(),
            layout: world.layout.clone(),
            a: world.a.clone(),
            b: world.b.clone(),
        };
        Self::open(place, Arc::new(NoReverts)).await
    }

    /// A second service on the same namespace, with a ledger of its own. To be ended by [`stop`](Self::stop).
    pub(crate) async fn beside(other: &Self, reverts: Arc<dyn Reverts>) -> Self {
        Self::open(other.place.clone(), reverts).await
    }

    async fn open(place: Place, reverts: Arc<dyn Reverts>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deploy.db").display());
        let ledger = Ledger::open(LedgerConfig::new(url).origin("deploy"))
            .await
            .unwrap();
        let shutdown = CancellationToken::new();
        let rendered = Arc::new(Rendered::default());
        let manifests = Arc::clone(&rendered) as Arc<dyn Manifests>;
        let effects = DeploymentEffects::new(place.clusters.clone(), manifests).reverts(reverts);
        let executor = Executor::builder(ledger.clone())
            .register::<Deployment>(Arc::new(effects))
            .spawn(shutdown.clone());
        Self {
            place,
            rendered,
            ledger,
            executor,
            shutdown,
            _folder: folder,
        }
    }

    /// Stops what runs.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.executor.drain().await;
    }

    /// Stops what runs, and deletes the namespace.
    pub(crate) async fn end(self) {
        let api: Api<Namespace> = Api::all(self.cluster.client().clone());
        let namespace = self.namespace.clone();
        self.stop().await;
        let _ = api.delete(namespace.as_str(), &DeleteParams::default()).await;
    }

    /// Objects of a kind in the test's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client().clone(), self.namespace.as_str())
    }

    pub(crate) fn deployments(&self) -> Api<v1::Deployment> {
        self.api()
    }

    /// The reference of a version.
    pub(crate) fn image(&self, digest: &Digest) -> String {
        let tag = if *digest == self.b { "b" } else { "a" };
        format!("{}:{tag}@{digest}", self.image)
    }

    /// A pod template's inside: one container `app` in a mode, ready when its port is open.
    pub(crate) fn template(&self, digest: &Digest, mode: &str) -> serde_json::Value {
        json!({
            "metadata": {"labels": {"app": "shop"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "app",
                    "image": self.image(digest),
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": "MODE", "value": mode}],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }],
            },
        })
    }

    /// Says what is rendered from now on: these objects, in the test's namespace.
    pub(crate) async fn render(&self, objects: &[serde_json::Value]) {
        let documents: Vec<String> = objects
            .iter()
            .map(|object| {
                let mut object = object.clone();
                object["metadata"]["namespace"] = json!(self.namespace);
                object.to_string()
            })
            .collect();
        *self.rendered.0.lock().await = documents.join("\n---\n");
    }

    /// A workload `shop` of two replicas in front of which a Service stands, as kustomize would print them.
    pub(crate) fn shop(&self, kind: WorkloadKind, digest: &Digest, mode: &str) -> Vec<serde_json::Value> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"},
            "spec": {"selector": {"app": "shop"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
        });
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "shop"}},
            "template": self.template(digest, mode),
        });
        if kind != WorkloadKind::DaemonSet {
            spec["replicas"] = json!(2);
        }
        match kind {
            WorkloadKind::Deployment => spec["progressDeadlineSeconds"] = json!(60),
            WorkloadKind::StatefulSet => spec["serviceName"] = json!("shop"),
            _ => {}
        }
        let workload = json!({
            "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": {"name": "shop"}, "spec": spec,
        });
        vec![service, workload]
    }

    /// Points a tag of the application's image to a version.
    pub(crate) async fn tag(&self, tag: &str, digest: &Digest) {
        self.layout.tag(tag, digest.as_str()).await.unwrap();
    }

    /// The service's image with this digest.
    pub(crate) fn built(&self, digest: &Digest) -> Image {
        Image {
            name: "shop".parse().unwrap(),
            repository: self.image.parse().unwrap(),
            digest: digest.clone(),
            tags: Vec::new(),
        }
    }

    /// A request for the workload `shop`, without checks.
    pub(crate) fn request_of(&self, kind: WorkloadKind, digest: &Digest, epoch: u64) -> DeploymentRequest {
        DeploymentRequest {
            service: "shop".parse().unwrap(),
            environment: "dev".parse().unwrap(),
            target: Target {
                cluster: "test".parse().unwrap(),
                namespace: self.namespace.clone(),
                kind,
                name: "shop".to_owned(),
            },
            images: Images::one(self.built(digest)),
            source: Some(Source {
                repository: "platform".parse().unwrap(),
                path: "apps/shop".to_owned(),
                commit: COMMIT.parse().unwrap(),
            }),
            epoch,
            action: Action::Apply,
            jobs: Default::default(),
            checks: Vec::new(),
            bake: None,
            pauses: Default::default(),
            verify: Verify {
                crash_loop_restarts: 2,
                ..Verify::default()
            },
            // 90 s, and longer where everything takes longer.
            timeout: patience().mul_f64(0.6),
            create_namespace: false,
            restores: None,
            follows_steps: false,
            rolls_back: None,
            reverts: None,
            correlation_id: String::new(),
            labels: Default::default(),
            requested_by: Actor::system("test"),
            shared: Default::default(),
            holds_lane: false,
        }
    }

    pub(crate) fn request(&self, digest: &Digest, epoch: u64) -> DeploymentRequest {
        self.request_of(WorkloadKind::Deployment, digest, epoch)
    }

    pub(crate) async fn start(&self, request: DeploymentRequest) -> Id {
        let id = Id::generate("dep");
        self.tell(&id, DeploymentCommand::Request(Box::new(request)))
            .await;
        id
    }

    pub(crate) async fn tell(&self, id: &Id, command: DeploymentCommand) -> DeploymentState {
        let meta = Meta::from(Actor::system("test"));
        let told = self
            .ledger
            .execute::<Deployment>(id, || command.clone(), &meta)
            .await;
        told.unwrap().state
    }

    /// Waits until the deployment is as wanted, or final.
    pub(crate) async fn until(&self, id: &Id, wanted: impl Fn(&DeploymentState) -> bool) -> DeploymentState {
        let mut states = std::pin::pin!(self.ledger.watch::<Deployment>(id, None));
        let mut last = None;
        while let Some(snapshot) = states.next().await {
            let state = snapshot.unwrap().state;
            if wanted(&state) {
                return state;
            }
            last = Some(state);
        }
        last.expect("a state")
    }

    pub(crate) async fn end_of(&self, id: &Id) -> DeploymentState {
        self.until(id, |state| state.status.is_final()).await
    }

    /// Requests it, and waits for its end.
    pub(crate) async fn run(&self, request: DeploymentRequest) -> DeploymentState {
        let id = self.start(request).await;
        self.end_of(&id).await
    }

    /// Deploys a version of the Deployment `shop` in a mode.
    pub(crate) async fn deploy(&self, digest: &Digest, mode: &str, epoch: u64) -> DeploymentState {
        self.render(&self.shop(WorkloadKind::Deployment, digest, mode))
            .await;
        self.run(self.request(digest, epoch)).await
    }
}

#[track_caller]
pub(crate) fn succeeded(state: &DeploymentState) {
    assert_eq!(
        state.status,
        DeploymentStatus::Succeeded,
        "{:?} {:?}",
        state.reason,
        state.evidence
    );
}

#[track_caller]
pub(crate) fn failed(state: &DeploymentState, code: &str, words: &[&str]) {
    assert_eq!(state.status, DeploymentStatus::Failed, "{state:?}");
    let reason = state.reason.as_ref().unwrap();
    assert_eq!(reason.code, code, "{reason:?}");
    for part in words {
        assert!(reason.message.contains(part), "{part:?} in {:?}", reason.message);
    }
}
