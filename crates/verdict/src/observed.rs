//! What the cluster shows of one workload.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        core::v1::{Event, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    WorkloadKind,
    objects::{application::Application, canary::Canary, rollout::Rollout},
};

/// What the cluster shows of one workload and of what belongs to it.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Absent: the watch does not show it, or not yet.
    pub workload: Option<Workload>,
    /// The API server itself said that it does not exist.
    pub gone: bool,
    /// Those that it owns: for a Deployment or Rollout.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// Those that it owns, or that its ReplicaSets own.
    pub pods: Vec<Arc<Pod>>,
    /// For a Canary: the Deployment that serves, `<target>-primary`.
    pub primary: Option<Arc<Deployment>>,
    /// For a Canary: the Deployment that people change, whose template is tried.
    pub tried: Option<Arc<Deployment>>,
    /// Warnings of the cluster about the workload, its ReplicaSets and its pods, as far as they were read.
    pub events: Vec<Arc<Event>>,
    /// For an Application: the workloads that it manages.
    pub managed: Managed,
}

/// The workloads that an Application manages, in the cluster that it deploys to.
#[derive(Debug, Clone, Default)]
pub enum Managed {
    /// Not looked at.
    #[default]
    Unknown,
    /// They cannot be read, and why.
    Unreadable(String),
    Seen(Vec<ManagedWorkload>),
}

/// One workload that an Application manages.
#[derive(Debug, Clone)]
pub struct ManagedWorkload {
    pub kind: WorkloadKind,
    pub namespace: String,
    pub name: String,
    pub observed: Observed,
}

impl std::fmt::Display for ManagedWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One workload as the API server has it.
#[derive(Debug, Clone)]
pub enum Workload {
    Deployment(Arc<Deployment>),
    StatefulSet(Arc<StatefulSet>),
    DaemonSet(Arc<DaemonSet>),
    Application(Arc<Application>),
    Rollout(Arc<Rollout>),
    Canary(Arc<Canary>),
}

impl Workload {
    /// What kind of workload it is.
    pub fn kind(&self) -> WorkloadKind {
        match self {
            Self::Deployment(_) => WorkloadKind::Deployment,
            Self::StatefulSet(_) => WorkloadKind::StatefulSet,
            Self::DaemonSet(_) => WorkloadKind::DaemonSet,
            Self::Application(_) => WorkloadKind::Application,
            Self::Rollout(_) => WorkloadKind::Rollout,
            Self::Canary(_) => WorkloadKind::Canary,
        }
    }

    /// The object's metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Deployment(live) => &live.metadata,
            Self::StatefulSet(live) => &live.metadata,
            Self::DaemonSet(live) => &live.metadata,
            Self::Application(live) => &live.metadata,
            Self::Rollout(live) => &live.metadata,
            Self::Canary(live) => &live.metadata,
        }
    }

    /// The template of its pods, if it has its own.
    pub fn template(&self) -> Option<&PodTemplateSpec> {
        match self {
            Self::Deployment(live) => live.spec.as_ref().map(|spec| &spec.template),
            Self::StatefulSet(live) => live.spec.as_ref().map(|spec| &spec.template),
            Self::DaemonSet(live) => live.spec.as_ref().map(|spec| &spec.template),
            Self::Rollout(live) => live.spec.template.as_ref(),
            Self::Application(_) | Self::Canary(_) => None,
        }
    }
}
