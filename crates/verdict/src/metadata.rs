//! What an object's metadata says: whose it is, who wrote it, and which turn of the lane it belongs to.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use slipway_model::Timestamp;

/// Annotation with the fencing token of the last write. A decimal number.
pub const EPOCH: &str = "deploy.slipway.dev/epoch";
/// Annotation with the target, within which epochs are compared.
pub const TARGET: &str = "deploy.slipway.dev/target";
/// Annotation with the deployment's id.
pub const DEPLOYMENT: &str = "deploy.slipway.dev/deployment";
/// Annotation with the commit of the GitOps repository.
pub const COMMIT: &str = "deploy.slipway.dev/commit";

/// Who wrote the object last, by its managed fields, ignoring Kubernetes' own components.
pub fn last_manager(metadata: &ObjectMeta) -> Option<&str> {
    metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        .filter(|entry| entry.manager.as_deref() != Some("kube-controller-manager"))
        .max_by_key(|entry| entry.time.as_ref().map(micros))
        .and_then(|entry| entry.manager.as_deref())
}

/// The epoch that an object carries; 0 when it carries none.
pub fn epoch_of(metadata: &ObjectMeta) -> u64 {
    annotation(metadata, EPOCH)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

pub fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

pub fn created(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata
        .creation_timestamp
        .as_ref()
        .map(|time| Timestamp::from_micros(micros(time)))
}

pub fn micros(time: &Time) -> i64 {
    time.0.as_microsecond()
}

/// Whether the object of that uid is the controller of this one.
pub fn owned_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    uid.is_some()
        && owners
            .into_iter()
            .any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

/// The time `after` later than a time that the cluster wrote.
pub fn later(time: &Time, after: Duration) -> Timestamp {
    Timestamp::from_micros(micros(time)) + after
}
