//! Watching rollouts: how soon deploy-svc reports that one is complete, compared with `kubectl rollout status`, and
//! what it costs to verify very many at once.
//!
//! The cluster is local-cluster in a process of its own, whose pods are simulated; deploy-svc runs alone, on PostgreSQL
//! and Redis, for environments without git, so that only the cluster is waited for.

mod latency;
mod scale;
mod scene;

use slipway_testbed::Postgres;

use crate::Figure;

pub(crate) async fn measure() -> Vec<Figure> {
    // As in production: a commit is on disk before it is reported.
    let server = Postgres::start_with(true).await.unwrap();
    let mut figures = latency::measure(&server).await;
    figures.extend(scale::measure(&server).await);
    figures
}
