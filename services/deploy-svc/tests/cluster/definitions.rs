//! Definitions of custom resources, from the test data.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

/// Defines what a file of the CRDs does, unless the cluster has it, and waits until `resource` is served.
pub(crate) async fn define(client: &Client, file: &str, resource: &ApiResource) {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let path = slipway_testbed::data(&format!("crds/{file}"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    for document in documents {
        if document["kind"] != "CustomResourceDefinition" {
            continue;
        }
        let definition: DynamicObject = serde_json::from_value(document).unwrap();
        match definitions.create(&PostParams::default(), &definition).await {
            Ok(_) => {}
            // It is there, or another test was first.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    // Its API is served somewhat later than it is defined.
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", resource);
    for _ in 0..300 {
        if objects.list(&Default::default()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{file} is not served");
}
