//! kubectl's messages and decisions, branch by branch of its `rollout_status.go`.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::{Value, json};
use slipway_verdict::kubectl::{self, Error, Status};

/// As it is printed, with what comes of it.
fn said(judged: Result<Status, Error>) -> (String, Option<bool>) {
    match judged {
        Ok(status) => (status.line, Some(status.done)),
        Err(error) => (error.printed(), None),
    }
}

const DONE: Option<bool> = Some(true);
const WAITS: Option<bool> = Some(false);
const FAILS: Option<bool> = None;

fn deployment(spec: Value, status: Value) -> Deployment {
    let metadata =
        json!({"name": "shop", "generation": 2, "annotations": {"deployment.kubernetes.io/revision": "3"}});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

#[test]
fn deployments() {
    let finish = "Waiting for deployment \"shop\" rollout to finish: ";
    let three = || json!({"replicas": 3, "selector": {}, "template": {}});
    for (spec, status, words, end) in [
        (
            three(),
            json!({}),
            "Waiting for deployment spec update to be observed...".to_owned(),
            WAITS,
        ),
        (
            three(),
            json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
            "Waiting for deployment spec update to be observed...".to_owned(),
            WAITS,
        ),
        (
            three(),
            json!({"observedGeneration": 2}),
            format!("{finish}0 out of 3 new replicas have been updated..."),
            WAITS,
        ),
        (
            three(),
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 5, "availableReplicas": 5}),
            format!("{finish}2 old replicas are pending termination..."),
            WAITS,
        ),
        (
            three(),
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 1}),
            format!("{finish}1 of 3 updated replicas are available..."),
            WAITS,
        ),
        (
            three(),
            json!({"observedGeneration": 7, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
            "deployment \"shop\" successfully rolled out".to_owned(),
            DONE,
        ),
        // More than wanted are not missed: what is available is held against what is updated.
        (
            three(),
            json!({"observedGeneration": 2, "updatedReplicas": 4, "replicas": 4, "availableReplicas": 3}),
            format!("{finish}3 of 4 updated replicas are available..."),
            WAITS,
        ),
        // Without replicas none are missed.
        (
            json!({"selector": {}, "template": {}}),
            json!({"observedGeneration": 2}),
            "deployment \"shop\" successfully rolled out".to_owned(),
            DONE,
        ),
        (
            json!({"replicas": 0, "paused": true, "selector": {}, "template": {}}),
            json!({"observedGeneration": 2}),
            "deployment \"shop\" successfully rolled out".to_owned(),
            DONE,
        ),
        // The reason alone counts, whatever the condition's status, and only of the present generation.
        (
            three(),
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3,
            "conditions": [{"type": "Available", "status": "False", "reason": "ProgressDeadlineExceeded"},
                {"type": "Progressing", "status": "True", "reason": "ProgressDeadlineExceeded"}]}),
            "error: deployment \"shop\" exceeded its progress deadline".to_owned(),
            FAILS,
        ),
        (
            three(),
            json!({"observedGeneration": 1,
            "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}),
            "Waiting for deployment spec update to be observed...".to_owned(),
            WAITS,
        ),
    ] {
        assert_eq!(
            said(kubectl::deployment(&deployment(spec, status), 0)),
            (words, end)
        );
    }
}

#[test]
fn revisions() {
    let mut live = deployment(
        json!({"replicas": 0, "selector": {}, "template": {}}),
        json!({"observedGeneration": 2}),
    );
    assert_eq!(said(kubectl::deployment(&live, 3)).1, DONE);
    assert_eq!(
        said(kubectl::deployment(&live, 2)),
        (
            "error: desired revision (2) is different from the running revision (3)".to_owned(),
            FAILS
        )
    );
    let revision = |live: &mut Deployment, text: &str| {
        let annotations = live.metadata.annotations.get_or_insert_default();
        annotations.insert(kubectl::REVISION.to_owned(), text.to_owned());
    };
    revision(&mut live, "abc");
    assert_eq!(
        said(kubectl::deployment(&live, 2)).0,
        "error: cannot get the revision of deployment \"shop\": strconv.ParseInt: parsing \"abc\": invalid syntax"
    );
    revision(&mut live, "99999999999999999999");
    assert!(
        said(kubectl::deployment(&live, 2))
            .0
            .ends_with("value out of range")
    );
    live.metadata.annotations = None;
    assert_eq!(
        said(kubectl::deployment(&live, 1)).0,
        "error: desired revision (1) is different from the running revision (0)"
    );
    assert_eq!(said(kubectl::deployment(&live, 0)).1, DONE);
}

#[test]
fn stateful_sets() {
    let rolling = |partition: Value| json!({"type": "RollingUpdate", "rollingUpdate": partition});
    let set = |replicas: Value, strategy: Value, status: Value| -> StatefulSet {
        let spec = json!({
            "replicas": replicas, "serviceName": "shop", "selector": {}, "template": {}, "updateStrategy": strategy,
        });
        serde_json::from_value(
            json!({"metadata": {"name": "shop", "generation": 2}, "spec": spec, "status": status}),
        )
        .unwrap()
    };
    let two = json!({"replicas": 3, "observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 2, "currentReplicas": 1,
        "currentRevision": "shop-1", "updateRevision": "shop-2"});
    let all = json!({"replicas": 3, "observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 3, "currentReplicas": 3,
        "currentRevision": "shop-2", "updateRevision": "shop-2"});
    let strategy = "error: rollout status is only available for RollingUpdate strategy type";
    let unseen = "Waiting for statefulset spec update to be observed...";
    let partition = |of: i64| rolling(json!({"partition": of}));
    for (live, words, end) in [
        (
            set(json!(3), json!({"type": "OnDelete"}), all.clone()),
            strategy,
            FAILS,
        ),
        (set(json!(3), json!({}), all.clone()), strategy, FAILS),
        // Before anything else: a strategy that is not judged is an error also while nothing is observed.
        (
            set(json!(3), json!({"type": "OnDelete"}), json!({"replicas": 0})),
            strategy,
            FAILS,
        ),
        (set(json!(3), partition(0), json!({"replicas": 0})), unseen, WAITS),
        (
            set(
                json!(3),
                partition(0),
                json!({"replicas": 3, "observedGeneration": 1, "readyReplicas": 3}),
            ),
            unseen,
            WAITS,
        ),
        (
            set(
                json!(3),
                partition(0),
                json!({"replicas": 3, "observedGeneration": 2, "readyReplicas": 1}),
            ),
            "Waiting for 2 pods to be ready...",
            WAITS,
        ),
        (
            set(json!(3), partition(0), two.clone()),
            "Waiting for partitioned roll out to finish: 2 out of 3 new pods have been updated...",
            WAITS,
        ),
        (
            set(json!(3), partition(1), two.clone()),
            "partitioned roll out complete: 2 new pods have been updated...",
            DONE,
        ),
        (
            set(json!(3), partition(9), two.clone()),
            "partitioned roll out complete: 2 new pods have been updated...",
            DONE,
        ),
        (
            set(json!(3), partition(0), all.clone()),
            "partitioned roll out complete: 3 new pods have been updated...",
            DONE,
        ),
        // A block without a partition, and no replicas: nothing is compared.
        (
            set(json!(3), rolling(json!({})), two.clone()),
            "partitioned roll out complete: 2 new pods have been updated...",
            DONE,
        ),
        (
            set(
                Value::Null,
                partition(0),
                json!({"replicas": 0, "observedGeneration": 2}),
            ),
            "partitioned roll out complete: 0 new pods have been updated...",
            DONE,
        ),
        (
            set(
                json!(0),
                partition(0),
                json!({"replicas": 0, "observedGeneration": 2}),
            ),
            "partitioned roll out complete: 0 new pods have been updated...",
            DONE,
        ),
        // No block at all: revisions are compared.
        (
            set(json!(3), rolling(Value::Null), two),
            "waiting for statefulset rolling update to complete 2 pods at revision shop-2...",
            WAITS,
        ),
        (
            set(json!(3), rolling(Value::Null), all),
            "statefulset rolling update complete 3 pods at revision shop-2...",
            DONE,
        ),
    ] {
        assert_eq!(said(kubectl::stateful_set(&live)), (words.to_owned(), end));
    }
}

#[test]
fn daemon_sets() {
    let finish = "Waiting for daemon set \"agent\" rollout to finish: ";
    let set = |kind: &str, seen: i64, desired: i32, updated: i32, available: i32| -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "agent", "generation": 2},
            "spec": {"selector": {}, "template": {}, "updateStrategy": {"type": kind}},
            "status": {
                "observedGeneration": seen, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
                "updatedNumberScheduled": updated, "numberAvailable": available, "numberReady": 0,
                "numberMisscheduled": 0,
            },
        }))
        .unwrap()
    };
    for (live, words, end) in [
        (
            set("OnDelete", 0, 3, 0, 0),
            "error: rollout status is only available for RollingUpdate strategy type".to_owned(),
            FAILS,
        ),
        (
            set("RollingUpdate", 1, 3, 3, 3),
            "Waiting for daemon set spec update to be observed...".to_owned(),
            WAITS,
        ),
        (
            set("RollingUpdate", 2, 3, 1, 0),
            format!("{finish}1 out of 3 new pods have been updated..."),
            WAITS,
        ),
        (
            set("RollingUpdate", 2, 3, 3, 2),
            format!("{finish}2 of 3 updated pods are available..."),
            WAITS,
        ),
        (
            set("RollingUpdate", 2, 3, 3, 3),
            "daemon set \"agent\" successfully rolled out".to_owned(),
            DONE,
        ),
        (
            set("RollingUpdate", 2, 0, 0, 0),
            "daemon set \"agent\" successfully rolled out".to_owned(),
            DONE,
        ),
    ] {
        assert_eq!(said(kubectl::daemon_set(&live)), (words, end));
    }
}

#[test]
fn ends_that_no_object_tells() {
    for (error, words) in [
        (Error::Deleted, "error: object has been deleted"),
        (Error::TimedOut, "error: timed out waiting for the condition"),
        (
            Error::NotFound {
                resource: "statefulsets.apps".to_owned(),
                name: "shop".to_owned(),
            },
            "Error from server (NotFound): statefulsets.apps \"shop\" not found",
        ),
    ] {
        assert_eq!(error.printed(), words);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the numbers: nothing panics, and only what is observed and complete is done.
    #[test]
    fn any_numbers(
        generation in any::<i64>(), observed in any::<i64>(), replicas in any::<Option<i32>>(),
        updated in any::<i32>(), total in any::<i32>(), ready in any::<i32>(), partition in any::<Option<i32>>(),
    ) {
        let metadata = json!({"name": "shop", "generation": generation});
        let live: Deployment = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {"replicas": replicas.map(|n| n.abs_diff(0) >> 1), "selector": {}, "template": {}},
            "status": {"observedGeneration": observed, "replicas": total.abs_diff(0) >> 1,
                "updatedReplicas": updated.abs_diff(0) >> 1, "availableReplicas": ready.abs_diff(0) >> 1},
        })).unwrap();
        if let Ok(status) = kubectl::deployment(&live, 0) {
            prop_assert!(!status.done || generation <= observed);
            prop_assert!(!status.line.is_empty());
        }
        let live: StatefulSet = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {"replicas": replicas, "serviceName": "x", "selector": {}, "template": {},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}},
            "status": {"observedGeneration": observed, "replicas": 0, "readyReplicas": ready.abs_diff(0) >> 1,
                "updatedReplicas": updated},
        })).unwrap();
        if let Ok(status) = kubectl::stateful_set(&live) {
            prop_assert!(!status.done || (observed != 0 && generation <= observed));
        }
    }
}
