//! What has to be there before an object can be applied, and objects that cannot be changed.

use deploy_domain::{catalog::WorkloadKind, deployment::DeploymentRequest};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use slipway_model::Name;

use crate::cluster::{Bench, failed, succeeded};

pub(crate) async fn a_definition_is_established_before_its_objects(bench: &Bench) {
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.a, "ok");
    // The object comes first, and its kind belongs to this test alone.
    let group = format!("{}.example.dev", bench.namespace);
    objects.insert(
        0,
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "Window", "metadata": {"name": "weekdays"},
            "spec": {"days": 5},
        }),
    );
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"days": {"type": "integer"}}},
    }}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("windows.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "Window", "plural": "windows", "singular": "window", "listKind": "WindowList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    bench.render(&objects).await;
    bench
        .rendered
        .0
        .lock()
        .await
        .push_str(&format!("\n---\n{definition}"));
    for epoch in [1, 2] {
        succeeded(&bench.run(bench.request(&bench.a, epoch)).await);
    }
    let kind = GroupVersionKind::gvk(&group, "v1", "Window");
    let windows: Api<DynamicObject> = Api::namespaced_with(
        bench.cluster.client().clone(),
        bench.namespace.as_str(),
        &ApiResource::from_gvk(&kind),
    );
    assert_eq!(windows.get("weekdays").await.unwrap().data["spec"]["days"], 5);
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> =
        Api::all_with(bench.cluster.client().clone(), &ApiResource::from_gvk(&kind));
    let name = format!("windows.{group}");
    definitions.delete(&name, &DeleteParams::default()).await.unwrap();
}

/// A namespace that is not there yet; deleted at the end.
fn another(bench: &Bench) -> Name {
    format!("{}-new", bench.namespace).parse().unwrap()
}

async fn delete(bench: &Bench, namespace: &Name) {
    let api: Api<Namespace> = Api::all(bench.cluster.client().clone());
    let _ = api.delete(namespace.as_str(), &DeleteParams::default()).await;
}

fn request_in(bench: &Bench, namespace: &Name, create_namespace: bool, epoch: u64) -> DeploymentRequest {
    let mut request = bench.request(&bench.a, epoch);
    request.target.namespace = namespace.clone();
    request.create_namespace = create_namespace;
    request
}

async fn render_in(bench: &Bench, namespace: &Name, further: Option<Value>) {
    let objects = bench
        .shop(WorkloadKind::Deployment, &bench.a, "ok")
        .into_iter()
        .map(|mut object| {
            object["metadata"]["namespace"] = json!(namespace);
            object
        });
    let documents: Vec<String> = objects.chain(further).map(|object| object.to_string()).collect();
    *bench.rendered.0.lock().await = documents.join("\n---\n");
}

pub(crate) async fn a_namespace_comes_before_what_is_in_it(bench: &Bench) {
    let namespace = another(bench);
    let further = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    render_in(bench, &namespace, Some(further)).await;
    succeeded(&bench.run(request_in(bench, &namespace, false, 1)).await);
    delete(bench, &namespace).await;
}

pub(crate) async fn a_missing_namespace_is_made_where_the_catalog_says_so(bench: &Bench) {
    let namespace = another(bench);
    render_in(bench, &namespace, None).await;
    let state = bench.run(request_in(bench, &namespace, false, 1)).await;
    let create = format!("kubectl create namespace {namespace}");
    failed(
        &state,
        "APPLY_REFUSED",
        &["not found", &create, "create_namespace: true"],
    );
    for epoch in [2, 3] {
        succeeded(&bench.run(request_in(bench, &namespace, true, epoch)).await);
    }
    delete(bench, &namespace).await;
}

pub(crate) async fn a_job_that_cannot_be_changed_points_to_jobs_before(bench: &Bench) {
    for (digest, epoch) in [(&bench.a, 1), (&bench.b, 2)] {
        let mut objects = bench.shop(WorkloadKind::Deployment, digest, "ok");
        objects.push(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "migrate", "image": bench.image(digest), "env": [{"name": "MODE", "value": "migrate"}],
                }],
            }}},
        }));
        bench.render(&objects).await;
        let state = bench.run(bench.request(digest, epoch)).await;
        if epoch == 1 {
            succeeded(&state);
        } else {
            let words = ["Job migrate", "field is immutable", "jobs.before"];
            failed(&state, "APPLY_REFUSED", &words);
        }
    }
}

/// It stays the same however often it is sent.
pub(crate) async fn a_patch_that_fits_no_schema_is_not_tried_again(bench: &Bench) {
    succeeded(&bench.deploy(&bench.a, "ok", 1).await);
    let mut objects = bench.shop(WorkloadKind::Deployment, &bench.b, "ok");
    objects[1]["spec"]["replicaCount"] = json!(3);
    bench.render(&objects).await;
    let state = bench.run(bench.request(&bench.b, 2)).await;
    failed(
        &state,
        "APPLY_REFUSED",
        &["failed to create typed patch object", "replicaCount"],
    );
}
