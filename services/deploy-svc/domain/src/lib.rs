//! What deploy-svc decides: pure functions from state to decision, without clock or I/O.
//!
//! Three kinds of aggregates are decided: [releases](release), the [lanes](lane) that keep them apart, and
//! [deployments](deployment). The [catalog] says what is released where; a [plan] is derived from it for one release.

pub mod catalog;
pub mod deployment;
pub mod lane;
pub mod plan;
pub mod promql;
pub mod release;
pub mod result;
