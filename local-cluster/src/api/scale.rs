//! The scale subresource of workloads, which `kubectl scale` writes.

use http::Method;
use serde_json::{Value, json};

use crate::api::App;
use crate::api::request::{Answer, Request, json as answer};
use crate::api::route::ObjectPath;
use crate::api::{patch, prepare, write};
use crate::object;
use crate::resources::Resource;
use crate::status::{ApiError, ApiResult};

/// Where the object's resource has its scale: desired replicas, current replicas, and the selector of its pods.
fn numbers(resource: &Resource, object: &Value) -> (Value, i64, String) {
    if let Some(scale) = resource.custom.and_then(|custom| custom.scale.as_ref()) {
        let at = |path: &[String]| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            object::at(object, &path).clone()
        };
        let selector = if scale.selector.is_empty() {
            Value::Null
        } else {
            at(&scale.selector)
        };
        return (
            at(&scale.spec),
            at(&scale.status).as_i64().unwrap_or(0),
            selector.as_str().unwrap_or("").to_owned(),
        );
    }
    let labels = object["spec"]["selector"]["matchLabels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let selector: Vec<String> = labels
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    (
        object["spec"]["replicas"].clone(),
        object["status"]["replicas"].as_i64().unwrap_or(0),
        selector.join(","),
    )
}

fn scale_of(resource: &Resource, object: &Value) -> Value {
    let (wanted, running, selector) = numbers(resource, object);
    let metadata = &object["metadata"];
    // A number that is zero is omitted.
    let spec = match wanted.as_i64() {
        None | Some(0) => json!({}),
        Some(wanted) => json!({"replicas": wanted}),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                     "resourceVersion": metadata["resourceVersion"],
                     "creationTimestamp": metadata["creationTimestamp"]},
        "spec": spec,
        "status": {"replicas": running, "selector": selector},
    })
}

pub(crate) async fn scale(app: &App, path: &ObjectPath, name: &str, request: &Request) -> ApiResult<Answer> {
    let (resource, namespace) = (path.resource, path.namespace.as_deref().unwrap_or(""));
    let live = app
        .store
        .get(resource, namespace, name)
        .ok_or_else(|| ApiError::not_found(resource, name))?;
    if request.method == Method::GET {
        return Ok(answer(200, &scale_of(resource, &live)));
    }
    let body = request.value()?;
    let dry_run = request.dry_run()?;
    let change = |old: &Value| {
        let scale = scale_of(resource, old);
        let wanted = match (request.method.as_str(), request.content_type()) {
            ("PUT", _) => body.clone(),
            ("PATCH", "application/json-patch+json") => patch::json(&scale, &body)?,
            ("PATCH", _) => patch::merge(&scale, &body),
            _ => return Err(ApiError::method_not_allowed("scale takes GET, PUT and PATCH")),
        };
        let version = object::text(&wanted, &["metadata", "resourceVersion"]);
        if !version.is_empty() && version != object::text(old, &["metadata", "resourceVersion"]) {
            return Err(ApiError::modified(resource, name));
        }
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            return Err(ApiError::bad_request(
                "spec.replicas: must be greater than or equal to 0",
            ));
        }
        let mut new = old.clone();
        let place: Vec<&str> = match resource.custom.and_then(|custom| custom.scale.as_ref()) {
            Some(scale) => scale.spec.iter().map(String::as_str).collect(),
            None => vec!["spec", "replicas"],
        };
        let slot = place.iter().fold(&mut new, |value, field| {
            object::as_map(value)
                .entry((*field).to_owned())
                .or_insert(Value::Null)
        });
        *slot = json!(replicas);
        prepare::bump_generation(resource, old, &mut new);
        write::track(resource, old, &mut new, "scale", request);
        Ok(new)
    };
    let stored = if dry_run {
        change(&live)?
    } else {
        Value::clone(app.store.update(resource, namespace, name, change)?.as_ref())
    };
    app.store.durable(object::resource_version(&stored)).await?;
    Ok(answer(200, &scale_of(resource, &stored)))
}
