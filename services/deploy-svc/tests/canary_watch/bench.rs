//! A namespace of local-cluster with a Rollout or a Canary of which the test plays the controller, a GitOps repository that
//! remembers what is written to it, and what the service runs releases, deployments and watches with.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use deploy_domain::{
    canary_watch::{CanaryWatch, CanaryWatchState, Watched},
    catalog::{GitOps, WorkloadKind},
    deployment::{Deployment, DeploymentState, Reason},
    release::{Release, ReleaseStatus, StepKind},
};
use deploy_svc::testing::{
    CanaryWatchEffects, DeploymentEffects, Deployments, Manifests, ReleaseEffects, RevertOrder, RevertTarget,
    Revertible, Reverting, Reverts,
};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::{
    apps::v1::{self, ReplicaSet},
    core::v1::Namespace,
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use slipway_kubernetes::{Clusters, Kubernetes, workload::resource};
use slipway_ledger::{Executor, ListFilter, Page};
use slipway_model::{CommitSha, Fault, Id, Name, Timestamp, TraceContext};
use slipway_testbed::within;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    definitions,
    release::{Answers, Pointed, World, ended, images, until},
};

/// The commit that the release makes, as the answers for gitops-svc have it, and the one that reverts it.
const MADE: &str = "2222222222222222222222222222222222222222";
const REVERTED: &str = "3333333333333333333333333333333333333333";

/// A GitOps repository with one folder.
pub(crate) struct Git {
    /// Of the target in it.
    kind: WorkloadKind,
    /// Why the change is not the newest one.
    pub(crate) moved_on: Mutex<Option<Reason>>,
    /// The orders, each with how often it was given.
    pub(crate) orders: Mutex<BTreeMap<String, usize>>,
    /// Answers wait for a permit, when what was asked for is done.
    pub(crate) finds: Semaphore,
    pub(crate) reverts: Semaphore,
    calls: Mutex<Vec<&'static str>>,
}

impl Git {
    async fn answer(&self, call: &'static str, when: &Semaphore) {
        self.calls.lock().unwrap().push(call);
        drop(when.acquire().await.unwrap());
    }

    /// How many changes were reverted.
    pub(crate) fn reverted(&self) -> usize {
        self.orders.lock().unwrap().len()
    }

    /// Waits for a call, which may wait for its answer.
    pub(crate) async fn called(&self, wanted: &str) {
        slipway_testbed::eventually("gitops-svc is called", async || {
            let calls = self.calls.lock().unwrap().clone();
            slipway_testbed::holds(calls, |calls| calls.contains(&wanted))
        })
        .await;
    }
}

#[async_trait]
impl Reverts for Git {
    async fn find(&self, _: &RevertTarget<'_>) -> Result<Revertible, Fault<Reason>> {
        self.answer("find", &self.finds).await;
        Ok(Revertible {
            change: "chg-1".parse().unwrap(),
            image: images("a").only().clone(),
        })
    }

    async fn moved_on(
        &self,
        target: &RevertTarget<'_>,
        place: &GitOps,
        change: &Id,
    ) -> Result<Option<Reason>, Fault<Reason>> {
        assert_eq!(target.image.digest, images("b").only().digest);
        assert_eq!((place.path.as_str(), change.as_str()), ("shop", "chg-1"));
        Ok(self.moved_on.lock().unwrap().clone())
    }

    async fn revert(&self, order: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>> {
        assert!(
            order.revert.reason.contains("after rel-1 had ended"),
            "{}",
            order.revert.reason
        );
        assert_eq!(order.on_behalf_of.to_string(), "slipway/deploy");
        let given = order.request_id.clone();
        *self.orders.lock().unwrap().entry(given).or_default() += 1;
        self.answer("revert", &self.reverts).await;
        Ok(Reverting::Pushed {
            change: "chg-2".parse().unwrap(),
            commit: REVERTED.parse().unwrap(),
        })
    }

    async fn observe(&self, _: &Id, _: TraceContext) -> Result<Reverting, Fault<Reason>> {
        unreachable!("it is pushed at once")
    }
}

#[async_trait]
impl Manifests for Git {
    async fn render(
        &self,
        _: &Name,
        commit: &CommitSha,
        _: &str,
        _: TraceContext,
    ) -> Result<String, Fault<Reason>> {
        let image = match commit.as_str() {
            MADE => image("b"),
            REVERTED => image("a"),
            other => panic!("{other}"),
        };
        if self.kind == WorkloadKind::Canary {
            let deployment = deployment("shop", &image);
            let canary = json!({
                "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "shop"},
                "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
                    "service": {"port": 80},
                    "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 10},
                },
            });
            return Ok(format!("{deployment}\n---\n{canary}"));
        }
        let rollout = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "shop"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "shop"}},
                "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
                "template": template(&image),
            },
        });
        Ok(rollout.to_string())
    }
}

pub(crate) fn image(fill: &str) -> String {
    format!("registry.example/shop@{}", images(fill).only().digest)
}

fn deployment(name: &str, image: &str) -> Value {
    let mut template = template(image);
    template["metadata"]["labels"]["app"] = json!(name);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    })
}

/// What runs releases, deployments and watches; like a replica of the service.
pub(crate) struct Replica {
    shutdown: CancellationToken,
    executor: slipway_ledger::ExecutorHandle,
}

impl Replica {
    /// What it was doing is lost.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.executor.drain().await;
    }
}

pub(crate) struct Bench {
    client: Client,
    namespace: String,
    pub(crate) clusters: Clusters,
    pub(crate) world: World,
    pub(crate) git: Arc<Git>,
}

/// Runs a test with a Rollout in a cluster of its own.
pub(crate) async fn on_cluster(test: impl AsyncFnOnce(&Bench)) {
    with_target(WorkloadKind::Rollout, "argo-rollouts-rollout.yaml", test).await;
}

/// Runs a test with a target of this kind in a cluster of its own.
pub(crate) async fn with_target(kind: WorkloadKind, definition: &str, test: impl AsyncFnOnce(&Bench)) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = local_cluster::Config::new(folder.path().join("cluster"));
    config.pretend_pods = Some(local_cluster::PretendPods {
        ready_after: Duration::ZERO,
    });
    let local = local_cluster::Cluster::start(config).await.unwrap();
    let kubeconfig = Kubeconfig::read_from(local.kubeconfig_path()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let client = Client::try_from(config.await.unwrap()).unwrap();
    definitions::define(&client, definition, &resource(kind)).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let wanted = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &wanted).await.unwrap();
    let name: Name = "main".parse().unwrap();
    let cluster = Kubernetes::new(name.clone(), client.clone());
    let bench = Bench {
        client,
        namespace: "shop".to_owned(),
        clusters: Clusters::of([(name, cluster)]),
        world: World::new().await,
        git: Arc::new(Git {
            kind,
            moved_on: Mutex::default(),
            orders: Mutex::default(),
            finds: Semaphore::new(1),
            reverts: Semaphore::new(1),
            calls: Mutex::default(),
        }),
    };
    let outcome = AssertUnwindSafe(within("the test", test(&bench)))
        .catch_unwind()
        .await;
    local.shutdown().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Bench {
    pub(crate) fn replica(&self) -> Replica {
        let ledger = self.world.ledger.clone();
        let answers = || {
            Arc::new(Answers {
                held: None,
                orders: Arc::default(),
            })
        };
        let releases = ReleaseEffects {
            ledger: ledger.clone(),
            builds: answers(),
            tags: Arc::new(Pointed),
            approvals: answers(),
            changes: answers(),
            deployments: Arc::new(Deployments::new(ledger.clone())),
            clusters: self.clusters.clone(),
        };
        let manifests = Arc::clone(&self.git) as Arc<dyn Manifests>;
        let reverts = || Arc::clone(&self.git) as Arc<dyn Reverts>;
        let deployments = DeploymentEffects::new(self.clusters.clone(), manifests).reverts(reverts());
        let watches = CanaryWatchEffects {
            clusters: self.clusters.clone(),
            reverts: reverts(),
        };
        let shutdown = CancellationToken::new();
        let executor = Executor::builder(ledger)
            .register::<Release>(Arc::new(releases))
            .register::<Deployment>(Arc::new(deployments))
            .register::<CanaryWatch>(Arc::new(watches))
            .spawn(shutdown.clone());
        Replica { shutdown, executor }
    }

    /// A release of a Rollout that takes its steps and succeeds.
    pub(crate) async fn succeeded(&self, release: &str, watch: &str) -> Id {
        let (release, deployment) = self.deploying(release, &[watch]).await;
        self.until_applied(&deployment).await;
        self.healthy("new").await;
        let state = until(&self.world, &release, |state| state.status.is_final()).await;
        assert_eq!(ended(&state), (ReleaseStatus::Succeeded, ""));
        release
    }

    /// A release whose deployment has been ordered.
    pub(crate) async fn deploying(&self, release: &str, keys: &[&str]) -> (Id, Id) {
        let target = format!(
            "target: {{ cluster: main, namespace: {}, kind: {}, name: shop }}",
            self.namespace, self.git.kind
        );
        let keys: Vec<&str> = [
            target.as_str(),
            "gitops: { repository: platform, path: shop }",
            // There are no pods to look into.
            "verify: { digest: false }",
        ]
        .into_iter()
        .chain(keys.iter().copied())
        .collect();
        let release = self.world.start(release, &keys).await;
        let is_deploy = |kind| kind == StepKind::Deploy;
        let state = until(&self.world, &release, |state| {
            let step = state.active_step();
            step.is_some_and(|step| is_deploy(step.kind) && step.reference.is_some())
        })
        .await;
        let deployment = state.active_step().and_then(|step| step.reference.clone());
        (release, deployment.unwrap())
    }

    pub(crate) async fn until_applied(&self, deployment: &Id) -> DeploymentState {
        let mut states = std::pin::pin!(self.world.ledger.watch::<Deployment>(deployment, None));
        while let Some(snapshot) = states.next().await {
            let state = snapshot.unwrap().state;
            assert!(!state.status.is_final(), "{:?}", state.reason);
            if state.applied.is_some() {
                return state;
            }
        }
        panic!("it ended before it was applied")
    }

    /// The watch's states until this holds.
    pub(crate) async fn watch(
        &self,
        release: &Id,
        holds: impl Fn(&CanaryWatchState) -> bool,
    ) -> CanaryWatchState {
        let id = watch_of(release);
        let mut states = std::pin::pin!(self.world.ledger.watch::<CanaryWatch>(&id, None));
        let search = async {
            while let Some(snapshot) = states.next().await {
                let state = snapshot.unwrap().state;
                if holds(&state) {
                    return state;
                }
                assert!(!state.status.is_final(), "it ended without that: {state:?}");
            }
            panic!("the watch ended without it");
        };
        within("the watch is as wanted", search).await
    }

    /// All deployments, newest first.
    pub(crate) async fn deployments(&self) -> Vec<Id> {
        let (all, page) = (ListFilter::default(), Page::default());
        let list = self.world.ledger.list_of::<Deployment>(&all, &page).await;
        list.unwrap().items.into_iter().map(|one| one.id).collect()
    }

    fn targets(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(self.git.kind))
    }

    /// The target as it is.
    pub(crate) async fn live(&self) -> Value {
        serde_json::to_value(self.targets().get("shop").await.unwrap()).unwrap()
    }

    /// Writes a status for the present generation, as the controller does.
    async fn status(&self, mut status: Value) {
        let live = self.targets().get("shop").await.unwrap();
        status["observedGeneration"] = json!(live.metadata.generation.unwrap().to_string());
        let patch = Patch::Merge(json!({"status": status}));
        self.targets()
            .patch_status("shop", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// This version serves everything.
    pub(crate) async fn healthy(&self, hash: &str) {
        self.status(json!({
            "phase": "Healthy", "message": null, "abort": null, "currentPodHash": hash, "stableRS": hash,
            "updatedReplicas": 1, "availableReplicas": 1,
        }))
        .await;
    }

    /// The canary that is tried was aborted, and the version `a` serves.
    pub(crate) async fn aborted(&self) {
        let live = self.live().await;
        let tried = &live["spec"]["template"]["spec"]["containers"][0]["image"];
        self.replica_set("new", tried.as_str().unwrap(), &live).await;
        self.replica_set("old", &image("a"), &live).await;
        self.status(json!({
            "phase": "Degraded", "message": "RolloutAborted: aborted by an analysis", "abort": true,
            "currentPodHash": "new", "stableRS": "old", "updatedReplicas": 0, "availableReplicas": 1,
        }))
        .await;
    }

    async fn replica_set(&self, hash: &str, image: &str, rollout: &Value) {
        let labels = json!({"app": "shop", "rollouts-pod-template-hash": hash});
        let mut template = template(image);
        template["metadata"]["labels"] = labels.clone();
        let object = json!({
            "metadata": {
                "name": format!("shop-{hash}"), "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "shop",
                    "uid": rollout["metadata"]["uid"], "controller": true,
                }],
            },
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
        });
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let object = serde_json::from_value(object).unwrap();
        sets.create(&PostParams::default(), &object).await.unwrap();
    }

    /// Flagger ended a run like this, and the primary runs that image.
    pub(crate) async fn flagger(&self, phase: &str, serves: &str, tried: &str) {
        let primary = Patch::Apply(deployment("shop-primary", &image(serves)));
        let deployments: Api<v1::Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        deployments
            .patch("shop-primary", &PatchParams::apply("flagger").force(), &primary)
            .await
            .unwrap();
        // Times have whole seconds: that of a run which ended after a change is a later one.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = format!("{}Z", &Timestamp::now().to_string()[..19]);
        self.status(json!({
            "phase": phase, "lastAppliedSpec": tried, "lastPromotedSpec": serves,
            "failedChecks": 0, "canaryWeight": 0, "iterations": 0, "lastTransitionTime": now,
            "conditions": [{"type": "Promoted", "status": "True", "reason": phase, "message": "the analysis has ended.",
                "lastUpdateTime": now, "lastTransitionTime": now}],
        }))
        .await;
    }

    /// Somebody writes another image into the template.
    pub(crate) async fn set_image(&self, image: &str) {
        let containers = json!([{"name": "app", "image": image}]);
        let patch = Patch::Merge(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
        self.targets()
            .patch("shop", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
}

pub(crate) fn watch_of(release: &Id) -> Id {
    Watched::id_of(release, &"dev".parse().unwrap())
}

/// The deployment that puts back what ran before.
pub(crate) fn putting_back(release: &Id) -> Id {
    Id::derived("dep", &[watch_of(release).as_str()])
}
