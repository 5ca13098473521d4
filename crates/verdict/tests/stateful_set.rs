//! The verdict on a StatefulSet: each outcome from small objects.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use std::time::Duration;

use scene::{
    Judged, UID, crashing, expected, image, metadata, now, observed, pod, read, running, stuck, template,
    time,
};
use serde_json::{Value, json};
use slipway_verdict::{Expected, FailureReason, Verify, Workload};

const NEW: &str = "shop-new";
const OLD: &str = "shop-old";
const OWNER: (&str, &str) = ("StatefulSet", UID);

/// Three pods, rolled out.
struct Scene {
    live: Value,
    pods: Vec<Value>,
    expected: Expected,
}

fn of(name: &str, revision: &str, container: &Value) -> Value {
    pod(
        name,
        OWNER,
        &json!({"controller-revision-hash": revision}),
        container,
    )
}

fn scene() -> Scene {
    Scene {
        live: json!({
            "metadata": metadata(4),
            "spec": {
                "replicas": 3, "serviceName": "shop", "selector": {}, "template": template(&image("ab")),
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            },
            "status": {
                "observedGeneration": 4, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3,
                "currentRevision": NEW, "updateRevision": NEW,
            },
        }),
        pods: (0..3)
            .map(|n| of(&format!("shop-{n}"), NEW, &running("ab")))
            .collect(),
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

    fn spec(mut self, key: &str, value: Value) -> Self {
        self.live["spec"][key] = value;
        self
    }

    fn with(mut self, index: usize, pod: Value) -> Self {
        self.pods[index] = pod;
        self
    }

    /// In the middle: the last pod is of the new version and not ready.
    fn midway(container: &Value) -> Self {
        scene()
            .status(json!({"readyReplicas": 2, "updatedReplicas": 1, "currentRevision": OLD}))
            .with(0, of("shop-0", OLD, &running("cd")))
            .with(1, of("shop-1", OLD, &running("cd")))
            .with(2, of("shop-2", NEW, container))
    }

    fn judge_at(&self, now: slipway_model::Timestamp) -> Judged {
        let live = Some(Workload::StatefulSet(read(&self.live)));
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
        .with(1, of("shop-1", NEW, &running("cd")))
        .judge()
        .fails(FailureReason::WrongImage, &["pod shop-1 runs", "instead of"]);
    scene()
        .with(1, of("shop-1", OLD, &running("cd")))
        .judge()
        .waits("2 of 3 new pods seen to run abababababab");
    let mut kubectl = scene().with(1, of("shop-1", NEW, &running("cd")));
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
        .status(json!({"readyReplicas": 2}))
        .judge()
        .waits("2 of 3 pods ready");
    scene()
        .status(json!({"updatedReplicas": 1, "currentRevision": OLD}))
        .judge()
        .waits("1 of 3 pods are of the new version");
    Scene::midway(&stuck("ImagePullBackOff", "Back-off pulling image"))
        .judge()
        .waits("1 of 3 pods are of the new version, 2 of 3 pods ready; pod shop-2: ImagePullBackOff: Back-off pulling image");
    // The version before holds up the rollout: said, and not held against the new one.
    Scene::midway(&running("ab"))
        .with(1, of("shop-1", OLD, &crashing(9)))
        .judge()
        .waits(
            "1 of 3 pods are of the new version, 2 of 3 pods ready; held up by the version before: pod shop-1: \
             CrashLoopBackOff, exit code 137, 9 restarts",
        );
}

#[test]
fn a_partition_says_how_many_pods_must_run_it() {
    let two = |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    let partitioned = |partition| {
        scene()
            .spec("updateStrategy", two(partition))
            .status(json!({"updatedReplicas": 1, "currentRevision": OLD}))
            .with(0, of("shop-0", OLD, &running("cd")))
            .with(1, of("shop-1", OLD, &running("cd")))
    };
    partitioned(2).judge().completes();
    partitioned(1).judge().waits("1 of 2 pods are of the new version");
    partitioned(2)
        .with(2, of("shop-2", NEW, &running("cd")))
        .judge()
        .fails(FailureReason::WrongImage, &["shop-2"]);
    partitioned(3)
        .status(json!({"updatedReplicas": 0}))
        .judge()
        .fails(FailureReason::NotRolledOut, &["partition 3", "lower it"]);
    // All of them run it already: there is nothing to hold back.
    scene().spec("updateStrategy", two(3)).judge().completes();
}

#[test]
fn on_delete_rolls_nothing_out() {
    let on_delete = || scene().spec("updateStrategy", json!({"type": "OnDelete"}));
    on_delete()
        .status(json!({"updatedReplicas": 0, "currentRevision": OLD}))
        .with(0, of("shop-0", OLD, &running("cd")))
        .judge()
        .fails(
            FailureReason::NotRolledOut,
            &["OnDelete", "1 pod of the version before", "RollingUpdate"],
        );
    // At the first creation, and once the old ones were deleted by hand, it runs all the same.
    on_delete().judge().completes();
    on_delete()
        .status(json!({"readyReplicas": 1}))
        .judge()
        .waits("1 of 3 pods ready");
    on_delete()
        .status(json!({"observedGeneration": 3}))
        .judge()
        .waits("waiting for the cluster to notice the new version");
    let mut kubectl = on_delete();
    kubectl.expected.verify = Verify::AS_KUBECTL;
    kubectl.judge().fails(FailureReason::NotRolledOut, &["OnDelete"]);
}

#[test]
fn what_does_not_heal_fails_early_in_new_pods_alone() {
    for (container, reason) in [
        (
            stuck("ErrImagePull", "NotFound: x: not found"),
            FailureReason::ImageNotFound,
        ),
        (
            stuck("ErrImageNeverPull", "not present"),
            FailureReason::ImageNotFound,
        ),
        (
            stuck("InvalidImageName", "couldn't parse"),
            FailureReason::InvalidImageName,
        ),
        (crashing(3), FailureReason::CrashLoop),
    ] {
        Scene::midway(&container).judge().fails(reason, &["pod shop-2"]);
        let mut late = Scene::midway(&container);
        late.expected.verify.fail_early = false;
        assert!(matches!(
            late.judge().0,
            slipway_verdict::Verdict::Progressing { .. }
        ));
    }
    let old =
        Scene::midway(&running("ab")).with(0, of("shop-0", OLD, &stuck("InvalidImageName", "of before")));
    assert!(matches!(
        old.judge().0,
        slipway_verdict::Verdict::Progressing { .. }
    ));
}

#[test]
fn a_container_that_cannot_be_created_has_a_while_to_heal() {
    let mut scene = Scene::midway(&stuck(
        "CreateContainerConfigError",
        "configmap \"settings\" not found",
    ));
    scene.pods[2]["status"]["startTime"] = json!("2026-11-01T12:00:20Z");
    let again = scene
        .judge()
        .waits(
            "1 of 3 pods are of the new version, 2 of 3 pods ready; pod shop-2: CreateContainerConfigError: configmap \
             \"settings\" not found",
        )
        .unwrap();
    assert_eq!(again, time("2026-11-01T12:05:20Z"));
    scene.judge_at(again).fails(
        FailureReason::ContainerNotCreated,
        &["configmap \"settings\" not found"],
    );
}

#[test]
fn our_deadline_begins_anew_with_each_pod() {
    let mut scene = Scene::midway(&stuck("ContainerCreating", ""));
    scene.expected.verify.progress_deadline = Some(Duration::from_secs(60));
    let words = "1 of 3 pods are of the new version, 2 of 3 pods ready";
    scene.pods[2]["metadata"]["creationTimestamp"] = json!("2026-11-01T12:00:45Z");
    let at = time("2026-11-01T12:01:45Z");
    assert_eq!(scene.judge().waits(words), Some(at));
    scene
        .judge_at(at)
        .fails(FailureReason::ProgressDeadlineExceeded, &["within 60 s", words]);
    // Written later than anything that happened.
    scene.expected.since = time("2026-11-01T12:01:30Z");
    assert_eq!(
        scene.judge_at(at).waits(words),
        Some(time("2026-11-01T12:02:30Z"))
    );
    // Without one, only the deployment's own time counts.
    scene.expected.verify.progress_deadline = None;
    assert_eq!(scene.judge_at(time("2026-11-02T12:00:00Z")).waits(words), None);
}

#[test]
fn pods_that_are_never_created_are_told() {
    let mut scene = scene().status(json!({"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}));
    scene.pods.truncate(2);
    scene
        .judge()
        .waits("2 of 3 pods are of the new version, 2 of 3 pods ready; 2 of 3 pods exist");
    scene.expected.verify.progress_deadline = Some(Duration::from_secs(30));
    scene.judge().fails(
        FailureReason::ProgressDeadlineExceeded,
        &["2 of 3 pods exist", "quota or admission may refuse it", "events"],
    );
}

#[test]
fn what_is_no_longer_ours_has_its_own_outcome() {
    scene()
        .spec("replicas", json!(0))
        .status(json!({"replicas": 0, "readyReplicas": 0, "updatedReplicas": 0}))
        .judge()
        .fails(FailureReason::ScaledToZero, &["scale it up"]);
    scene()
        .spec("template", template("registry.example/shop:mine"))
        .judge()
        .fails(FailureReason::Superseded, &["registry.example/shop:mine"]);
    let mut other = scene();
    other.live["metadata"]["annotations"]["deploy.slipway.dev/epoch"] = json!("8");
    other
        .judge()
        .fails(FailureReason::SupersededEpoch, &["epoch 8 after 7"]);
    let mut other = scene();
    other.live["metadata"]["uid"] = json!("w-2");
    other.live["metadata"]["creationTimestamp"] = json!("2026-11-01T12:00:30Z");
    other.judge().fails(FailureReason::Replaced, &["StatefulSet"]);
    let mut going = scene();
    going.live["metadata"]["deletionTimestamp"] = json!("2026-11-01T12:00:30Z");
    going
        .judge()
        .fails(FailureReason::Deleted, &["StatefulSet is being deleted"]);
    let mut lagging = scene();
    lagging.live["metadata"]["generation"] = json!(3);
    lagging
        .judge()
        .waits("waiting to see the new version in the cluster");
    Judged::at(&expected(), &observed(None, &[], &[]), now()).fails(FailureReason::Deleted, &[]);
}

/// Back to the version before, whose pods are 0 and 1; 2 is of the one that failed.
fn rolling_back(container: &Value) -> Scene {
    scene()
        .status(json!({"readyReplicas": 2, "updatedReplicas": 2, "currentRevision": NEW}))
        .with(2, of("shop-2", OLD, container))
}

impl Scene {
    /// The pod that is stuck, and since when.
    fn stuck(&self) -> Option<(String, slipway_model::Timestamp)> {
        let live = read(&self.live);
        let observed = observed(
            Some(Workload::StatefulSet(std::sync::Arc::clone(&live))),
            &[],
            &self.pods,
        );
        let stuck = slipway_verdict::stateful_set::stuck(&self.expected, &live, &observed)?;
        Some((stuck.pod.metadata.name.clone()?, stuck.since))
    }
}

/// kubernetes#67250: the controller waits for it, also when the template that broke it has been fixed.
#[test]
fn a_pod_of_another_version_that_the_controller_waits_for_is_stuck() {
    let at_once = Some(("shop-2".to_owned(), time("2026-11-01T12:00:00Z")));
    let later = Some(("shop-2".to_owned(), time("2026-11-01T12:00:30Z")));
    let unready = json!({"state": {"running": {}}});
    assert_eq!(rolling_back(&crashing(5)).stuck(), at_once);
    assert_eq!(rolling_back(&stuck("ImagePullBackOff", "")).stuck(), at_once);
    assert_eq!(rolling_back(&unready).stuck(), later);
    for nothing in [
        rolling_back(&running("ab")),
        // Of the version that rolls out: that one's own fault.
        Scene::midway(&crashing(5)),
        rolling_back(&crashing(5)).spec("podManagementPolicy", json!("Parallel")),
        rolling_back(&crashing(5)).spec("updateStrategy", json!({"type": "OnDelete"})),
        rolling_back(&crashing(5)).spec(
            "updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}),
        ),
        // The controller has not seen the template yet, so that its revision is the one before.
        rolling_back(&crashing(5)).status(json!({"observedGeneration": 3})),
        // A lower one is waited for first.
        rolling_back(&crashing(5)).with(0, of("shop-0", NEW, &unready)),
    ] {
        assert_eq!(nothing.stuck(), None, "{:#}", nothing.live);
    }
    let mut theirs = rolling_back(&crashing(5));
    theirs.expected.epoch = 6;
    assert_eq!(theirs.stuck(), None, "a later turn wrote it");
}
