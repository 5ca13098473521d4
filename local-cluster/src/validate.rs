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
mod metadata;
mod pods;
mod workloads;

use pods::pod_spec;

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

    fn not_found(&mut self, field: impl Into<String>, value: &Value) {
        self.0.push(Cause {
            reason: "FieldValueNotFound",
            message: format!("Not found: {value}"),
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

/// Checks a new object before its defaults are filled in: what these would hide.
///
/// # Errors
/// 422.
pub(crate) fn as_given(resource: &Resource, object: &Value) -> ApiResult<()> {
    let spec = &object["spec"];
    // Without an address is what every Service is here; only those that ask for it may be without ports.
    if resource.built_in() == "Service" && spec["clusterIP"] != "None" && list(spec, &["ports"]).is_empty() {
        let mut causes = Causes::default();
        causes.required("spec.ports", "");
        return Err(ApiError::invalid(resource, object::name(object), &causes.0));
    }
    Ok(())
}

/// Checks an object with its defaults filled in; `old` is what it replaces.
///
/// # Errors
/// 422 that lists every invalid field, 413 when the object is too large.
pub(crate) fn object(resource: &Resource, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    let mut causes = Causes::default();
    let name = object::name(object);
    metadata::check(resource, object, &mut causes);
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
    let template = at(spec, &["template", "metadata"]);
    metadata::labels(&template["labels"], "spec.template.labels", causes);
    metadata::annotations(&template["annotations"], "spec.template.annotations", causes);
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
                let why = "Forbidden: may not be specified when strategy `type` is 'Recreate'";
                causes.forbidden("spec.strategy.rollingUpdate", why);
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
                "containers[0].volumeMounts[0].name: Not found: \"x\"",
            ),
            (
                json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "500m"}}}),
                "resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of 500m",
            ),
            (
                json!({"readinessProbe": {"httpGet": {"port": 1}, "tcpSocket": {"port": 1}}}),
                "readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
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
        let mounts = json!([{"name": "tmp", "mountPath": "/x"}]);
        object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts;
        let message = refusal(&object);
        assert!(message.contains("spec.template.spec.volumes: Forbidden"));
        assert!(message.contains("containers[0].volumeMounts[0]: Forbidden"));
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
