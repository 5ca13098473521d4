//! Watches a version while it bakes: measures its metrics, and checks that it is still running.

use std::time::Duration;

use deploy_domain::{
    catalog::{Bake, Metric},
    deployment::DeploymentRequest,
    promql::{Values, fill},
    result::Measurement,
};
use futures::future::join_all;
use slipway_kubernetes::{Clusters, Kubernetes, fault::unavailable, managed::ManagedWorkloads};
use slipway_model::{Fault, Reason, Timestamp};
use slipway_probe::Prometheuses;
use slipway_verdict::{Expected, Target, Verdict, Workload};
use tokio::time::Instant;

/// A watch that shows nothing for this long has not been established.
const SYNC: Duration = Duration::from_secs(15);

/// Measures all metrics of the bake once, concurrently. A metric without a number results in a measurement without one,
/// which says why. `since` is when the rollout was complete: the window of the queries begins there.
pub async fn measure(
    prometheus: &Prometheuses,
    request: &DeploymentRequest,
    bake: &Bake,
    since: Timestamp,
) -> Vec<Measurement> {
    let window = Timestamp::now().since(since).min(bake.period);
    join_all(
        bake.metrics
            .iter()
            .map(|metric| one(prometheus, request, metric, window)),
    )
    .await
}

async fn one(
    prometheus: &Prometheuses,
    request: &DeploymentRequest,
    metric: &Metric,
    window: Duration,
) -> Measurement {
    let values = Values {
        service: request.service.as_str(),
        environment: request.environment.as_str(),
        namespace: request.target.namespace.as_str(),
        target: &request.target.name,
        window,
    };
    let answer = async {
        let query = fill(&metric.query, &values)?;
        let server = metric.server(prometheus.names())?;
        prometheus.query(server, &query).await
    };
    let (value, message) = match answer.await {
        Ok(value) => (Some(value), String::new()),
        Err(words) => (None, words),
    };
    Measurement {
        metric: metric.name.clone(),
        at: Timestamp::now(),
        value,
        message,
    }
}

/// Whether the version is still running, according to the shared watch: [`Verdict::Complete`] while it is. A pod that
/// is being replaced makes it [`Verdict::Progressing`], which is not yet a failure and, at the bake's end, not a
/// success.
///
/// # Errors
/// When the cluster cannot be watched; that says nothing about the version.
pub(super) async fn still(
    clusters: &Clusters,
    cluster: &Kubernetes,
    target: &Target,
    expected: &Expected,
) -> Result<Verdict, Fault<Reason>> {
    let mut subscription = cluster.follow(target);
    let mut workloads = ManagedWorkloads::default();
    let end = Instant::now() + SYNC;
    loop {
        let mut view = subscription.view();
        // A watch that is interrupted shows an earlier state.
        if view.synced && view.fault.is_none() {
            if view.observed.workload.is_none() {
                // The watch may lag; the API server knows.
                view.observed.gone = cluster.read(target).await?.is_none();
            }
            if let Some(Workload::Application(live)) = &view.observed.workload {
                workloads.follow(clusters, cluster, live);
            }
            if let Some(managed) = workloads.view() {
                view.observed.managed = managed;
                return Ok(slipway_verdict::judge(expected, &view.observed, Timestamp::now()));
            }
        }
        let changed = async {
            tokio::select! {
                () = subscription.changed() => {}
                () = workloads.changed() => {}
            }
        };
        if tokio::time::timeout_at(end, changed).await.is_err() {
            let words = view.fault.map(|fault| fault.words).unwrap_or_default();
            return Err(unavailable(format!(
                "cluster {} cannot be watched: not read within {} s {words}",
                cluster.name(),
                SYNC.as_secs()
            )));
        }
    }
}
