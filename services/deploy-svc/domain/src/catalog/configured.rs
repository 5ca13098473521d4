//! Names in the catalog that refer to this service's own configuration.

use slipway_check::Faults;
use slipway_model::Name;
use slipway_verdict::UnknownCluster;

use super::{Catalog, CatalogError};

/// The names that the configuration has, and a catalog may use.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    pub clusters: Vec<Name>,
    /// Those of the clusters that run images without a registry host from build-svc's folder.
    pub image_folders: Vec<Name>,
    pub prometheus: Vec<Name>,
}

impl Configured {
    /// Whether the configuration has every cluster and every Prometheus that the catalog names.
    ///
    /// # Errors
    /// [`CatalogError::Meaning`] with each place that names another one, and the names that exist.
    pub fn check(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        let mut faults = Faults::default();
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
                    faults.add(at("target.cluster"), unknown.to_string());
                }
                let metrics = environment.bake.iter().flat_map(|bake| &bake.metrics);
                for (index, metric) in metrics.enumerate() {
                    faults.accept(
                        at(&format!("bake.metrics[{index}].prometheus")),
                        metric.server(self.prometheus.iter()),
                    );
                }
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(CatalogError::Meaning(faults.into_vec()))
        }
    }
}
