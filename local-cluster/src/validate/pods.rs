//! The specs of pods, also in templates.

use serde_json::Value;

use super::Causes;
use super::metadata::label_name;
use crate::cause::Cause;
use crate::object::{at, list, text};
use crate::quantity;

pub(super) fn pod_spec(spec: &Value, path: &str, causes: &mut Causes) {
    let containers = list(spec, &["containers"]);
    if containers.is_empty() {
        causes.required(format!("{path}.containers"), "");
    }
    for field in ["initContainers", "ephemeralContainers"] {
        if !list(spec, &[field]).is_empty() {
            causes.refused(format!("{path}.{field}"), "only plain containers are run");
        }
    }
    if !list(spec, &["volumes"]).is_empty() {
        causes.refused(
            format!("{path}.volumes"),
            "containers are plain processes without a file system of their own, nothing is mounted",
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = format!("{path}.containers[{index}]");
        let name = text(container, &["name"]);
        if name.is_empty() {
            causes.required(format!("{path}.name"), "");
        } else if let Some(why) = label_name(name) {
            causes.invalid(format!("{path}.name"), &container["name"], &why);
        } else if names.contains(&name) {
            let message = format!("Duplicate value: \"{name}\"");
            causes.0.push(Cause {
                reason: "FieldValueDuplicate",
                message,
                field: format!("{path}.name"),
            });
        }
        names.push(name);
        if text(container, &["image"]).is_empty() {
            causes.required(format!("{path}.image"), "");
        }
        let policy = &container["imagePullPolicy"];
        if !matches!(policy.as_str(), None | Some("Always" | "IfNotPresent" | "Never")) {
            let supported = "\"Always\", \"IfNotPresent\", \"Never\"";
            causes.unsupported(format!("{path}.imagePullPolicy"), policy, supported);
        }
        resources(&container["resources"], &format!("{path}.resources"), causes);
        mounts(container, list(spec, &["volumes"]), &path, causes);
        refused_in_container(container, &path, causes);
        for (index, port) in list(container, &["ports"]).iter().enumerate() {
            if !port["containerPort"]
                .as_i64()
                .is_some_and(|p| (1..=65535).contains(&p))
            {
                let field = format!("{path}.ports[{index}].containerPort");
                causes.invalid(
                    field,
                    &port["containerPort"],
                    "must be between 1 and 65535, inclusive",
                );
            }
        }
    }
}

fn refused_in_container(container: &Value, path: &str, causes: &mut Causes) {
    if container["lifecycle"].as_object().is_some_and(|l| !l.is_empty()) {
        causes.refused(format!("{path}.lifecycle"), "hooks are not run");
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let value = &container[probe];
        if !value.is_object() {
            continue;
        }
        let mut kinds = 0;
        for action in ["exec", "httpGet", "tcpSocket", "grpc"] {
            if value[action].is_null() {
                continue;
            }
            kinds += 1;
            if kinds > 1 {
                let why = "Forbidden: may not specify more than 1 handler type";
                causes.forbidden(format!("{path}.{probe}.{action}"), why);
            } else if matches!(action, "exec" | "grpc") {
                causes.refused(format!("{path}.{probe}.{action}"), "use httpGet or tcpSocket");
            }
        }
        if kinds == 0 {
            causes.required(format!("{path}.{probe}"), "must specify a handler type");
        }
        if text(value, &["httpGet", "scheme"]) == "HTTPS" {
            causes.refused(format!("{path}.{probe}.httpGet.scheme"), "use HTTP");
        }
    }
    for (index, variable) in list(container, &["env"]).iter().enumerate() {
        for source in ["resourceFieldRef", "fileKeyRef"] {
            if !at(variable, &["valueFrom", source]).is_null() {
                let field = format!("{path}.env[{index}].valueFrom.{source}");
                causes.refused(field, "use value, configMapKeyRef, secretKeyRef or fieldRef");
            }
        }
    }
}

/// Requests are at most the limits. Whether quantities can be read was checked with the object's shape.
fn resources(resources: &Value, path: &str, causes: &mut Causes) {
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = at(resources, &["limits", name]);
        let amount = |value: &Value| value.as_str().and_then(quantity::milli);
        if let (Some(wanted), Some(most)) = (amount(request), amount(limit))
            && wanted > most
        {
            let limit = limit.as_str().unwrap_or_default();
            let why = format!("must be less than or equal to {name} limit of {limit}");
            causes.invalid(format!("{path}.requests"), request, &why);
        }
    }
}

fn mounts(container: &Value, volumes: &[Value], path: &str, causes: &mut Causes) {
    for (index, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
        if volumes.iter().any(|volume| volume["name"] == mount["name"]) {
            causes.refused(format!("{path}.volumeMounts[{index}]"), "nothing is mounted");
        } else {
            causes.not_found(format!("{path}.volumeMounts[{index}].name"), &mount["name"]);
        }
    }
}
