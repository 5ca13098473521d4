//! What the tests of several kinds share: times, images, pods.
#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_model::Timestamp;
use slipway_verdict::{Applied, Expected, FailureReason, Observed, Verdict, Verify, Workload, judge};

pub(crate) const CREATED: &str = "2026-11-01T12:00:00Z";
pub(crate) const UID: &str = "w-1";

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A minute after everything was written.
pub(crate) fn now() -> Timestamp {
    time("2026-11-01T12:01:00Z")
}

pub(crate) fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

pub(crate) fn image(byte: &str) -> String {
    format!("registry.example/shop:1a2b3c4@{}", digest(byte))
}

pub(crate) fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "app", "image": image}]}})
}

pub(crate) fn metadata(generation: i64) -> Value {
    json!({
        "name": "shop", "namespace": "default", "uid": UID, "generation": generation, "creationTimestamp": CREATED,
        "annotations": {"deploy.slipway.dev/epoch": "7", "deploy.slipway.dev/deployment": "dep-1"},
    })
}

/// Of image `ab`, written as generation 4 by epoch 7.
pub(crate) fn expected() -> Expected {
    Expected {
        image: image("ab").parse().unwrap(),
        epoch: 7,
        applied: Applied {
            uid: UID.to_owned(),
            generation: 4,
            created_at: Some(time(CREATED)),
            previous: None,
        },
        verify: Verify::default(),
        since: time(CREATED),
        sync: None,
        promotes: false,
        restored: None,
        moving_tag: false,
    }
}

/// A pod of an owner, with labels and the state of its one container.
pub(crate) fn pod(name: &str, (kind, owner): (&str, &str), labels: &Value, container: &Value) -> Value {
    let mut status =
        json!({"name": "app", "image": image("ab"), "imageID": "", "ready": false, "restartCount": 0});
    for (key, value) in container.as_object().unwrap() {
        status[key] = value.clone();
    }
    let ready = if status["ready"] == true { "True" } else { "False" };
    json!({
        "metadata": {
            "name": name, "creationTimestamp": CREATED, "labels": labels,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": "shop", "uid": owner, "controller": true}],
        },
        "spec": {"containers": [{"name": "app", "image": image("ab")}]},
        "status": {
            "phase": "Running", "containerStatuses": [status],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-01T12:00:10Z"}],
        },
    })
}

pub(crate) fn running(byte: &str) -> Value {
    json!({"ready": true, "state": {"running": {}}, "imageID": format!("registry.example/shop@{}", digest(byte))})
}

pub(crate) fn stuck(reason: &str, message: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason, "message": message}}})
}

pub(crate) fn crashing(restarts: u32) -> Value {
    json!({
        "restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    })
}

pub(crate) fn read<K: DeserializeOwned>(value: &Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}")))
}

pub(crate) fn observed(workload: Option<Workload>, sets: &[Value], pods: &[Value]) -> Observed {
    Observed {
        gone: workload.is_none(),
        workload,
        replica_sets: sets.iter().map(read).collect(),
        pods: pods.iter().map(read).collect(),
        primary: None,
        ..Observed::default()
    }
}

/// A verdict, to be asked what it should be.
pub(crate) struct Judged(pub(crate) Verdict);

impl Judged {
    pub(crate) fn at(expected: &Expected, observed: &Observed, now: Timestamp) -> Self {
        Self(judge(expected, observed, now))
    }

    #[track_caller]
    pub(crate) fn completes(&self) {
        assert_eq!(self.0, Verdict::Complete);
    }

    #[track_caller]
    pub(crate) fn fails(&self, reason: FailureReason, words: &[&str]) {
        match &self.0 {
            Verdict::Failed(failure) if failure.reason == reason => {
                for part in words {
                    assert!(
                        failure.message.contains(part),
                        "{part:?} in {:?}",
                        failure.message
                    );
                }
            }
            other => panic!("{reason:?} expected: {other:?}"),
        }
    }

    /// Returns when it is to be judged again.
    #[track_caller]
    pub(crate) fn waits(&self, words: &str) -> Option<Timestamp> {
        match &self.0 {
            Verdict::Progressing { message, look_again } => {
                assert_eq!(message, words);
                *look_again
            }
            other => panic!("{words:?} expected: {other:?}"),
        }
    }
}
