//! Names in the catalog that stand for something of this service's own configuration.

use slipway_kubernetes::UnknownCluster;
use slipway_model::Name;

use super::{Catalog, CatalogError, Fault};
use crate::prometheus::Prometheuses;

/// What the configuration has, and a catalog may name. Cheap enough to clone.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    pub clusters: Vec<Name>,
    pub prometheus: Prometheuses,
}

impl Configured {
    /// Whether the configuration has every cluster and every Prometheus that the catalog names.
    ///
    /// # Errors
    /// [`CatalogError::Meaning`] with each place that names another, and the names that there are.
    pub fn check(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        let mut faults = Vec::new();
        for service in catalog.services() {
            for environment in &service.environments {
                let at = |key: &str| {
                    format!(
                        "services.{}.environments.{}.{key}",
                        service.name, environment.name
                    )
                };
                let cluster = &environment.target.cluster;
                if !self.clusters.contains(cluster) {
                    let unknown = UnknownCluster {
                        name: cluster.clone(),
                        known: self.clusters.clone(),
                    };
                    faults.push(Fault {
                        path: at("target.cluster"),
                        message: unknown.to_string(),
                    });
                }
                let metrics = environment.bake.iter().flat_map(|bake| &bake.metrics);
                for (index, metric) in metrics.enumerate() {
                    if let Err(message) = self.prometheus.get(metric.prometheus.as_ref()) {
                        faults.push(Fault {
                            path: at(&format!("bake.metrics[{index}].prometheus")),
                            message,
                        });
                    }
                }
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(CatalogError::Meaning(faults))
        }
    }
}
