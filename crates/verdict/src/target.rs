//! What is judged: the thing in a cluster that a deployment replaces.

use std::fmt;

use serde::{Deserialize, Serialize};
use slipway_model::Name;

/// The thing in a cluster that a release replaces. Its [`key`](Self::key) names its lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Name of a cluster in the service's configuration.
    pub cluster: Name,
    pub namespace: Name,
    pub kind: WorkloadKind,
    pub name: String,
}

impl Target {
    /// `cluster/namespace/kind/name`.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.cluster, self.namespace, self.kind, self.name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())
    }
}

/// A cluster that the configuration does not have, and those it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no cluster {name} in this service's configuration, {}: fix target.cluster in the catalog, or clusters in the configuration", there_are(.known))]
pub struct UnknownCluster {
    pub name: Name,
    pub known: Vec<Name>,
}

fn there_are(known: &[Name]) -> String {
    match known {
        [] => "which has none".to_owned(),
        known => {
            let names: Vec<&str> = known.iter().map(Name::as_str).collect();
            format!("which has {}", names.join(", "))
        }
    }
}

/// The kinds of object whose rollout can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    /// Of Argo CD, `argoproj.io/v1alpha1`.
    Application,
    /// Of Argo Rollouts, `argoproj.io/v1alpha1`.
    Rollout,
    /// Of Flagger, `flagger.app/v1beta1`.
    Canary,
}

impl WorkloadKind {
    /// As `kind` in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Application => "Application",
            Self::Rollout => "Rollout",
            Self::Canary => "Canary",
        }
    }

    /// Whether it rolls out in steps.
    pub const fn has_steps(self) -> bool {
        matches!(self, Self::Rollout | Self::Canary)
    }

    /// Whether it rolls out in steps, or may hold what does.
    pub const fn may_have_steps(self) -> bool {
        self.has_steps() || matches!(self, Self::Application)
    }

    /// As `apiVersion` in manifests.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps/v1",
            Self::Application | Self::Rollout => "argoproj.io/v1alpha1",
            Self::Canary => "flagger.app/v1beta1",
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
