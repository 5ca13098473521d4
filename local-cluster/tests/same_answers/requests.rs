//! What is asked: every kind of request that the services, kubectl and the controllers of release tools send.

mod apply;
mod definitions;
mod kinds;
mod lists;
mod patch;
mod pods;
mod refusals;

use std::{future::Future, pin::Pin};

use serde_json::{Value, json};

use crate::ask::Ask;

type Requests = for<'a> fn(&'a mut Ask) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub(crate) const TOPICS: &[(&str, Requests)] = &[
    ("apply", |ask| Box::pin(apply::apply(ask))),
    ("patch", |ask| Box::pin(patch::patch(ask))),
    ("refusals", |ask| Box::pin(refusals::refusals(ask))),
    ("lists", |ask| Box::pin(lists::lists(ask))),
    ("watch", |ask| Box::pin(lists::watch(ask))),
    ("pods", |ask| Box::pin(pods::pods(ask))),
    ("failing", |ask| Box::pin(pods::failing(ask))),
    ("jobs", |ask| Box::pin(kinds::jobs(ask))),
    ("kinds", |ask| Box::pin(kinds::kinds(ask))),
    ("definitions", |ask| Box::pin(definitions::definitions(ask))),
    ("namespaces", |ask| Box::pin(definitions::namespaces(ask))),
];

fn template(image: &str, env: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": image, "env": env,
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            }],
        },
    })
}

fn deployment(name: &str, image: &str, replicas: u32, env: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image, env),
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn status(answer: &Value, field: &str) -> Value {
    answer["body"]["status"][field].clone()
}

/// Waits until the controller of a Deployment without pods has nothing left to do.
async fn settled(ask: &Ask, web: &str) {
    slipway_testbed::eventually("the Deployment has settled", async || {
        let answer = ask.quietly("GET", web, &json!({})).await;
        slipway_testbed::holds(answer, |answer| {
            let observed = status(answer, "observedGeneration") == answer["body"]["metadata"]["generation"];
            observed
                && answer["body"]["status"]
                    .to_string()
                    .contains("NewReplicaSetAvailable")
        })
    })
    .await;
}

fn ready(count: u64) -> impl Fn(&Value) -> bool {
    move |answer| status(answer, "readyReplicas") == count && status(answer, "unavailableReplicas").is_null()
}
