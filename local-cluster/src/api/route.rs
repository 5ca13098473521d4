//! Parses paths of the Kubernetes API.

use crate::registry::Registry;
use crate::resources::Resource;
use crate::status::{ApiError, ApiResult};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Root,
    Health,
    Metrics,
    Version,
    Api,
    Apis,
    Group(String),
    Resources { group: String, version: String },
    OpenApiIndex,
    OpenApi { group: String, version: String },
    OpenApiV2,
    Object(ObjectPath),
}

/// A collection, an object, or something below an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectPath {
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What follows `…/proxy`, with its leading slash; as received, not decoded.
    pub(crate) rest: String,
}

/// Decodes `%XX`; `None` when the result is not text.
fn decode(segment: &str) -> Option<String> {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'%' {
            let hex = segment.get(index + 1..index + 3)?;
            decoded.push(u8::from_str_radix(hex, 16).ok()?);
            index += 3;
        } else {
            decoded.push(bytes[index]);
            index += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

/// Reads a request path.
///
/// # Errors
/// 404 that says what is served instead.
pub(crate) fn parse(registry: &Registry, path: &str) -> ApiResult<Target> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let owned = |s: &str| s.to_owned();
    let target = match segments.as_slice() {
        [""] => Target::Root,
        ["healthz" | "livez" | "readyz", ..] => Target::Health,
        ["version"] => Target::Version,
        ["metrics"] => Target::Metrics,
        ["api"] => Target::Api,
        ["apis"] => Target::Apis,
        ["apis", group] => Target::Group(owned(group)),
        ["api", version] => Target::Resources {
            group: String::new(),
            version: owned(version),
        },
        ["apis", group, version] => Target::Resources {
            group: owned(group),
            version: owned(version),
        },
        ["openapi", "v2"] => Target::OpenApiV2,
        ["openapi", "v3"] => Target::OpenApiIndex,
        ["openapi", "v3", "api", version] => Target::OpenApi {
            group: String::new(),
            version: owned(version),
        },
        ["openapi", "v3", "apis", group, version] => Target::OpenApi {
            group: owned(group),
            version: owned(version),
        },
        ["api", version, rest @ ..] => Target::Object(object(registry, path, "", version, rest)?),
        ["apis", group, version, rest @ ..] => Target::Object(object(registry, path, group, version, rest)?),
        _ => return Err(unknown(path)),
    };
    Ok(target)
}

fn unknown(path: &str) -> ApiError {
    ApiError::unknown_path(format!(
        "the server could not find the requested resource: no such path {path}"
    ))
}

fn object(
    registry: &Registry,
    path: &str,
    group: &str,
    version: &str,
    segments: &[&str],
) -> ApiResult<ObjectPath> {
    let (namespace, segments) = match segments {
        // A namespace itself, or its subresource.
        ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] if group.is_empty() => {
            (None, segments)
        }
        ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
        _ => (None, segments),
    };
    let (plural, below) = segments.split_first().ok_or_else(|| unknown(path))?;
    let Some(resource) = registry.by_path(group, version, plural) else {
        let served: Vec<String> = registry.all().iter().map(|r| r.qualified()).collect();
        let asked = if group.is_empty() {
            (*plural).to_owned()
        } else {
            format!("{plural}.{group}")
        };
        return Err(ApiError::unknown_path(format!(
            "the server could not find the requested resource: local-cluster does not serve {asked} ({version}); it serves {}",
            served.join(", ")
        )));
    };
    if namespace.is_some() != resource.namespaced && (namespace.is_some() || !below.is_empty()) {
        return Err(unknown(path));
    }
    let text = |segment: &str| decode(segment).ok_or_else(|| unknown(path));
    let (name, subresource, rest) = match below {
        [] => (None, None, String::new()),
        [name] => (Some(text(name)?), None, String::new()),
        [name, "proxy", rest @ ..] => {
            let slash = if path.ends_with('/') && !rest.is_empty() {
                "/"
            } else {
                ""
            };
            (
                Some(text(name)?),
                Some("proxy".to_owned()),
                format!("/{}{slash}", rest.join("/")),
            )
        }
        [name, subresource] => (Some(text(name)?), Some(text(subresource)?), String::new()),
        _ => return Err(unknown(path)),
    };
    let namespace = namespace.map(text).transpose()?;
    Ok(ObjectPath {
        resource,
        namespace,
        name,
        subresource,
        rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{DEPLOYMENTS, NAMESPACES, PODS, SERVICES};

    fn path(text: &str) -> ObjectPath {
        match parse(&Registry::default(), text).unwrap() {
            Target::Object(path) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn objects_are_found_by_path() {
        let pods = path("/api/v1/pods");
        assert_eq!((pods.resource, pods.namespace, pods.name), (&PODS, None, None));
        let status = path("/apis/apps/v1/namespaces/dev/deployments/web/status");
        assert_eq!(status.resource, &DEPLOYMENTS);
        assert_eq!(status.namespace.as_deref(), Some("dev"));
        assert_eq!(status.name.as_deref(), Some("web"));
        assert_eq!(status.subresource.as_deref(), Some("status"));
        let namespace = path("/api/v1/namespaces/dev");
        assert_eq!(
            (namespace.resource, namespace.name.as_deref()),
            (&NAMESPACES, Some("dev"))
        );
        let proxy = path("/api/v1/namespaces/dev/services/http%3Aweb:80/proxy/a/b/");
        assert_eq!(
            (proxy.resource, proxy.name.as_deref()),
            (&SERVICES, Some("http:web:80"))
        );
        assert_eq!(proxy.rest, "/a/b/");
        assert_eq!(path("/api/v1/namespaces/dev/services/web/proxy").rest, "/");
    }

    #[test]
    fn what_is_not_served_is_refused_with_what_is() {
        let error = parse(&Registry::default(), "/apis/apps/v1/namespaces/dev/ingresses").unwrap_err();
        assert_eq!(error.code, 404);
        assert!(
            error.message.contains("does not serve ingresses.apps"),
            "{}",
            error.message
        );
        for bad in ["/foo", "/api/v1/pods/x", "/api/v1/namespaces/dev/pods/x/y/z"] {
            assert_eq!(parse(&Registry::default(), bad).unwrap_err().code, 404, "{bad}");
        }
    }
}
