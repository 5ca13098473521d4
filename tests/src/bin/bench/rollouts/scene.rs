//! A cluster, deploy-svc, and Deployments in one namespace.

use std::{
    ffi::OsStr,
    fmt::Write,
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use futures::{AsyncBufReadExt, Stream, StreamExt, stream};
use http::Request;
use serde_json::{Value, json};
use slipway_kubernetes::{ClusterConfigs, Clusters, Kubernetes};
use slipway_proto::{
    common::v1::{Event, Image},
    deploy::v1::{DeployRequest, Deployment, StreamEventsRequest},
};
use slipway_server::TokenHash;
use slipway_testbed::{Postgres, Redis, TestDir, free_port, patience};
use slipway_tests::{
    Clients,
    clients::{Addresses, token},
    process::Process,
    programs,
    suite::serves,
};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

pub(crate) const NAMESPACE: &str = "load";
const IMAGE: &str = "registry.example/app";
/// Concurrent calls of the bench itself.
const AT_ONCE: usize = 32;

pub(crate) struct Scene {
    // Dropped in this order: programs before what they use.
    pub(crate) service: Process,
    _cluster: Process,
    _redis: Redis,
    pub(crate) clients: Clients,
    pub(crate) api: Api,
    kubeconfig: PathBuf,
    pub(crate) names: Vec<String>,
    _folder: TestDir,
}

/// The API server, called directly.
#[derive(Clone)]
pub(crate) struct Api(Kubernetes);

impl Scene {
    /// `count` Deployments with this many pods each, which become ready `ready_after` their creation.
    pub(crate) async fn start(
        name: &str,
        server: &Postgres,
        count: usize,
        replicas: usize,
        ready_after: Duration,
    ) -> Self {
        let folder = TestDir::new(name).unwrap();
        let root = folder.path().to_owned();
        let data = root.join("cluster");
        let ready_after = ready_after.as_millis().to_string();
        let arguments = [
            OsStr::new("--data"),
            data.as_os_str(),
            OsStr::new("--pretend-pods"),
            OsStr::new(&ready_after),
        ];
        let quiet = [("RUST_LOG", "local_cluster=info".to_owned())];
        let log = root.join("cluster.log");
        let program = programs::program(programs::CLUSTER);
        let mut cluster = Process::start("local-cluster", &program, &log, &arguments, &quiet);
        let began = Instant::now();
        while !cluster.last_output().contains("export KUBECONFIG=") {
            assert!(cluster.has_ended().is_none(), "{}", cluster.last_output());
            assert!(began.elapsed() < patience(), "the cluster does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let kubeconfig = data.join("kubeconfig");

        let names: Vec<String> = (0..count).map(|number| format!("s-{number}")).collect();
        let catalog = root.join("catalog.yaml");
        let mut text = "environments: [prod]\nservices:\n".to_owned();
        for name in &names {
            let _ = writeln!(
                text,
                "  - name: {name}\n    repository: \"https://git.example/{name}\"\n    image: {IMAGE}\n    environments:\n      \
                 - {{ name: prod, policy: none, target: {{ cluster: local, namespace: {NAMESPACE}, name: {name} }} }}"
            );
        }
        fs::write(&catalog, text).unwrap();

        let redis = Redis::start().await.unwrap();
        let database = server.create_database().await.unwrap();
        let port = free_port().unwrap();
        let config = root.join("config.yaml");
        let hash = String::from(TokenHash::of(&token("alice")));
        // Nothing listens there, and it is never called.
        let other = format!(
            "{{ url: \"http://127.0.0.1:{}\", token: none }}",
            free_port().unwrap()
        );
        fs::write(
            &config,
            format!(
                "server:\n  listen: 127.0.0.1:{port}\n  principals:\n    \
                 - {{ subject: alice, token_sha256: \"{hash}\", roles: [{{ actions: [read, start] }}] }}\n\
                 database: {{ url: \"{database}\", max_connections: 16 }}\nbus: {{ redis_url: \"{}\" }}\n\
                 telemetry: {{ log_filter: warn }}\ncatalog: {}\n\
                 clusters: {{ local: {{ kubeconfig: {} }} }}\nbuild: {other}\ngitops: {other}\napproval: {other}\n",
                redis.url(),
                catalog.display(),
                kubeconfig.display(),
            ),
        )
        .unwrap();
        let arguments = [OsStr::new("--config"), config.as_os_str()];
        let program = programs::program("deploy-svc");
        let mut service = Process::start("deploy-svc", &program, &root.join("log"), &arguments, &[]);
        let url = format!("http://127.0.0.1:{port}");
        serves(&mut service, &url).await;
        let addresses = Addresses {
            urls: [url.clone(), url.clone(), url.clone(), url],
            ca_file: None,
        };
        let scene = Self {
            service,
            _cluster: cluster,
            _redis: redis,
            clients: Clients::new(&addresses, Some(&token("alice"))),
            api: Api::open(&kubeconfig).await,
            kubeconfig,
            names,
            _folder: folder,
        };
        scene.create(replicas).await;
        scene
    }

    async fn create(&self, replicas: usize) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        self.api.write("POST", "/api/v1/namespaces", &namespace).await;
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
        stream::iter(&self.names)
            .for_each_concurrent(AT_ONCE, async |name| {
                let labels = json!({"app": name});
                let container = json!({"name": "app", "image": image(0)});
                let deployment = json!({
                    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                    "spec": {
                        "replicas": replicas,
                        "progressDeadlineSeconds": 3600,
                        "selector": {"matchLabels": labels},
                        // Old pods are deleted at once, so that only the readiness of the new ones is waited for.
                        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
                        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                    },
                });
                self.api.write("POST", &path, &deployment).await;
            })
            .await;
        // A revision is numbered when the controller has seen it.
        self.api
            .until("the Deployments are noticed", &path, |list| {
                items(list)
                    .iter()
                    .all(|live| live["status"]["observedGeneration"] == live["metadata"]["generation"])
            })
            .await;
    }

    /// Requests the deployment of a version, and waits until its rollout is watched.
    pub(crate) async fn deploy(&self, name: &str, version: usize) -> String {
        let request = DeployRequest {
            request_id: format!("{name}-{version}"),
            service: name.to_owned(),
            environment: "prod".to_owned(),
            images: vec![Image {
                repository: IMAGE.to_owned(),
                digest: digest(version),
                ..Image::default()
            }],
            ..DeployRequest::default()
        };
        let mut client = self.clients.deployments.clone();
        let answer = client.deploy(request).await.unwrap().into_inner();
        answer.deployment.unwrap().id
    }

    /// Waits until it has got as far as that.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&Deployment) -> bool) {
        let began = Instant::now();
        loop {
            let deployment = self.clients.deployment(id).await;
            if wanted(&deployment) {
                return;
            }
            assert!(deployment.end_time.is_none(), "it has ended: {deployment:?}");
            assert!(began.elapsed() < patience(), "it does not get on: {deployment:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The service's events as they arrive, with their arrival times.
    pub(crate) async fn events(&self) -> mpsc::UnboundedReceiver<(Instant, Event)> {
        let request = StreamEventsRequest::default();
        let mut client = self.clients.deployments.clone();
        let mut events = client.stream_events(request).await.unwrap().into_inner();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                let now = Instant::now();
                if let Some(event) = event.event
                    && sender.send((now, event)).is_err()
                {
                    return;
                }
            }
        });
        receiver
    }

    /// `kubectl rollout status` of one Deployment.
    pub(crate) fn kubectl(&self, name: &str) -> Child {
        Command::new(slipway_testbed::tool("kubectl").unwrap())
            .args(["rollout", "status", "--timeout=10m", "--namespace", NAMESPACE])
            .arg(format!("deployment/{name}"))
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

pub(crate) fn digest(version: usize) -> String {
    format!("sha256:{version:064x}")
}

pub(crate) fn image(version: usize) -> String {
    format!("{IMAGE}@{}", digest(version))
}

pub(crate) fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

impl Api {
    async fn open(kubeconfig: &std::path::Path) -> Self {
        let configs = json!({"local": {"kubeconfig": kubeconfig}});
        let configs: ClusterConfigs = serde_json::from_value(configs).unwrap();
        let clusters = Clusters::open(&configs).await.unwrap();
        Self(clusters.get(&"local".parse().unwrap()).unwrap().clone())
    }

    pub(crate) async fn read(&self, path: &str) -> String {
        let request = Request::get(path).body(Vec::new()).unwrap();
        self.0.client().request_text(request).await.unwrap()
    }

    pub(crate) async fn list(&self, path: &str) -> Value {
        serde_json::from_str(&self.read(path).await).unwrap()
    }

    pub(crate) async fn write(&self, method: &str, path: &str, body: &Value) {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
        self.0.client().request_text(request).await.unwrap();
    }

    pub(crate) async fn until(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self.list(path).await;
            if wanted(&found) {
                return found;
            }
            assert!(began.elapsed() < patience(), "it does not happen that {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A plain watch: the events of one list, and when each line arrived.
    pub(crate) async fn watch(&self, path: &str) -> impl Stream<Item = (Instant, Value)> + use<> {
        let request = Request::get(format!("{path}?watch=true"))
            .body(Vec::new())
            .unwrap();
        let lines = self.0.client().request_stream(request).await.unwrap().lines();
        // It ends with the cluster, however that closes it.
        lines.filter_map(async |line| Some((Instant::now(), serde_json::from_str(&line.ok()?).ok()?)))
    }

    /// Watches that are open on the API server, according to its own count.
    pub(crate) async fn watches(&self) -> usize {
        let text = self.read("/metrics").await;
        let gauges = text.lines().filter(|line| {
            line.starts_with("apiserver_longrunning_requests{") && line.contains("verb=\"WATCH\"")
        });
        let counts = gauges.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small counts
        counts.map(|count| count as usize).sum()
    }
}
