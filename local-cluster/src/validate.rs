//! What an object must satisfy to be stored, and what this cluster refuses with an explanation because it does not
//! support it.

use serde_json::Value;

use crate::cause::Cause;
use crate::custom;
use crate::object::{self, at, list, text};
use crate::resources::Resource;
use crate::selector::LabelSelector;
use crate::status::{ApiError, ApiResult};

mod content;
mod workloads;

/// The largest object that etcd accepts.
pub(crate) const MAX_OBJECT_BYTES: usize = 1_572_864;
#[derive(Default)]
struct Causes(Vec<Cause>);

impl Causes {
    fn required(&mut self, field: impl Into<String>, what: &str) {
        let message = if what.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {what}")
        };
        self.0.push(Cause {
            reason: "FieldValueRequired",
            message,
            field: field.into(),
        });
    }

    fn invalid(&mut self, field: impl Into<String>, value: &Value, why: &str) {
        let message = format!("Invalid value: {value}: {why}");
        self.0.push(Cause {
            reason: "FieldValueInvalid",
            message,
            field: field.into(),
        });
    }

    fn unsupported(&mut self, field: impl Into<String>, value: &Value, supported: &str) {
        let message = format!("Unsupported value: {value}: supported values: {supported}");
        self.0.push(Cause {
            reason: "FieldValueNotSupported",
            message,
            field: field.into(),
        });
    }

    fn forbidden(&mut self, field: impl Into<String>, message: &str) {
        self.0.push(Cause {
            reason: "FieldValueForbidden",
            message: message.to_owned(),
            field: field.into(),
        });
    }

    /// Something that real clusters do and this one does not.
    fn refused(&mut self, field: impl Into<String>, why: &str) {
        let message = format!("Forbidden: {why} (local-cluster is a development tool, see its README)");
        self.0.push(Cause {
            reason: "FieldValueForbidden",
            message,
            field: field.into(),
        });
    }
}

/// Checks an object with its defaults filled in; `old` is what it replaces.
///
/// # Errors
/// 422 that lists every invalid field, 413 when the object is too large.
pub(crate) fn object(resource: &Resource, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    let mut causes = Causes::default();
    let name = object::name(object);
    if name.is_empty() {
        causes.required("metadata.name", "name or generateName is required");
    } else {
        let valid = match resource.built_in() {
            "Service" | "Namespace" => is_label(name),
            _ => is_subdomain(name),
        };
        if !valid {
            let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
            causes.invalid("metadata.name", &Value::from(name), why);
        }
    }
    match resource.built_in() {
        "Deployment" | "ReplicaSet" => workload(object, old, &mut causes),
        "Pod" => {
            pod_spec(&object["spec"], "spec", &mut causes);
            if old.is_some_and(|old| old["spec"] != object["spec"]) {
                causes.refused(
                    "spec",
                    "a pod's spec cannot be changed; change the Deployment's template",
                );
            }
        }
        "StatefulSet" => workloads::stateful_set(object, old, &mut causes),
        "DaemonSet" => workloads::daemon_set(object, old, &mut causes),
        "Job" => workloads::job(object, old, &mut causes),
        "Service" => service(object, &mut causes),
        "ConfigMap" => content::config_map(object, old, &mut causes),
        "Secret" => content::secret(object, old, &mut causes),
        "ResourceQuota" => content::resource_quota(object, &mut causes),
        "ControllerRevision" => {
            if old.is_some_and(|old| old["data"] != object["data"]) {
                causes.invalid("data", &Value::from("…"), "field is immutable");
            }
        }
        "Namespace" | "Event" | "Node" | "ServiceAccount" => {}
        "CustomResourceDefinition" => causes.0.extend(custom::check(object, old)),
        _ => match resource.custom {
            Some(custom) => causes.0.extend(custom.schema.check(object)),
            None => causes.refused("kind", "this kind is not served"),
        },
    }
    if !causes.0.is_empty() {
        return Err(ApiError::invalid(resource, name, &causes.0));
    }
    let size = object.to_string().len();
    if size > MAX_OBJECT_BYTES {
        Err(ApiError::too_large(MAX_OBJECT_BYTES))
    } else {
        Ok(())
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            let inner = part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
        })
}

fn workload(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    for field in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        if spec[field].as_i64().is_some_and(|n| n < 0) {
            causes.invalid(
                format!("spec.{field}"),
                &spec[field],
                "must be greater than or equal to 0",
            );
        }
    }
    selector_and_labels(object, old, causes);
    if object["kind"] == "Deployment" {
        strategy(&spec["strategy"], causes);
        let ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
        let deadline = &spec["progressDeadlineSeconds"];
        if deadline.as_i64().is_some_and(|d| d <= ready) {
            causes.invalid(
                "spec.progressDeadlineSeconds",
                deadline,
                "must be greater than minReadySeconds",
            );
        }
    }
    let restart = at(spec, &["template", "spec", "restartPolicy"]);
    if restart != "Always" {
        causes.unsupported("spec.template.spec.restartPolicy", restart, "\"Always\"");
    }
    pod_spec(at(spec, &["template", "spec"]), "spec.template.spec", causes);
}

fn selector_and_labels(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    let selector = LabelSelector::from_object(&spec["selector"]);
    let labels = at(spec, &["template", "metadata", "labels"]);
    if spec["selector"].is_null() {
        causes.required("spec.selector", "");
    } else if selector.is_empty() {
        let kind = text(object, &["kind"]).to_lowercase();
        causes.invalid(
            "spec.selector",
            &spec["selector"],
            &format!("empty selector is invalid for {kind}"),
        );
    } else if !selector.matches(labels) {
        causes.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        );
    }
    if let Some(old) = old
        && old["spec"]["selector"] != spec["selector"]
    {
        causes.invalid("spec.selector", &spec["selector"], "field is immutable");
    }
}

fn strategy(strategy: &Value, causes: &mut Causes) {
    match text(strategy, &["type"]) {
        "Recreate" => {
            if strategy["rollingUpdate"].is_object() {
                causes.refused(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => {
            for field in ["maxSurge", "maxUnavailable"] {
                let value = at(strategy, &["rollingUpdate", field]);
                let valid = match value {
                    Value::String(text) => text.strip_suffix('%').is_some_and(|n| n.parse::<u32>().is_ok()),
                    Value::Number(number) => number.as_u64().is_some(),
                    Value::Null => true,
                    _ => false,
                };
                if !valid {
                    let why = "must be a non-negative number or a percentage";
                    causes.invalid(format!("spec.strategy.rollingUpdate.{field}"), value, why);
                }
            }
            let zero = |field| matches!(at(strategy, &["rollingUpdate", field]), v if v == 0 || v == "0%");
            if zero("maxSurge") && zero("maxUnavailable") {
                let why = "may not be 0 when `maxSurge` is 0";
                let value = at(strategy, &["rollingUpdate", "maxUnavailable"]);
                causes.invalid("spec.strategy.rollingUpdate.maxUnavailable", value, why);
            }
        }
        _ => causes.unsupported(
            "spec.strategy.type",
            &strategy["type"],
            "\"Recreate\", \"RollingUpdate\"",
        ),
    }
}

fn pod_spec(spec: &Value, path: &str, causes: &mut Causes) {
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
        } else if !is_label(name) {
            causes.invalid(
                format!("{path}.name"),
                &container["name"],
                "a lowercase RFC 1123 label is wanted",
            );
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
    if !list(container, &["volumeMounts"]).is_empty() {
        causes.refused(format!("{path}.volumeMounts"), "nothing is mounted");
    }
    if container["lifecycle"].as_object().is_some_and(|l| !l.is_empty()) {
        causes.refused(format!("{path}.lifecycle"), "hooks are not run");
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let value = &container[probe];
        if !value.is_object() {
            continue;
        }
        for action in ["exec", "grpc"] {
            if !value[action].is_null() {
                causes.refused(format!("{path}.{probe}.{action}"), "use httpGet or tcpSocket");
            }
        }
        if value["httpGet"].is_null()
            && value["tcpSocket"].is_null()
            && value["exec"].is_null()
            && value["grpc"].is_null()
        {
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

fn service(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec["type"] != "ClusterIP" {
        causes.refused("spec.type", "only ClusterIP is served, through the service proxy");
    }
    if spec["clusterIP"] != "None" && spec["clusterIP"] != "" {
        causes.refused(
            "spec.clusterIP",
            "no addresses are handed out, leave it out or say None",
        );
    }
    for (index, port) in list(spec, &["ports"]).iter().enumerate() {
        if !port["port"].as_i64().is_some_and(|p| (1..=65535).contains(&p)) {
            let why = "must be between 1 and 65535, inclusive";
            causes.invalid(format!("spec.ports[{index}].port"), &port["port"], why);
        }
        if port["protocol"] != "TCP" {
            causes.refused(format!("spec.ports[{index}].protocol"), "only TCP is served");
        }
        if list(spec, &["ports"]).len() > 1 && text(port, &["name"]).is_empty() {
            causes.required(format!("spec.ports[{index}].name"), "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{DEPLOYMENTS, SERVICES};
    use serde_json::json;

    fn deployment(container: &Value) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}}});
        crate::defaults::apply(&DEPLOYMENTS, &mut object);
        object
    }

    fn refusal(object: &Value) -> String {
        super::object(&DEPLOYMENTS, object, None).unwrap_err().message
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_field_and_the_remedy() {
        let app = |extra: Value| {
            let mut container = json!({"name": "app", "image": "a:1"});
            container
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            deployment(&container)
        };
        assert!(super::object(&DEPLOYMENTS, &app(json!({})), None).is_ok());
        let table = [
            (
                json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}),
                "containers[0].volumeMounts: Forbidden",
            ),
            (
                json!({"readinessProbe": {"exec": {"command": ["x"]}}}),
                "readinessProbe.exec: Forbidden: use httpGet",
            ),
            (
                json!({"env": [{"name": "S", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}),
                "resourceFieldRef",
            ),
            (json!({"image": ""}), "containers[0].image: Required value"),
            (json!({"name": "Bad_Name"}), "containers[0].name: Invalid value"),
        ];
        for (extra, expected) in table {
            let message = refusal(&app(extra));
            assert!(message.contains(expected), "{message}");
        }
        let mut object = app(json!({}));
        object["spec"]["template"]["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
        assert!(refusal(&object).contains("spec.template.spec.volumes: Forbidden"));
        object = app(json!({}));
        object["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
        assert!(refusal(&object).contains("`selector` does not match template `labels`"));
    }

    #[test]
    fn services_that_need_an_address_are_refused() {
        let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        crate::defaults::apply(&SERVICES, &mut object);
        let error = super::object(&SERVICES, &object, None).unwrap_err();
        assert!(
            error.message.contains("spec.type: Forbidden"),
            "{}",
            error.message
        );
    }
}
