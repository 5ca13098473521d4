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
use std::sync::OnceLock;
use std::time::Duration;

use local_cluster::{Cluster, Config};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use slipway_testbed::{eventually, holds};

/// The test server as a static binary, compiled once a process.
pub fn server() -> &'static [u8] {
    static SERVER: OnceLock<Vec<u8>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("server");
        let status = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
            .args([
                "--edition",
                "2024",
                "-C",
                "target-feature=+crt-static",
                "-C",
                "relocation-model=static",
            ])
            .args(["-C", "strip=symbols", "-o"])
            .arg(&binary)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/server.rs"))
            .status()
            .expect("rustc is needed to build the test image's program");
        assert!(status.success(), "the test image's program does not compile");
        fs::read(binary).unwrap()
    })
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Adds an image to the layout of `repository` below `root`. Returns its manifest's digest.
pub fn add_image(root: &Path, repository: &str, tag: &str, env: &[(&str, &str)]) -> String {
    add_image_with(root, repository, tag, env, server())
}

pub fn add_image_with(
    root: &Path,
    repository: &str,
    tag: &str,
    env: &[(&str, &str)],
    program: &[u8],
) -> String {
    let layout = root.join(repository);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let blob = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        (digest, bytes.len())
    };
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    tar.append_data(&mut header, "server", program).unwrap();
    let (layer, layer_size) = blob(&tar.into_inner().unwrap().finish().unwrap());
    let env: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
                        "config": {"Entrypoint": ["/server"], "Env": env}});
    let (config, config_size) = blob(config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": layer_size}]});
    let (digest, size) = blob(manifest.to_string().as_bytes());
    let path = layout.join("index.json");
    let mut index: Value = fs::read(&path)
        .map(|bytes| serde_json::from_slice(&bytes).unwrap())
        .unwrap_or_else(|_| json!({"schemaVersion": 2, "manifests": []}));
    index["manifests"].as_array_mut().unwrap().push(json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": tag}}));
    fs::write(path, index.to_string()).unwrap();
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
