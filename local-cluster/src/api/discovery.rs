//! What is served, in the form in which clients ask for it: `/api`, `/apis`, `/version`, and the OpenAPI documents.

use serde_json::{Value, json};

use crate::object;
use crate::registry::Registry;
use crate::resources::Resource;

/// The version this cluster claims: the newest whose API it follows.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0-local-cluster", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

fn subresources(resource: &Resource) -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    let mut found = resource.extra.to_vec();
    if resource.status {
        found.push(("status", resource.kind, STATUS_VERBS));
    }
    if resource.scale {
        found.push(("scale", "Scale", STATUS_VERBS));
    }
    found
}

/// `/api`: the versions of the core group.
pub(crate) fn api_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
           "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn group(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/apis`: the other groups.
pub(crate) fn api_groups(registry: &Registry) -> Value {
    let groups = registry.groups();
    let groups: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| group(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(crate) fn api_group(registry: &Registry, name: &str) -> Option<Value> {
    let groups = registry.groups();
    let (_, versions) = groups.iter().find(|(group, _)| *group == name)?;
    let mut group = group(name, versions);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut found = Vec::new();
    for resource in registry
        .all()
        .into_iter()
        .filter(|r| r.group == group && r.version == version)
    {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        found.push(entry);
        for (name, kind, verbs) in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            });
            if name == "scale" {
                entry["group"] = json!("autoscaling");
                entry["version"] = json!("v1");
            }
            found.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    (!found.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found})
    })
}

/// The aggregated form of `/api` (`core`) or `/apis`: everything in one answer.
pub(crate) fn aggregated(registry: &Registry, core: bool, version: &str) -> Value {
    let groups = if core {
        vec![("", vec!["v1"])]
    } else {
        registry.groups()
    };
    let all = registry.all();
    let items: Vec<Value> = groups
        .into_iter()
        .map(|(name, versions)| {
            let metadata = if name.is_empty() {
                json!({})
            } else {
                json!({"name": name})
            };
            let of_version = |version: &str| {
                let found: Vec<Value> = all
                    .iter()
                    .filter(|r| r.group == name && r.version == version)
                    .map(|r| aggregated_resource(r))
                    .collect();
                json!({"version": version, "freshness": "Current", "resources": found})
            };
            let versions: Vec<Value> = versions.into_iter().map(of_version).collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
           "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let response = |kind: &str| json!({"group": resource.group, "version": resource.version, "kind": kind});
    let subresources: Vec<Value> = subresources(resource)
        .into_iter()
        .map(|(name, kind, verbs)| {
            let kind = if name == "scale" {
                json!({"group": "autoscaling", "version": "v1", "kind": kind})
            } else {
                response(kind)
            };
            json!({"subresource": name, "responseKind": kind, "verbs": verbs})
        })
        .collect();
    let mut entry = json!({
        "resource": resource.plural, "singularResource": resource.singular,
        "responseKind": response(resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": VERBS,
    });
    for (field, values) in [
        ("shortNames", resource.short_names),
        ("categories", resource.categories),
    ] {
        if !values.is_empty() {
            entry[field] = json!(values);
        }
    }
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}

/// `/openapi/v3`: where the documents are.
pub(crate) fn openapi_index(registry: &Registry) -> Value {
    let mut paths = json!({"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}});
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = format!("apis/{group}/{version}");
            paths[&path] = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
        }
    }
    json!({"paths": paths})
}

/// The OpenAPI v3 document of one group: the operations and their parameters, by which kubectl learns that the
/// server validates fields itself and has dry run. There are no schemas, so `kubectl explain` has nothing to show.
pub(crate) fn openapi(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
        .into_iter()
        .map(parameter)
        .collect();
    let mut paths = json!({});
    for resource in registry
        .all()
        .into_iter()
        .filter(|r| r.group == group && r.version == version)
    {
        let prefix = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let scope = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let operation = |action: &str, success: &str| {
            json!({
                "operationId": format!("{action}{}", resource.kind), "parameters": parameters,
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind":
                    {"group": resource.group, "version": resource.version, "kind": resource.kind},
                "responses": {success: {"description": "OK"}},
            })
        };
        let path = format!("{prefix}{scope}/{}", resource.plural);
        paths[&path] = json!({"post": operation("post", "201")});
        paths[format!("{path}/{{name}}")] =
            json!({"put": operation("put", "200"), "patch": operation("patch", "200")});
    }
    (!object::as_map(&mut paths).is_empty()).then(|| {
        json!({"openapi": "3.0.0", "info": {"title": "local-cluster", "version": "v1.33.0"}, "paths": paths})
    })
}

/// The OpenAPI v2 document in JSON, for tools that do not know v3.
pub(crate) fn openapi_v2() -> Value {
    json!({"swagger": "2.0", "info": {"title": "local-cluster", "version": "v1.33.0"}, "paths": {}})
}

/// The paths that there are, for `/`.
pub(crate) fn root(registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in registry.groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/metrics",
            "/readyz",
            "/openapi/v2",
            "/openapi/v3",
            "/version",
        ]
        .map(str::to_owned),
    );
    json!({"paths": paths})
}
