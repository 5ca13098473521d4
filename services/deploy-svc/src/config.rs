//! The configuration file of deploy-svc.

use std::path::PathBuf;

use serde::Deserialize;
use slipway_server::{BusConfig, ClientConfig, ConfigError, DatabaseConfig, ServerConfig, ServiceConfig};
use slipway_telemetry::TelemetryConfig;

use slipway_kubernetes::ClusterConfig;

use crate::{
    checks::ChecksConfig,
    prometheus::{PrometheusConfig, Prometheuses},
};

/// Unknown keys are refused, with line and name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    #[serde(default)]
    pub bus: BusConfig,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Services and environments; read again when it changes.
    pub catalog: PathBuf,
    /// The clusters that the catalog's targets name.
    pub clusters: Vec<ClusterConfig>,
    /// What checks may connect to.
    #[serde(default)]
    pub checks: ChecksConfig,
    /// The Prometheus servers that the catalog's metrics name.
    #[serde(default)]
    pub prometheus: Vec<PrometheusConfig>,
    /// Where the other services are, and as whom this one calls them.
    pub build: ClientConfig,
    pub gitops: ClientConfig,
    pub approval: ClientConfig,
    /// Releases and deployments that are worked on at once. A rollout holds its place as long as it is watched, which
    /// costs next to nothing: what is written to a cluster at once is limited by cluster.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
}

fn concurrency() -> usize {
    2048
}

impl ServiceConfig for Config {
    fn server(&self) -> &ServerConfig {
        &self.server
    }

    fn bus(&self) -> &BusConfig {
        &self.bus
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.concurrency == 0 {
            return Err(ConfigError::invalid("concurrency", "must be at least 1"));
        }
        Prometheuses::open(&self.prometheus).map(drop)
    }
}
