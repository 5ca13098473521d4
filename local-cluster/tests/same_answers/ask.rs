//! Sends requests and keeps the answers, without what differs each time.

use std::{path::Path, time::Duration};

use http::Request;
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Map, Value, json};
use slipway_testbed::{eventually, holds};

use http_body_util::BodyExt;

pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const PATCH: &str = "application/json-patch+json";
pub(crate) const JSON: &str = "application/json";
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The answers of one topic, in a namespace of its own.
pub(crate) struct Ask {
    client: Client,
    pub(crate) namespace: String,
    pub(crate) image: String,
    answers: Map<String, Value>,
}

impl Ask {
    pub(crate) async fn new(kubeconfig: &Path, image: &str, topic: &str) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
        let mut config = config.await.unwrap();
        // A 503 is an answer as well.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let ask = Self {
            client,
            namespace: format!("{topic}-{:06x}", fastrand::u32(..1 << 24)),
            image: image.to_owned(),
            answers: Map::new(),
        };
        let namespace = json!({"metadata": {"name": ask.namespace}});
        ask.send("POST", "/api/v1/namespaces", JSON, JSON, &namespace.to_string())
            .await;
        let account = ask.core("serviceaccounts/default");
        eventually("the default service account", async || {
            holds(ask.send("GET", &account, JSON, JSON, "").await, |answer| {
                answer["code"] == 200
            })
        })
        .await;
        ask
    }

    /// A path of the core API in the namespace.
    pub(crate) fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    pub(crate) fn apps(&self, rest: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{rest}", self.namespace)
    }

    pub(crate) fn batch(&self, rest: &str) -> String {
        format!("/apis/batch/v1/namespaces/{}/{rest}", self.namespace)
    }

    async fn send(&self, method: &str, path: &str, content: &str, accept: &str, body: &str) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .header("accept", accept)
            .body(Body::from(body.as_bytes().to_vec()))
            .unwrap();
        let answer = self.client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        let body = match serde_json::from_slice(&body) {
            Ok(body) => body,
            // The events of a watch are objects one after the other.
            Err(_) if text.starts_with('{') => {
                let events = serde_json::Deserializer::from_slice(&body).into_iter::<Value>();
                events
                    .collect::<Result<Value, _>>()
                    .unwrap_or_else(|_| json!(text))
            }
            Err(_) => json!(text),
        };
        json!({"code": code, "body": body})
    }

    /// Keeps an answer under the name.
    pub(crate) fn keep(&mut self, name: &str, answer: &Value) {
        let mut plain = answer.clone();
        super::compare::plain(&mut plain, &self.namespace, &self.image);
        assert!(
            self.answers.insert(name.to_owned(), plain).is_none(),
            "{name} twice"
        );
    }

    /// Sends a request with a body, and keeps the answer under the name.
    pub(crate) async fn tell(
        &mut self,
        name: &str,
        method: &str,
        path: &str,
        content: &str,
        body: &Value,
    ) -> Value {
        let answer = self.send(method, path, content, JSON, &body.to_string()).await;
        self.keep(name, &answer);
        answer
    }

    pub(crate) async fn get(&mut self, name: &str, path: &str) -> Value {
        self.get_as(name, path, JSON).await
    }

    pub(crate) async fn get_as(&mut self, name: &str, path: &str, accept: &str) -> Value {
        let answer = self.send("GET", path, JSON, accept, "").await;
        self.keep(name, &answer);
        answer
    }

    /// Asks until the answer is as wanted, and keeps that one.
    pub(crate) async fn until(&mut self, name: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until_as(name, path, JSON, wanted).await
    }

    pub(crate) async fn until_as(
        &mut self,
        name: &str,
        path: &str,
        accept: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("{name}: {path}");
        let answer = eventually(&what, async || {
            // A pod that has just gone may leave a connection that nobody answers.
            let asked = self.send("GET", path, JSON, accept, "");
            let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
            holds(answer.unwrap_or_default(), &wanted)
        })
        .await;
        self.keep(name, &answer);
        answer
    }

    /// Sends what is not compared.
    pub(crate) async fn quietly(&self, method: &str, path: &str, body: &Value) -> Value {
        self.send(method, path, JSON, JSON, &body.to_string()).await
    }

    /// Deletes the namespace, and returns what was kept.
    pub(crate) async fn end(self) -> Value {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.send("DELETE", &path, JSON, JSON, "{}").await;
        Value::Object(self.answers)
    }
}
