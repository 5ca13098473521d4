//! Asks a running service whether it works, and Prometheus how well it works.
//!
//! What a check asks and expects is defined by `slipway-check`. Where checks may connect to is restricted: the
//! addresses that a name resolves to are vetted, and only those are connected to.

mod checks;
mod dial;
mod prometheus;
mod web;

pub use checks::{Checker, ChecksConfig};
pub use dial::address::Allow;
pub use prometheus::{PrometheusConfig, PrometheusConfigError, Prometheuses};
