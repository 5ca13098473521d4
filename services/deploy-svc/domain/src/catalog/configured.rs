//! Names in the catalog that refer to this service's own configuration.

use slipway_check::Faults;
use slipway_model::Name;
use slipway_verdict::UnknownCluster;

use super::{Catalog, CatalogError};
use crate::plan::Plan;

/// The names that the configuration has, and a catalog may use.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    pub clusters: Vec<Name>,
    /// Those of the clusters that run images without a registry host from build-svc's folder.
    pub image_folders: Vec<Name>,
    pub prometheus: Vec<Name>,
}

impl Configured {
    /// What will keep a release of this plan from succeeding, as far as the names say; with the remedy.
    pub fn warnings(&self, plan: &Plan) -> Vec<String> {
        let image = &plan.images.only().repository;
        if image.registry().is_some() {
            return Vec::new();
        }
        let mut clusters: Vec<&str> = plan
            .environments
            .iter()
            .map(|planned| &planned.target.cluster)
            .filter(|cluster| !self.image_folders.contains(cluster))
            .map(Name::as_str)
            .collect();
        clusters.sort_unstable();
        clusters.dedup();
        if clusters.is_empty() {
            return Vec::new();
        }
        let (noun, verb) = match clusters.len() {
            1 => ("cluster", "pulls"),
            _ => ("clusters", "pull"),
        };
        vec![format!(
            "image {image} has no registry host, so build-svc keeps it in a folder, but {noun} {} {verb} images from a \
             registry: name one in the catalog (image: registry.example/team/{image}), and add it to `registries` in the \
             configuration of build-svc ({{ prefix: registry.example/team, kind: oci, username: USER, password_file: FILE }})",
            clusters.join(", ")
        )]
    }

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
