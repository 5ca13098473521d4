//! What the API server does to an object before it is stored: metadata, defaults, initial status, generation, checks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kubelet::node;
use crate::object::{self, text};
use crate::resources::{DEFINITIONS, Resource, TEMPLATE_GENERATION};
use crate::status::{ApiError, ApiResult};
use crate::{defaults, shape, validate};

/// What to do with fields that the API does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    Ignore,
    Warn,
    Strict,
}

/// What the generation counts changes of.
fn has_generation(resource: &Resource) -> bool {
    resource.custom.is_some()
        || matches!(
            resource.built_in(),
            "DaemonSet" | "Deployment" | "Job" | "ReplicaSet" | "StatefulSet" | "CustomResourceDefinition"
        )
}

/// Maps that are omitted when they are empty; other empty maps mean something (`emptyDir: {}`).
const OMITTED_WHEN_EMPTY: &[&str] = &[
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "limits",
    "requests",
    "data",
    "binaryData",
];

/// Omits what the API's types omit: nulls, empty lists, empty maps of text. So objects are equal regardless of who
/// wrote them, and how.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(normalize);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(map) => !(map.is_empty() && OMITTED_WHEN_EMPTY.contains(&key.as_str())),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}

/// [`normalize`] for what users write; the status is the controllers' own, and the managed fields have empty maps
/// that mean something.
fn normalize_object(resource: &Resource, object: &mut Value) {
    if resource.custom.is_some() || resource == &DEFINITIONS {
        // Here an empty list or map may mean something.
        return normalize_metadata(object);
    }
    let status = object::as_map(object).remove("status");
    let managed = object::metadata(object).remove("managedFields");
    normalize(object);
    if let Some(status) = status {
        object::as_map(object).insert("status".to_owned(), status);
    }
    if let Some(managed) = managed {
        object::metadata(object).insert("managedFields".to_owned(), managed);
    }
}

fn normalize_metadata(object: &mut Value) {
    let managed = object::metadata(object).remove("managedFields");
    normalize(&mut object["metadata"]);
    if let Some(managed) = managed {
        object::metadata(object).insert("managedFields".to_owned(), managed);
    }
}

/// The object as this version of its resource shows it; the versions of a definition differ only in name.
pub(crate) fn as_version<'a>(resource: &Resource, object: &'a Value) -> Cow<'a, Value> {
    if resource.custom.is_none() || text(object, &["apiVersion"]) == resource.api_version() {
        return Cow::Borrowed(object);
    }
    let mut shown = object.clone();
    shown["apiVersion"] = Value::from(resource.api_version());
    Cow::Owned(shown)
}

pub(super) fn as_stored(resource: &Resource, mut object: Value) -> Value {
    if let Some(custom) = resource.custom {
        object["apiVersion"] = Value::from(custom.stored_as.as_str());
    }
    object
}

/// Removes and reports the fields that the API does not have.
pub(super) fn check_shape(
    resource: &Resource,
    object: &mut Value,
    unknown: Unknown,
) -> ApiResult<Vec<String>> {
    let found = match resource.custom {
        Some(custom) if unknown == Unknown::Strict => custom.schema.prune(&mut object.clone()),
        Some(custom) => custom.schema.prune(object),
        None => shape::unknown(resource, object)?,
    };
    if found.is_empty() {
        return Ok(found);
    }
    let text: Vec<String> = found
        .iter()
        .map(|field| format!("unknown field \"{field}\""))
        .collect();
    if unknown == Unknown::Strict {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            text.join(", "),
            kind = resource.kind,
            version = resource.version,
        )));
    }
    if resource.custom.is_none() {
        shape::drop_unknown(resource, object);
    }
    Ok(if unknown == Unknown::Warn {
        text
    } else {
        Vec::new()
    })
}

fn initial_status(resource: &Resource, object: &mut Value) {
    let status = match resource.built_in() {
        "Deployment" => json!({}),
        "ReplicaSet" => json!({"replicas": 0}),
        "StatefulSet" => json!({"replicas": 0, "availableReplicas": 0}),
        "DaemonSet" => {
            object::set_annotation(object, TEMPLATE_GENERATION, "1");
            json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
        }
        "Job" | "ResourceQuota" => json!({}),
        "Node" => node::status(object::name(object), Timestamp::now()),
        "Pod" => json!({"phase": "Pending", "qosClass": quality_of_service(object)}),
        _ => {
            if let Value::Object(map) = object
                && resource.status
            {
                map.remove("status");
            }
            return;
        }
    };
    object["status"] = status;
}

/// `BestEffort` without any request or limit, else `Burstable`; nothing is enforced here.
fn quality_of_service(pod: &Value) -> &'static str {
    let any = object::list(pod, &["spec", "containers"])
        .iter()
        .any(|container| {
            let resources = &container["resources"];
            ["limits", "requests"]
                .iter()
                .any(|k| resources[k].as_object().is_some_and(|m| !m.is_empty()))
        });
    if any { "Burstable" } else { "BestEffort" }
}

/// Prepares a new object for storing: metadata, defaults, checks. Also used by controllers.
///
/// # Errors
/// 400 and 422 when the object is not valid.
pub(crate) fn prepare_new(resource: &Resource, object: &mut Value, now: Timestamp) -> ApiResult<()> {
    let metadata = object::metadata(object);
    for field in [
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "generation",
    ] {
        metadata.remove(field);
    }
    let generate = metadata
        .get("generateName")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    if metadata
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or("")
        .is_empty()
        && !generate.is_empty()
    {
        // Leaves space for the suffix, as the real server does.
        let base: String = generate.chars().take(58).collect();
        metadata.insert(
            "name".to_owned(),
            Value::from(format!("{base}{}", object::name_suffix())),
        );
    }
    metadata.insert("uid".to_owned(), Value::from(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), Value::from(object::stamp(now)));
    if has_generation(resource) {
        metadata.insert("generation".to_owned(), json!(1));
    }
    initial_status(resource, object);
    normalize_object(resource, object);
    validate::as_given(resource, object)?;
    defaults::apply(resource, object);
    validate::object(resource, object, None)
}

/// Refuses if the client's version of the object is not the stored one.
pub(super) fn preconditions(resource: &Resource, old: &Value, new: &Value) -> ApiResult<()> {
    let name = object::name(old);
    let version = text(new, &["metadata", "resourceVersion"]);
    if !version.is_empty() && version != "0" && version != text(old, &["metadata", "resourceVersion"]) {
        return Err(ApiError::modified(resource, name));
    }
    let uid = object::uid(new);
    if !uid.is_empty() && uid != object::uid(old) {
        return Err(ApiError::conflict(
            resource,
            name,
            format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{}/{}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                resource.plural,
                object::namespace(old),
                object::uid(old)
            ),
        ));
    }
    Ok(())
}

/// Turns what a client sent into what may be stored over `old`.
pub(super) fn prepare_update(
    resource: &Resource,
    old: &Value,
    mut new: Value,
    subresource: &str,
    unknown: Unknown,
) -> ApiResult<(Value, Vec<String>)> {
    preconditions(resource, old, &new)?;
    let warnings = check_shape(resource, &mut new, unknown)?;
    if subresource == "status" {
        // Besides the status only the annotations are accepted: controllers keep the revision there.
        let mut merged = old.clone();
        object::as_map(&mut merged).insert("status".to_owned(), new["status"].clone());
        let taken: &[&str] = if resource.custom.is_some() {
            &["managedFields"]
        } else {
            &["annotations", "managedFields"]
        };
        for field in taken {
            match new["metadata"].get(*field) {
                Some(value) => object::metadata(&mut merged).insert((*field).to_owned(), value.clone()),
                None => object::metadata(&mut merged).remove(*field),
            };
        }
        if resource.custom.is_some() {
            validate::object(resource, &merged, Some(old))?;
        }
        return Ok((merged, warnings));
    }
    for field in [
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "resourceVersion",
    ] {
        match old["metadata"].get(field) {
            Some(value) => object::metadata(&mut new).insert(field.to_owned(), value.clone()),
            None => object::metadata(&mut new).remove(field),
        };
    }
    if resource.status {
        match old.get("status") {
            Some(status) => object::as_map(&mut new).insert("status".to_owned(), status.clone()),
            None => object::as_map(&mut new).remove("status"),
        };
    }
    normalize_object(resource, &mut new);
    defaults::apply(resource, &mut new);
    validate::object(resource, &new, Some(old))?;
    bump_generation(resource, old, &mut new);
    Ok((new, warnings))
}

/// What a custom resource's generation counts changes of.
fn content<'a>(resource: &Resource, object: &'a Value) -> BTreeMap<&'a str, &'a Value> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(field, _)| *field != "metadata" && !(resource.status && *field == "status"))
        .map(|(field, value)| (field.as_str(), value))
        .collect()
}

/// One more when the spec changed; for a Deployment also when its annotations did, as in the real registry
/// (`pkg/registry/apps/deployment/strategy.go`); for a custom resource when anything but the metadata did, also
/// excluding the status if that has a path of its own
/// (`apiextensions-apiserver/pkg/registry/customresource/strategy.go`).
pub(crate) fn bump_generation(resource: &Resource, old: &Value, new: &mut Value) {
    if !has_generation(resource) {
        return;
    }
    let annotations = |o: &Value| {
        o["metadata"]
            .get("annotations")
            .cloned()
            .unwrap_or_else(|| json!({}))
    };
    let changed = resource.custom.is_some() && content(resource, old) != content(resource, new)
        || resource.custom.is_none() && old["spec"] != new["spec"]
        || (resource.built_in() == "Deployment" && annotations(old) != annotations(new));
    if resource.built_in() == "DaemonSet" {
        let before = object::annotation(old, TEMPLATE_GENERATION)
            .parse()
            .unwrap_or(1_i64);
        let is_new = old["spec"]["template"] != new["spec"]["template"];
        let generation = before + i64::from(is_new);
        object::set_annotation(new, TEMPLATE_GENERATION, &generation.to_string());
    }
    if changed {
        object::metadata(new).insert("generation".to_owned(), json!(object::generation(old) + 1));
    }
}
