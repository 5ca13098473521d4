//! The ReplicaSet controller's decision: how many pods to create, which to delete, and the status.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::pods::{self, Availability, ready_since};
use crate::object::{self, condition, list, number, text};
use crate::selector::LabelSelector;

/// The condition that pods were refused; a Deployment takes it over.
pub(crate) const FAILURE: &str = "ReplicaFailure";
/// The number of pods that the real controller creates or deletes in one pass.
const BURST: usize = 500;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    /// How many pods to create from the template.
    pub(crate) create: usize,
    /// Names of the pods to delete.
    pub(crate) delete: Vec<String>,
    pub(crate) status: Value,
    /// When a pod will have been ready for long enough.
    pub(crate) look_again: Option<Timestamp>,
}

/// Decides what to do about the pods that the ReplicaSet controls.
pub(crate) fn reconcile(set: &Value, pods: &[Arc<Value>], now: Timestamp) -> Decision {
    let active: Vec<&Value> = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| pods::is_active(pod))
        .collect();
    let wanted = usize::try_from(number(set, &["spec", "replicas"]).unwrap_or(1)).unwrap_or(0);
    let (mut create, mut delete) = (0, Vec::new());
    if !object::is_deleting(set) {
        create = wanted.saturating_sub(active.len()).min(BURST);
        let excess = active.len().saturating_sub(wanted).min(BURST);
        let mut order = active.clone();
        order.sort_by_key(|pod| worth(pod));
        delete = order
            .into_iter()
            .take(excess)
            .map(|pod| object::name(pod).to_owned())
            .collect();
    }

    let mut availability = Availability::new(set, now);
    let available = active.iter().filter(|pod| availability.is_available(pod)).count();
    let template = LabelSelector::from_map(&set["spec"]["template"]["metadata"]["labels"]);
    let labelled = active
        .iter()
        .filter(|pod| template.matches(&pod["metadata"]["labels"]))
        .count();
    let ready = active.iter().filter(|pod| object::is_ready(pod)).count();
    let mut status = json!({"replicas": active.len(), "observedGeneration": object::generation(set)});
    for (field, value) in [
        ("fullyLabeledReplicas", labelled),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ] {
        if value > 0 {
            status[field] = json!(value);
        }
    }
    Decision {
        create,
        delete,
        status,
        look_again: availability.look_again,
    }
}

/// The conditions of the status, if there are any: the one that pods were refused stays as first reported until none is
/// refused (`replicaset.calculateStatus`).
pub(crate) fn failure(set: &Value, refusal: Option<&str>, now: Timestamp) -> Option<Value> {
    let message = refusal?;
    if let Some(stands) = condition(set, FAILURE) {
        return Some(json!([stands]));
    }
    Some(
        json!([{"type": FAILURE, "status": "True", "reason": "FailedCreate", "message": message,
                 "lastTransitionTime": object::stamp(now)}]),
    )
}

/// The least valuable pods are deleted first (`controller.ActivePods`): not assigned, not running, not ready, ready for
/// the shortest time, restarted most often, youngest.
fn worth(pod: &Value) -> impl Ord + use<> {
    let assigned = !text(pod, &["spec", "nodeName"]).is_empty();
    let phase = match text(pod, &["status", "phase"]) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let restarts: i64 = list(pod, &["status", "containerStatuses"])
        .iter()
        .filter_map(|status| number(status, &["restartCount"]))
        .max()
        .unwrap_or(0);
    (
        assigned,
        phase,
        object::is_ready(pod),
        Reverse(ready_since(pod)),
        Reverse(restarts),
        Reverse(object::created(pod)),
    )
}

/// A pod created from the ReplicaSet's template.
pub(crate) fn pod(set: &Value) -> Value {
    pods::from_template(set, &set["spec"]["template"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn set(replicas: i64, min_ready: i64) -> Value {
        json!({"metadata": {"name": "web-1", "generation": 4},
               "spec": {"replicas": replicas, "minReadySeconds": min_ready,
                        "template": {"metadata": {"labels": {"app": "web"}}}}})
    }

    fn pod(name: &str, phase: &str, ready_since: Option<i64>) -> Arc<Value> {
        let (status, since) = ready_since.map_or(("False", 0), |s| ("True", s));
        Arc::new(json!({
            "metadata": {"name": name, "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status,
                       "lastTransitionTime": object::stamp(at(since))}]}}))
    }

    #[test]
    fn pods_are_made_and_the_least_useful_deleted() {
        let pods = [
            pod("a", "Running", Some(50)),
            pod("b", "Pending", None),
            pod("c", "Running", Some(90)),
        ];
        let table: [(i64, usize, &[&str]); 4] =
            [(5, 2, &[]), (3, 0, &[]), (2, 0, &["b"]), (1, 0, &["b", "c"])];
        for (replicas, create, delete) in table {
            let decision = reconcile(&set(replicas, 0), &pods, at(100));
            assert_eq!(
                (decision.create, decision.delete),
                (create, delete.iter().map(|s| (*s).to_owned()).collect())
            );
        }
    }

    #[test]
    fn available_means_ready_for_long_enough() {
        let pods = [pod("a", "Running", Some(50)), pod("b", "Running", Some(95))];
        let decision = reconcile(&set(2, 10), &pods, at(100));
        assert_eq!(
            decision.status,
            json!({"replicas": 2, "observedGeneration": 4, "fullyLabeledReplicas": 2, "readyReplicas": 2,
                   "availableReplicas": 1})
        );
        assert_eq!(decision.look_again, Some(at(105)));
    }

    #[test]
    fn a_refusal_stands_as_it_was_first_said_until_there_is_none() {
        let first = failure(&set(1, 0), Some("exceeded quota: few"), at(5)).unwrap();
        assert_eq!(
            (&first[0]["reason"], &first[0]["message"]),
            (&json!("FailedCreate"), &json!("exceeded quota: few"))
        );
        let mut failing = set(1, 0);
        failing["status"] = json!({"conditions": first});
        assert_eq!(failure(&failing, Some("again"), at(9)), Some(first));
        assert_eq!(failure(&failing, None, at(9)), None);
    }

    #[test]
    fn pods_that_go_or_are_over_do_not_count() {
        let mut going = Value::clone(&pod("a", "Running", Some(1)));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let pods = [Arc::new(going), pod("b", "Failed", None)];
        let decision = reconcile(&set(1, 0), &pods, at(100));
        assert_eq!((decision.create, &decision.status["replicas"]), (1, &json!(0)));
    }
}
