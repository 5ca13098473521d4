//! The kinds of workload as the API server has them: their paths, and their types.

use std::sync::Arc;

use kube::{
    api::{DynamicObject, TypeMeta},
    core::{ApiResource, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Workload, WorkloadKind};

use crate::fault::refused;

/// Group, version, kind and path of a kind of workload.
pub fn resource(kind: WorkloadKind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or(("", "v1"));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.as_str()))
}

/// Gives an object its type.
///
/// # Errors
/// A permanent fault when it does not have that kind's shape.
pub fn typed(kind: WorkloadKind, object: DynamicObject) -> Result<Workload, Fault<Reason>> {
    fn read<T: DeserializeOwned>(
        kind: WorkloadKind,
        mut object: DynamicObject,
    ) -> Result<Arc<T>, Fault<Reason>> {
        object.types.get_or_insert_with(|| TypeMeta {
            api_version: kind.api_version().to_owned(),
            kind: kind.to_string(),
        });
        serde_json::to_value(object)
            .and_then(serde_json::from_value)
            .map(Arc::new)
            .map_err(|error| refused(format!("read the {kind}: unexpected answer: {error}")))
    }
    Ok(match kind {
        WorkloadKind::Deployment => Workload::Deployment(read(kind, object)?),
        WorkloadKind::StatefulSet => Workload::StatefulSet(read(kind, object)?),
        WorkloadKind::DaemonSet => Workload::DaemonSet(read(kind, object)?),
        WorkloadKind::Application => Workload::Application(read(kind, object)?),
        WorkloadKind::Rollout => Workload::Rollout(read(kind, object)?),
        WorkloadKind::Canary => Workload::Canary(read(kind, object)?),
    })
}
