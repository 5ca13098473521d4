//! Everything that talks to outside systems: the catalog file, the event bus, the telemetry collector, and the other
//! services. The clusters have their own crate, and so have checks and Prometheus.

pub(crate) mod catalog;
pub(crate) mod gitops;
pub(crate) mod hints;
pub(crate) mod spans;
pub(crate) mod steps;
