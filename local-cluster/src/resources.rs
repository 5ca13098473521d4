//! The kinds that this cluster serves. Another kind needs an entry here, its defaults and validation (`defaults.rs`,
//! `validate.rs`), its columns (`api/table.rs`) and its controller.

use crate::columns::Column;
use crate::schema::structural::Node;

/// One kind of the API, with what discovery reports about it.
#[derive(Debug)]
pub(crate) struct Resource {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// Whether `…/status` is a path of its own.
    pub(crate) status: bool,
    /// Whether `…/scale` is served.
    pub(crate) scale: bool,
    /// Subresources beyond status and scale, for discovery: name, kind, verbs.
    pub(crate) extra: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// What a CustomResourceDefinition says beyond the above; `None` for the kinds below.
    pub(crate) custom: Option<&'static Custom>,
}

/// What a CustomResourceDefinition says of one version beyond what every [`Resource`] has.
#[derive(Debug)]
pub(crate) struct Custom {
    /// `plural.group`: the definition's name, and where the objects are stored.
    pub(crate) name: &'static str,
    pub(crate) list_kind: &'static str,
    /// Whether clients may use this version.
    pub(crate) served: bool,
    /// The `apiVersion` in which objects are stored.
    pub(crate) stored_as: String,
    pub(crate) schema: Node,
    pub(crate) scale: Option<Scale>,
    pub(crate) columns: Vec<Column>,
}

/// Where the scale subresource finds its numbers: field names, without the leading dot.
#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) spec: Vec<String>,
    pub(crate) status: Vec<String>,
    pub(crate) selector: Vec<String>,
}

/// Resources are equal if their paths are: a definition that changed still refers to the same objects.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

impl Eq for Resource {}

impl Resource {
    /// The kind, unless it comes from a definition: those may have the names of built-in kinds.
    pub(crate) fn built_in(&self) -> &'static str {
        if self.custom.is_some() { "" } else { self.kind }
    }

    /// Where the objects are stored: all versions of a custom resource in one place, and custom resources separate from
    /// the built-in ones.
    pub(crate) fn storage(&self) -> &'static str {
        self.custom.map_or(self.plural, |custom| custom.name)
    }

    /// `apps/v1`, or `v1` for the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods`: how error messages name the resource.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

pub(crate) static NAMESPACES: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    status: true,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static CONFIG_MAPS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static EVENTS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static PODS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: false,
    extra: &[
        ("log", "Pod", &["get"]),
        ("proxy", "PodProxyOptions", PROXY_VERBS),
    ],
    custom: None,
};
pub(crate) static SERVICES: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: false,
    extra: &[("proxy", "ServiceProxyOptions", PROXY_VERBS)],
    custom: None,
};
pub(crate) static DEPLOYMENTS: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: true,
    extra: &[],
    custom: None,
};
pub(crate) static REPLICA_SETS: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: true,
    extra: &[],
    custom: None,
};

pub(crate) static NODES: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    status: true,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static RESOURCE_QUOTAS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    categories: &[],
    namespaced: true,
    status: true,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static SECRETS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static SERVICE_ACCOUNTS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static STATEFUL_SETS: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: true,
    extra: &[],
    custom: None,
};
/// The annotation of a DaemonSet that counts the changes of its template.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) static DAEMON_SETS: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static CONTROLLER_REVISIONS: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    extra: &[],
    custom: None,
};
pub(crate) static JOBS: Resource = Resource {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short_names: &[],
    categories: &["all"],
    namespaced: true,
    status: true,
    scale: false,
    extra: &[],
    custom: None,
};

pub(crate) static DEFINITIONS: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    status: true,
    scale: false,
    extra: &[],
    custom: None,
};

/// Every built-in kind, in the order of discovery; custom resources are in the cluster's registry.
pub(crate) static ALL: &[&Resource] = &[
    &CONFIG_MAPS,
    &EVENTS,
    &NAMESPACES,
    &NODES,
    &PODS,
    &RESOURCE_QUOTAS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &SERVICES,
    &CONTROLLER_REVISIONS,
    &DAEMON_SETS,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &STATEFUL_SETS,
    &JOBS,
    &DEFINITIONS,
];

/// The kind for a path's group, version and plural.
pub(crate) fn by_path(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    ALL.iter()
        .copied()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The kind for an object's own `apiVersion` and `kind`.
pub(crate) fn by_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    ALL.iter()
        .copied()
        .find(|r| r.kind == kind && r.api_version() == api_version)
}
