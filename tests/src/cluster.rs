//! What is running in the cluster, read with kubectl as a person would.

use std::{
    collections::BTreeSet,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A cluster by its kubeconfig.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// Calls a Service through the API server's proxy.
    pub fn get(&self, namespace: &str, service: &str, path: &str) -> Result<String, String> {
        self.raw(&format!(
            "/api/v1/namespaces/{namespace}/services/{service}:http/proxy/{path}"
        ))
    }

    /// The image of a Deployment's first container.
    pub fn image(&self, namespace: &str, deployment: &str) -> String {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}");
        let found: Value = serde_json::from_str(&self.raw(&path).unwrap()).unwrap();
        text(&found["spec"]["template"]["spec"]["containers"][0]["image"])
    }

    /// The digests that the pods of a namespace, except terminating ones, are really running, one for each container.
    pub fn running_digests(&self, namespace: &str) -> Vec<String> {
        let pods: Value =
            serde_json::from_str(&self.raw(&format!("/api/v1/namespaces/{namespace}/pods")).unwrap())
                .unwrap();
        let mut digests = Vec::new();
        for pod in pods["items"].as_array().unwrap() {
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            for container in pod["status"]["containerStatuses"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let image = text(&container["imageID"]);
                digests.push(
                    image
                        .rsplit_once('@')
                        .map_or(image.clone(), |(_, digest)| digest.to_owned()),
                );
            }
        }
        digests
    }

    /// Brings an object into the given state.
    pub fn apply(&self, object: &Value) {
        let namespace = object["metadata"]["namespace"].as_str();
        self.apply_text(&object.to_string(), namespace.unwrap_or("default"));
    }

    /// Brings objects that name no other namespace into the given state.
    pub fn apply_text(&self, objects: &str, namespace: &str) {
        let mut child = Command::new(slipway_testbed::tool("kubectl").unwrap())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args([
                "apply",
                "--server-side",
                "--namespace",
                namespace,
                "--filename",
                "-",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "applied: {objects}");
    }

    /// Deletes these namespaces where they exist, without waiting for it.
    pub(crate) fn delete_namespaces(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let mut arguments = vec!["delete", "namespace", "--ignore-not-found", "--wait=false"];
        arguments.extend(names.iter().map(String::as_str));
        let _ = self.kubectl(&arguments);
    }

    /// The uids of an application's pods, except terminating ones.
    pub fn pods(&self, namespace: &str, app: &str) -> BTreeSet<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}");
        let pods: Value = serde_json::from_str(&self.raw(&path).unwrap()).unwrap();
        let living = pods["items"].as_array().into_iter().flatten();
        living
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| text(&pod["metadata"]["uid"]))
            .collect()
    }

    /// Creates a definition of the test data, unless the cluster has it, and waits until it is served.
    pub async fn define(&self, file: &str) {
        let path = slipway_testbed::data(&format!("crds/{file}"));
        let created = self.kubectl(&[
            "create",
            // An older cluster does not know every word of a newer schema.
            "--validate=false",
            "--filename",
            path.to_str().unwrap(),
        ]);
        assert!(
            created.is_ok()
                || created
                    .as_ref()
                    .is_err_and(|words| words.contains("AlreadyExists")),
            "{created:?}"
        );
        crate::eventually("the definition is established", async || {
            self.kubectl(&[
                "wait",
                "--for=condition=established",
                "--timeout=1s",
                "--filename",
                path.to_str().unwrap(),
            ])
        })
        .await;
    }

    /// A Rollout of Argo Rollouts.
    pub fn rollout(&self, namespace: &str, name: &str) -> Option<Value> {
        let path = format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/rollouts/{name}");
        serde_json::from_str(&self.raw(&path).ok()?).ok()
    }

    /// Writes a Rollout's status for its present generation, as its controller would.
    pub fn set_rollout_status(&self, namespace: &str, name: &str, mut status: Value) {
        let live = self.rollout(namespace, name).unwrap();
        status["observedGeneration"] = live["metadata"]["generation"].to_string().into();
        let patch = serde_json::json!({"status": status}).to_string();
        self.kubectl(&[
            "patch",
            "rollouts.argoproj.io",
            name,
            "--namespace",
            namespace,
            "--type",
            "merge",
            "--subresource",
            "status",
            "--patch",
            &patch,
        ])
        .unwrap();
    }

    /// What kubectl prints, or its complaint.
    fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(slipway_testbed::tool("kubectl").unwrap())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// A GET on the API.
    pub fn raw(&self, path: &str) -> Result<String, String> {
        self.kubectl(&["get", "--raw", path])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
