//! Creates clients from configuration.

use std::time::Duration;

use kube::{
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::limit::ConcurrencyLimitLayer;

use slipway_model::Name;

use super::{ClusterConfig, ClusterConfigError, Kubernetes};

/// For name resolution, connection and TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests to one cluster that wait for an answer at once, so that an unresponsive one cannot use up this process's
/// sockets. An open watch already has its response and does not count.
const REQUESTS: usize = 128;

/// Whether the kubeconfig exists, and has the context to use.
pub(super) fn check_file(name: &Name, config: &ClusterConfig) -> Result<(), ClusterConfigError> {
    let Some(path) = &config.kubeconfig else {
        return Ok(());
    };
    let wrong = |error| ClusterConfigError::Kubeconfig {
        name: name.clone(),
        error: Box::new(error),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    let Some(context) = config.context.as_ref().or(kubeconfig.current_context.as_ref()) else {
        return Err(wrong(KubeconfigError::CurrentContextNotSet));
    };
    match kubeconfig.contexts.iter().any(|one| one.name == *context) {
        true => Ok(()),
        false => Err(wrong(KubeconfigError::LoadContext(context.clone()))),
    }
}

pub(super) async fn open(name: &Name, config: &ClusterConfig) -> Result<Kubernetes, ClusterConfigError> {
    let mut client = match &config.kubeconfig {
        Some(path) => {
            let wrong = |error| ClusterConfigError::Kubeconfig {
                name: name.clone(),
                error: Box::new(error),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions {
                context: config.context.clone(),
                ..KubeConfigOptions::default()
            };
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(wrong)?
        }
        None => kube::Config::incluster().map_err(|error| ClusterConfigError::InCluster {
            name: name.clone(),
            error: Box::new(error),
        })?,
    };
    client.connect_timeout = Some(CONNECT_TIMEOUT);
    // Retries are ours: a check's 503 is an answer, and the ledger remembers when to try an apply again.
    client.default_retry = false;
    let server = client.cluster_url.to_string();
    let client = ClientBuilder::try_from(client).map_err(|error| ClusterConfigError::Client {
        name: name.clone(),
        error: Box::new(error),
    })?;
    let client = client.with_layer(&ConcurrencyLimitLayer::new(REQUESTS)).build();
    Ok(Kubernetes::scoped(name.clone(), client, config.watch).at(server))
}
