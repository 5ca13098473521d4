//! CustomResourceDefinitions and their objects: kubectl, the kube client, restarts, deletion.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod common;

use std::time::Duration;

use common::Place;
use futures::TryStreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Discovery, Scope};
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use local_cluster::{Cluster, PretendPods};
use serde_json::{Value, json};
use slipway_testbed::within;

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn start(place: &Place) -> Cluster {
    let mut config = place.config();
    config.pretend_pods = Some(PretendPods {
        ready_after: Duration::from_millis(1),
    });
    Cluster::start(config).await.unwrap()
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn refusal(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason, status.message),
        other => panic!("{other:?}"),
    }
}

/// `things.example.com`; with a status subresource and scale, or without.
fn things(subresources: bool) -> CustomResourceDefinition {
    let subresources = if subresources {
        json!({"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                                       "labelSelectorPath": ".status.selector"}})
    } else {
        Value::Null
    };
    let version = |name: &str, storage: bool, served: bool| {
        json!({"name": name, "served": served, "storage": storage, "subresources": subresources,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer"}, "mode": {"type": "string", "default": "slow"},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "plain": {"type": "array", "items": {"type": "string"}},
                    "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {
                            "name": {"type": "string"}, "value": {"type": "string"}}}}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
    };
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [version("v1", true, true), version("v1beta1", false, true), version("v0", false, false)]}}))
    .unwrap()
}

async fn define(client: &Client, definition: &CustomResourceDefinition) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    api.create(&PostParams::default(), definition).await.unwrap();
    let name = definition.name_any();
    let established = await_condition(api, &name, conditions::is_crd_established());
    within("it is established", established).await.unwrap();
}

fn thing(name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_definitions_are_taken_and_served() {
    let place = Place::new();
    let cluster = start(&place).await;
    for file in ["argocd-application.yaml", "flagger.yaml"] {
        place
            .run(&[
                "create",
                "-f",
                slipway_testbed::data(&format!("crds/{file}")).to_str().unwrap(),
            ])
            .await;
    }
    let rollouts = slipway_testbed::data("crds/argo-rollouts-rollout.yaml");
    place
        .run(&["apply", "--server-side", "-f", rollouts.to_str().unwrap()])
        .await;
    let again = place
        .run(&["apply", "--server-side", "-f", rollouts.to_str().unwrap()])
        .await;
    assert!(
        again.contains("rollouts.argoproj.io serverside-applied"),
        "{again}"
    );
    place
        .run(&[
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=30s",
        ])
        .await;

    // Discovery tells of them, in both of its forms.
    let client = client(&cluster).await;
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    for (group, kind) in [
        ("argoproj.io", "Application"),
        ("argoproj.io", "Rollout"),
        ("flagger.app", "Canary"),
    ] {
        let group = discovery.get(group).unwrap();
        let (found, capabilities) = group
            .recommended_resources()
            .into_iter()
            .find(|(resource, _)| resource.kind == kind)
            .unwrap();
        assert_eq!(capabilities.scope, Scope::Namespaced, "{}", found.plural);
        let has_status = capabilities
            .subresources
            .iter()
            .any(|(r, _)| r.plural.ends_with("status"));
        assert_eq!(has_status, kind != "Application", "{kind}");
    }
    let known = place
        .run(&["api-resources", "--api-group=argoproj.io", "-o", "name"])
        .await;
    assert!(
        known.contains("applications.argoproj.io") && known.contains("rollouts.argoproj.io"),
        "{known}"
    );

    place
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "app", "namespace": "default"},
             "spec": {"project": "default", "destination": {"namespace": "default", "server": "https://kubernetes.default.svc"},
                      "source": {"repoURL": "file:///r", "path": ".", "targetRevision": "main"}}},
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "default"},
             "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"canary": {}},
                      "template": {"metadata": {"labels": {"app": "web"}},
                                   "spec": {"containers": [{"name": "app", "image": "a:1"}]}}}}]}))
        .await;
    // kubectl's own ways: scale by the subresource, apply on the client's side, patches, deletion.
    place.run(&["scale", "rollout/web", "--replicas=3"]).await;
    let rollout = place.get(&["rollout", "web"]).await;
    assert_eq!(
        (&rollout["spec"]["replicas"], &rollout["metadata"]["generation"]),
        (&json!(3), &json!(2))
    );
    place
        .run(&[
            "patch",
            "app.argoproj.io/app",
            "--type=merge",
            "-p",
            r#"{"operation":{"sync":{"revision":"abc"}}}"#,
        ])
        .await;
    let application = place.get(&["application", "app"]).await;
    assert_eq!(application["operation"]["sync"]["revision"], "abc");
    let refused = place.fail(&["patch", "rollout", "web", "-p", "{}"]).await;
    assert!(
        refused.contains("strategic-merge-patch") || refused.contains("UnsupportedMediaType"),
        "{refused}"
    );
    let table = place.run(&["get", "rollouts"]).await;
    assert!(table.contains("web"), "{table}");
    place.run(&["delete", "rollout", "web"]).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_objects_live_like_the_built_in_ones() {
    let place = Place::new();
    let cluster = start(&place).await;
    let client = client(&cluster).await;
    define(&client, &things(true)).await;
    let api: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &resource("example.com", "v1", "Thing"));
    let beta: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &resource("example.com", "v1beta1", "Thing"));

    // Pruned, filled in, checked.
    let made = api
        .create(
            &PostParams::default(),
            &thing("a", &json!({"size": 1, "typo": 1, "free": {"x": {"y": 1}}})),
        )
        .await
        .unwrap();
    assert_eq!(
        made.data["spec"],
        json!({"size": 1, "mode": "slow", "free": {"x": {"y": 1}}})
    );
    assert_eq!(made.metadata.generation, Some(1));
    let wrong = api
        .create(&PostParams::default(), &thing("b", &json!({"size": "one"})))
        .await
        .unwrap_err();
    let (code, reason, message) = refusal(wrong);
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(
        message.contains("spec.size in body must be of type integer"),
        "{message}"
    );

    // One object, whatever the version; a version that is not served is not there.
    let shown = beta.get("a").await.unwrap();
    assert_eq!(shown.types.unwrap().api_version, "example.com/v1beta1");
    let unserved: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &resource("example.com", "v0", "Thing"));
    assert_eq!(refusal(unserved.get("a").await.unwrap_err()).0, 404);

    // The status is a path of its own, and does not count in the generation.
    let status = Patch::Merge(json!({"status": {"size": 1, "selector": "app=a"}, "spec": {"size": 7}}));
    let shown = api
        .patch_status("a", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        (&shown.data["status"]["size"], &shown.data["spec"]["size"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(shown.metadata.generation, Some(1));
    let shown = beta.patch("a", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(
        (&shown.data["spec"]["size"], shown.metadata.generation),
        (&json!(7), Some(2))
    );
    let labels = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}));
    let shown = api.patch("a", &PatchParams::default(), &labels).await.unwrap();
    assert_eq!(shown.metadata.generation, Some(2));
    let scale = api.get_scale("a").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(7));
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=a"));
    place
        .run(&[
            "patch",
            "thing",
            "a",
            "--type=json",
            "-p",
            r#"[{"op": "replace", "path": "/spec/size", "value": 8}]"#,
        ])
        .await;
    let shown = api.get("a").await.unwrap();
    assert_eq!(shown.metadata.generation, Some(3));

    // Server-side apply: keyed lists merge, others are replaced, conflicts are told.
    let apply = |manager: &'static str, spec: Value| {
        let api = api.clone();
        async move {
            let params = PatchParams::apply(manager);
            api.patch("c", &params, &Patch::Apply(thing("c", &spec))).await
        }
    };
    apply(
        "one",
        json!({"size": 1, "plain": ["a"], "parts": [{"name": "x", "value": "1"}]}),
    )
    .await
    .unwrap();
    let merged = apply("two", json!({"size": 1, "parts": [{"name": "y", "value": "2"}]}))
        .await
        .unwrap();
    assert_eq!(
        merged.data["spec"]["parts"],
        json!([{"name": "x", "value": "1"}, {"name": "y", "value": "2"}])
    );
    let conflict = apply("two", json!({"size": 1, "plain": ["b"]}))
        .await
        .unwrap_err();
    let (code, reason, message) = refusal(conflict);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.contains(".spec.plain"), "{message}");

    // A stale version is refused, a watch sees the rest.
    let mut stale = api.get("a").await.unwrap();
    stale.metadata.resource_version = Some("1".to_owned());
    assert_eq!(
        refusal(
            api.replace("a", &PostParams::default(), &stale)
                .await
                .unwrap_err()
        )
        .0,
        409
    );
    let mut seen = std::pin::pin!(watcher(beta.clone(), watcher::Config::default()).applied_objects());
    let first = seen.try_next().await.unwrap().unwrap();
    assert_eq!(first.types.unwrap().api_version, "example.com/v1beta1");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_status_subresource_everything_counts() {
    let place = Place::new();
    let cluster = start(&place).await;
    let client = client(&cluster).await;
    define(&client, &things(false)).await;
    let api: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &resource("example.com", "v1", "Thing"));
    api.create(&PostParams::default(), &thing("a", &json!({"size": 1})))
        .await
        .unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "x"}}));
    let shown = api.patch("a", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(
        (&shown.data["status"]["phase"], shown.metadata.generation),
        (&json!("x"), Some(2))
    );
    assert_eq!(
        refusal(
            api.patch_status("a", &PatchParams::default(), &status)
                .await
                .unwrap_err()
        )
        .0,
        404
    );
    assert_eq!(refusal(api.get_scale("a").await.unwrap_err()).0, 404);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_outlive_a_restart_and_take_their_objects_along() {
    let place = Place::new();
    let cluster = start(&place).await;
    let first = client(&cluster).await;
    define(&first, &things(true)).await;
    let api: Api<DynamicObject> =
        Api::default_namespaced_with(first, &resource("example.com", "v1", "Thing"));
    let before = api
        .create(&PostParams::default(), &thing("a", &json!({"size": 1})))
        .await
        .unwrap();
    cluster.shutdown().await;

    let cluster = start(&place).await;
    let client = client(&cluster).await;
    let api: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &resource("example.com", "v1", "Thing"));
    let after = api.get("a").await.unwrap();
    assert_eq!(after.metadata, before.metadata);

    // An object that waits holds its definition back.
    let hold = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    api.patch("a", &PatchParams::default(), &hold).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let uid = definitions
        .get("things.example.com")
        .await
        .unwrap()
        .uid()
        .unwrap();
    definitions
        .delete("things.example.com", &DeleteParams::default())
        .await
        .unwrap();
    let wait = await_condition(api.clone(), "a", |object: Option<&DynamicObject>| {
        object.is_some_and(|object| object.metadata.deletion_timestamp.is_some())
    });
    within("it is on its way out", wait).await.unwrap();
    let refused = api
        .create(&PostParams::default(), &thing("b", &json!({"size": 1})))
        .await
        .unwrap_err();
    assert_eq!(refusal(refused).0, 405);
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("a", &PatchParams::default(), &release).await.unwrap();
    let gone = await_condition(definitions, "things.example.com", conditions::is_deleted(&uid));
    within("it is gone", gone).await.unwrap();
    assert_eq!(refusal(api.get("a").await.unwrap_err()).0, 404);

    // Another definition wants the same kind, and gets it when the first is gone.
    define(&client, &things(true)).await;
    let mut rival = things(true);
    rival.metadata.name = Some("items.example.com".to_owned());
    rival.spec.names.plural = "items".to_owned();
    rival.spec.names.short_names = None;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let refused = definitions.create(&PostParams::default(), &rival).await.unwrap();
    assert!(!conditions::is_crd_established().matches_object(Some(&refused)));
    definitions
        .delete("things.example.com", &DeleteParams::default())
        .await
        .unwrap();
    let established = await_condition(
        definitions.clone(),
        "items.example.com",
        conditions::is_crd_established(),
    );
    within("it is established", established).await.unwrap();
    definitions
        .delete("items.example.com", &DeleteParams::default())
        .await
        .unwrap();
    let gone = await_condition(
        definitions,
        "items.example.com",
        |found: Option<&CustomResourceDefinition>| found.is_none(),
    );
    within("it is gone", gone).await.unwrap();

    // Defined again, it is empty.
    define(&client, &things(true)).await;
    assert!(api.list(&Default::default()).await.unwrap().items.is_empty());
    cluster.shutdown().await;
}
