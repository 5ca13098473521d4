//! The verdict on one rollout: each outcome from small objects, with message and reason.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use slipway_model::Timestamp;
use slipway_verdict::{Applied, Expected, FailureReason, Observed, Verdict, Verify, Workload, judge};

const CREATED: &str = "2026-11-01T12:00:00Z";

fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

fn now() -> Timestamp {
    "2026-11-01T12:01:00Z".parse().unwrap()
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "app", "image": image}]}})
}

fn our_image() -> String {
    format!("registry.example/shop:1a2b3c4@{}", digest("ab"))
}

/// A Deployment that is rolled out, with its ReplicaSet and pods, each of which may be bent.
struct Scene {
    deployment: Value,
    replica_sets: Vec<Value>,
    pods: Vec<Value>,
    expected: Expected,
}

impl Scene {
    fn complete() -> Self {
        let mut set_template = template(&our_image());
        set_template["metadata"]["labels"]["pod-template-hash"] = json!("new");
        Self {
            deployment: json!({
                "metadata": {
                    "name": "shop", "uid": "d-1", "generation": 4, "creationTimestamp": CREATED,
                    "annotations": {"deploy.slipway.dev/epoch": "7", "deploy.slipway.dev/deployment": "dep-1"},
                    "managedFields": [
                        {"manager": "slipway", "operation": "Apply", "time": CREATED},
                        {"manager": "kubectl-set", "operation": "Update", "time": "2026-11-01T12:00:30Z"},
                        {"manager": "kube-controller-manager", "operation": "Update", "time": "2026-11-01T12:00:40Z"},
                    ],
                },
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "shop"}}, "template": template(&our_image())},
                "status": {"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2},
            }),
            replica_sets: vec![json!({
                "metadata": {
                    "name": "shop-new", "uid": "r-1", "creationTimestamp": CREATED,
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "d-1", "controller": true}],
                },
                "spec": {"selector": {}, "template": set_template},
            })],
            pods: vec![
                pod("shop-new-a", &running(&digest("ab"))),
                pod("shop-new-b", &running(&digest("ab"))),
            ],
            expected: Expected {
                image: format!("registry.example/shop@{}", digest("ab")).parse().unwrap(),
                epoch: 7,
                applied: Applied {
                    uid: "d-1".to_owned(),
                    generation: 4,
                    created_at: Some(CREATED.parse().unwrap()),
                    previous: None,
                },
                verify: Verify::default(),
                since: CREATED.parse().unwrap(),
                sync: None,
                promotes: false,
                restored: None,
                moving_tag: false,
            },
        }
    }

    /// The same, with one of two pods not ready for this reason.
    fn waiting(status: &Value) -> Self {
        let mut scene = Self::complete();
        scene.deployment["status"] =
            json!({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1});
        scene.pods[1] = pod("shop-new-b", status);
        scene
    }

    fn bend(mut self, pointer: &str, value: Value) -> Self {
        *self
            .deployment
            .pointer_mut(pointer)
            .unwrap_or_else(|| panic!("no {pointer}")) = value;
        self
    }

    fn judge(&self) -> Verdict {
        self.judge_at(now())
    }

    fn judge_at(&self, now: Timestamp) -> Verdict {
        fn read<K: serde::de::DeserializeOwned>(value: &Value) -> Arc<K> {
            Arc::new(serde_json::from_value(value.clone()).unwrap())
        }
        let live: Option<Arc<Deployment>> = (!self.deployment.is_null()).then(|| read(&self.deployment));
        let observed = Observed {
            workload: live.map(Workload::Deployment),
            gone: true,
            replica_sets: self.replica_sets.iter().map(read).collect(),
            pods: self.pods.iter().map(read).collect(),
            primary: None,
            ..Observed::default()
        };
        judge(&self.expected, &observed, now)
    }

    #[track_caller]
    fn fails(&self, reason: FailureReason, words: &[&str]) {
        match self.judge() {
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

    #[track_caller]
    fn waits(&self, words: &str) {
        match self.judge() {
            Verdict::Progressing { message, .. } => assert_eq!(message, words),
            other => panic!("{words:?} expected: {other:?}"),
        }
    }
}

fn pod(name: &str, container: &Value) -> Value {
    let mut status = json!({
        "name": "app", "image": our_image(), "imageID": "", "ready": false, "restartCount": 0,
    });
    for (key, value) in container.as_object().unwrap() {
        status[key] = value.clone();
    }
    json!({
        "metadata": {
            "name": name, "creationTimestamp": CREATED,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-new", "uid": "r-1", "controller": true}],
        },
        "spec": {"containers": [{"name": "app", "image": our_image()}]},
        "status": {"phase": "Running", "containerStatuses": [status]},
    })
}

fn running(digest: &str) -> Value {
    json!({"ready": true, "state": {"running": {}}, "imageID": format!("registry.example/shop@{digest}")})
}

fn stuck(reason: &str, message: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason, "message": message}}})
}

/// A restart's template names a tag: what it pointed to is known from the pods alone.
#[test]
fn after_a_restart_the_pods_prove_what_the_tag_pointed_to() {
    let named = |image: &str, moving_tag: bool| {
        let mut scene = Scene::complete().bend("/spec/template/spec/containers/0/image", json!(image));
        scene.replica_sets[0]["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        scene.expected.moving_tag = moving_tag;
        scene
    };
    let latest = "registry.example/shop:latest";
    assert_eq!(named(latest, true).judge(), Verdict::Complete);
    assert_eq!(named("registry.example/shop", true).judge(), Verdict::Complete);
    assert_eq!(named(&our_image(), true).judge(), Verdict::Complete);
    let mut moved = named(latest, true);
    moved.pods[1] = pod("shop-new-b", &running(&digest("cd")));
    moved.fails(FailureReason::WrongImage, &["pod shop-new-b runs", &digest("cd")]);
    let replaced = FailureReason::Superseded;
    named("registry.example/other:latest", true).fails(replaced, &["registry.example/other:latest"]);
    let pinned = format!("registry.example/shop@{}", digest("cd"));
    named(&pinned, true).fails(replaced, &[&pinned]);
    named(latest, false).fails(replaced, &[latest]);
}

#[test]
fn complete_is_kubectls_word_and_our_digest() {
    assert_eq!(Scene::complete().judge(), Verdict::Complete);
    // Docker's way to write the id, and a runtime that knows no repository digest while the pod is pinned.
    let mut scene = Scene::complete();
    scene.pods[0]["status"]["containerStatuses"][0]["imageID"] = json!(format!(
        "docker-pullable://registry.example/shop@{}",
        digest("ab")
    ));
    scene.pods[1]["status"]["containerStatuses"][0]["imageID"] = json!(digest("99"));
    assert_eq!(scene.judge(), Verdict::Complete);
}

#[test]
fn a_deadline_names_a_pod_that_is_not_ready() {
    let again = json!({
        "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 3}},
    });
    for (status, words) in [
        (stuck("ContainerCreating", ""), "ContainerCreating"),
        (json!({"state": {"running": {}}}), "it runs and is not ready"),
        (again, "exit code 3, 1 restarts, and runs again"),
    ] {
        let mut scene = Scene::waiting(&status);
        scene.pods.remove(0);
        scene.deployment["status"]["conditions"] =
            json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        scene.fails(
            FailureReason::ProgressDeadlineExceeded,
            &["no progress within ", ": pod shop-new-b: ", words],
        );
    }
    let mut scene = Scene::waiting(&json!({}));
    scene.pods[0]["status"] = json!({"phase": "Pending"});
    scene.deployment["status"]["conditions"] =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    scene.fails(
        FailureReason::ProgressDeadlineExceeded,
        &["pod shop-new-a has no container yet"],
    );
}

#[test]
fn another_image_is_not_a_success() {
    let mut scene = Scene::complete();
    scene.pods[1] = pod("shop-new-b", &running(&digest("cd")));
    scene.fails(
        FailureReason::WrongImage,
        &["pod shop-new-b runs", &digest("cd"), &digest("ab")],
    );
    // A pod that is going away does not count.
    scene.pods[1]["metadata"]["deletionTimestamp"] = json!(CREATED);
    scene.waits("1 of 2 new pods seen to run abababababab");
    // Only what kubectl looks at.
    scene.expected.verify = Verify::AS_KUBECTL;
    assert_eq!(scene.judge(), Verdict::Complete);
}

#[test]
fn pods_that_the_watch_has_yet_to_show_are_waited_for() {
    let mut scene = Scene::complete();
    scene.pods.truncate(1);
    scene.waits("1 of 2 new pods seen to run abababababab");
    scene.replica_sets.clear();
    scene.waits("0 of 2 new pods seen to run abababababab");
}

#[test]
fn the_state_is_told_in_words() {
    let status = |value: Value| Scene::complete().bend("/status", value);
    status(json!({"observedGeneration": 3})).waits("waiting for the cluster to notice the new version");
    status(json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 1}))
        .waits("1 of 2 pods are of the new version");
    status(json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 2}))
        .waits("1 old pod has yet to go");
    status(json!({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2}))
        .waits("0 of 2 new pods ready");
    Scene::waiting(&stuck("ContainerCreating", "")).waits("1 of 2 new pods ready");
    Scene::waiting(&stuck("ImagePullBackOff", "Back-off pulling image"))
        .waits("1 of 2 new pods ready; pod shop-new-b: ImagePullBackOff: Back-off pulling image");
    let mut paused = Scene::waiting(&stuck("ContainerCreating", ""));
    paused.deployment["spec"]["paused"] = json!(true);
    paused.waits("1 of 2 new pods ready; it is paused: kubectl rollout resume lets it go on");
}

#[test]
fn what_does_not_heal_fails_early_and_only_when_told_to() {
    for (status, reason, words) in [
        (
            stuck("ErrImagePull", "rpc error: code = NotFound desc = x: not found"),
            FailureReason::ImageNotFound,
            "not found",
        ),
        (
            stuck("ImagePullBackOff", "Back-off: manifest unknown"),
            FailureReason::ImageNotFound,
            "manifest unknown",
        ),
        (
            stuck("InvalidImageName", "couldn't parse image reference"),
            FailureReason::InvalidImageName,
            "couldn't parse",
        ),
        (
            json!({
                "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }),
            FailureReason::CrashLoop,
            "CrashLoopBackOff, exit code 137, 3 restarts",
        ),
    ] {
        let mut scene = Scene::waiting(&status);
        scene.fails(reason, &["pod shop-new-b: ", words]);
        scene.expected.verify.fail_early = false;
        assert!(matches!(scene.judge(), Verdict::Progressing { .. }));
    }
}

#[test]
fn what_may_heal_is_waited_for() {
    for status in [
        stuck("ErrImagePull", "dial tcp: i/o timeout"),
        stuck("CreateContainerConfigError", "configmap \"settings\" not found"),
        json!({"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
        json!({"restartCount": 9, "state": {"running": {}}}),
    ] {
        let scene = Scene::waiting(&status);
        assert!(
            matches!(scene.judge(), Verdict::Progressing { .. }),
            "{:?}",
            scene.judge()
        );
    }
}

#[test]
fn old_pods_faults_are_not_ours() {
    let mut scene = Scene::waiting(&running(&digest("ab")));
    let mut old = pod("shop-old-x", &stuck("InvalidImageName", "of the version before"));
    old["metadata"]["ownerReferences"][0]["uid"] = json!("r-0");
    scene.pods.push(old);
    let mut set = scene.replica_sets[0].clone();
    set["metadata"]["uid"] = json!("r-0");
    set["metadata"]["name"] = json!("shop-old");
    set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/shop:old");
    scene.replica_sets.push(set);
    scene.waits("1 of 2 new pods ready");
}

#[test]
fn pods_without_a_node_fail_after_a_while() {
    let mut scene = Scene::waiting(&stuck("", ""));
    scene.pods[1]["status"] = json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available", "lastTransitionTime": "2026-11-01T12:00:30Z"}],
    });
    let at: Timestamp = "2026-11-01T12:05:30Z".parse().unwrap();
    match scene.judge() {
        Verdict::Progressing { message, look_again } => {
            assert_eq!(
                message,
                "1 of 2 new pods ready; pod shop-new-b cannot be scheduled: 0/3 nodes are available"
            );
            assert_eq!(look_again, Some(at), "five minutes after");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        scene.judge_at(at),
        Verdict::Failed(failure) if failure.reason == FailureReason::Unschedulable
    ));
}

#[test]
fn a_quota_that_keeps_pods_away_fails_after_a_while() {
    let mut scene = Scene::complete();
    scene.deployment["status"] = json!({"observedGeneration": 4, "replicas": 1, "updatedReplicas": 1});
    scene.replica_sets[0]["status"] = json!({
        "replicas": 1,
        "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": "pods \"shop\" is forbidden: exceeded quota", "lastTransitionTime": "2026-11-01T12:00:00Z"}],
    });
    assert!(matches!(
        scene.judge(),
        Verdict::Progressing {
            look_again: Some(_),
            ..
        }
    ));
    let later = now() + Duration::from_secs(300);
    match scene.judge_at(later) {
        Verdict::Failed(failure) => {
            assert_eq!(failure.reason, FailureReason::PodsNotCreated);
            assert!(failure.message.contains("exceeded quota"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn kubernetes_own_deadline_names_the_pod() {
    let mut scene = Scene::waiting(&stuck("ImagePullBackOff", "Back-off pulling image"));
    scene.deployment["status"]["conditions"] =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    scene.deployment["spec"]["progressDeadlineSeconds"] = json!(60);
    scene.fails(
        FailureReason::ProgressDeadlineExceeded,
        &["within 60 s", "pod shop-new-b: ImagePullBackOff"],
    );
}

#[test]
fn scaled_to_zero_proves_nothing() {
    let scene = Scene::complete()
        .bend("/spec/replicas", json!(0))
        .bend("/status", json!({"observedGeneration": 4}));
    scene.fails(FailureReason::ScaledToZero, &["scaled to zero", "verify.digest"]);
}

#[test]
fn somebody_elses_update_has_its_own_outcome() {
    // A later turn of the lane.
    let scene = Scene::complete().bend(
        "/metadata/annotations",
        json!({"deploy.slipway.dev/epoch": "8", "deploy.slipway.dev/deployment": "dep-2"}),
    );
    scene.fails(FailureReason::SupersededEpoch, &["dep-2", "epoch 8 after 7"]);

    // kubectl set image.
    let scene = Scene::complete()
        .bend("/metadata/generation", json!(5))
        .bend("/spec/template", template("registry.example/shop:mine"));
    scene.fails(
        FailureReason::Superseded,
        &["by kubectl-set", "registry.example/shop:mine"],
    );

    // Scaled by an autoscaler: still ours.
    let scene = Scene::complete()
        .bend("/metadata/generation", json!(9))
        .bend("/status/observedGeneration", json!(9));
    assert_eq!(scene.judge(), Verdict::Complete);
}

#[test]
fn a_lagging_watch_is_not_taken_for_the_truth() {
    // It shows the object from before our write: generation and image are the old ones.
    let scene = Scene::complete()
        .bend("/metadata/generation", json!(3))
        .bend("/status/observedGeneration", json!(3))
        .bend("/spec/template", template("registry.example/shop:old"));
    scene.waits("waiting to see the new version in the cluster");

    // It shows one of the same name that was deleted before ours was created.
    let scene = Scene::complete()
        .bend("/metadata/uid", json!("d-0"))
        .bend("/metadata/creationTimestamp", json!("2026-10-01T12:00:00Z"));
    scene.waits("waiting to see the new version in the cluster");
}

#[test]
fn deleted_and_made_anew_are_failures() {
    let mut scene = Scene::complete();
    scene.deployment = Value::Null;
    scene.fails(FailureReason::Deleted, &["deleted"]);
    let scene = Scene::complete()
        .bend("/metadata/uid", json!("d-2"))
        .bend("/metadata/creationTimestamp", json!("2026-11-01T12:00:59Z"));
    scene.fails(FailureReason::Replaced, &["someone deleted"]);
}
