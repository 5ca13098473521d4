//! The scheduler's decision: the node for a pod, or why there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::fit;
use crate::object::{self, condition};

/// The name of the node, or the message of the `FailedScheduling` event. If several nodes fit, `turn` selects one.
pub(crate) fn place(pod: &Value, nodes: &[Arc<Value>], turn: usize) -> Result<String, String> {
    let mut fitting = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes.iter().filter(|node| !object::is_deleting(node)) {
        let obstacles = fit::obstacles(&pod["spec"], node);
        if obstacles.is_empty() {
            fitting.push(object::name(node));
        }
        for obstacle in obstacles {
            *reasons.entry(obstacle).or_default() += 1;
        }
    }
    if let Some(name) = fitting.get(turn.checked_rem(fitting.len()).unwrap_or(0)) {
        return Ok((*name).to_owned());
    }
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut words: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    words.sort_unstable();
    Err(format!(
        "0/{} nodes are available: {}.",
        nodes.len(),
        words.join(", ")
    ))
}

/// The pod bound to a node.
pub(crate) fn bound(pod: &Value, node: &str, now: Timestamp) -> Value {
    let mut new = pod.clone();
    new["spec"]["nodeName"] = json!(node);
    set_scheduled(
        &mut new,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
               "lastTransitionTime": object::stamp(now)}),
    );
    new
}

/// The pod with the condition that no node fits.
pub(crate) fn unschedulable(pod: &Value, message: &str, now: Timestamp) -> Value {
    let before = condition(pod, "PodScheduled").filter(|c| c["status"] == "False");
    let since = before.map_or_else(|| json!(object::stamp(now)), |c| c["lastTransitionTime"].clone());
    let mut new = pod.clone();
    set_scheduled(
        &mut new,
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
               "lastProbeTime": null, "lastTransitionTime": since}),
    );
    new
}

fn set_scheduled(pod: &mut Value, condition: Value) {
    let status = object::entry(pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(conditions) = conditions {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, disk: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name, "labels": {"disk": disk}},
                        "status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}}))
    }

    #[test]
    fn a_pod_goes_to_a_node_that_fits_or_is_told_why_not() {
        let nodes = [node("a", "ssd"), node("b", "ssd"), node("c", "tape")];
        let on = |disk: &str| json!({"spec": {"nodeSelector": {"disk": disk}}});
        let big = json!({"spec": {"nodeSelector": {"disk": "ssd"},
                                  "containers": [{"resources": {"requests": {"cpu": "2"}}}]}});
        let no_match = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
        let too_big = "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 Insufficient cpu.";
        let table = [
            (on("ssd"), 0, Ok("a")),
            (on("ssd"), 1, Ok("b")),
            (on("ssd"), 2, Ok("a")),
            (on("tape"), 1, Ok("c")),
            (on("none"), 0, Err(no_match)),
            (big, 0, Err(too_big)),
        ];
        for (pod, turn, expected) in table {
            let found = place(&pod, &nodes, turn);
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{pod}");
        }
        assert!(place(&json!({}), &[], 0).unwrap_err().contains("no nodes"));
    }

    #[test]
    fn the_condition_keeps_its_time_until_it_changes() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let pod = json!({"spec": {}, "status": {"phase": "Pending"}});
        let first = unschedulable(&pod, "why", at(1));
        assert_eq!(first, unschedulable(&first, "why", at(2)));
        let bound = bound(&first, "local-1", at(3));
        assert_eq!(bound["spec"]["nodeName"], "local-1");
        assert_eq!(
            condition(&bound, "PodScheduled").unwrap()["lastTransitionTime"],
            "1970-01-01T00:00:03Z"
        );
        assert_eq!(object::list(&bound, &["status", "conditions"]).len(), 1);
    }
}
