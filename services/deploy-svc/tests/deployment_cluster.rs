//! Apply, watch, checks and evidence against a cluster: local-cluster with real processes, and unchanged against the
//! one of `SLIPWAY_TEST_KUBECONFIG`, with images `${SLIPWAY_TEST_IMAGE_PREFIX}app` whose digests are given as
//! `SLIPWAY_TEST_DIGEST_A` and `_B`. The executable is also the shim of local-cluster's pods, hence no harness.
#![allow(clippy::unwrap_used)]

#[path = "cluster/image.rs"]
mod image;

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use deploy_svc::{
    catalog::{Check, Target, Verify, WorkloadKind},
    deployment::{Deployment, DeploymentCommand, DeploymentRequest, DeploymentState, DeploymentStatus},
    deployment_effects::{DeploymentEffects, Manifests, RenderError},
    kubernetes::{Cluster, ClusterConfig, Clusters, Kubernetes},
};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::{apps::v1, core::v1::Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use slipway_ledger::{Executor, ExecutorHandle, Ledger, LedgerConfig, Meta};
use slipway_model::{Actor, CommitSha, Digest, Id, Name, TraceContext};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    local_cluster::shim::run_if_requested();
    // Listing and filtering as cargo's other tests do, so that `cargo test NAME` works.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let selected =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .init();
    }
    let mut failed = 0;
    runtime.block_on(async {
        let mut world = World::start().await;
        macro_rules! tests {
            ($($name:ident),* $(,)?) => {$(
                let name = stringify!($name);
                if args.iter().any(|arg| arg == "--list") {
                    println!("{name}: test");
                } else if selected(name) {
                    let bench = Bench::new(&world, name).await;
                    let outcome = AssertUnwindSafe(tokio::time::timeout(PATIENCE, $name(&bench))).catch_unwind().await;
                    let passed = matches!(outcome, Ok(Ok(())));
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    failed += usize::from(!passed);
                    bench.end().await;
                }
            )*};
        }
        tests![
            a_new_image_rolls_out_and_answers,
            the_same_again_changes_nothing,
            an_older_epoch_never_overwrites_a_newer_one,
            a_field_that_left_the_manifests_leaves_the_cluster,
            a_crash_loop_fails_early_with_its_log,
            an_image_that_is_not_there_fails_early,
            a_failed_check_tells_the_last_answer,
            a_deletion_while_watched_is_told,
            somebody_elses_image_is_told,
            manifests_with_another_image_are_refused,
            what_the_api_server_refuses_is_told,
            an_unknown_cluster_is_named,
            cancel_stops_the_watch,
        ];
        if world.local.is_some() && selected("an_api_server_that_restarts_costs_time_only") {
            let outcome = AssertUnwindSafe(tokio::time::timeout(PATIENCE, restart(&mut world))).catch_unwind().await;
            let passed = matches!(outcome, Ok(Ok(())));
            println!("test an_api_server_that_restarts_costs_time_only ... {}", if passed { "ok" } else { "FAILED" });
            failed += usize::from(!passed);
        }
        world.end().await;
    });
    std::process::exit(i32::from(failed > 0));
}

/// The cluster, shared by all tests.
struct World {
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    local: Option<local_cluster::Cluster>,
    image: String,
    a: Digest,
    b: Digest,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(kubeconfig) = std::env::var_os("SLIPWAY_TEST_KUBECONFIG") {
            let need = |name: &str| {
                std::env::var(name).unwrap_or_else(|_| panic!("{name} is needed for a real cluster"))
            };
            return Self {
                folder,
                kubeconfig: kubeconfig.into(),
                local: None,
                image: format!("{}app", need("SLIPWAY_TEST_IMAGE_PREFIX")),
                a: need("SLIPWAY_TEST_DIGEST_A").parse().unwrap(),
                b: need("SLIPWAY_TEST_DIGEST_B").parse().unwrap(),
            };
        }
        let binary = image::compile(folder.path());
        let images = folder.path().join("images");
        let a = image::write(&images, "app", &binary, "a");
        let b = image::write(&images, "app", &binary, "b");
        let local = local_cluster::Cluster::start(local_config(folder.path()))
            .await
            .unwrap();
        let kubeconfig = local.kubeconfig_path().to_owned();
        Self {
            folder,
            kubeconfig,
            local: Some(local),
            image: "registry.example/app".to_owned(),
            a,
            b,
        }
    }

    async fn cluster(&self) -> (Clusters, Kubernetes) {
        let name: Name = "test".parse().unwrap();
        let config = json!({"name": "test", "kubeconfig": self.kubeconfig});
        let config: ClusterConfig = serde_json::from_value(config).unwrap();
        let clusters = Clusters::open(&[config]).await.unwrap();
        let Cluster::Kubernetes(cluster) = clusters.get(&name).unwrap().clone() else {
            panic!("a real one")
        };
        (clusters, *cluster)
    }

    async fn end(self) {
        if let Some(local) = self.local {
            local.shutdown().await;
        }
    }
}

fn local_config(folder: &Path) -> local_cluster::Config {
    let mut config = local_cluster::Config::new(folder.join("cluster"));
    config.image_layouts.push(folder.join("images"));
    config.back_off = Duration::from_millis(100);
    config
}

/// Renders what the test says, instead of gitops-svc.
#[derive(Default)]
struct Rendered(Mutex<String>);

#[async_trait]
impl Manifests for Rendered {
    async fn render(&self, _: &Name, _: &CommitSha, _: &str, _: TraceContext) -> Result<String, RenderError> {
        Ok(self.0.lock().await.clone())
    }
}

/// One test's namespace, ledger and executor.
struct Bench {
    cluster: Kubernetes,
    namespace: Name,
    image: String,
    a: Digest,
    b: Digest,
    rendered: Arc<Rendered>,
    ledger: Ledger,
    executor: ExecutorHandle,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(world: &World, test: &str) -> Self {
        let (clusters, cluster) = world.cluster().await;
        let short: String = test.replace('_', "-").chars().take(40).collect();
        let namespace: Name = format!("{}-{:05}", short.trim_matches('-'), fastrand::u32(..100_000))
            .parse()
            .unwrap();
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        let api: Api<Namespace> = Api::all(cluster.client().clone());
        api.create(&PostParams::default(), &object).await.unwrap();

        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deploy.db").display());
        let ledger = Ledger::open(LedgerConfig::new(url).origin("deploy"))
            .await
            .unwrap();
        let shutdown = CancellationToken::new();
        let rendered = Arc::new(Rendered::default());
        let effects = DeploymentEffects {
            clusters,
            manifests: Arc::clone(&rendered) as Arc<dyn Manifests>,
        };
        let executor = Executor::builder(ledger.clone())
            .register::<Deployment>(Arc::new(effects))
            .spawn(shutdown.clone());
        Self {
            cluster,
            namespace,
            image: world.image.clone(),
            a: world.a.clone(),
            b: world.b.clone(),
            rendered,
            ledger,
            executor,
            shutdown,
            _folder: folder,
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.executor.drain().await;
        let api: Api<Namespace> = Api::all(self.cluster.client().clone());
        let _ = api
            .delete(self.namespace.as_str(), &DeleteParams::default())
            .await;
    }

    fn deployments(&self) -> Api<v1::Deployment> {
        Api::namespaced(self.cluster.client().clone(), self.namespace.as_str())
    }

    /// Manifests as kustomize prints them.
    fn manifests(&self, digest: &Digest, mode: &str, extra: &str) -> String {
        let Self { namespace, image, .. } = self;
        format!(
            "
apiVersion: v1
kind: Service
metadata:
  name: shop
  namespace: {namespace}
spec:
  selector: {{app: shop}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  namespace: {namespace}
spec:
  replicas: 2
  progressDeadlineSeconds: 60
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata:
      labels: {{app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: {image}:test@{digest}
          ports: [{{containerPort: 8080}}]
          env: [{{name: MODE, value: {mode}}}{extra}]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
        )
    }

    fn request(&self, digest: &Digest, epoch: u64) -> DeploymentRequest {
        let check = json!({"name": "health", "http": {
            "service": "shop", "port": "http", "path": "/health", "body_contains": "well", "attempts": 5, "interval": "100ms",
        }});
        DeploymentRequest {
            service: "shop".parse().unwrap(),
            environment: "dev".parse().unwrap(),
            target: Target {
                cluster: "test".parse().unwrap(),
                namespace: self.namespace.clone(),
                kind: WorkloadKind::Deployment,
                name: "shop".to_owned(),
            },
            image: self.image.parse().unwrap(),
            digest: digest.clone(),
            repository: "platform".parse().unwrap(),
            path: "apps/shop".to_owned(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".parse().unwrap(),
            epoch,
            checks: vec![serde_json::from_value::<Check>(check).unwrap()],
            verify: Verify {
                crash_loop_restarts: 2,
                ..Verify::default()
            },
            timeout: Duration::from_secs(90),
            correlation_id: String::new(),
            labels: Default::default(),
            requested_by: Actor::system("test"),
            holds_lane: false,
        }
    }

    async fn start(&self, request: DeploymentRequest) -> Id {
        let id = Id::generate("dep");
        let meta = Meta::from(Actor::system("test"));
        let command = || DeploymentCommand::Request(Box::new(request.clone()));
        self.ledger
            .execute::<Deployment>(&id, command, &meta)
            .await
            .unwrap();
        id
    }

    /// Waits until the deployment is as wanted, or final.
    async fn until(&self, id: &Id, wanted: impl Fn(&DeploymentState) -> bool) -> DeploymentState {
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

    async fn end_of(&self, id: &Id) -> DeploymentState {
        self.until(id, |state| state.status.is_final()).await
    }

    async fn deploy(&self, digest: &Digest, mode: &str, epoch: u64) -> DeploymentState {
        *self.rendered.0.lock().await = self.manifests(digest, mode, "");
        let id = self.start(self.request(digest, epoch)).await;
        self.end_of(&id).await
    }
}

#[track_caller]
fn succeeded(state: &DeploymentState) {
    assert_eq!(
        state.status,
        DeploymentStatus::Succeeded,
        "{:?} {:?}",
        state.reason,
        state.evidence
    );
}

#[track_caller]
fn failed(state: &DeploymentState, code: &str, words: &[&str]) {
    assert_eq!(state.status, DeploymentStatus::Failed, "{state:?}");
    let reason = state.reason.as_ref().unwrap();
    assert_eq!(reason.code, code, "{reason:?}");
    for part in words {
        assert!(reason.message.contains(part), "{part:?} in {:?}", reason.message);
    }
}

async fn a_new_image_rolls_out_and_answers(bench: &Bench) {
    let first = bench.deploy(&bench.a, "ok", 1).await;
    succeeded(&first);
    assert!(
        first.checks[0].passed && first.checks[0].last_answer.contains("all is well"),
        "{:?}",
        first.checks
    );
    let second = bench.deploy(&bench.b, "ok", 2).await;
    succeeded(&second);
    let live = bench.deployments().get("shop").await.unwrap();
    let annotations = live.metadata.annotations.unwrap();
    assert_eq!(annotations["deploy.slipway.dev/epoch"], "2");
    assert_eq!(
        annotations["deploy.slipway.dev/commit"],
        "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
    );
    assert!(
        !live
            .spec
            .unwrap()
            .template
            .metadata
            .unwrap()
            .annotations
            .unwrap_or_default()
            .keys()
            .any(|key| key.contains("slipway")),
        "a new deployment of the same image restarts nothing"
    );
}

async fn the_same_again_changes_nothing(bench: &Bench) {
    // The template's revision: annotations alone raise a Deployment's generation.
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let revision = async || {
        bench
            .deployments()
            .get("shop")
            .await
            .unwrap()
            .metadata
            .annotations
            .unwrap()[REVISION]
            .clone()
    };
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let before = revision().await;
    succeeded(&bench.deploy(&bench.a, "ok", 2).await);
    assert_eq!(revision().await, before);
}

async fn an_older_epoch_never_overwrites_a_newer_one(bench: &Bench) {
    succeeded(&bench.deploy(&bench.b, "ok", 5).await);
    let before = bench
        .deployments()
        .get("shop")
        .await
        .unwrap()
        .metadata
        .resource_version;
    let late = bench.deploy(&bench.a, "ok", 4).await;
    failed(
        &late,
        "SUPERSEDED_EPOCH",
        &["Deployment shop carries epoch 5", "this one's 4"],
    );
    let live = bench.deployments().get("shop").await.unwrap();
    let image = live.spec.unwrap().template.spec.unwrap().containers[0]
        .image
        .clone()
        .unwrap();
    assert!(image.ends_with(bench.b.as_str()), "{image} {before:?}");
}

async fn a_field_that_left_the_manifests_leaves_the_cluster(bench: &Bench) {
    *bench.rendered.0.lock().await = bench.manifests(&bench.a, "ok", ", {name: EXTRA, value: old}");
    let id = bench.start(bench.request(&bench.a, 1)).await;
    succeeded(&bench.end_of(&id).await);
    let live = bench.deployments().get("shop").await.unwrap();
    let owners = live.metadata.managed_fields.unwrap_or_default();
    if owners
        .iter()
        .any(|one| one.manager.as_deref() == Some("slipway") && one.operation.as_deref() != Some("Apply"))
    {
        println!("skipped: this cluster does not take managedFields from updates, as Kubernetes does");
        return;
    }
    succeeded(&bench.deploy(&bench.a, "ok", 2).await);
    let live = bench.deployments().get("shop").await.unwrap();
    let env = live.spec.unwrap().template.spec.unwrap().containers[0]
        .env
        .clone()
        .unwrap_or_default();
    assert!(env.iter().all(|one| one.name != "EXTRA"), "{env:?}");
}

async fn a_crash_loop_fails_early_with_its_log(bench: &Bench) {
    let state = bench.deploy(&bench.a, "crash", 1).await;
    failed(
        &state,
        "CRASH_LOOP",
        &["pod shop-", "CrashLoopBackOff", "exit code 3"],
    );
    let evidence = &state.evidence[0];
    assert_eq!(
        (evidence.container.as_str(), evidence.exit_code),
        ("app", Some(3))
    );
    assert!(
        evidence
            .log_tail
            .iter()
            .any(|line| line.contains("cannot open the database")),
        "{:?}",
        evidence.log_tail
    );
    assert!(evidence.log_tail.len() <= 100, "{}", evidence.log_tail.len());
    assert!(
        evidence.events.iter().any(|event| event.contains("BackOff")),
        "{:?}",
        evidence.events
    );
}

async fn an_image_that_is_not_there_fails_early(bench: &Bench) {
    let absent: Digest = format!("sha256:{}", "00".repeat(32)).parse().unwrap();
    let state = bench.deploy(&absent, "ok", 1).await;
    failed(&state, "IMAGE_NOT_FOUND", &["pod shop-", "not found"]);
}

async fn a_failed_check_tells_the_last_answer(bench: &Bench) {
    let state = bench.deploy(&bench.a, "sick", 1).await;
    failed(
        &state,
        "CHECK_FAILED",
        &[
            "check health failed after 5 attempts",
            "503",
            "the till is stuck",
            "expected 200",
        ],
    );
    assert!(!state.checks[0].passed);
    let lines = &state.evidence[0].log_tail;
    assert!(
        lines.iter().any(|line| line.contains("GET /health: 503")),
        "the logs of pods that are ready: {lines:?}"
    );
}

async fn a_deletion_while_watched_is_told(bench: &Bench) {
    let request = DeploymentRequest {
        verify: Verify {
            fail_early: false,
            ..Verify::default()
        },
        ..bench.request(&bench.a, 1)
    };
    *bench.rendered.0.lock().await = bench.manifests(&bench.a, "crash", "");
    let id = bench.start(request).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    bench
        .deployments()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    failed(&bench.end_of(&id).await, "DELETED", &["deleted"]);
}

async fn somebody_elses_image_is_told(bench: &Bench) {
    let request = DeploymentRequest {
        verify: Verify {
            fail_early: false,
            ..Verify::default()
        },
        ..bench.request(&bench.a, 1)
    };
    *bench.rendered.0.lock().await = bench.manifests(&bench.a, "crash", "");
    let id = bench.start(request).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    let theirs = format!("{}:theirs@{}", bench.image, bench.b);
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
    failed(
        &bench.end_of(&id).await,
        "SUPERSEDED",
        &["someone else's update", theirs.as_str()],
    );
}

async fn manifests_with_another_image_are_refused(bench: &Bench) {
    *bench.rendered.0.lock().await = bench.manifests(&bench.a, "ok", "");
    let id = bench.start(bench.request(&bench.b, 1)).await;
    failed(
        &bench.end_of(&id).await,
        "RENDERED_IMAGE_MISMATCH",
        &[bench.a.as_str(), bench.b.as_str()],
    );
    assert!(
        bench.deployments().get_opt("shop").await.unwrap().is_none(),
        "nothing was written"
    );
}

async fn what_the_api_server_refuses_is_told(bench: &Bench) {
    let broken = bench
        .manifests(&bench.a, "ok", "")
        .replace("replicas: 2", "replicas: -2");
    *bench.rendered.0.lock().await = broken;
    let id = bench.start(bench.request(&bench.a, 1)).await;
    failed(
        &bench.end_of(&id).await,
        "APPLY_REFUSED",
        &["Deployment shop", "spec.replicas"],
    );
    let unknown = bench
        .manifests(&bench.a, "ok", "")
        .replace("kind: Service", "kind: Gadget");
    *bench.rendered.0.lock().await = unknown;
    let id = bench.start(bench.request(&bench.a, 1)).await;
    failed(
        &bench.end_of(&id).await,
        "APPLY_REFUSED",
        &["Gadget shop", "no kind Gadget"],
    );
}

async fn an_unknown_cluster_is_named(bench: &Bench) {
    let mut request = bench.request(&bench.a, 1);
    request.target.cluster = "moon".parse().unwrap();
    let id = bench.start(request).await;
    failed(
        &bench.end_of(&id).await,
        "UNKNOWN_CLUSTER",
        &["no cluster moon", "test"],
    );
}

async fn cancel_stops_the_watch(bench: &Bench) {
    let request = DeploymentRequest {
        verify: Verify {
            fail_early: false,
            ..Verify::default()
        },
        ..bench.request(&bench.a, 1)
    };
    *bench.rendered.0.lock().await = bench.manifests(&bench.a, "crash", "");
    let id = bench.start(request).await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    let meta = Meta::from(Actor::system("test"));
    let command = || DeploymentCommand::Cancel {
        message: "enough".to_owned(),
    };
    let state = bench
        .ledger
        .execute::<Deployment>(&id, command, &meta)
        .await
        .unwrap()
        .state;
    assert_eq!(state.status, DeploymentStatus::Cancelled);
    assert!(
        bench.deployments().get_opt("shop").await.unwrap().is_some(),
        "what the cluster took stays"
    );
}

/// The API server goes away during a rollout and comes back: the rollout is seen through, and a second one, which
/// begins while it is away, too.
async fn restart(world: &mut World) {
    let bench = Bench::new(world, "restart").await;
    *bench.rendered.0.lock().await = bench.manifests(&bench.a, "crash", "");
    let patient = Verify {
        fail_early: false,
        ..Verify::default()
    };
    let id = bench
        .start(DeploymentRequest {
            verify: patient,
            ..bench.request(&bench.a, 1)
        })
        .await;
    bench
        .until(&id, |state| state.progress.contains("of 2 new pods ready"))
        .await;
    world.local.take().unwrap().shutdown().await;
    let state = bench.until(&id, |state| state.fault.is_some()).await;
    assert!(
        state.progress.contains("cluster test cannot be watched"),
        "{}",
        state.progress
    );

    *bench.rendered.0.lock().await = bench.manifests(&bench.b, "ok", "");
    let second = bench
        .start(DeploymentRequest {
            verify: patient,
            ..bench.request(&bench.b, 2)
        })
        .await;
    let state = bench.until(&second, |state| state.fault.is_some()).await;
    assert_eq!(state.status, DeploymentStatus::Applying);

    world.local = Some(
        local_cluster::Cluster::start(local_config(world.folder.path()))
            .await
            .unwrap(),
    );
    succeeded(&bench.end_of(&second).await);
    // The first one learns that its place was taken.
    failed(&bench.end_of(&id).await, "SUPERSEDED_EPOCH", &["epoch 2 after 1"]);
    bench.end().await;
}
