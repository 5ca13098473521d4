//! How lists and maps of the built-in kinds merge: the `x-kubernetes-list-type`, `-list-map-keys` and `-map-type`
//! of the published API, as far as these kinds have them. [`structural`] is the same for custom resources.

pub(crate) mod structural;

/// How two versions of a list are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListShape {
    /// Replaced as a whole.
    Atomic,
    /// A set of plain values.
    Set,
    /// Items are identified by these fields.
    Keyed(&'static [&'static str]),
}

/// The shape of the list at a path of field names; list items on the path add nothing to it.
pub(crate) fn list_shape(path: &[&str]) -> ListShape {
    let (Some(last), parent) = (path.last(), path.iter().rev().nth(1).copied().unwrap_or("")) else {
        return ListShape::Atomic;
    };
    match *last {
        "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" | "imagePullSecrets" => {
            ListShape::Keyed(&["name"])
        }
        "ports" if parent.to_ascii_lowercase().ends_with("containers") => {
            ListShape::Keyed(&["containerPort", "protocol"])
        }
        "ports" if path == ["spec", "ports"] => ListShape::Keyed(&["port", "protocol"]),
        "volumeMounts" => ListShape::Keyed(&["mountPath"]),
        "volumeDevices" => ListShape::Keyed(&["devicePath"]),
        "hostAliases" | "podIPs" | "hostIPs" => ListShape::Keyed(&["ip"]),
        "topologySpreadConstraints" => ListShape::Keyed(&["topologyKey", "whenUnsatisfiable"]),
        "conditions" | "addresses" => ListShape::Keyed(&["type"]),
        "secrets" if path == ["secrets"] => ListShape::Keyed(&["name"]),
        "ownerReferences" => ListShape::Keyed(&["uid"]),
        "finalizers" | "podCIDRs" => ListShape::Set,
        _ => ListShape::Atomic,
    }
}

/// Whether the map at the path is replaced as a whole.
pub(crate) fn is_atomic_map(path: &[&str]) -> bool {
    matches!(
        path.last().copied(),
        Some(
            "selector"
                | "labelSelector"
                | "nodeSelector"
                | "configMapKeyRef"
                | "secretKeyRef"
                | "scopeSelector"
                | "fieldRef"
                | "resourceFieldRef"
                | "involvedObject"
        )
    ) && path.first() != Some(&"data")
}

/// The value of a key field that is omitted.
pub(crate) fn key_default(field: &str) -> Option<&'static str> {
    (field == "protocol").then_some("TCP")
}
