//! Takes over the fields of those who wrote an object before and will not again. A field that an earlier manager still
//! owns would outlive its removal from the manifests.
//!
//! These are what `kubectl apply --server-side` takes over (client-go's csaupgrade, kubectl 1.26): the managers that own
//! the annotation of `kubectl apply`, and its own names; and what Flux takes over besides: a server-side apply by
//! kubectl. Our own create is one more, since a create is recorded as an update. Fields of controllers, autoscalers and
//! of commands such as `kubectl scale` stay theirs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use slipway_model::{Fault, Reason};

use super::{FIELD_MANAGER, bounded};
use crate::fault::{fault_of, refused, unavailable};

const LAST_APPLIED: &str = "f:kubectl.kubernetes.io/last-applied-configuration";
/// Those that write by update.
const UPDATERS: [&str; 5] = [
    FIELD_MANAGER,
    "kubectl-client-side-apply",
    "kubectl-last-applied",
    "kubectl-create",
    // What the API server calls those from before it knew managers.
    "before-first-apply",
];
/// Those that write by server-side apply.
const APPLIERS: [&str; 2] = ["kubectl", "kubectl-last-applied"];

/// Whether there is anything to take over.
pub(super) fn is_due(object: &DynamicObject) -> bool {
    object.metadata.managed_fields.iter().flatten().any(is_taken)
}

fn is_taken(entry: &ManagedFieldsEntry) -> bool {
    if !entry.subresource.as_deref().unwrap_or_default().is_empty() {
        return false;
    }
    let manager = entry.manager.as_deref().unwrap_or_default();
    match entry.operation.as_deref() {
        Some("Update") => UPDATERS.contains(&manager) || owns_last_applied(entry),
        Some("Apply") => APPLIERS.contains(&manager),
        _ => false,
    }
}

fn owns_last_applied(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    fields.is_some_and(|fields| fields["f:metadata"]["f:annotations"].get(LAST_APPLIED).is_some())
}

/// The managers after the takeover: what was taken is ours, by apply.
fn taken_over(before: &[ManagedFieldsEntry]) -> Vec<ManagedFieldsEntry> {
    let is_ours = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    };
    let (ours, others): (Vec<_>, Vec<_>) = before
        .iter()
        .cloned()
        .partition(|entry| is_taken(entry) || is_ours(entry));
    let mut merged: Vec<ManagedFieldsEntry> = Vec::new();
    for entry in ours {
        let fields = entry
            .fields_v1
            .clone()
            .map_or_else(|| json!({}), |fields| fields.0);
        // The paths of one version of the API need not exist in another.
        let same = merged.iter_mut().find(|one| one.api_version == entry.api_version);
        match same.and_then(|one| one.fields_v1.as_mut()) {
            Some(known) => union(&mut known.0, fields),
            None => merged.push(ManagedFieldsEntry {
                manager: Some(FIELD_MANAGER.to_owned()),
                operation: Some("Apply".to_owned()),
                fields_v1: Some(FieldsV1(fields)),
                ..entry
            }),
        }
    }
    merged.extend(others);
    merged
}

/// Adds the paths of a set of fields to another.
fn union(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else {
        return;
    };
    for (key, below) in from {
        union(
            into.entry(key).or_insert_with(|| Value::Object(Map::new())),
            below,
        );
    }
}

/// Makes the fields ours, on the version that was read; `false` if another writer came in between.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub(super) async fn take_over(
    api: &Api<DynamicObject>,
    name: &str,
    live: &DynamicObject,
    what: &str,
) -> Result<bool, Fault<Reason>> {
    let before = live.metadata.managed_fields.clone().unwrap_or_default();
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": live.resource_version()},
        {"op": "replace", "path": "/metadata/managedFields", "value": taken_over(&before)},
    ]);
    let patch: json_patch::Patch =
        serde_json::from_value(patch).map_err(|error| refused(format!("{what}: {error}")))?;
    match bounded(api.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => Ok(false),
        Ok(Err(error)) => Err(fault_of(what, &error)),
        Err(words) => Err(unavailable(format!("{what}: {words}"))),
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: &str, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: Some(subresource.to_owned()).filter(|name| !name.is_empty()),
            api_version: Some("apps/v1".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            time: None,
        }
    }

    #[test]
    fn only_those_who_will_not_write_again_lose_their_fields() {
        let replicas = || json!({"f:spec": {"f:replicas": {}}});
        let annotated = json!({"f:metadata": {"f:annotations": {LAST_APPLIED: {}}}});
        for (manager, operation, subresource, fields, taken) in [
            ("kubectl-client-side-apply", "Update", "", replicas(), true),
            ("kubectl-create", "Update", "", replicas(), true),
            ("before-first-apply", "Update", "", replicas(), true),
            ("slipway", "Update", "", replicas(), true),
            ("kubectl", "Apply", "", replicas(), true),
            ("terraform", "Update", "", annotated, true),
            ("terraform", "Update", "", replicas(), false),
            ("slipway", "Update", "status", replicas(), false),
            ("slipway", "Apply", "", replicas(), false),
            ("kubectl", "Update", "scale", replicas(), false),
            ("kubectl-edit", "Update", "", replicas(), false),
            ("kube-controller-manager", "Update", "status", replicas(), false),
            ("argocd-controller", "Apply", "", replicas(), false),
        ] {
            let entry = entry(manager, operation, subresource, fields);
            assert_eq!(is_taken(&entry), taken, "{manager} {operation} {subresource}");
        }
    }

    #[test]
    fn their_fields_become_ours_beside_what_we_own() {
        let env = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"app\"}": {".": {}, "f:env": {}},
        }}}}});
        let image = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"app\"}": {".": {}, "f:image": {}},
        }}}}});
        let both = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"app\"}": {".": {}, "f:env": {}, "f:image": {}},
        }}}}});
        let scaled = entry(
            "kubectl",
            "Update",
            "scale",
            json!({"f:spec": {"f:replicas": {}}}),
        );
        let after = taken_over(&[
            entry("kubectl-client-side-apply", "Update", "", env.clone()),
            scaled.clone(),
            entry("slipway", "Apply", "", image),
        ]);
        assert_eq!(after, [entry("slipway", "Apply", "", both), scaled]);
        let mut older = entry("before-first-apply", "Update", "", env.clone());
        older.api_version = Some("apps/v1beta1".to_owned());
        let after = taken_over(&[older, entry("kubectl-create", "Update", "", env)]);
        let versions: Vec<_> = after
            .iter()
            .map(|one| one.api_version.as_deref().unwrap())
            .collect();
        assert_eq!(versions, ["apps/v1beta1", "apps/v1"]);
    }
}
