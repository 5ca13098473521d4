//! Deletes a pod that keeps its StatefulSet's controller from going on.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use slipway_model::{Fault, Reason};
use slipway_verdict::Target;

use crate::{
    Kubernetes,
    apply::bounded,
    fault::{fault_of, unavailable},
};

/// Deletes exactly this pod. One that is gone or was replaced already is left alone.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub async fn delete(cluster: &Kubernetes, target: &Target, pod: &Pod) -> Result<(), Fault<Reason>> {
    let name = pod.name_any();
    let what = format!("delete pod {name}");
    let api: Api<Pod> = Api::namespaced(cluster.client().clone(), target.namespace.as_str());
    let only = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match bounded(api.delete(&name, &only)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(Err(error)) => Err(fault_of(&what, &error)),
        Err(words) => Err(unavailable(format!("{what}: {words}"))),
    }
}
