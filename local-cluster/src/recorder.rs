//! Events: what happened to an object, for people. Repeats of one event are counted, not stored again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::object;
use crate::resources::EVENTS;
use crate::store::Store;

/// How long the real API server keeps events (`--event-ttl`).
const KEEP: SignedDuration = SignedDuration::from_hours(1);

/// The component that is one per node.
pub(crate) const KUBELET: &str = "kubelet";

pub(crate) const SCHEDULER: &str = "default-scheduler";

/// Writes events on behalf of one component.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    store: Arc<Store>,
    component: &'static str,
    /// The part of the object that the events are about.
    field: String,
    /// The names of the latest events, by what makes two events the same.
    names: Arc<Mutex<HashMap<String, String>>>,
}

/// How many events are remembered to count their repeats (the real recorder's cache has as many).
const REMEMBERED: usize = 4096;

impl Recorder {
    pub(crate) fn new(store: Arc<Store>, component: &'static str) -> Self {
        Self {
            store,
            component,
            field: String::new(),
            names: Arc::default(),
        }
    }

    /// Writes events about one container of a pod.
    pub(crate) fn of_container(&self, name: &str) -> Self {
        Self {
            field: format!("spec.containers{{{name}}}"),
            ..self.clone()
        }
    }

    pub(crate) fn normal(&self, about: &Value, reason: &str, message: &str) {
        self.record(about, "Normal", reason, message);
    }

    pub(crate) fn warning(&self, about: &Value, reason: &str, message: &str) {
        self.record(about, "Warning", reason, message);
    }

    fn record(&self, about: &Value, kind: &str, reason: &str, message: &str) {
        let now = Timestamp::now();
        let exact = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        // As the real one names them: a list of events is in the order in which they happened.
        let name = format!("{}.{:016x}", object::name(about), now.as_nanosecond());
        let now = object::stamp(now);
        let namespace = match object::namespace(about) {
            "" => "default",
            namespace => namespace,
        };
        let identity = format!(
            "{}\n{}\n{kind}\n{reason}\n{message}",
            object::uid(about),
            self.field
        );
        let known = self.names().get(&identity).cloned();
        if let Some(name) = known {
            let seen = self.store.update(&EVENTS, namespace, &name, |old| {
                let mut event = old.clone();
                if self.component == SCHEDULER {
                    let count = old["series"]["count"].as_i64().unwrap_or(1) + 1;
                    event["series"] = json!({"count": count, "lastObservedTime": exact});
                } else {
                    event["count"] = json!(old["count"].as_i64().unwrap_or(1) + 1);
                    event["lastTimestamp"] = json!(now);
                }
                Ok(event)
            });
            if seen.is_ok() {
                return;
            }
        }
        let mut event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace, "uid": uuid::Uuid::new_v4().to_string(),
                         "creationTimestamp": now},
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"], "name": object::name(about),
                "namespace": object::namespace(about), "uid": object::uid(about),
                "resourceVersion": object::text(about, &["metadata", "resourceVersion"]),
            },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "eventTime": null,
            "source": {"component": self.component},
            "reportingComponent": self.component, "reportingInstance": "",
        });
        if !self.field.is_empty() {
            event["involvedObject"]["fieldPath"] = json!(self.field);
        }
        let node = object::text(about, &["spec", "nodeName"]);
        if self.component == SCHEDULER {
            // It writes the newer form.
            let written = object::as_map(&mut event);
            for field in ["count", "firstTimestamp", "lastTimestamp"] {
                written.remove(field);
            }
            event["firstTimestamp"] = Value::Null;
            event["lastTimestamp"] = Value::Null;
            event["eventTime"] = json!(exact);
            event["action"] = json!(if kind == "Normal" { "Binding" } else { "Scheduling" });
            event["source"] = json!({});
            event["reportingInstance"] = json!(format!("{SCHEDULER}-local"));
        }
        if self.component == KUBELET && !node.is_empty() {
            event["source"]["host"] = json!(node);
            event["reportingInstance"] = json!(node);
        }
        if let Err(error) = self.store.create(&EVENTS, event) {
            tracing::debug!(%error, reason, "event not recorded");
            return;
        }
        let mut names = self.names();
        if names.len() >= REMEMBERED {
            names.clear();
        }
        names.insert(identity, name);
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes events that are too old. Returns how many are left.
pub(crate) fn expire(store: &Store, now: Timestamp) -> usize {
    let (events, _) = store.list(&EVENTS, None);
    let mut left = events.len();
    for event in &events {
        let last = object::time(event, &["series", "lastObservedTime"])
            .or_else(|| object::time(event, &["lastTimestamp"]))
            .or_else(|| object::created(event));
        if last.is_none_or(|last| now.duration_since(last) > KEEP)
            && store
                .remove(&EVENTS, object::namespace(event), object::name(event), |_| Ok(()))
                .is_ok()
        {
            left -= 1;
        }
    }
    left
}
