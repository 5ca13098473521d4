//! The workloads that carry our image in an Application, for those who act on them once.

use std::time::Duration;

use slipway_kubernetes::{Clusters, Kubernetes, fault::unavailable, managed::ManagedWorkloads};
use slipway_model::{Fault, Reason};
use slipway_verdict::{Managed, Target, Workload};
use tokio::time::Instant;

/// How long the first lists may take.
const SYNC: Duration = Duration::from_secs(30);

/// What an Application manages, as the watches show it once, with what follows it.
///
/// # Errors
/// When the cluster cannot be watched.
pub(super) async fn look(
    clusters: &Clusters,
    cluster: &Kubernetes,
    target: &Target,
) -> Result<(ManagedWorkloads, Managed), Fault<Reason>> {
    let mut workloads = ManagedWorkloads::default();
    let Some(Workload::Application(live)) = cluster.read(target).await? else {
        return Ok((workloads, Managed::Unknown));
    };
    workloads.follow(clusters, cluster, &live);
    let end = Instant::now() + SYNC;
    loop {
        if let Some(managed) = workloads.view() {
            return Ok((workloads, managed));
        }
        if tokio::time::timeout_at(end, workloads.changed()).await.is_err() {
            return Err(unavailable(format!(
                "cluster {} cannot be watched: the workloads of Application {} were not read within {} s",
                cluster.name(),
                target.name,
                SYNC.as_secs()
            )));
        }
    }
}
