//! The configuration file of deploy-svc.

pub(crate) mod catalog;

use std::{collections::BTreeMap, path::PathBuf};

use deploy_domain::catalog::Configured;
use serde::Deserialize;
use slipway_kubernetes::{ClusterConfig, ClusterConfigError, ClusterConfigs};
use slipway_model::Name;
use slipway_probe::{ChecksConfig, PrometheusConfig, Prometheuses};
use slipway_server::{ClientConfig, ConfigError, ServiceSettings};

/// The whole file.
pub type Config = slipway_server::Config<Settings>;

/// The keys that are specific to this service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Services and environments; read again when it changes.
    pub catalog: PathBuf,
    /// The clusters that the catalog's targets name.
    pub clusters: ClusterConfigs,
    /// What checks may connect to.
    #[serde(default)]
    pub checks: ChecksConfig,
    /// The Prometheus servers that the catalog's metrics name.
    #[serde(default)]
    pub prometheus: BTreeMap<Name, PrometheusConfig>,
    /// Where the other services are, and the credentials to call them with.
    pub build: ClientConfig,
    pub gitops: ClientConfig,
    pub approval: ClientConfig,
    /// Releases and deployments that are worked on at once. A rollout keeps its slot as long as it is watched, which
    /// costs next to nothing: concurrent writes to a cluster are limited per cluster.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
}

fn concurrency() -> usize {
    2048
}

impl Settings {
    /// What a catalog may name.
    pub fn configured(&self) -> Configured {
        Configured {
            clusters: self.clusters.keys().cloned().collect(),
            image_folders: self
                .clusters
                .iter()
                .filter(|(_, cluster)| cluster.image_folder)
                .map(|(name, _)| name.clone())
                .collect(),
            prometheus: self.prometheus.keys().cloned().collect(),
        }
    }

    /// The Prometheus servers.
    ///
    /// # Errors
    /// Names the key that cannot be used.
    pub(crate) fn open_prometheus(&self) -> Result<Prometheuses, ConfigError> {
        Prometheuses::open(&self.prometheus).map_err(|error| ConfigError::invalid(error.key, error.message))
    }

    fn clients(&self) -> [(&'static str, &ClientConfig); 3] {
        [
            ("build", &self.build),
            ("gitops", &self.gitops),
            ("approval", &self.approval),
        ]
    }
}

/// The error's own text begins with `clusters.NAME: `, which is the key.
fn cluster(error: &ClusterConfigError) -> ConfigError {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((key, words)) => ConfigError::invalid(key, words),
        None => ConfigError::invalid("clusters", text),
    }
}

impl ServiceSettings for Settings {
    fn check(&self) -> Result<(), ConfigError> {
        if self.concurrency == 0 {
            return Err(ConfigError::invalid("concurrency", "must be at least 1"));
        }
        ClusterConfig::check_all(&self.clusters).map_err(|error| cluster(&error))?;
        for (key, client) in self.clients() {
            client.check_url(key)?;
        }
        self.open_prometheus().map(drop)
    }

    fn check_files(&self) -> Result<(), ConfigError> {
        ClusterConfig::check_files(&self.clusters).map_err(|error| cluster(&error))?;
        for (key, client) in self.clients() {
            client.check(key)?;
        }
        catalog::read(&self.catalog)
            .and_then(|catalog| catalog::check(&self.catalog, &catalog, &self.configured()))
            .map_err(|error| ConfigError::invalid("catalog", error))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use slipway_server::config;

    use super::Config;

    const CATALOG: &str = "
environments: [prod]
services:
  - name: shop
    repository: https://git.example/shop.git
    image: registry.example/shop
    environments:
      - name: prod
        policy: none
        target: { cluster: main, namespace: shop, name: shop }
        bake: { for: 10m, metrics: [{ name: errors, query: vector(0), max: 1 }] }
";
    const CONFIG: &str = "
server: { listen: 127.0.0.1:0 }
database: { url: 'sqlite:///deploy.db' }
catalog: FOLDER/catalog.yaml
clusters: { main: { kubeconfig: FOLDER/kubeconfig } }
prometheus: { metrics: { url: 'http://127.0.0.1:9090' } }
build: { url: 'http://127.0.0.1:1' }
gitops: { url: 'http://127.0.0.1:2' }
approval: { url: 'http://127.0.0.1:3' }
";
    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts: [{ name: one, context: { cluster: one, user: one } }]
clusters: [{ name: one, cluster: { server: 'https://127.0.0.1:6443' } }]
users: [{ name: one, user: {} }]
";

    fn read(folder: &Path, text: &str) -> Config {
        let path = folder.join("deploy.yaml");
        fs::write(&path, text.replace("FOLDER", &folder.display().to_string())).unwrap();
        config::read(&path).unwrap()
    }

    #[test]
    fn what_would_keep_it_from_starting_or_deploying_is_found_by_a_check() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("catalog.yaml"), CATALOG).unwrap();
        fs::write(folder.path().join("kubeconfig"), KUBECONFIG).unwrap();
        read(folder.path(), CONFIG).check_files().unwrap();
        for (from, to, words) in [
            (
                "catalog: FOLDER/catalog.yaml",
                "catalog: FOLDER/absent.yaml",
                "catalog: ",
            ),
            (
                "kubeconfig: FOLDER/kubeconfig",
                "in_cluster: false",
                "clusters.main: give either kubeconfig",
            ),
            (
                "kubeconfig: FOLDER/kubeconfig",
                "kubeconfig: FOLDER/absent",
                "clusters.main: failed to read kubeconfig",
            ),
            (
                "FOLDER/kubeconfig }",
                "FOLDER/kubeconfig, context: two }",
                "clusters.main: ",
            ),
            ("http://127.0.0.1:2", "not a url", "gitops.url: is not a URL"),
            (
                "http://127.0.0.1:3",
                "ftp://127.0.0.1",
                "approval.url: must begin with",
            ),
            (
                "http://127.0.0.1:1",
                "http://build.example",
                "build.url: would send the token in plain text",
            ),
            (
                "url: 'http://127.0.0.1:2' }",
                "url: 'http://127.0.0.1:2', token_file: FOLDER/absent }",
                "gitops.token_file: ",
            ),
            (
                "{ main:",
                "{ other:",
                "services.shop.environments.prod.target.cluster: no cluster main in this service's configuration, which has other",
            ),
            (
                "clusters: { main: { kubeconfig: FOLDER/kubeconfig } }",
                "clusters: {}",
                "configuration, which has none: fix target.cluster in the catalog, or clusters",
            ),
            (
                "prometheus: { metrics: { url: 'http://127.0.0.1:9090' } }",
                "prometheus: {}",
                "services.shop.environments.prod.bake.metrics[0].prometheus: the metric must name a prometheus",
            ),
        ] {
            assert!(CONFIG.contains(from), "{from}");
            let config = read(folder.path(), &CONFIG.replace(from, to));
            let error = config.check_files().unwrap_err().to_string();
            assert!(error.contains(words), "{to}: {error}");
        }
        // On a machine where it does not run, its files do not exist: what the file itself says can still be checked.
        let elsewhere = CONFIG.replace("FOLDER", "/absent");
        read(folder.path(), &elsewhere).check().unwrap();
    }
}
