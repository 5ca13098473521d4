//! Records what a target runs before anything is changed: which containers, and the digests that its pods report.

use slipway_model::{Fault, Reason};
use slipway_verdict::{
    Target, Workload, WorkloadKind,
    before::{self, Before, RunningContainer},
};

use crate::{Kubernetes, observe};

/// What it runs now.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub async fn record(cluster: &Kubernetes, target: &Target) -> Result<Before, Fault<Reason>> {
    let (namespace, kind, name) = (target.namespace.as_str(), target.kind, target.name.as_str());
    let present = match kind {
        WorkloadKind::Application => of_application(cluster, target).await?,
        WorkloadKind::Canary => of_canary(cluster, namespace, name).await?,
        _ => of_workload(cluster, namespace, kind, name).await?,
    };
    Ok(present.map_or(Before::Absent, |containers| Before::Present { containers }))
}

async fn of_workload(
    cluster: &Kubernetes,
    namespace: &str,
    kind: WorkloadKind,
    name: &str,
) -> Result<Option<Vec<RunningContainer>>, Fault<Reason>> {
    let found = observe::workload(cluster, namespace, kind, name).await?;
    Ok(found.map(|found| before::containers(&found.workload, &found.observed)))
}

/// What serves is the primary, a copy that Flagger makes of the workload once it has accepted a version of it.
async fn of_canary(
    cluster: &Kubernetes,
    namespace: &str,
    name: &str,
) -> Result<Option<Vec<RunningContainer>>, Fault<Reason>> {
    let Some(live) = observe::read(cluster, namespace, WorkloadKind::Canary, name).await? else {
        return Ok(None);
    };
    let of = |field: &str| {
        let value = live.data.pointer(&format!("/spec/targetRef/{field}"));
        value.and_then(|value| value.as_str())
    };
    let (Some(kind), Some(name)) = (of("kind").and_then(observe::runs_pods), of("name")) else {
        return Ok(Some(Vec::new()));
    };
    match of_workload(cluster, namespace, kind, &format!("{name}-primary")).await? {
        Some(containers) => Ok(Some(containers)),
        None => of_workload(cluster, namespace, kind, name).await,
    }
}

/// The containers of all workloads that it manages, as far as they can be read.
async fn of_application(
    cluster: &Kubernetes,
    target: &Target,
) -> Result<Option<Vec<RunningContainer>>, Fault<Reason>> {
    let Some(Workload::Application(application)) = cluster.read(target).await? else {
        return Ok(None);
    };
    let mut containers = Vec::new();
    if !observe::is_here(&application) {
        return Ok(Some(containers));
    }
    for one in &application.status.resources {
        let kind = observe::runs_pods(&one.kind);
        let Some((kind, namespace)) = kind.zip(observe::namespace_of(&application, one)) else {
            continue;
        };
        match of_workload(cluster, namespace, kind, &one.name).await {
            Ok(found) => containers.extend(found.into_iter().flatten()),
            // It may not be readable here; the Application itself can be put back without.
            Err(Fault::Permanent(error)) => {
                tracing::info!(application = target.name, kind = one.kind, name = one.name, %error, "what it runs cannot be read");
            }
            Err(transient) => return Err(transient),
        }
    }
    Ok(Some(containers))
}
