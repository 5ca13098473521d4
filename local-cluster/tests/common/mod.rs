//! What the tests share: a cluster of their own, images made on the spot, kubectl.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses its part"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use local_cluster::{Cluster, Config};
use serde_json::{Value, json};
use slipway_testbed::{Images, eventually, holds, static_binary};

/// The test server as a static binary.
pub fn server() -> PathBuf {
    static_binary(include_str!("server.rs"), &[]).unwrap()
}

/// Adds an image to the layout of `repository` below `root`. Returns its manifest's digest.
pub async fn add_image(root: &Path, repository: &str, tag: &str, env: &[(&str, &str)]) -> String {
    add_image_with(root, repository, tag, env, &server()).await
}

pub async fn add_image_with(
    root: &Path,
    repository: &str,
    tag: &str,
    env: &[(&str, &str)],
    program: &Path,
) -> String {
    let images = Images::new(root.join(repository), None);
    let digest = images.add(program, env).unwrap();
    images.tag(tag, &digest).await.unwrap();
    digest
}

/// A directory that holds a cluster's data and images.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path().join("data"));
        config.image_layouts.push(self.images());
        config.shim = Some(env!("CARGO_BIN_EXE_local-cluster").into());
        config.back_off = Duration::from_millis(200);
        config
    }

    pub async fn start(&self) -> Cluster {
        Cluster::start(self.config()).await.unwrap()
    }

    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.dir.path().join("data/kubeconfig"))
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl, which must succeed. Returns what it printed.
    pub async fn run(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        assert!(
            output.status.success(),
            "kubectl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl, which must fail. Returns its complaint.
    pub async fn fail(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        assert!(
            !output.status.success(),
            "kubectl {args:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stderr).unwrap()
    }

    pub async fn output(&self, args: &[&str]) -> Output {
        let mut command = self.kubectl(args);
        tokio::task::spawn_blocking(move || command.output().expect("kubectl is needed for these tests"))
            .await
            .unwrap()
    }

    /// Server-side apply of objects by kubectl.
    pub async fn apply(&self, objects: &Value) -> String {
        let path = self.dir.path().join("applied.json");
        fs::File::create(&path)
            .unwrap()
            .write_all(objects.to_string().as_bytes())
            .unwrap();
        self.run(&["apply", "--server-side", "-f", path.to_str().unwrap()])
            .await
    }

    /// Asks a service through the API server's proxy.
    pub async fn ask(&self, service: &str, path: &str) -> String {
        self.run(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/default/services/{service}/proxy{path}"),
        ])
        .await
    }

    pub async fn get(&self, args: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        serde_json::from_str(&self.run(&all).await).unwrap()
    }

    /// Looks again and again until `wanted` is content.
    pub async fn until(&self, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let what = format!("kubectl get {args:?} is as wanted");
        eventually(&what, async || holds(self.get(args).await, &wanted)).await
    }
}

/// A Deployment with a readiness probe, and its Service.
pub fn web(image: &str, replicas: i64, env: &BTreeMap<&str, &str>) -> Value {
    let env: Vec<Value> = env.iter().map(|(k, v)| json!({"name": k, "value": v})).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
         "spec": {"replicas": replicas, "progressDeadlineSeconds": 5, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 5,
                "containers": [{"name": "app", "image": image, "env": env,
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}}}]}}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
         "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}},
    ]})
}

/// Whether the process is there (and not only as a zombie).
pub fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// Waits until the process is gone.
pub async fn gone(pid: &str) {
    eventually("the process is gone", async || {
        if is_alive(pid) { Err(pid) } else { Ok(()) }
    })
    .await;
}
