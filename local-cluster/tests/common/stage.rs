//! A cluster with Argo CD's controller, a git repository, and the Application `web`.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test uses its part"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use local_cluster::{ArgoCd, Cluster, PretendPods};
use serde_json::{Value, json};
use slipway_testbed::{eventually, holds};

use crate::common::Place;

/// A repository with a work tree.
pub struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    pub fn new() -> Self {
        let repository = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.path())
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Replaces the folder `app` by these files. Returns the commit.
    pub fn commit(&self, files: &[(&str, Value)]) -> String {
        let folder: PathBuf = self.path().join("app");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, object) in files {
            std::fs::write(folder.join(name), object.to_string()).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A cluster with Argo CD, and a repository.
pub struct Stage {
    pub place: Place,
    pub cluster: Cluster,
    pub client: Client,
    pub repository: Repository,
    argo_cd: ArgoCd,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ArgoCd)) -> Self {
        let place = Place::new();
        let mut argo_cd = ArgoCd {
            self_heal: Duration::from_millis(100),
            ..ArgoCd::default()
        };
        change(&mut argo_cd);
        Self::on(place, Repository::new(), argo_cd).await
    }

    /// Stops the cluster and starts it again on the same data.
    pub async fn restart(self) -> Self {
        self.cluster.shutdown().await;
        Self::on(self.place, self.repository, self.argo_cd).await
    }

    async fn on(place: Place, repository: Repository, argo_cd: ArgoCd) -> Self {
        let mut config = place.config();
        config.pretend_pods = Some(PretendPods {
            ready_after: Duration::from_millis(1),
        });
        config.argo_cd = Some(argo_cd.clone());
        let cluster = Cluster::start(config).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Self {
            place,
            cluster,
            client: Client::try_from(config).unwrap(),
            repository,
            argo_cd,
        }
    }

    pub fn api(&self, namespace: &str, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    pub fn applications(&self) -> Api<DynamicObject> {
        self.api("argocd", "argoproj.io", "v1alpha1", "Application")
    }

    /// Creates the Application `web`; `patch` changes what it is by default: synced by hand, in `default`.
    pub async fn create(&self, patch: &Value) -> DynamicObject {
        let mut application = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": "web", "namespace": "argocd"},
            "spec": {"project": "default",
                "source": {"repoURL": format!("file://{}", self.repository.path().display()), "path": "app", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"}}});
        json_patch::merge(&mut application, patch);
        self.applications()
            .create(
                &PostParams::default(),
                &serde_json::from_value(application).unwrap(),
            )
            .await
            .unwrap()
    }

    pub async fn patch(&self, patch: &Value) -> DynamicObject {
        let patch = Patch::Merge(patch);
        self.applications()
            .patch("web", &PatchParams::default(), &patch)
            .await
            .unwrap()
    }

    pub async fn refresh(&self) -> Value {
        self.patch(&json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}))
            .await;
        self.until("refreshed", |app| {
            app["metadata"]["annotations"]["argocd.argoproj.io/refresh"].is_null()
        })
        .await
    }

    /// Asks for a sync as Argo CD's own server does.
    pub async fn sync(&self, id: &str, sync: Value) {
        self.patch(
            &json!({"operation": {"initiatedBy": {"username": "test"}, "sync": sync,
                                         "info": [{"name": "id", "value": id}]},
                           "status": {"operationState": null}}),
        )
        .await;
    }

    pub async fn get(&self) -> Value {
        serde_json::to_value(self.applications().get("web").await.unwrap()).unwrap()
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || holds(self.get().await, &wanted)).await
    }

    /// Waits for the end of the operation with this id.
    pub async fn ended(&self, id: &str) -> Value {
        self.until("ended", |app| {
            let state = &app["status"]["operationState"];
            state["operation"]["info"][0]["value"] == id
                && matches!(state["phase"].as_str(), Some("Succeeded" | "Failed" | "Error"))
        })
        .await
    }
}
