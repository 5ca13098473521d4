//! Whether a pod may run on a node: node selector and affinity, taints, and the size of its requests.
//!
//! After the filters of `k8s.io/kubernetes/pkg/scheduler/framework/plugins`; requests are compared with the whole node,
//! since nothing is enforced that other pods could have used up.

use serde_json::Value;

use crate::object::{self, at, condition, list, text};
use crate::quantity;
use crate::selector::LabelSelector;

/// Effects of taints that keep new pods away.
pub(crate) const KEEP_AWAY: &[&str] = &["NoSchedule", "NoExecute"];
/// The effect of taints that evict running pods.
pub(crate) const DRIVE_OUT: &[&str] = &["NoExecute"];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Whether one term of a node affinity holds.
fn matches_term(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (list(term, &["matchExpressions"]), list(term, &["matchFields"]));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = at(node, &["metadata", "labels"]);
    expressions
        .iter()
        .all(|requirement| matches_label(requirement, labels))
        && fields.iter().all(|requirement| {
            let among = list(requirement, &["values"])
                .iter()
                .any(|value| value == object::name(node));
            text(requirement, &["key"]) == "metadata.name"
                && match text(requirement, &["operator"]) {
                    "In" => among,
                    "NotIn" => !among,
                    _ => false,
                }
        })
}

fn matches_label(requirement: &Value, labels: &Value) -> bool {
    let value = labels.get(text(requirement, &["key"])).and_then(Value::as_str);
    let values = list(requirement, &["values"]);
    let among = |value: &str| values.iter().any(|v| v == value);
    let limit = || values.first().and_then(Value::as_str)?.parse::<i64>().ok();
    let number = || value?.parse::<i64>().ok();
    match text(requirement, &["operator"]) {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().zip(limit()).is_some_and(|(n, l)| n > l),
        "Lt" => number().zip(limit()).is_some_and(|(n, l)| n < l),
        _ => false,
    }
}

/// Whether the node matches the pod's node selector and required node affinity.
pub(crate) fn is_selected(spec: &Value, node: &Value) -> bool {
    let selector = LabelSelector::from_map(&spec["nodeSelector"]);
    let required = at(
        spec,
        &[
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    );
    selector.matches(at(node, &["metadata", "labels"]))
        && (required.is_null()
            || list(required, &["nodeSelectorTerms"])
                .iter()
                .any(|term| matches_term(term, node)))
}

fn is_tolerated(spec: &Value, key: &str, value: &str, effect: &str) -> bool {
    list(spec, &["tolerations"]).iter().any(|toleration| {
        let (own_key, own_effect) = (text(toleration, &["key"]), text(toleration, &["effect"]));
        let is_exists = text(toleration, &["operator"]) == "Exists";
        (own_effect.is_empty() || own_effect == effect)
            && (own_key == key || own_key.is_empty() && is_exists)
            && (is_exists || text(toleration, &["value"]) == value)
    })
}

/// The first taint with these effects that keeps the pod away, as the scheduler names it.
pub(crate) fn untolerated(spec: &Value, node: &Value, effects: &[&str]) -> Option<String> {
    let not_ready = condition(node, "Ready").is_some_and(|ready| ready["status"] != "True");
    if not_ready && !is_tolerated(spec, NOT_READY, "", "NoExecute") {
        return Some(format!("{{{NOT_READY}: }}"));
    }
    let taint = list(node, &["spec", "taints"]).iter().find(|taint| {
        let effect = text(taint, &["effect"]);
        effects.contains(&effect)
            && !is_tolerated(spec, text(taint, &["key"]), text(taint, &["value"]), effect)
    })?;
    Some(format!(
        "{{{}: {}}}",
        text(taint, &["key"]),
        text(taint, &["value"])
    ))
}

/// What a pod asks for of one resource, in thousandths.
fn requested(spec: &Value, resource: &str) -> i128 {
    list(spec, &["containers"])
        .iter()
        .filter_map(|container| {
            let amounts = &container["resources"];
            let request = amounts["requests"].get(resource);
            let amount = request.or_else(|| amounts["limits"].get(resource))?;
            quantity::milli(amount.as_str()?)
        })
        .sum()
}

/// Why the pod cannot run on the node, in the scheduler's words; empty if it can.
pub(crate) fn obstacles(spec: &Value, node: &Value) -> Vec<String> {
    if at(node, &["spec", "unschedulable"]) == true && !is_tolerated(spec, UNSCHEDULABLE, "", "NoSchedule") {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    if let Some(taint) = untolerated(spec, node, KEEP_AWAY) {
        return vec![format!("node(s) had untolerated taint {taint}")];
    }
    if !is_selected(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    ["cpu", "memory"]
        .into_iter()
        .filter(|resource| {
            let there = text(node, &["status", "allocatable", resource]);
            requested(spec, resource) > quantity::milli(there).unwrap_or(0)
        })
        .map(|resource| format!("Insufficient {resource}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn obstacles_are_named_as_the_scheduler_names_them() {
        let node = |extra: Value| {
            let mut node = json!({"metadata": {"name": "local-1", "labels": {"disk": "ssd", "size": "5"}},
                "spec": {}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}});
            node["spec"] = extra;
            node
        };
        let affinity = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let by_label = |key: &str, operator: &str, values: &[&str]| {
            affinity(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
        };
        let by_name = |name: &str| {
            affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]))
        };
        let asking = |amounts: Value| json!({"containers": [{"resources": amounts}]});
        let plain = json!({});
        let taints = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
        let (selector, taint) = (
            "node(s) didn't match Pod's node affinity/selector",
            "node(s) had untolerated taint {gpu: yes}",
        );
        let table: [(Value, &Value, &[&str]); 16] = [
            (json!({}), &plain, &[]),
            (json!({"nodeSelector": {"disk": "ssd"}}), &plain, &[]),
            (json!({"nodeSelector": {"disk": "tape"}}), &plain, &[selector]),
            (by_label("disk", "In", &["ssd"]), &plain, &[]),
            (by_label("disk", "NotIn", &["ssd"]), &plain, &[selector]),
            (by_label("size", "Gt", &["4"]), &plain, &[]),
            (by_label("size", "Lt", &["4"]), &plain, &[selector]),
            (affinity(json!([])), &plain, &[selector]),
            (by_name("local-1"), &plain, &[]),
            (by_name("local-2"), &plain, &[selector]),
            (json!({}), &taints, &[taint]),
            (json!({"tolerations": [{"operator": "Exists"}]}), &taints, &[]),
            (
                json!({"tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
                &taints,
                &[],
            ),
            (
                json!({}),
                &json!({"unschedulable": true}),
                &["node(s) were unschedulable"],
            ),
            (
                asking(json!({"requests": {"cpu": "4001m"}, "limits": {"memory": "9Gi"}})),
                &plain,
                &["Insufficient cpu", "Insufficient memory"],
            ),
            (
                asking(json!({"requests": {"cpu": "4", "memory": "1Gi"}, "limits": {"memory": "9Gi"}})),
                &plain,
                &[],
            ),
        ];
        for (spec, of_node, expected) in table {
            assert_eq!(
                obstacles(&spec, &node(of_node.clone())),
                expected,
                "{spec} {of_node}"
            );
        }
    }
}
