//! What talks to outside systems: the catalog file, the event bus, the telemetry collector, and the other services. The
//! clusters have a crate of their own, and so have checks and Prometheus.

pub(crate) mod catalog;
pub(crate) mod gitops;
pub(crate) mod hints;
pub(crate) mod spans;
pub(crate) mod steps;
