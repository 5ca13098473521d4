//! StatefulSets, DaemonSets and Jobs.

use serde_json::Value;

use super::{Causes, pod_spec, selector_and_labels};
use crate::object::{at, list, text};

/// Fields of a StatefulSet that may be changed.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn not_negative(spec: &Value, fields: &[&str], causes: &mut Causes) {
    for field in fields {
        if spec[field].as_i64().is_some_and(|n| n < 0) {
            let why = "must be greater than or equal to 0";
            causes.invalid(format!("spec.{field}"), &spec[field], why);
        }
    }
}

fn restart_always(spec: &Value, causes: &mut Causes) {
    let restart = at(spec, &["template", "spec", "restartPolicy"]);
    if restart != "Always" {
        causes.unsupported("spec.template.spec.restartPolicy", restart, "\"Always\"");
    }
}

pub(super) fn stateful_set(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    not_negative(
        spec,
        &["replicas", "minReadySeconds", "revisionHistoryLimit"],
        causes,
    );
    if !list(spec, &["volumeClaimTemplates"]).is_empty() {
        let why = "containers are plain processes, nothing is mounted";
        causes.refused("spec.volumeClaimTemplates", why);
    }
    if !matches!(text(spec, &["podManagementPolicy"]), "OrderedReady" | "Parallel") {
        let supported = "\"OrderedReady\", \"Parallel\"";
        causes.unsupported(
            "spec.podManagementPolicy",
            &spec["podManagementPolicy"],
            supported,
        );
    }
    let strategy = &spec["updateStrategy"];
    match text(strategy, &["type"]) {
        "OnDelete" if strategy["rollingUpdate"].is_object() => causes.invalid(
            "spec.updateStrategy.rollingUpdate",
            &strategy["rollingUpdate"],
            "only allowed for updateStrategy 'RollingUpdate'",
        ),
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = &strategy["rollingUpdate"];
            let partition = &rolling["partition"];
            if partition.as_i64().is_some_and(|n| n < 0) {
                let why = "must be greater than or equal to 0";
                causes.invalid("spec.updateStrategy.rollingUpdate.partition", partition, why);
            }
            if !rolling["maxUnavailable"].is_null() {
                let field = "spec.updateStrategy.rollingUpdate.maxUnavailable";
                causes.refused(field, "one pod at a time is replaced");
            }
        }
        _ => {
            let supported = "\"OnDelete\", \"RollingUpdate\"";
            causes.unsupported("spec.updateStrategy.type", &strategy["type"], supported);
        }
    }
    restart_always(spec, causes);
    // The list of changeable fields already covers the selector, which may not change.
    selector_and_labels(object, None, causes);
    if let Some(old) = old {
        let fixed = |spec: &Value| {
            let mut spec = spec.as_object().cloned().unwrap_or_default();
            spec.retain(|field, _| !MUTABLE.contains(&field.as_str()));
            spec
        };
        if fixed(&old["spec"]) != fixed(spec) {
            let message = "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            causes.forbidden("spec", message);
        }
    }
    pod_spec(at(spec, &["template", "spec"]), "spec.template.spec", causes);
}

pub(super) fn daemon_set(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    not_negative(spec, &["minReadySeconds", "revisionHistoryLimit"], causes);
    let strategy = &spec["updateStrategy"];
    match text(strategy, &["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = &strategy["rollingUpdate"];
            let is_zero = |value: &Value| matches!(value.as_str(), Some("0%")) || value == 0;
            if !rolling["maxSurge"].is_null() && !is_zero(&rolling["maxSurge"]) {
                let field = "spec.updateStrategy.rollingUpdate.maxSurge";
                causes.refused(field, "old pods go before new ones come, use maxUnavailable");
            } else if is_zero(&rolling["maxUnavailable"]) {
                let field = "spec.updateStrategy.rollingUpdate.maxUnavailable";
                let why = "cannot be 0 when `maxSurge` is 0";
                causes.invalid(field, &rolling["maxUnavailable"], why);
            }
        }
        _ => {
            let supported = "\"RollingUpdate\", \"OnDelete\"";
            causes.unsupported("spec.updateStrategy.type", &strategy["type"], supported);
        }
    }
    restart_always(spec, causes);
    selector_and_labels(object, old, causes);
    pod_spec(at(spec, &["template", "spec"]), "spec.template.spec", causes);
}

pub(super) fn job(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    let numbers = [
        "completions",
        "parallelism",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ];
    not_negative(spec, &numbers, causes);
    if spec["completionMode"] != "NonIndexed" {
        causes.refused("spec.completionMode", "completions are counted, not indexed");
    }
    for field in [
        "podFailurePolicy",
        "successPolicy",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "managedBy",
    ] {
        if !spec[field].is_null() {
            causes.refused(format!("spec.{field}"), "use backoffLimit and completions");
        }
    }
    if spec["manualSelector"] == true {
        causes.refused("spec.manualSelector", "the selector is always generated");
    }
    let restart = at(spec, &["template", "spec", "restartPolicy"]);
    if restart == "Always" {
        let why = "valid values: \"OnFailure\", \"Never\"";
        causes.required("spec.template.spec.restartPolicy", why);
    } else if restart != "OnFailure" && restart != "Never" {
        let supported = "\"OnFailure\", \"Never\"";
        causes.unsupported("spec.template.spec.restartPolicy", restart, supported);
    }
    selector_and_labels(object, old, causes);
    if let Some(old) = old {
        for field in ["completions", "template", "completionMode"] {
            if old["spec"][field] != spec[field] {
                causes.invalid(format!("spec.{field}"), &spec[field], "field is immutable");
            }
        }
    }
    pod_spec(at(spec, &["template", "spec"]), "spec.template.spec", causes);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::resources::{DAEMON_SETS, JOBS, Resource, STATEFUL_SETS};

    /// A valid object of the kind, with `extra` in its spec.
    fn object(resource: &Resource, extra: &Value) -> Value {
        let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": "web", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}},
                                  "spec": {"containers": [{"name": "app", "image": "a:1"}]}}}});
        if resource == &JOBS {
            object["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
        } else {
            object["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
        }
        json_patch::merge(&mut object["spec"], extra);
        crate::defaults::apply(resource, &mut object);
        object
    }

    #[test]
    fn what_is_not_done_is_refused_with_its_field() {
        let table = [
            (&STATEFUL_SETS, json!({}), ""),
            (
                &STATEFUL_SETS,
                json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
                "spec.volumeClaimTemplates: Forbidden",
            ),
            (
                &STATEFUL_SETS,
                json!({"podManagementPolicy": "Random"}),
                "spec.podManagementPolicy: Unsupported value",
            ),
            (
                &STATEFUL_SETS,
                json!({"updateStrategy": {"rollingUpdate": {"partition": -1}}}),
                "partition: Invalid value",
            ),
            (&DAEMON_SETS, json!({}), ""),
            (
                &DAEMON_SETS,
                json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Forbidden",
            ),
            (
                &DAEMON_SETS,
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
                "maxUnavailable: Invalid value",
            ),
            (&JOBS, json!({}), ""),
            (
                &JOBS,
                json!({"completionMode": "Indexed", "completions": 2}),
                "spec.completionMode: Forbidden",
            ),
            (
                &JOBS,
                json!({"template": {"spec": {"restartPolicy": "Always"}}}),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                &JOBS,
                json!({"podFailurePolicy": {"rules": []}}),
                "spec.podFailurePolicy: Forbidden",
            ),
        ];
        for (resource, extra, expected) in table {
            let refused = crate::validate::object(resource, &object(resource, &extra), None);
            let message = refused.map_or_else(|error| error.message, |()| String::new());
            assert!(
                message.contains(expected) && message.is_empty() == expected.is_empty(),
                "{}: {extra}: {message}",
                resource.kind
            );
        }
    }

    #[test]
    fn what_may_not_change_is_named() {
        let table = [
            (&STATEFUL_SETS, json!({"replicas": 3}), ""),
            (
                &STATEFUL_SETS,
                json!({"serviceName": "other"}),
                "updates to statefulset spec for fields other than",
            ),
            (
                &JOBS,
                json!({"template": {"spec": {"containers": [{"name": "app", "image": "a:2"}]}}}),
                "field is immutable",
            ),
            (&JOBS, json!({"suspend": true}), ""),
        ];
        for (resource, extra, expected) in table {
            let old = object(resource, &json!({}));
            let refused = crate::validate::object(resource, &object(resource, &extra), Some(&old));
            let message = refused.map_or_else(|error| error.message, |()| String::new());
            assert!(
                message.contains(expected) && message.is_empty() == expected.is_empty(),
                "{}: {extra}: {message}",
                resource.kind
            );
        }
    }
}
