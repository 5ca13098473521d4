//! Events: what happened to an object, for people. Repeats of one event are counted, not stored again.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::object;
use crate::resources::EVENTS;
use crate::store::Store;

/// How long the real API server keeps events (`--event-ttl`).
const KEEP: SignedDuration = SignedDuration::from_hours(1);

/// Writes events on behalf of one component.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    store: Arc<Store>,
    component: &'static str,
}

impl Recorder {
    pub(crate) fn new(store: Arc<Store>, component: &'static str) -> Self {
        Self { store, component }
    }

    pub(crate) fn normal(&self, about: &Value, reason: &str, message: &str) {
        self.record(about, "Normal", reason, message);
    }

    pub(crate) fn warning(&self, about: &Value, reason: &str, message: &str) {
        self.record(about, "Warning", reason, message);
    }

    fn record(&self, about: &Value, kind: &str, reason: &str, message: &str) {
        let now = object::stamp(Timestamp::now());
        let namespace = match object::namespace(about) {
            "" => "default",
            namespace => namespace,
        };
        // The name is derived from what makes two events the same.
        let identity = format!(
            "{}\n{}\n{kind}\n{reason}\n{message}",
            object::uid(about),
            self.component
        );
        let name = format!("{}.{:016x}", object::name(about), fingerprint(&identity));
        let seen = self.store.update(&EVENTS, namespace, &name, |old| {
            let mut event = old.clone();
            event["count"] = json!(old["count"].as_i64().unwrap_or(1) + 1);
            event["lastTimestamp"] = json!(now);
            Ok(event)
        });
        if seen.is_ok() {
            return;
        }
        let event = json!({
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
        if let Err(error) = self.store.create(&EVENTS, event) {
            tracing::debug!(%error, reason, "event not recorded");
        }
    }
}

/// FNV-1a, 64 bits.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Removes events that are too old. Returns how many are left.
pub(crate) fn expire(store: &Store, now: Timestamp) -> usize {
    let (events, _) = store.list(&EVENTS, None);
    let mut left = events.len();
    for event in &events {
        let last = object::time(event, &["lastTimestamp"]).or_else(|| object::created(event));
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
