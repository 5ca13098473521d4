//! What deploy-svc decides: pure functions from state to decision, without clock or I/O.
//!
//! Four kinds of aggregates are decided: [releases](release), the [lanes](lane) that keep them apart,
//! [deployments](deployment), and the [watches](canary_watch) over canaries whose release has ended. The [catalog] says
//! what is released where; a [plan] is derived from it for one release.

pub mod canary_watch;
pub mod catalog;
pub mod deployment;
pub mod lane;
pub mod plan;
pub mod promql;
pub mod release;
pub mod result;
