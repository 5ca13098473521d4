//! Reads one workload from the API server itself, past every watch.

use std::sync::Arc;

use kube::{
    Api,
    api::{DynamicObject, TypeMeta},
    core::{ApiResource, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use slipway_model::{Fault, Reason};
use slipway_verdict::{Target, Workload, WorkloadKind};

use tokio::time::Instant;

use super::{Kubernetes, call, fault::refused, watch};

/// Group, version, kind and path of a kind of workload.
pub fn resource(kind: WorkloadKind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or(("", "v1"));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.as_str()))
}

/// Gives an object its type.
///
/// # Errors
/// A permanent fault when it is not of that kind's shape.
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

impl Kubernetes {
    /// The workload as the API server has it now, as slim as the watches show it; none when it is not there. A
    /// watch that turns out to show an older version is taken up anew.
    ///
    /// # Errors
    /// When the API server cannot be asked or refuses.
    pub async fn read(&self, target: &Target) -> Result<Option<Workload>, Fault<Reason>> {
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            target.namespace.as_str(),
            &resource(target.kind),
        );
        let asked = Instant::now();
        let found = call(&format!("read the {}", target.kind), api.get_opt(&target.name)).await?;
        let mut found = found.map(|object| typed(target.kind, object)).transpose()?;
        if let Some(found) = &mut found {
            watch::slim(found);
        }
        self.watches.compare(target, found.as_ref(), asked);
        Ok(found)
    }
}
