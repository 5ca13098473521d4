//! Status conditions with the two times of a Deployment's: when they last changed, and when they were last reported.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{self, list, text};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) last_update: Timestamp,
    pub(crate) last_transition: Timestamp,
}

impl Condition {
    pub(crate) fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self {
        let now = object::seconds(now);
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_update: now,
            last_transition: now,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        json!({
            "type": self.kind, "status": self.status, "reason": self.reason, "message": self.message,
            "lastUpdateTime": object::stamp(self.last_update),
            "lastTransitionTime": object::stamp(self.last_transition),
        })
    }
}

/// The conditions in an object's status.
pub(crate) fn read(object: &Value) -> Vec<Condition> {
    let read = |c: &Value| Condition {
        kind: text(c, &["type"]).to_owned(),
        status: text(c, &["status"]).to_owned(),
        reason: text(c, &["reason"]).to_owned(),
        message: text(c, &["message"]).to_owned(),
        last_update: object::time(c, &["lastUpdateTime"]).unwrap_or_default(),
        last_transition: object::time(c, &["lastTransitionTime"]).unwrap_or_default(),
    };
    list(object, &["status", "conditions"]).iter().map(read).collect()
}

pub(crate) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

pub(crate) fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|c| c.kind != kind);
}

/// Sets a condition; one with the same status and reason stays as it is (`deploymentutil.SetDeploymentCondition`).
pub(crate) fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(current) = find(conditions, &new.kind) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition = current.last_transition;
        }
    }
    remove(conditions, &new.kind);
    conditions.push(new);
}
