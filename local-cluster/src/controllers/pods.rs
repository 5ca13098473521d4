//! What the controllers have in common about pods: creating them from a template, determining which count.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::object::{self, condition, text};

/// A pod created from its owner's template; the API server completes the name.
pub(crate) fn from_template(owner: &Value, template: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": format!("{}-", object::name(owner)), "namespace": object::namespace(owner),
                     "ownerReferences": [object::controller_reference(owner)]},
        "spec": template["spec"],
    });
    for field in ["labels", "annotations"] {
        if let Some(value) = template["metadata"].get(field) {
            pod["metadata"][field] = value.clone();
        }
    }
    pod
}

pub(crate) fn set_label(pod: &mut Value, key: &str, value: &str) {
    let labels = object::metadata(pod).entry("labels").or_insert_with(|| json!({}));
    object::as_map(labels).insert(key.to_owned(), json!(value));
}

pub(crate) fn is_over(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// Neither over nor being deleted.
pub(crate) fn is_active(pod: &Value) -> bool {
    !object::is_deleting(pod) && !is_over(pod)
}

pub(crate) fn is_running_and_ready(pod: &Value) -> bool {
    text(pod, &["status", "phase"]) == "Running" && object::is_ready(pod)
}

pub(crate) fn ready_since(pod: &Value) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c["status"] == "True")?;
    object::time(ready, &["lastTransitionTime"])
}

/// The earlier of two times at which to check again.
pub(crate) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Determines whether pods have been ready for long enough, and when the next one will have been.
#[derive(Debug)]
pub(crate) struct Availability {
    min_ready: SignedDuration,
    now: Timestamp,
    pub(crate) look_again: Option<Timestamp>,
}

impl Availability {
    /// `workload` is the one whose `spec.minReadySeconds` counts.
    pub(crate) fn new(workload: &Value, now: Timestamp) -> Self {
        let seconds = object::number(workload, &["spec", "minReadySeconds"]).unwrap_or(0);
        Self {
            min_ready: SignedDuration::from_secs(seconds),
            now,
            look_again: None,
        }
    }

    pub(crate) fn is_available(&mut self, pod: &Value) -> bool {
        match ready_since(pod) {
            None => false,
            Some(_) if self.min_ready.is_zero() => true,
            Some(since) => {
                let at = since.checked_add(self.min_ready).unwrap_or(since);
                if at > self.now {
                    self.look_again = earlier(self.look_again, Some(at));
                }
                at <= self.now
            }
        }
    }
}
