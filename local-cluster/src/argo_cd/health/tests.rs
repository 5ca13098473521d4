use super::*;
use serde_json::json;

fn workload(kind: &str, spec: &Value, status: &Value) -> Value {
    let api = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status})
}

#[test]
fn workloads_are_as_well_as_their_status_says() {
    use Status::{Degraded, Healthy, Progressing, Suspended};
    let full = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2});
    let status = |patch: Value| {
        let mut status = full.clone();
        json_patch::merge(&mut status, &patch);
        status
    };
    let two = json!({"replicas": 2});
    let partition = |p: i64| json!({"replicas": 2, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": p}}});
    let plain = json!({"replicas": 2, "updateStrategy": {"type": "RollingUpdate"}});
    let daemon = |updated: i64, available: i64| {
        json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated,
               "numberAvailable": available})
    };
    let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "message": "m"}]});
    let table = [
        ("Deployment", two.clone(), status(json!({})), Healthy, ""),
        (
            "Deployment",
            json!({"replicas": 2, "paused": true}),
            status(json!({})),
            Suspended,
            "Deployment is paused",
        ),
        (
            "Deployment",
            two.clone(),
            status(json!({"observedGeneration": 1})),
            Progressing,
            "Waiting for rollout to finish: observed deployment generation less than desired generation",
        ),
        (
            "Deployment",
            two.clone(),
            status(json!({"updatedReplicas": 1})),
            Progressing,
            "Waiting for rollout to finish: 1 out of 2 new replicas have been updated...",
        ),
        (
            "Deployment",
            two.clone(),
            status(json!({"replicas": 3})),
            Progressing,
            "Waiting for rollout to finish: 1 old replicas are pending termination...",
        ),
        (
            "Deployment",
            two.clone(),
            status(json!({"availableReplicas": 1})),
            Progressing,
            "Waiting for rollout to finish: 1 of 2 updated replicas are available...",
        ),
        (
            "Deployment",
            two,
            status(
                json!({"availableReplicas": 0, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
            ),
            Degraded,
            "Deployment \"web\" exceeded its progress deadline",
        ),
        (
            "StatefulSet",
            plain.clone(),
            status(json!({"observedGeneration": null})),
            Progressing,
            "Waiting for statefulset spec update to be observed...",
        ),
        (
            "StatefulSet",
            plain.clone(),
            status(json!({"readyReplicas": 1})),
            Progressing,
            "Waiting for 1 pods to be ready...",
        ),
        (
            "StatefulSet",
            partition(0),
            status(json!({"updatedReplicas": 1})),
            Progressing,
            "Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...",
        ),
        (
            "StatefulSet",
            partition(1),
            status(json!({"updatedReplicas": 1})),
            Healthy,
            "partitioned roll out complete: 1 new pods have been updated...",
        ),
        (
            "StatefulSet",
            plain.clone(),
            status(json!({"currentRevision": "a", "updateRevision": "b"})),
            Progressing,
            "waiting for statefulset rolling update to complete 2 pods at revision b...",
        ),
        (
            "StatefulSet",
            plain,
            status(json!({"currentRevision": "b", "updateRevision": "b", "currentReplicas": 2})),
            Healthy,
            "statefulset rolling update complete 2 pods at revision b...",
        ),
        (
            "DaemonSet",
            json!({}),
            daemon(1, 2),
            Progressing,
            "Waiting for daemon set \"web\" rollout to finish: 1 out of 2 new pods have been updated...",
        ),
        (
            "DaemonSet",
            json!({}),
            daemon(2, 1),
            Progressing,
            "Waiting for daemon set \"web\" rollout to finish: 1 of 2 updated pods are available...",
        ),
        ("DaemonSet", json!({}), daemon(2, 2), Healthy, ""),
        ("Job", json!({}), json!({"active": 1}), Progressing, ""),
        ("Job", json!({}), condition("Complete"), Healthy, "m"),
        ("Job", json!({}), condition("Failed"), Degraded, "m"),
        ("Job", json!({}), condition("Suspended"), Suspended, "m"),
    ];
    for (kind, spec, status, expected, message) in table {
        let object = workload(kind, &spec, &status);
        let found = of(&object).unwrap();
        assert_eq!(
            (found.status, found.message.as_str()),
            (expected, message),
            "{object}"
        );
    }
}

#[test]
fn pods_and_canaries() {
    use Status::{Degraded, Healthy, Progressing, Suspended};
    let pod = |status: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                                     "spec": {"restartPolicy": "Always"}, "status": status})
    };
    let rollout = |phase: &str, observed: &str| {
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"generation": 3},
               "status": {"phase": phase, "observedGeneration": observed}})
    };
    let canary = |phase: &str| json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "status": {"phase": phase}});
    let waiting = |reason: &str| json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "m"}}}]});
    let table = [
        (pod(json!({"phase": "Pending"})), Progressing),
        (pod(waiting("ContainerCreating")), Progressing),
        (pod(waiting("ImagePullBackOff")), Degraded),
        (pod(waiting("ErrImagePull")), Degraded),
        (
            pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})),
            Healthy,
        ),
        (pod(json!({"phase": "Running"})), Progressing),
        (pod(json!({"phase": "Succeeded"})), Healthy),
        (pod(json!({"phase": "Failed"})), Degraded),
        (rollout("Healthy", "3"), Healthy),
        (rollout("Healthy", "2"), Progressing),
        (rollout("Paused", "3"), Suspended),
        (rollout("Degraded", "3"), Degraded),
        (canary("Succeeded"), Healthy),
        (canary("Failed"), Degraded),
        (canary("Promoting"), Progressing),
    ];
    for (object, expected) in table {
        assert_eq!(of(&object).unwrap().status, expected, "{object}");
    }
    assert_eq!(of(&json!({"apiVersion": "v1", "kind": "ConfigMap"})), None);
}

#[test]
fn an_application_is_as_well_as_its_worst_resource() {
    let paused = workload("Deployment", &json!({"paused": true}), &json!({}));
    let waiting = workload("Deployment", &json!({}), &json!({}));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    assert_eq!(of_application(&[]), Status::Healthy);
    assert_eq!(of_application(&[Some(&map)]), Status::Healthy);
    assert_eq!(of_application(&[Some(&map), Some(&paused)]), Status::Suspended);
    assert_eq!(
        of_application(&[Some(&paused), Some(&waiting)]),
        Status::Progressing
    );
    assert_eq!(of_application(&[Some(&map), None]), Status::Healthy);
    assert_eq!(of_application(&[None, None]), Status::Missing);
}
