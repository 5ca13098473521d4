//! The kinds that this cluster serves. A kind more is one entry here, its defaults and validation
//! (`defaults.rs`, `validate.rs`), its columns (`api/table.rs`) and its controller.

/// One kind of the API, with what discovery says of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl Resource {
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
};

/// Every kind served, in the order of discovery.
pub(crate) static ALL: [&Resource; 7] = [
    &CONFIG_MAPS,
    &EVENTS,
    &NAMESPACES,
    &PODS,
    &SERVICES,
    &DEPLOYMENTS,
    &REPLICA_SETS,
];

/// The kind behind a path's group, version and plural.
pub(crate) fn by_path(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    ALL.into_iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The kind behind an object's own `apiVersion` and `kind`.
pub(crate) fn by_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    ALL.into_iter()
        .find(|r| r.kind == kind && r.api_version() == api_version)
}

/// Groups other than the core group, each once.
pub(crate) fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = ALL.iter().map(|r| r.group).filter(|g| !g.is_empty()).collect();
    groups.dedup();
    groups
}
