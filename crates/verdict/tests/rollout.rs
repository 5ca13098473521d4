//! The verdict on a Rollout of Argo Rollouts, phase by phase, and when a promotion is due.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use pretty_assertions::assert_eq;
use scene::{
    Judged, UID, crashing, digest, expected, image, metadata, now, observed, pod, read, running, stuck,
    template,
};
use serde_json::{Value, json};
use slipway_verdict::{Expected, FailureReason, Next, Observed, Verdict, Verify, Workload, next};

struct Scene {
    live: Value,
    sets: Vec<Value>,
    pods: Vec<Value>,
    expected: Expected,
}

fn set(name: &str, uid: &str, image: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": uid, "creationTimestamp": scene::CREATED,
            "labels": {"rollouts-pod-template-hash": name},
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "shop", "uid": UID, "controller": true}],
        },
        "spec": {"selector": {}, "template": template(image)},
    })
}

fn of(name: &str, set: &str, container: &Value) -> Value {
    pod(name, ("ReplicaSet", set), &json!({}), container)
}

/// Two pods by steps, rolled out.
fn scene() -> Scene {
    Scene {
        live: json!({
            "metadata": metadata(4),
            "spec": {
                "replicas": 2, "template": template(&image("ab")),
                "strategy": {"canary": {"steps": [
                    {"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {"duration": "10m"}}, {"analysis": {}},
                ]}},
            },
            "status": {
                "observedGeneration": "4", "phase": "Healthy", "currentPodHash": "new", "stableRS": "new",
                "currentStepIndex": 5, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2,
                "blueGreen": {}, "canary": {},
            },
        }),
        sets: vec![
            set("new", "r-new", &image("ab")),
            set("old", "r-old", &image("cd")),
        ],
        pods: vec![
            of("shop-new-a", "r-new", &running("ab")),
            of("shop-new-b", "r-new", &running("ab")),
        ],
        expected: expected(),
    }
}

impl Scene {
    fn bend(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.live.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    /// Of two pods one is new and the canary's.
    fn midway(phase: &str, step: i64) -> Self {
        scene()
            .bend("/status/phase", json!(phase))
            .bend("/status/stableRS", json!("old"))
            .bend("/status/currentStepIndex", json!(step))
            .bend("/status/updatedReplicas", json!(1))
    }

    fn paused(reason: &str, step: i64) -> Self {
        Self::midway("Paused", step)
            .bend("/status/controllerPause", json!(true))
            .bend(
                "/status/pauseConditions",
                json!([{"reason": reason, "startTime": scene::CREATED}]),
            )
            .bend("/status/message", json!(reason))
    }

    fn observed(&self) -> Observed {
        observed(Some(Workload::Rollout(read(&self.live))), &self.sets, &self.pods)
    }

    fn judge(&self) -> Judged {
        Judged::at(&self.expected, &self.observed(), now())
    }

    fn next(&self, promotes: bool) -> Next {
        let expected = Expected {
            promotes,
            ..self.expected.clone()
        };
        next(&expected, self.observed().workload.as_ref().unwrap())
    }
}

#[test]
fn healthy_is_complete_when_it_is_ours_and_promoted() {
    scene().judge().completes();
    scene()
        .bend("/status/stableRS", json!("old"))
        .judge()
        .waits("the new version is not yet the stable one");
    let mut other = scene();
    other.pods[1] = of("shop-new-b", "r-new", &running("cd"));
    other
        .judge()
        .fails(FailureReason::WrongImage, &["shop-new-b", &digest("cd")]);
    other.expected.verify = Verify::AS_KUBECTL;
    other.judge().completes();
    let mut lagging = scene();
    lagging.pods.truncate(1);
    lagging.judge().waits("1 of 2 new pods seen to run abababababab");
    lagging.sets.clear();
    lagging.judge().waits("0 of 2 new pods seen to run abababababab");
    scene()
        .bend("/spec/replicas", json!(0))
        .judge()
        .fails(FailureReason::ScaledToZero, &["scale it up"]);
}

#[test]
fn the_phase_counts_for_the_present_generation_alone() {
    // A string, as the CRD has it; a hash from before 0.10, nothing, and another generation are all not ours.
    for generation in [
        json!("3"),
        json!("5f8d9c"),
        json!(""),
        Value::Null,
        json!("40"),
        json!("-4"),
    ] {
        let unseen = scene().bend("/status/observedGeneration", generation);
        unseen
            .judge()
            .waits("waiting for the cluster to notice the new version");
        assert_eq!(unseen.next(true), Next::Wait);
    }
    // Leftovers of the version before: failed, aborted.
    for phase in ["Degraded", "Paused"] {
        scene()
            .bend("/status/observedGeneration", json!("3"))
            .bend("/status/phase", json!(phase))
            .bend("/status/abort", json!(true))
            .bend("/status/stableRS", json!("old"))
            .judge()
            .waits("waiting for the cluster to notice the new version");
    }
    // The template of a workload that it names.
    let named = |seen: &str| {
        let mut scene = scene().bend("/status/workloadObservedGeneration", json!(seen));
        scene.live["metadata"]["annotations"]["rollout.argoproj.io/workload-generation"] = json!("7");
        scene.live["spec"]["template"] = Value::Null;
        scene
    };
    named("6")
        .judge()
        .waits("waiting for the cluster to notice the new version");
    named("7").judge().completes();
    let mut other = named("7");
    other.sets[0] = set("new", "r-new", "registry.example/shop:mine");
    other
        .judge()
        .fails(FailureReason::Superseded, &["registry.example/shop:mine"]);
}

#[test]
fn progressing_tells_how_far() {
    Scene::midway("Progressing", 1)
        .judge()
        .waits("1 of 2 pods are of the new version, 1 of 5 steps done");
    Scene::midway("Progressing", 1)
        .bend("/status/message", json!("more replicas need to be updated"))
        .judge()
        .waits("1 of 2 pods are of the new version, 1 of 5 steps done (more replicas need to be updated)");
    scene()
        .bend("/status/phase", json!("Progressing"))
        .bend("/status/availableReplicas", json!(1))
        .judge()
        .waits("1 of 2 pods ready");
    let mut stuck = Scene::midway("Progressing", 1);
    stuck.pods[0] = of(
        "shop-new-a",
        "r-new",
        &self::stuck("ContainerCannotRun", "no such file"),
    );
    stuck
        .judge()
        .waits("1 of 2 pods are of the new version, 1 of 5 steps done; pod shop-new-a: ContainerCannotRun: no such file");
    scene()
        .bend("/status/phase", json!(""))
        .judge()
        .waits("Argo Rollouts reports no phase: versions before 1.0 are not supported");
    scene()
        .bend("/status/phase", json!("Pondering"))
        .judge()
        .waits("Argo Rollouts says Pondering: 2 of 2 pods ready");
}

#[test]
fn what_does_not_heal_fails_early_in_new_pods_alone() {
    for phase in ["Progressing", "Paused"] {
        let mut broken = Scene::midway(phase, 1);
        broken.pods[0] = of("shop-new-a", "r-new", &crashing(3));
        broken.judge().fails(FailureReason::CrashLoop, &["shop-new-a"]);
        broken.expected.verify.fail_early = false;
        assert!(matches!(broken.judge().0, Verdict::Progressing { .. }));
    }
    let mut old = Scene::midway("Progressing", 1);
    old.pods[0] = of("shop-old-a", "r-old", &crashing(9));
    old.judge()
        .waits("1 of 2 pods are of the new version, 1 of 5 steps done");
}

#[test]
fn degraded_says_why() {
    let degraded = |reason: &str, message: &str| {
        Scene::midway("Degraded", 2)
            .bend("/status/message", json!(format!("{reason}: {message}")))
            .bend(
                "/status/conditions",
                json!([{"type": "Progressing", "status": "False", "reason": reason, "message": message}]),
            )
    };
    degraded(
        "ProgressDeadlineExceeded",
        "ReplicaSet \"new\" has timed out progressing.",
    )
    .judge()
    .fails(
        FailureReason::ProgressDeadlineExceeded,
        &["timed out progressing"],
    );
    degraded("RolloutAborted", "Rollout aborted update to revision 2")
        .judge()
        .fails(
            FailureReason::Aborted,
            &["the version before serves everything", "revision 2"],
        );
    degraded("AnalysisRunFailed", "Metric \"errors\" assessed Failed")
        .judge()
        .fails(FailureReason::Degraded, &["assessed Failed"]);
    Scene::midway("Degraded", 0)
        .bend("/status/message", json!("InvalidSpec: canaryService not found"))
        .bend(
            "/status/conditions",
            json!([{"type": "InvalidSpec", "status": "True", "message": "canaryService not found"}]),
        )
        .judge()
        .fails(FailureReason::Degraded, &["refuses its spec", "canaryService"]);
    Scene::midway("Degraded", 0)
        .judge()
        .fails(FailureReason::Degraded, &["no reason given"]);
}

#[test]
fn an_abort_is_an_end() {
    // Set, but the phase has not been recomputed yet.
    let aborted = Scene::midway("Progressing", 2)
        .bend("/status/abort", json!(true))
        .bend("/status/message", json!("RolloutAborted: metric errors failed"));
    aborted
        .judge()
        .fails(FailureReason::Aborted, &["metric errors failed"]);
    assert_eq!(aborted.next(true), Next::Wait);
    // Back at the stable version there is nothing aborted.
    scene().bend("/status/abort", json!(true)).judge().completes();
}

#[test]
fn pauses_and_who_ends_them() {
    let ask = |words: &str| Next::Ask(words.to_owned());
    let somebody = "it is paused until it is promoted or aborted";
    let inconclusive =
        "it is paused, since an analysis came to no conclusion (InconclusiveAnalysisRun): promote or abort";
    let awhile = "it is paused for a while, as its strategy says";
    let stopped = "it was paused by hand (spec.paused): promoting resumes it";
    for (scene, words, by_hand, by_itself) in [
        (
            Scene::paused("CanaryPauseStep", 1),
            somebody,
            ask(somebody),
            Next::Promote,
        ),
        (
            Scene::paused("CanaryPauseStep", 3),
            awhile,
            Next::Wait,
            Next::Wait,
        ),
        (
            Scene::paused("InconclusiveAnalysisRun", 4),
            inconclusive,
            ask(inconclusive),
            ask(inconclusive),
        ),
        (
            Scene::midway("Paused", 1).bend("/spec/paused", json!(true)),
            stopped,
            ask(stopped),
            ask(stopped),
        ),
        (
            Scene::paused("BlueGreenPause", 0).bend(
                "/spec/strategy",
                json!({"blueGreen": {"autoPromotionEnabled": false}}),
            ),
            somebody,
            ask(somebody),
            Next::Promote,
        ),
        (
            Scene::paused("BlueGreenPause", 0).bend(
                "/spec/strategy",
                json!({"blueGreen": {"autoPromotionEnabled": false, "autoPromotionSeconds": 30}}),
            ),
            awhile,
            Next::Wait,
            Next::Wait,
        ),
    ] {
        match scene.judge().0 {
            Verdict::Progressing { message, .. } => assert!(message.ends_with(words), "{message:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(scene.next(false), by_hand);
        assert_eq!(scene.next(true), by_itself);
    }
    // Promoted, and the controller has yet to see it.
    let unpausing = Scene::paused("CanaryPauseStep", 1).bend("/status/pauseConditions", Value::Null);
    unpausing
        .judge()
        .waits("promoted; waiting for Argo Rollouts to go on");
    assert_eq!(unpausing.next(true), Next::Wait);
    // Another's rollout is not ours to promote.
    let other =
        Scene::paused("CanaryPauseStep", 1).bend("/spec/template", template("registry.example/shop:mine"));
    assert_eq!(other.next(true), Next::Wait);
    other.judge().fails(FailureReason::Superseded, &[]);
}
