//! One workload and what belongs to it, read from the API server now and not from a watch.

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::Selector,
};
use slipway_model::{Fault, Name, Reason};
use slipway_verdict::{
    Observed, Workload, WorkloadKind,
    application::{Application, ResourceStatus},
    owned_by,
};

use crate::{Kubernetes, call, workload};

pub(crate) struct Found {
    pub(crate) live: DynamicObject,
    pub(crate) workload: Workload,
    pub(crate) observed: Observed,
}

/// A workload that has pods of its own; `None` if it does not exist.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub(crate) async fn workload(
    cluster: &Kubernetes,
    namespace: &str,
    kind: WorkloadKind,
    name: &str,
) -> Result<Option<Found>, Fault<Reason>> {
    let Some(live) = read(cluster, namespace, kind, name).await? else {
        return Ok(None);
    };
    let list = ListParams::default().labels(&selector(&live));
    let uid = live.metadata.uid.clone();
    let sets: Api<ReplicaSet> = Api::namespaced(cluster.client().clone(), namespace);
    let replica_sets = match kind {
        WorkloadKind::Deployment | WorkloadKind::Rollout => {
            call("list ReplicaSets", sets.list(&list)).await?.items
        }
        _ => Vec::new(),
    };
    let mut observed = Observed {
        replica_sets: replica_sets
            .into_iter()
            .filter(|set| owned_by(&set.metadata, uid.as_deref()))
            .map(Into::into)
            .collect(),
        ..Observed::default()
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let found = call("list pods", pods.list(&list)).await?.items;
    let ours = |pod: &Pod| {
        let sets = observed
            .replica_sets
            .iter()
            .map(|set| set.metadata.uid.as_deref());
        std::iter::once(uid.as_deref())
            .chain(sets)
            .any(|uid| owned_by(&pod.metadata, uid))
    };
    let found: Vec<_> = found.into_iter().filter(ours).map(Into::into).collect();
    observed.pods = found;
    Ok(Some(Found {
        workload: workload::typed(kind, live.clone())?,
        live,
        observed,
    }))
}

/// One object as it is.
///
/// # Errors
/// As [`workload`].
pub(crate) async fn read(
    cluster: &Kubernetes,
    namespace: &str,
    kind: WorkloadKind,
    name: &str,
) -> Result<Option<DynamicObject>, Fault<Reason>> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client().clone(), namespace, &workload::resource(kind));
    call(&format!("read the {kind}"), api.get_opt(name)).await
}

/// Kinds that have pods, as an Application or a Canary names them.
pub(crate) fn runs_pods(kind: &str) -> Option<WorkloadKind> {
    [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
        WorkloadKind::Rollout,
    ]
    .into_iter()
    .find(|known| known.as_str() == kind)
}

/// Whether an Application deploys into its own cluster.
pub(crate) fn is_here(application: &Application) -> bool {
    let there = &application.spec.destination;
    let server = there.server.trim_end_matches('/');
    matches!(server, "" | "https://kubernetes.default.svc")
        && matches!(there.name.as_str(), "" | "in-cluster")
}

/// The namespace of an object that an Application manages, if it can be part of a request's path.
pub(crate) fn namespace_of<'a>(application: &'a Application, object: &'a ResourceStatus) -> Option<&'a str> {
    let namespace = match object.namespace.as_str() {
        "" => application.spec.destination.namespace.as_str(),
        given => given,
    };
    namespace.parse::<Name>().is_ok().then_some(namespace)
}

/// Of its pods, as a list takes it. Argo's Rollouts have it in the same place.
fn selector(live: &DynamicObject) -> String {
    let selector = live.data.pointer("/spec/selector").cloned();
    let selector = selector.and_then(|value| serde_json::from_value::<LabelSelector>(value).ok());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    selector.map(|selector| selector.to_string()).unwrap_or_default()
}
