//! What is running in the cluster, read with kubectl as a person would.

use std::{
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
        let mut child = Command::new(slipway_testbed::tool("kubectl").unwrap())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["apply", "--server-side", "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(object.to_string().as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "applied: {object}");
    }

    /// A GET on the API.
    pub fn raw(&self, path: &str) -> Result<String, String> {
        let output = Command::new(slipway_testbed::tool("kubectl").unwrap())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["get", "--raw", path])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
