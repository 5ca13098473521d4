//! The kinds that are watched: where each is served, what is kept of it, and which followers a change of it concerns.

use std::{borrow::Cow, fmt, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use slipway_verdict::{
    Workload, WorkloadKind,
    application::Application,
    objects::{canary::Canary, rollout::Rollout},
};

use super::{
    slim,
    store::{Store, Stores},
};

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Application,
    Rollout,
    Canary,
    ReplicaSet,
    Pod,
    Job,
}

impl Kind {
    /// The kinds that must be watched to see all of one object of this kind.
    pub(super) const fn needs(self) -> &'static [Self] {
        match self {
            Self::Deployment => &[Self::Deployment, Self::ReplicaSet, Self::Pod],
            Self::Rollout => &[Self::Rollout, Self::ReplicaSet, Self::Pod],
            Self::StatefulSet => &[Self::StatefulSet, Self::Pod],
            Self::DaemonSet => &[Self::DaemonSet, Self::Pod],
            Self::Canary => &[Self::Canary, Self::Deployment],
            Self::Application => &[Self::Application],
            Self::ReplicaSet => &[Self::ReplicaSet],
            Self::Pod => &[Self::Pod],
            Self::Job => &[Self::Job],
        }
    }

    /// The message when the API server does not know it.
    pub(super) const fn absent(self) -> &'static str {
        match self {
            Self::Rollout => {
                "the cluster has no kind Rollout in argoproj.io/v1alpha1; is Argo Rollouts installed?"
            }
            Self::Application => {
                "the cluster has no kind Application in argoproj.io/v1alpha1; is Argo CD installed?"
            }
            Self::Canary => "the cluster has no kind Canary in flagger.app/v1beta1; is Flagger installed?",
            Self::Deployment
            | Self::StatefulSet
            | Self::DaemonSet
            | Self::ReplicaSet
            | Self::Pod
            | Self::Job => {
                "the API server does not know the resource; is this address that of a Kubernetes API?"
            }
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Application => "Application",
            Self::Rollout => "Rollout",
            Self::Canary => "Canary",
            Self::ReplicaSet => "ReplicaSet",
            Self::Pod => "Pod",
            Self::Job => "Job",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<WorkloadKind> for Kind {
    fn from(kind: WorkloadKind) -> Self {
        match kind {
            WorkloadKind::Deployment => Self::Deployment,
            WorkloadKind::StatefulSet => Self::StatefulSet,
            WorkloadKind::DaemonSet => Self::DaemonSet,
            WorkloadKind::Application => Self::Application,
            WorkloadKind::Rollout => Self::Rollout,
            WorkloadKind::Canary => Self::Canary,
        }
    }
}

/// One type of object that is watched.
pub(super) trait Watched:
    Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
    /// In one namespace, or in all of them.
    fn api(client: Client, namespace: Option<&str>) -> Api<Self>;
    fn store(stores: &mut Stores) -> &mut Store<Self>;
    /// Drops what is never read.
    fn slim(&mut self);
    /// Whether it can concern any follower.
    fn matters(&self) -> bool {
        true
    }
    /// Names the followers that a change of it concerns.
    fn concerns(&self, stores: &Stores, tell: &mut dyn FnMut(Kind, &str));
}

/// The object's controller.
pub(super) fn controller<K: Resource>(object: &K) -> Option<&OwnerReference> {
    let owners = object.meta().owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}

pub(super) fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

pub(super) fn namespace<K: Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

fn typed<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

impl Watched for Deployment {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        typed(client, namespace)
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        &mut stores.deployments
    }
    fn slim(&mut self) {
        slim::metadata(&mut self.metadata);
        if let Some(spec) = &mut self.spec {
            slim::template(&mut spec.template);
        }
    }
    fn concerns(&self, stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        tell(Kind::Deployment, name(self));
        if let Some(target) = name(self).strip_suffix("-primary") {
            for canary in stores.canaries.all_in(namespace(self)) {
                if canary.target.as_deref() == Some(target) {
                    tell(Kind::Canary, name(&**canary));
                }
            }
        }
    }
}

impl Watched for ReplicaSet {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        typed(client, namespace)
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        &mut stores.replica_sets
    }
    fn slim(&mut self) {
        slim::metadata(&mut self.metadata);
        if let Some(template) = self.spec.as_mut().and_then(|spec| spec.template.as_mut()) {
            slim::template(template);
        }
    }
    fn matters(&self) -> bool {
        controller(self).is_some()
    }
    fn concerns(&self, _stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        match controller(self).map(|owner| (owner.kind.as_str(), owner.name.as_str())) {
            Some(("Deployment", name)) => tell(Kind::Deployment, name),
            Some(("Rollout", name)) => tell(Kind::Rollout, name),
            _ => {}
        }
    }
}

impl Watched for Pod {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        typed(client, namespace)
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        &mut stores.pods
    }
    fn slim(&mut self) {
        slim::pod(self);
    }
    fn matters(&self) -> bool {
        controller(self)
            .is_some_and(|owner| matches!(owner.kind.as_str(), "ReplicaSet" | "StatefulSet" | "DaemonSet"))
    }
    fn concerns(&self, stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        match controller(self).map(|owner| (owner.kind.as_str(), owner.name.as_str())) {
            // A pod may arrive before the ReplicaSet that explains whose it is; the ReplicaSet's arrival notifies then.
            Some(("ReplicaSet", set)) => {
                if let Some(set) = stores.replica_sets.get(namespace(self), set) {
                    set.concerns(stores, tell);
                }
            }
            Some(("StatefulSet", name)) => tell(Kind::StatefulSet, name),
            Some(("DaemonSet", name)) => tell(Kind::DaemonSet, name),
            _ => {}
        }
    }
}

impl Watched for StatefulSet {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        typed(client, namespace)
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        &mut stores.stateful_sets
    }
    fn slim(&mut self) {
        slim::metadata(&mut self.metadata);
        if let Some(spec) = &mut self.spec {
            slim::template(&mut spec.template);
            spec.volume_claim_templates = None;
        }
    }
    fn concerns(&self, _stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        tell(Kind::StatefulSet, name(self));
    }
}

impl Watched for DaemonSet {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        typed(client, namespace)
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        &mut stores.daemon_sets
    }
    fn slim(&mut self) {
        slim::metadata(&mut self.metadata);
        if let Some(spec) = &mut self.spec {
            slim::template(&mut spec.template);
        }
    }
    fn concerns(&self, _stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        tell(Kind::DaemonSet, name(self));
    }
}

impl Watched for Job {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        typed(client, namespace)
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        &mut stores.jobs
    }
    fn slim(&mut self) {
        slim::metadata(&mut self.metadata);
        if let Some(spec) = &mut self.spec {
            slim::template(&mut spec.template);
        }
    }
    fn concerns(&self, _stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        tell(Kind::Job, name(self));
    }
}

/// A custom resource, of which only the fields that its verdict looks at are ever read.
#[derive(Debug, Clone)]
pub(super) struct Custom<T> {
    pub(super) object: Arc<T>,
    /// Of a Canary: the name of the Deployment that it is about.
    target: Option<String>,
}

/// What is known about the type of a custom resource.
pub(super) trait CustomResource:
    Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
    const KIND: WorkloadKind;
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    fn slim(&mut self) {}
    fn store(stores: &mut Stores) -> &mut Store<Custom<Self>>;
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Custom<Self>, D::Error> {
        Self::deserialize(from).map(|object| Custom {
            object: Arc::new(object),
            target: None,
        })
    }
}

impl CustomResource for Application {
    const KIND: WorkloadKind = WorkloadKind::Application;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn store(stores: &mut Stores) -> &mut Store<Custom<Self>> {
        &mut stores.applications
    }
}

impl CustomResource for Rollout {
    const KIND: WorkloadKind = WorkloadKind::Rollout;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn slim(&mut self) {
        if let Some(template) = &mut self.spec.template {
            slim::template(template);
        }
    }
    fn store(stores: &mut Stores) -> &mut Store<Custom<Self>> {
        &mut stores.rollouts
    }
}

impl CustomResource for Canary {
    const KIND: WorkloadKind = WorkloadKind::Canary;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn store(stores: &mut Stores) -> &mut Store<Custom<Self>> {
        &mut stores.canaries
    }
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Custom<Self>, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        let text = |pointer| value.pointer(pointer).and_then(serde_json::Value::as_str);
        let target = text("/spec/targetRef/name")
            .filter(|_| text("/spec/targetRef/kind").is_none_or(|kind| kind == "Deployment"))
            .map(str::to_owned);
        let object = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
        Ok(Custom {
            object: Arc::new(object),
            target,
        })
    }
}

impl Custom<Canary> {
    /// The Deployment that serves while the canary is analysed.
    pub(super) fn primary(&self) -> Option<String> {
        self.target.as_ref().map(|target| format!("{target}-primary"))
    }

    /// The Deployment that is analysed.
    pub(super) fn tried(&self) -> Option<String> {
        self.target.clone()
    }
}

impl<'de, T: CustomResource> Deserialize<'de> for Custom<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer)
    }
}

impl<T: CustomResource> Resource for Custom<T> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }
    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }
    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }
    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        self.object.metadata()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.object).metadata_mut()
    }
}

impl<T: CustomResource> Watched for Custom<T> {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        let resource = crate::workload::resource(T::KIND);
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }
    fn store(stores: &mut Stores) -> &mut Store<Self> {
        T::store(stores)
    }
    fn slim(&mut self) {
        slim::metadata(self.meta_mut());
        Arc::make_mut(&mut self.object).slim();
    }
    fn concerns(&self, _stores: &Stores, tell: &mut dyn FnMut(Kind, &str)) {
        tell(T::KIND.into(), name(self));
    }
}

/// Slims an object that was read without a watch, so that both can be compared.
pub(crate) fn slim_workload(workload: &mut Workload) {
    match workload {
        Workload::Deployment(live) => Watched::slim(Arc::make_mut(live)),
        Workload::StatefulSet(live) => Watched::slim(Arc::make_mut(live)),
        Workload::DaemonSet(live) => Watched::slim(Arc::make_mut(live)),
        Workload::Rollout(live) => {
            let live = Arc::make_mut(live);
            slim::metadata(&mut live.metadata);
            CustomResource::slim(live);
        }
        Workload::Application(live) => slim::metadata(&mut Arc::make_mut(live).metadata),
        Workload::Canary(live) => slim::metadata(&mut Arc::make_mut(live).metadata),
    }
}
