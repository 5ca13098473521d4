//! Checks whether the running service works: HTTP through the API server's service proxy or to a URL, gRPC health, TCP.
//! Where a check may connect to is restricted, see `dial/address.rs`.

mod grpc;
mod http;
mod tcp;

use serde::Deserialize;
use slipway_check::{Check, CheckKind, CheckResult};
use slipway_kubernetes::Kubernetes;
use slipway_model::{Fault, Name, Reason};

use crate::dial::{Dialer, address::Allow};

/// `checks:` in the configuration of a service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChecksConfig {
    /// Address ranges that checks may connect to although they are link-local, loopback, multicast or a cloud's
    /// metadata: CIDR blocks or single addresses. All other addresses are open anyway.
    #[serde(default)]
    pub allow: Allow,
}

/// Runs checks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checker {
    dialer: Dialer,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new(&ChecksConfig::default())
    }
}

/// The result of one try, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Attempt {
    Passed(String),
    NotYet(String),
    /// Another try would not be better: refused by confinement, or not understandable.
    Never(String),
}

impl Checker {
    /// Restricted by this configuration.
    pub fn new(config: &ChecksConfig) -> Self {
        Self {
            dialer: Dialer::Confined(config.allow.clone()),
        }
    }

    /// Runs all checks concurrently, each to its end. Dropping the future stops them and closes their connections.
    /// `namespace` is the namespace of Services that are given without one: the target's, or an Application's
    /// destination.
    ///
    /// # Errors
    /// When the API server is unreachable; that says nothing about the service, and the checks are run again.
    pub async fn run(
        &self,
        cluster: &Kubernetes,
        namespace: &Name,
        checks: &[Check],
    ) -> Result<Vec<CheckResult>, Fault<Reason>> {
        let checks = checks.iter().map(|check| self.one(cluster, namespace, check));
        futures::future::try_join_all(checks).await
    }

    async fn one(
        &self,
        cluster: &Kubernetes,
        namespace: &Name,
        check: &Check,
    ) -> Result<CheckResult, Fault<Reason>> {
        let patience = check.kind.patience();
        let mut attempts = 0;
        loop {
            let attempt = match &check.kind {
                CheckKind::Http(http) => http::ask(&self.dialer, cluster, namespace, http).await?,
                CheckKind::Grpc(grpc) => grpc::ask(&self.dialer, grpc).await,
                CheckKind::Tcp(tcp) => tcp::ask(&self.dialer, tcp).await,
            };
            attempts += 1;
            let (passed, over, last_answer) = match attempt {
                Attempt::Passed(words) => (true, true, words),
                Attempt::NotYet(words) => (false, attempts >= patience.attempts, words),
                Attempt::Never(words) => (false, true, words),
            };
            if over {
                return Ok(CheckResult {
                    name: check.name.clone(),
                    passed,
                    attempts,
                    last_answer,
                });
            }
            tokio::time::sleep(patience.interval).await;
        }
    }
}
