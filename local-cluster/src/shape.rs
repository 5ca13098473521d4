//! Whether objects have the fields and types that the published API types have.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, Pod, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::quantity;
use crate::resources::{DEFINITIONS, Resource};
use crate::status::{ApiError, ApiResult};

/// Checks the object's shape against the published API types. Returns the fields that these do not have.
///
/// # Errors
/// 400 when a field has the wrong type.
pub(crate) fn unknown(resource: &Resource, object: &Value) -> ApiResult<Vec<String>> {
    let unreadable = |error: String| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}",
            kind = resource.kind,
            version = resource.version
        ))
    };
    let decoded = decode(resource, object).map_err(|error| unreadable(error.to_string()))?;
    if resource != &DEFINITIONS
        && let Some(why) = bad_quantity(object)
    {
        return Err(unreadable(why.to_owned()));
    }
    let mut unknown = Vec::new();
    missing_from(object, &decoded, "", &mut unknown);
    Ok(unknown)
}

/// What is left of the object after a round trip through its published type.
fn decode(resource: &Resource, object: &Value) -> Result<Value, serde_json::Error> {
    match resource.built_in() {
        "CustomResourceDefinition" => round_trip::<CustomResourceDefinition>(object),
        "ControllerRevision" => round_trip::<ControllerRevision>(object),
        "DaemonSet" => round_trip::<DaemonSet>(object),
        "Deployment" => round_trip::<Deployment>(object),
        "Job" => round_trip::<Job>(object),
        "Node" => round_trip::<Node>(object),
        "ResourceQuota" => round_trip::<ResourceQuota>(object),
        "Secret" => round_trip::<Secret>(object),
        "ServiceAccount" => round_trip::<ServiceAccount>(object),
        "StatefulSet" => round_trip::<StatefulSet>(object),
        "ReplicaSet" => round_trip::<ReplicaSet>(object),
        "Pod" => round_trip::<Pod>(object),
        "Service" => round_trip::<Service>(object),
        "Namespace" => round_trip::<Namespace>(object),
        "ConfigMap" => round_trip::<ConfigMap>(object),
        "Event" => round_trip::<Event>(object),
        _ => Ok(object.clone()),
    }
}

fn round_trip<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    let mut object = object.clone();
    quantities(&mut object);
    serde_json::to_value(serde_json::from_value::<T>(object)?)
}

/// Quantities may be written as numbers, which the types do not accept.
fn quantities(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, child) in map.iter_mut() {
                if let (
                    "limits" | "requests" | "hard" | "used" | "capacity" | "allocatable",
                    Value::Object(amounts),
                ) = (key.as_str(), &mut *child)
                {
                    for amount in amounts.values_mut().filter(|a| a.is_number()) {
                        *amount = Value::from(amount.to_string());
                    }
                }
                quantities(child);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities),
        _ => {}
    }
}

/// What is wrong with the first amount that cannot be read, in the words of `k8s.io/apimachinery/pkg/api/resource`.
fn bad_quantity(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, child)| match (key.as_str(), child) {
            ("limits" | "requests" | "hard", Value::Object(amounts)) => {
                let unreadable = |text: &&str| quantity::milli(text).is_none();
                let text = amounts.values().filter_map(Value::as_str).find(unreadable)?;
                Some(match text.bytes().next() {
                    Some(b'0'..=b'9' | b'+' | b'-' | b'.') => "unable to parse quantity's suffix",
                    _ => "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                })
            }
            _ => bad_quantity(child),
        }),
        Value::Array(items) => items.iter().find_map(bad_quantity),
        _ => None,
    }
}

/// Removes the fields that the published API types do not have.
pub(crate) fn drop_unknown(resource: &Resource, object: &mut Value) {
    fn cut(input: &mut Value, decoded: &Value) {
        match (input, decoded) {
            (Value::Object(input), Value::Object(decoded)) => {
                input.retain(|key, value| decoded.contains_key(key) || is_empty(value));
                for (key, value) in input.iter_mut() {
                    cut(value, decoded.get(key.as_str()).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(input), Value::Array(decoded)) => {
                input
                    .iter_mut()
                    .zip(decoded)
                    .for_each(|(value, other)| cut(value, other));
            }
            _ => {}
        }
    }
    if let Ok(decoded) = decode(resource, object) {
        cut(object, &decoded);
    }
}

fn missing_from(input: &Value, decoded: &Value, path: &str, unknown: &mut Vec<String>) {
    match (input, decoded) {
        (Value::Object(input), Value::Object(decoded)) => {
            for (key, value) in input {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match decoded.get(key) {
                    Some(other) => missing_from(value, other, &path, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(input), Value::Array(decoded)) => {
            for (index, (value, other)) in input.iter().zip(decoded).enumerate() {
                missing_from(value, other, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::DEPLOYMENTS;
    use serde_json::json;

    fn deployment(container: &Value) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}}});
        crate::defaults::apply(&DEPLOYMENTS, &mut object);
        object
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_found() {
        let mut object = deployment(&json!({"name": "app", "image": "a:1", "imagee": "b"}));
        object["spec"]["replica"] = json!(3);
        assert_eq!(
            unknown(&DEPLOYMENTS, &object).unwrap(),
            ["spec.replica", "spec.template.spec.containers[0].imagee"]
        );
        object["spec"]["replicas"] = json!("three");
        let error = unknown(&DEPLOYMENTS, &object).unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error
                .message
                .starts_with("Deployment in version \"v1\" cannot be handled as a Deployment:")
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let object = deployment(&json!({"name": "app", "image": "a:1", "resources": {"limits": {"cpu": 1}}}));
        assert_eq!(unknown(&DEPLOYMENTS, &object).unwrap(), Vec::<String>::new());
        let object = deployment(&json!({"name": "app", "resources": {"requests": {"cpu": "lots"}}}));
        let message = unknown(&DEPLOYMENTS, &object).unwrap_err().message;
        assert!(
            message.contains("quantities must match the regular expression"),
            "{message}"
        );
    }
}
