//! Applications of Argo CD in a test's namespace, and the git repository that they follow.
#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::process::Command;

use deploy_domain::{
    catalog::{ArgoCd, WorkloadKind},
    deployment::{Action, DeploymentRequest, Source},
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use slipway_model::CommitSha;

use crate::cluster::{Bench, definitions};

/// A repository with a branch `main`, and a folder for each application.
pub(crate) struct Git {
    folder: tempfile::TempDir,
}

impl Git {
    pub(crate) fn new() -> Self {
        let git = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        git.run(&["init", "--quiet", "--initial-branch", "main"]);
        git
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.folder.path())
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Writes a folder's objects, one file each, and commits.
    pub(crate) fn commit(&self, folder: &str, objects: &[Value]) -> CommitSha {
        let path = self.folder.path().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        for object in objects {
            let name = format!(
                "{}-{}.yaml",
                object["kind"].as_str().unwrap().to_lowercase(),
                object["metadata"]["name"].as_str().unwrap()
            );
            std::fs::write(path.join(name), object.to_string()).unwrap();
        }
        self.run(&["add", "--all"]);
        self.run(&["commit", "--quiet", "--message", folder]);
        self.head()
    }

    pub(crate) fn revert(&self, commit: &CommitSha) -> CommitSha {
        self.run(&["revert", "--no-edit", commit.as_str()]);
        self.head()
    }

    pub(crate) fn remove(&self, file: &str) -> CommitSha {
        self.run(&["rm", "--quiet", file]);
        self.run(&["commit", "--quiet", "--message", file]);
        self.head()
    }

    /// A branch that stays where the present one is.
    pub(crate) fn branch(&self, name: &str) {
        self.run(&["branch", name]);
    }

    fn head(&self) -> CommitSha {
        self.run(&["rev-parse", "HEAD"]).parse().unwrap()
    }
}

/// What an application is made of, where nothing has to run: a value that can be looked at.
pub(crate) fn value(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

pub(crate) fn applications(bench: &Bench) -> Api<DynamicObject> {
    custom(bench.cluster.client(), bench.namespace.as_str(), "Application")
}

pub(crate) fn custom(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &kind)
}

/// An Application that follows a folder of its own name, into the test's namespace; `more` is merged into it.
pub(crate) async fn application(bench: &Bench, name: &str, url: &str, more: Value) {
    let mut object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": name, "namespace": bench.namespace},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "path": name, "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": bench.namespace},
        },
    });
    json_patch::merge(&mut object, &more);
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    applications(bench)
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

pub(crate) async fn live(bench: &Bench, name: &str) -> Value {
    serde_json::to_value(applications(bench).get(name).await.unwrap()).unwrap()
}

pub(crate) async fn merge(bench: &Bench, name: &str, patch: Value) -> Value {
    let patched = applications(bench)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    serde_json::to_value(patched).unwrap()
}

/// A request to sync the Application `shop` at a commit.
pub(crate) fn sync(bench: &Bench, commit: &CommitSha, epoch: u64, argo_cd: ArgoCd) -> DeploymentRequest {
    let request = bench.request_of(WorkloadKind::Application, &bench.a, epoch);
    DeploymentRequest {
        action: Action::Sync { argo_cd },
        source: Some(Source {
            repository: "platform".parse().unwrap(),
            path: "shop".to_owned(),
            commit: commit.clone(),
        }),
        ..request
    }
}

/// Makes sure that the cluster knows Applications.
pub(crate) async fn define(client: &Client) {
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
    definitions::define(client, "argocd-application.yaml", &ApiResource::from_gvk(&kind)).await;
}
