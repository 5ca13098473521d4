//! Watching rollouts: how soon deploy-svc tells that one is complete, beside `kubectl rollout status`, and what it costs
//! to verify very many at once.
//!
//! The cluster is local-cluster in a process of its own, whose pods are pretended; deploy-svc runs alone, on PostgreSQL
//! and Redis, for environments that git knows nothing of, so that nothing but the cluster is waited for.

mod latency;
mod scale;
mod scene;

use slipway_testbed::Postgres;

use crate::Figure;

pub(crate) async fn measure() -> Vec<Figure> {
    // As in production: a commit is on the disk before it is told of.
    let server = Postgres::start_with(true).await.unwrap();
    let mut figures = latency::measure(&server).await;
    figures.extend(scale::measure(&server).await);
    figures
}
