//! The verdict on a DaemonSet: each outcome from small objects.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use std::time::Duration;

use scene::{
    Judged, UID, crashing, expected, image, metadata, now, observed, pod, read, running, stuck, template,
    time,
};
use serde_json::{Value, json};
use slipway_verdict::{Expected, FailureReason, Verdict, Verify, Workload};

const OWNER: (&str, &str) = ("DaemonSet", UID);

struct Scene {
    live: Value,
    pods: Vec<Value>,
    expected: Expected,
}

/// Of a template's number and hash.
fn of(name: &str, number: &str, hash: &str, container: &Value) -> Value {
    let labels = json!({"pod-template-generation": number, "controller-revision-hash": hash});
    pod(name, OWNER, &labels, container)
}

fn new(name: &str, container: &Value) -> Value {
    of(name, "2", "new", container)
}

fn old(name: &str, container: &Value) -> Value {
    let mut old = of(name, "1", "old", container);
    old["spec"]["containers"][0]["image"] = json!(image("cd"));
    old
}

/// Two nodes, rolled out.
fn scene() -> Scene {
    let mut metadata = metadata(4);
    metadata["annotations"]["deprecated.daemonset.template.generation"] = json!("2");
    Scene {
        live: json!({
            "metadata": metadata,
            "spec": {
                "selector": {}, "template": template(&image("ab")),
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            },
            "status": {
                "observedGeneration": 4, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2, "numberMisscheduled": 0,
            },
        }),
        pods: vec![new("shop-a", &running("ab")), new("shop-b", &running("ab"))],
        expected: expected(),
    }
}

impl Scene {
    fn status(mut self, status: Value) -> Self {
        for (key, value) in status.as_object().unwrap() {
            self.live["status"][key] = value.clone();
        }
        self
    }

    fn pods(mut self, pods: Vec<Value>) -> Self {
        self.pods = pods;
        self
    }

    fn strategy(mut self, strategy: Value) -> Self {
        self.live["spec"]["updateStrategy"] = strategy;
        self
    }

    fn judge_at(&self, now: slipway_model::Timestamp) -> Judged {
        let live = Some(Workload::DaemonSet(read(&self.live)));
        Judged::at(&self.expected, &observed(live, &[], &self.pods), now)
    }

    fn judge(&self) -> Judged {
        self.judge_at(now())
    }
}

#[test]
fn complete_is_kubectls_word_and_our_digest() {
    scene().judge().completes();
    scene()
        .pods(vec![new("shop-a", &running("ab")), new("shop-b", &running("cd"))])
        .judge()
        .fails(FailureReason::WrongImage, &["pod shop-b runs"]);
    scene()
        .pods(vec![new("shop-a", &running("ab"))])
        .judge()
        .waits("1 of 2 new pods seen to run abababababab");
    let mut kubectl = scene().pods(vec![]);
    kubectl.expected.verify = Verify::AS_KUBECTL;
    kubectl.judge().completes();
}

#[test]
fn the_state_is_told_in_words() {
    scene()
        .status(json!({"observedGeneration": 3}))
        .judge()
        .waits("waiting for the cluster to notice the new version");
    scene()
        .status(json!({"updatedNumberScheduled": 1}))
        .judge()
        .waits("1 of 2 nodes have the new version");
    scene()
        .status(json!({"numberAvailable": 1}))
        .judge()
        .waits("1 of 2 nodes have an available pod of the new version");
    scene()
        .status(json!({"numberAvailable": 1}))
        .pods(vec![new("shop-a", &running("ab")), new("shop-b", &crashing(1))])
        .judge()
        .waits(
            "1 of 2 nodes have an available pod of the new version; pod shop-b: CrashLoopBackOff, exit code 137, 1 \
             restarts",
        );
    scene()
        .status(json!({"updatedNumberScheduled": 0, "numberAvailable": 1}))
        .pods(vec![old("shop-a", &running("cd")), old("shop-b", &stuck("InvalidImageName", "bad"))])
        .judge()
        .waits("0 of 2 nodes have the new version; held up by the version before: pod shop-b: InvalidImageName: bad");
    scene()
        .status(json!({"updatedNumberScheduled": 1, "currentNumberScheduled": 1}))
        .pods(vec![new("shop-a", &running("ab"))])
        .judge()
        .waits("1 of 2 nodes have the new version; 1 of 2 nodes have no pod");
}

#[test]
fn pods_that_lived_through_a_step_back_count() {
    // Undone before or while it was rolled out: what lives on has an old number, and the hash of what is wanted.
    let mut undone = scene();
    undone.live["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = json!("3");
    let survivor = |name| of(name, "1", "one", &running("ab"));
    undone.pods = vec![survivor("shop-a"), survivor("shop-b")];
    undone.judge().completes();
    undone.pods[1] = of("shop-c", "3", "one", &running("ab"));
    undone.judge().completes();
    // What runs something else is not taken for it.
    undone.pods = vec![old("shop-a", &running("cd")), old("shop-b", &running("cd"))];
    undone.judge().waits("0 of 2 new pods seen to run abababababab");
}

#[test]
fn a_restart_of_what_crashes_is_not_judged_by_the_pods_before() {
    // Same image, new number: none of its pods is there yet.
    scene()
        .status(json!({"updatedNumberScheduled": 0, "numberAvailable": 0}))
        .pods(vec![
            of("shop-a", "1", "old", &crashing(9)),
            of("shop-b", "1", "old", &crashing(9)),
        ])
        .judge()
        .waits(
            "0 of 2 nodes have the new version; held up by the version before: pod shop-a: CrashLoopBackOff, exit \
             code 137, 9 restarts",
        );
}

#[test]
fn what_does_not_heal_fails_early_in_new_pods_alone() {
    for (container, reason) in [
        (
            stuck("ImagePullBackOff", "manifest unknown"),
            FailureReason::ImageNotFound,
        ),
        (
            stuck("InvalidImageName", "couldn't parse"),
            FailureReason::InvalidImageName,
        ),
        (crashing(3), FailureReason::CrashLoop),
    ] {
        let mut scene = scene()
            .status(json!({"updatedNumberScheduled": 1}))
            .pods(vec![old("shop-a", &running("cd")), new("shop-b", &container)]);
        scene.judge().fails(reason, &["pod shop-b"]);
        scene.expected.verify.fail_early = false;
        assert!(matches!(scene.judge().0, Verdict::Progressing { .. }));
    }
    let mut init = new("shop-b", &json!({}));
    init["status"]["initContainerStatuses"] = json!([crashing(3)]);
    init["status"]["initContainerStatuses"][0]["name"] = json!("migrate");
    for (key, value) in [
        ("image", json!("x")),
        ("imageID", json!("")),
        ("ready", json!(false)),
    ] {
        init["status"]["initContainerStatuses"][0][key] = value;
    }
    scene()
        .status(json!({"numberAvailable": 1}))
        .pods(vec![new("shop-a", &running("ab")), init])
        .judge()
        .fails(FailureReason::CrashLoop, &["pod shop-b"]);
}

#[test]
fn no_node_and_our_deadline() {
    let mut pending = new("shop-b", &stuck("", ""));
    pending["status"] = json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "Insufficient cpu", "lastTransitionTime": "2026-11-01T12:00:30Z"}],
    });
    let mut scene = scene()
        .status(json!({"numberAvailable": 1}))
        .pods(vec![new("shop-a", &running("ab")), pending]);
    let words = "1 of 2 nodes have an available pod of the new version; pod shop-b cannot be scheduled: Insufficient cpu";
    let again = scene.judge().waits(words).unwrap();
    assert_eq!(again, time("2026-11-01T12:05:30Z"));
    scene
        .judge_at(again)
        .fails(FailureReason::Unschedulable, &["Insufficient cpu"]);
    // The nearer of the two ends it.
    scene.expected.verify.progress_deadline = Some(Duration::from_secs(120));
    let again = scene.judge().waits(words).unwrap();
    assert_eq!(
        again,
        time("2026-11-01T12:02:10Z"),
        "two minutes after shop-a was ready"
    );
    scene.judge_at(again).fails(
        FailureReason::ProgressDeadlineExceeded,
        &["within 120 s", "Insufficient cpu"],
    );
}

#[test]
fn no_nodes_and_on_delete() {
    scene()
        .status(json!({"desiredNumberScheduled": 0, "updatedNumberScheduled": 0, "numberAvailable": 0}))
        .pods(vec![])
        .judge()
        .fails(FailureReason::ScaledToZero, &["no node", "nodeSelector"]);
    let on_delete = || scene().strategy(json!({"type": "OnDelete"}));
    on_delete().judge().completes();
    on_delete()
        .status(json!({"updatedNumberScheduled": 0}))
        .pods(vec![old("shop-a", &running("cd")), old("shop-b", &running("cd"))])
        .judge()
        .fails(
            FailureReason::NotRolledOut,
            &["2 pods of the version before", "OnDelete"],
        );
    let mut kubectl = on_delete();
    kubectl.expected.verify = Verify::AS_KUBECTL;
    kubectl.judge().fails(FailureReason::NotRolledOut, &["OnDelete"]);
}
