//! The kube client against the cluster: watches, server-side apply, preconditions, status, logs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Place, add_image, web};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, PropagationPolicy, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use local_cluster::{Cluster, PretendPods};
use serde_json::json;
use slipway_testbed::{eventually, holds, within};

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// A cluster whose pods are pretended.
async fn pretended(place: &Place) -> Cluster {
    let mut config = place.config();
    config.pretend_pods = Some(PretendPods {
        ready_after: Duration::from_millis(1),
    });
    Cluster::start(config).await.unwrap()
}

fn deployment(image: &str, replicas: i64) -> serde_json::Value {
    web(image, replicas, &BTreeMap::new())["items"][0].clone()
}

fn code(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason, status.message),
        other => panic!("{other:?}"),
    }
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"v": value}}))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_watched_to_its_end() {
    let place = Place::new();
    let cluster = pretended(&place).await;
    let client = client(&cluster).await;
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let params = PatchParams::apply("deployer");
    let applied = api
        .patch("web", &params, &Patch::Apply(deployment("web:1", 3)))
        .await
        .unwrap();
    assert_eq!(applied.metadata.generation, Some(1));
    let fields = watcher::Config::default().fields("metadata.name=web");
    let mut stream = std::pin::pin!(watcher(api.clone(), fields).applied_objects());
    let done = within("it has rolled out", async {
        loop {
            let seen = stream.try_next().await.unwrap().unwrap();
            let status = seen.status.clone().unwrap_or_default();
            if status.observed_generation == seen.metadata.generation && status.available_replicas == Some(3)
            {
                return seen;
            }
        }
    });
    let done = done.await;
    let condition = |kind: &str| {
        let conditions = done.status.clone().unwrap().conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|c| c.type_ == kind).unwrap();
        (found.status, found.reason.unwrap_or_default())
    };
    assert_eq!(
        condition("Available"),
        ("True".to_owned(), "MinimumReplicasAvailable".to_owned())
    );
    assert_eq!(
        condition("Progressing"),
        ("True".to_owned(), "NewReplicaSetAvailable".to_owned())
    );
    assert_eq!(done.annotations()["deployment.kubernetes.io/revision"], "1");
    // Applying the same again changes nothing at all. The controllers may still have a word to write of their own.
    let mut changes = 0;
    loop {
        let before = api.get("web").await.unwrap();
        let again = api
            .patch("web", &params, &Patch::Apply(deployment("web:1", 3)))
            .await
            .unwrap();
        if again.resource_version() == before.resource_version() {
            break;
        }
        changes += 1;
        assert!(changes < 10, "each apply of the same made a new version");
    }

    let events: Api<Event> = Api::default_namespaced(client.clone());
    let about = ListParams::default().fields(&format!("involvedObject.uid={}", done.uid().unwrap()));
    let reasons: Vec<String> = events
        .list(&about)
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|e| e.reason)
        .collect();
    assert_eq!(reasons, ["ScalingReplicaSet"]);

    let sets: Api<ReplicaSet> = Api::default_namespaced(client.clone());
    api.delete(
        "web",
        &DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..Default::default()
        },
    )
    .await
    .unwrap();
    eventually("it is gone", async || {
        holds(api.get_opt("web").await.unwrap(), |found| found.is_none())
    })
    .await;
    assert!(sets.list(&ListParams::default()).await.unwrap().items.is_empty());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_conflicts() {
    let place = Place::new();
    let cluster = pretended(&place).await;
    let client = client(&cluster).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let post = PostParams::default();
    let first = api.create(&post, &config_map("a", "1")).await.unwrap();
    assert_eq!(
        code(api.create(&post, &config_map("a", "1")).await.unwrap_err()),
        (
            409,
            "AlreadyExists".to_owned(),
            "configmaps \"a\" already exists".to_owned()
        )
    );
    let mut changed = first.clone();
    changed.data = Some(BTreeMap::from([("v".to_owned(), "2".to_owned())]));
    let second = api.replace("a", &post, &changed).await.unwrap();
    assert_ne!(first.resource_version(), second.resource_version());
    let (number, reason, message) = code(api.replace("a", &post, &changed).await.unwrap_err());
    assert_eq!((number, reason.as_str()), (409, "Conflict"));
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );

    // Server-side apply: by field, by version, by force.
    let wanted =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"v": "3"}});
    let params = PatchParams::apply("other");
    let (number, reason, message) = code(api.patch("a", &params, &Patch::Apply(&wanted)).await.unwrap_err());
    assert_eq!((number, reason.as_str()), (409, "Conflict"));
    assert!(
        message.starts_with("Apply failed with 1 conflict: conflict with \"unknown\" using v1"),
        "{message}"
    );
    assert!(message.ends_with(": .data.v"), "{message}");
    let mut stale = wanted.clone();
    stale["metadata"]["resourceVersion"] = json!(first.resource_version());
    let error = api
        .patch("a", &params.clone().force(), &Patch::Apply(&stale))
        .await
        .unwrap_err();
    assert_eq!(code(error).0, 409);
    let mut fresh = wanted;
    fresh["metadata"]["resourceVersion"] = json!(second.resource_version());
    let third = api
        .patch("a", &params.force(), &Patch::Apply(&fresh))
        .await
        .unwrap();
    assert_eq!(third.data.unwrap()["v"], "3");
    let managers: Vec<String> = third
        .metadata
        .managed_fields
        .unwrap()
        .into_iter()
        .filter_map(|m| m.manager)
        .collect();
    assert!(managers.contains(&"other".to_owned()), "{managers:?}");

    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions {
            uid: Some("other".to_owned()),
            resource_version: None,
        }),
        ..Default::default()
    };
    assert_eq!(code(api.delete("a", &wrong).await.unwrap_err()).0, 409);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(
        code(api.get("a").await.unwrap_err()).2,
        "configmaps \"a\" not found"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_follow_selectors_and_expire() {
    let place = Place::new();
    let cluster = pretended(&place).await;
    let client = client(&cluster).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let from = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let params = WatchParams::default().labels("v=1").timeout(20);
    let mut events = api.watch(&params, &from).await.unwrap().boxed();
    let post = PostParams::default();
    let mut map = api.create(&post, &config_map("a", "1")).await.unwrap();
    api.create(&post, &config_map("b", "2")).await.unwrap();
    map.labels_mut().insert("v".to_owned(), "2".to_owned());
    let mut map = api.replace("a", &post, &map).await.unwrap();
    map.labels_mut().insert("v".to_owned(), "1".to_owned());
    api.replace("a", &post, &map).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(o) => format!("added {}", o.name_any()),
            WatchEvent::Deleted(o) => format!("deleted {}", o.name_any()),
            WatchEvent::Modified(o) => format!("modified {}", o.name_any()),
            _ => continue,
        });
    }
    assert_eq!(seen, ["added a", "deleted a", "added a", "deleted a"]);

    let too_old = api.watch(&WatchParams::default(), "1").await;
    let first = match too_old {
        Ok(events) => events
            .boxed()
            .try_next()
            .await
            .map(|e| e.map(|e| format!("{e:?}"))),
        Err(error) => Err(error),
    };
    // Version 1 is before the first object ever stored, and still remembered: nothing is too old yet.
    assert!(first.unwrap().is_some());

    let page = api.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(page.items.len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let place = Place::new();
    let cluster = pretended(&place).await;
    let client = client(&cluster).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    for index in 0..5 {
        api.create(&PostParams::default(), &config_map(&format!("m{index}"), "1"))
            .await
            .unwrap();
    }
    let (mut names, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut params = ListParams::default().limit(2);
        if let Some(token) = &token {
            params = params.continue_token(token);
        }
        let page = api.list(&params).await.unwrap();
        names.extend(page.items.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_written_apart_from_the_spec() {
    let place = Place::new();
    let cluster = pretended(&place).await;
    let client = client(&cluster).await;
    let api: Api<Deployment> = Api::default_namespaced(client);
    let post = PostParams::default();
    let object: Deployment = serde_json::from_value(deployment("web:1", 0)).unwrap();
    api.create(&post, &object).await.unwrap();
    let patch = json!({"spec": {"replicas": 7}, "status": {"collisionCount": 9}});
    let patched = api
        .patch_status("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(patched.spec.unwrap().replicas, Some(0));
    assert_eq!(patched.status.unwrap().collision_count, Some(9));
    let patched = api
        .patch("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(
        (patched.spec.unwrap().replicas, patched.metadata.generation),
        (Some(7), Some(2))
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_stream_to_the_client() {
    let place = Place::new();
    add_image(&place.images(), "web", "1", &[("VERSION", "one")]).await;
    let cluster = place.start().await;
    let client = client(&cluster).await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let params = PatchParams::apply("deployer");
    deployments
        .patch("web", &params, &Patch::Apply(deployment("web:1", 1)))
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let ready = kube::runtime::wait::await_condition(deployments, "web", |object: Option<&Deployment>| {
        object
            .and_then(|d| d.status.as_ref())
            .is_some_and(|s| s.available_replicas == Some(1))
    });
    within("it is ready", ready).await.unwrap();
    let pod = pods
        .list(&ListParams::default().labels("app=web"))
        .await
        .unwrap()
        .items
        .remove(0)
        .name_any();
    let mut lines = pods
        .log_stream(
            &pod,
            &LogParams {
                follow: true,
                ..LogParams::default()
            },
        )
        .await
        .unwrap()
        .lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.try_next().await.unwrap() {
        let is_last = line == "listening";
        seen.push(line);
        if is_last {
            break;
        }
    }
    assert!(seen.contains(&"version one starts".to_owned()), "{seen:?}");
    // The stream ends with the pod.
    pods.delete(&pod, &DeleteParams::default()).await.unwrap();
    within("the stream ends", async {
        while lines.try_next().await.unwrap().is_some() {}
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away() {
    let place = Place::new();
    let cluster = pretended(&place).await;
    let mut kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    if let Some(auth) = &mut kubeconfig.auth_infos[0].auth_info {
        auth.token = Some("wrong".to_owned().into());
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let api: Api<Pod> = Api::default_namespaced(Client::try_from(config).unwrap());
    assert_eq!(code(api.list(&ListParams::default()).await.unwrap_err()).0, 401);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(cluster.kubeconfig_path())
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    cluster.shutdown().await;
}
