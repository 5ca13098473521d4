//! Definitions of custom resources, from the test data.

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
    // Read by kubectl, because these files are YAML as people write it. Nothing is asked of a cluster for that.
    let read = tokio::process::Command::new(slipway_testbed::tool("kubectl").unwrap())
        .args(["annotate", "--local", "--output", "json", "--filename"])
        .arg(&path)
        .arg("slipway.dev/test=definition")
        .output()
        .await
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    for document in serde_json::Deserializer::from_slice(&read.stdout).into_iter::<Value>() {
        let document = document.unwrap();
        if document["kind"] != "CustomResourceDefinition" {
            continue;
        }
        let definition: DynamicObject = serde_json::from_value(document).unwrap();
        let name = definition.metadata.name.as_deref().unwrap();
        if definitions.get_opt(name).await.unwrap().is_some() {
            continue;
        }
        match definitions.create(&PostParams::default(), &definition).await {
            Ok(_) => {}
            // Another test was first.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    // Its API is served somewhat later than it is defined.
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", resource);
    let served = format!("{file} is served");
    slipway_testbed::eventually(&served, async || objects.list(&Default::default()).await).await;
}
