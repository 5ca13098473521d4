//! The canaries that an Application manages, as far as they say how long they take.

use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;
use slipway_verdict::application::{Application, ResourceStatus};

use crate::{Kubernetes, call};

/// How many objects of one Application are read.
const MOST: usize = 40;
/// Argo CD's names for the cluster that it runs in.
const IN_CLUSTER: [&str; 2] = ["https://kubernetes.default.svc", "in-cluster"];

/// The Rollouts, Canaries and AnalysisTemplates of an Application that deploys into its own cluster, as they are now. What
/// cannot be read is left out: it only makes a deadline longer.
pub async fn objects(cluster: &Kubernetes, application: &Application) -> Vec<Value> {
    let destination = &application.spec.destination;
    if !IN_CLUSTER.contains(&destination.server.as_str()) && !IN_CLUSTER.contains(&destination.name.as_str())
    {
        return Vec::new();
    }
    let wanted = application.status.resources.iter().filter_map(|resource| {
        let kind = kind(resource)?;
        Some((resource, kind))
    });
    let mut objects = Vec::new();
    for (resource, kind) in wanted.take(MOST) {
        let api: Api<DynamicObject> = Api::namespaced_with(
            cluster.client().clone(),
            &resource.namespace,
            &ApiResource::from_gvk(&kind),
        );
        let what = format!("read {} {}", resource.kind, resource.name);
        match call(&what, api.get_opt(&resource.name)).await {
            Ok(found) => objects.extend(found.and_then(|found| serde_json::to_value(found).ok())),
            Err(fault) => tracing::debug!(%fault, %what, "the steps of a canary are not known"),
        }
    }
    objects
}

fn kind(resource: &ResourceStatus) -> Option<GroupVersionKind> {
    let version = match (resource.group.as_str(), resource.kind.as_str()) {
        ("argoproj.io", "Rollout" | "AnalysisTemplate") => "v1alpha1",
        ("flagger.app", "Canary") => "v1beta1",
        _ => return None,
    };
    Some(GroupVersionKind::gvk(&resource.group, version, &resource.kind))
}
