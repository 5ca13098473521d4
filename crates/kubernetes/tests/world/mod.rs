//! What tests against a cluster share: local-cluster, or the one of `SLIPWAY_TEST_KUBECONFIG`, and a namespace.
#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use local_cluster::PretendPods;
use serde_json::{Value, json};
use slipway_kubernetes::{
    Kubernetes,
    apply::Write,
    watch::{Scope, Subscription, View},
    workload::resource,
};
use slipway_model::Id;
use slipway_verdict::{Target, WorkloadKind};

pub(crate) const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A cluster.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) kubeconfig: PathBuf,
    /// `None`: the cluster is an external one.
    pub(crate) local: Option<local_cluster::Cluster>,
    pub(crate) client: kube::Client,
    namespaces: Mutex<HashSet<String>>,
}

/// Runs a test, and removes what it made also when it fails. With `faults` it runs against local-cluster whatever other
/// cluster is given: faults cannot be injected into one that is not ours.
pub(crate) async fn run(faults: bool, test: impl AsyncFnOnce(&mut World)) {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
    }
    let given = std::env::var_os("SLIPWAY_TEST_KUBECONFIG").filter(|_| !faults);
    let folder = tempfile::tempdir().unwrap();
    let (kubeconfig, local) = match given {
        Some(path) => (path.into(), None),
        None => {
            let local = start(folder.path()).await;
            (local.kubeconfig_path().to_owned(), Some(local))
        }
    };
    let client = client(&kubeconfig).await;
    let mut world = World {
        folder,
        kubeconfig,
        local,
        client,
        namespaces: Mutex::default(),
    };
    let outcome = AssertUnwindSafe(slipway_testbed::within("the test", test(&mut world)))
        .catch_unwind()
        .await;
    match world.local.take() {
        Some(local) => local.shutdown().await,
        None => {
            let api: Api<Namespace> = Api::all(world.client.clone());
            let names = world.namespaces.into_inner().unwrap();
            for name in names {
                let _ = api.delete(&name, &DeleteParams::background()).await;
            }
        }
    }
    match outcome {
        Ok(()) => {}
        Err(panic) => resume_unwind(panic),
    }
}

async fn start(folder: &Path) -> local_cluster::Cluster {
    let mut config = local_cluster::Config::new(folder.join("cluster"));
    config.pretend_pods = Some(PretendPods {
        ready_after: Duration::from_millis(20),
    });
    local_cluster::Cluster::start(config).await.unwrap()
}

async fn client(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    // As the service has it: retries are its own.
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

impl World {
    pub(crate) fn faults(&self) -> local_cluster::Faults {
        self.local.as_ref().unwrap().faults()
    }

    /// The API server goes away and comes back, on the same port with the same objects.
    pub(crate) async fn restart(&mut self) {
        self.local.take().unwrap().shutdown().await;
        self.local = Some(start(self.folder.path()).await);
    }

    pub(crate) fn cluster(&self, scope: Scope) -> Kubernetes {
        Kubernetes::scoped("test".parse().unwrap(), self.client.clone(), scope)
    }

    /// Through something that looks at each request and may answer in the cluster's place.
    pub(crate) fn through(
        &self,
        scope: Scope,
        instead: impl Fn(&Request<Body>) -> Option<Answer> + Clone + Send + 'static,
    ) -> Kubernetes {
        let real = self.client.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, real) = (instead(&request), real.clone());
            async move {
                match answer {
                    Some(answer) => Ok::<_, tower::BoxError>(answer),
                    None => {
                        let answer = real.send(request).await?;
                        Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
                    }
                }
            }
        });
        let client = kube::Client::new(service, "default");
        Kubernetes::scoped("test".parse().unwrap(), client, scope)
    }

    /// A new namespace.
    pub(crate) async fn namespace(&self) -> String {
        let name = format!("slipway-test-{}", fastrand::u64(1_000_000..10_000_000));
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &namespace).await.unwrap();
        self.namespaces.lock().unwrap().insert(name.clone());
        // A real cluster refuses pods until its controller has made their account.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name);
        slipway_testbed::eventually("the namespace has its default service account", async || {
            accounts.get("default").await.map(drop)
        })
        .await;
        name
    }

    pub(crate) fn api(&self, target: &Target) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.client.clone(),
            target.namespace.as_str(),
            &resource(target.kind),
        )
    }

    pub(crate) async fn create(&self, target: &Target, spec: Value) -> DynamicObject {
        let object = json!({
            "apiVersion": target.kind.api_version(),
            "kind": target.kind.as_str(),
            "metadata": {"name": target.name},
            "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        self.api(target)
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    pub(crate) async fn merge(&self, target: &Target, patch: Value) -> DynamicObject {
        let patch = Patch::Merge(patch);
        let api = self.api(target);
        api.patch(&target.name, &PatchParams::default(), &patch)
            .await
            .unwrap()
    }

    /// Installs one of the CRDs of the test data; they stay.
    pub(crate) async fn define(&self, file: &str) {
        // kubectl, because these files are YAML as people write it, and too large for an annotation.
        let created = tokio::process::Command::new("kubectl")
            // An older cluster does not know every word of a newer schema.
            .args(["create", "--validate=false", "--filename"])
            .arg(slipway_testbed::data(&format!("crds/{file}")))
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .await
            .unwrap();
        let words = String::from_utf8_lossy(&created.stderr);
        assert!(
            created.status.success() || words.contains("AlreadyExists"),
            "{words}"
        );
        let path = slipway_testbed::data(&format!("crds/{file}"));
        slipway_testbed::eventually("the definition is established", async || {
            let waited = tokio::process::Command::new("kubectl")
                .args([
                    "wait",
                    "--for=condition=established",
                    "--timeout=1s",
                    "--filename",
                ])
                .arg(&path)
                .env("KUBECONFIG", &self.kubeconfig)
                .output()
                .await
                .unwrap();
            slipway_testbed::holds(waited, |waited| waited.status.success())
        })
        .await;
    }
}

/// Replaces the API server's answer.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, tower::BoxError>>;

pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = code.try_into().unwrap();
    answer
}

/// A stream that begins and never says anything.
pub(crate) fn silence() -> Answer {
    let nothing = futures::stream::pending::<Result<http_body::Frame<Bytes>, tower::BoxError>>();
    Response::new(http_body_util::StreamBody::new(nothing).boxed_unsync())
}

pub(crate) fn target(kind: WorkloadKind, namespace: &str, name: &str) -> Target {
    Target {
        cluster: "test".parse().unwrap(),
        namespace: namespace.parse().unwrap(),
        kind,
        name: name.to_owned(),
    }
}

/// A workload with an image by digest. A kubelet that goes by the tag sees one that becomes ready.
pub(crate) fn spec(kind: WorkloadKind, replicas: u32, digest: &str) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "shop"}},
        "template": {
            "metadata": {"labels": {"app": "shop"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {"name": "shop", "image": image(digest), "env": [{"name": "LEVEL", "value": "info"}]},
                    {"name": "proxy", "image": format!("{}proxy:1", prefix())},
                ],
            },
        },
    });
    if kind != WorkloadKind::DaemonSet {
        spec["replicas"] = json!(replicas);
    }
    if kind == WorkloadKind::StatefulSet {
        spec["serviceName"] = json!("shop");
        spec["podManagementPolicy"] = json!("Parallel");
    }
    spec
}

pub(crate) fn prefix() -> String {
    match std::env::var("SLIPWAY_TEST_IMAGE_PREFIX") {
        Ok(prefix) if prefix.is_empty() => prefix,
        Ok(prefix) => format!("{}/", prefix.trim_end_matches('/')),
        Err(_) => "registry.example/".to_owned(),
    }
}

pub(crate) fn image(digest: &str) -> String {
    format!("{}shop@{digest}", prefix())
}

pub(crate) fn id(text: &str) -> Id {
    text.parse().unwrap()
}

pub(crate) fn write<'a>(deployment: &'a Id, target: &'a Target, epoch: u64) -> Write<'a> {
    Write {
        deployment,
        target,
        epoch,
        commit: "",
    }
}

/// Waits until the watch shows that.
pub(crate) async fn seen(subscription: &mut Subscription, wanted: impl Fn(&View) -> bool) -> View {
    loop {
        let view = subscription.view();
        if wanted(&view) {
            return view;
        }
        subscription.changed().await;
    }
}

pub(crate) fn has_label(view: &View, value: &str) -> bool {
    let live = view.observed.workload.as_ref();
    let labels = live.and_then(|live| live.metadata().labels.as_ref());
    labels.is_some_and(|labels| labels.get("note").map(String::as_str) == Some(value))
}

/// Changes the object without changing what it runs.
pub(crate) fn label(value: &str) -> Value {
    json!({"metadata": {"labels": {"note": value}}})
}
