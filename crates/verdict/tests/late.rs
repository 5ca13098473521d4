//! Canaries that fail after their release has ended: which of them are ours.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use scene::{UID, expected, image, metadata, now, observed, read, template};
use serde_json::{Value, json};
use slipway_verdict::{
    FailureReason, Late, Managed, ManagedWorkload, Observed, Workload, WorkloadKind, late,
};

const LANE: &str = "main/default/Rollout/shop";

fn set(name: &str, image: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": format!("r-{name}"), "labels": {"rollouts-pod-template-hash": name},
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "shop", "uid": UID, "controller": true}],
        },
        "spec": {"selector": {}, "template": template(image)},
    })
}

/// A canary of `tried` that was aborted, beside a stable version that runs `serves`.
fn aborted(tried: &str, serves: &str) -> Value {
    json!({
        "live": {
            "metadata": metadata(4),
            "spec": {
                "replicas": 2, "template": template(&image(tried)),
                "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}},
            },
            "status": {
                "observedGeneration": "4", "phase": "Degraded", "abort": true, "message": "RolloutAborted: by hand",
                "currentPodHash": "new", "stableRS": "old", "updatedReplicas": 0, "availableReplicas": 2,
            },
        },
        "sets": [set("new", &image(tried)), set("old", &image(serves))],
    })
}

fn of_rollout(scene: &Value) -> Observed {
    let sets: Vec<Value> = scene["sets"].as_array().unwrap().clone();
    observed(Some(Workload::Rollout(read(&scene["live"]))), &sets, &[])
}

fn bent(mut scene: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    scene.pointer_mut(parent).unwrap()[key] = value;
    scene
}

fn judged(observed: &Observed) -> Late {
    late(&expected(), LANE, observed, now())
}

#[track_caller]
fn failed(late: &Late, reason: FailureReason, words: &str) {
    match late {
        Late::Failed(failure) if failure.reason == reason => {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
        other => panic!("{reason:?} expected: {other:?}"),
    }
}

#[test]
fn an_aborted_canary_of_ours_has_failed() {
    let scene = aborted("ab", "cd");
    failed(
        &judged(&of_rollout(&scene)),
        FailureReason::Aborted,
        "the version before serves",
    );
    let degraded = bent(scene.clone(), "/live/status/abort", json!(false));
    failed(
        &judged(&of_rollout(&degraded)),
        FailureReason::Degraded,
        "RolloutAborted: by hand",
    );
    // What the catalog says of the digest has nothing to do with it.
    let mut careless = expected();
    careless.verify.digest = false;
    let seen = of_rollout(&scene);
    failed(
        &late(&careless, LANE, &seen, now()),
        FailureReason::Aborted,
        "aborted",
    );
}

#[test]
fn what_is_not_ours_or_has_not_failed_stands() {
    let scene = aborted("ab", "cd");
    let without = |name: &str| {
        let sets = scene["sets"].as_array().unwrap().iter();
        let left: Vec<&Value> = sets.filter(|set| set["metadata"]["name"] != name).collect();
        bent(scene.clone(), "/sets", json!(left))
    };
    for (case, scene) in [
        ("another image", aborted("ee", "cd")),
        ("our image serves: only a setting was tried", aborted("ab", "ab")),
        ("it is not known what serves", without("old")),
        (
            "promoted",
            bent(scene.clone(), "/live/status/stableRS", json!("new")),
        ),
        (
            "not noticed yet",
            bent(scene.clone(), "/live/status/observedGeneration", json!("3")),
        ),
        (
            "it was tried again",
            bent(
                bent(scene.clone(), "/live/status/abort", json!(false)),
                "/live/status/phase",
                json!("Progressing"),
            ),
        ),
    ] {
        assert_eq!(judged(&of_rollout(&scene)), Late::Stands, "{case}");
    }
    assert_eq!(judged(&Observed::default()), Late::Stands, "not seen");
}

/// During a release a crash loop ends it early; afterwards that is up to the controller.
#[test]
fn faults_of_pods_do_not_count() {
    let scene = bent(
        bent(aborted("ab", "cd"), "/live/status/abort", json!(false)),
        "/live/status/phase",
        json!("Progressing"),
    );
    let mut seen = of_rollout(&scene);
    let pod = scene::pod(
        "shop-new-a",
        ("ReplicaSet", "r-new"),
        &json!({}),
        &scene::crashing(9),
    );
    seen.pods.push(read(&pod));
    let Some(workload) = &seen.workload else {
        unreachable!()
    };
    assert_eq!(
        slipway_verdict::current(workload, &seen).pods.len(),
        1,
        "it is the canary's"
    );
    assert_eq!(judged(&seen), Late::Stands);
}

#[test]
fn a_later_turn_and_another_object_end_it() {
    let scene = aborted("ab", "cd");
    let annotations = json!({"deploy.slipway.dev/epoch": "9", "deploy.slipway.dev/deployment": "dep-2"});
    let later = bent(scene.clone(), "/live/metadata/annotations", annotations);
    let other = bent(
        bent(scene, "/live/metadata/uid", json!("w-2")),
        "/live/metadata/creationTimestamp",
        json!("2026-11-01T13:00:00Z"),
    );
    let gone = Observed {
        gone: true,
        ..Observed::default()
    };
    for (seen, reason) in [
        (of_rollout(&later), FailureReason::SupersededEpoch),
        (of_rollout(&other), FailureReason::Replaced),
        (gone, FailureReason::Deleted),
    ] {
        match judged(&seen) {
            Late::Superseded(failure) => assert_eq!(failure.reason, reason),
            other => panic!("{reason:?} expected: {other:?}"),
        }
    }
}

fn deployment(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "generation": 2},
        "spec": {"replicas": 2, "selector": {}, "template": template(image)},
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
    })
}

/// Flagger's, in a phase since a time.
fn of_canary(phase: &str, since: &str, tried: Option<&str>, serves: &str) -> Observed {
    let live = json!({
        "metadata": metadata(4),
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}},
        "status": {
            "phase": phase, "lastAppliedSpec": "tried", "lastPromotedSpec": "serves",
            "conditions": [{"type": "Promoted", "status": "False", "reason": phase,
                "lastUpdateTime": since, "lastTransitionTime": since, "message": "Canary analysis failed."}],
        },
    });
    Observed {
        tried: tried.map(|tried| read(&deployment("shop", &image(tried)))),
        primary: Some(read(&deployment("shop-primary", &image(serves)))),
        ..observed(Some(Workload::Canary(read(&live))), &[], &[])
    }
}

#[test]
fn flaggers_word_counts_for_the_image_that_was_tried() {
    const BEFORE: &str = "2026-11-01T11:00:00Z";
    const AFTER: &str = "2026-11-01T14:00:00Z";
    let ours = of_canary("Failed", AFTER, Some("ab"), "cd");
    failed(&judged(&ours), FailureReason::Aborted, "Flagger rolled back");
    for (case, seen) in [
        ("of the run before", of_canary("Failed", BEFORE, Some("ab"), "cd")),
        ("another image", of_canary("Failed", AFTER, Some("ee"), "cd")),
        ("a setting", of_canary("Failed", AFTER, Some("ab"), "ab")),
        ("not known what was tried", of_canary("Failed", AFTER, None, "cd")),
        ("it goes on", of_canary("Progressing", AFTER, Some("ab"), "cd")),
        ("promoted", of_canary("Succeeded", AFTER, Some("ab"), "ab")),
    ] {
        assert_eq!(judged(&seen), Late::Stands, "{case}");
    }
}

fn managed(kind: WorkloadKind, observed: Observed) -> ManagedWorkload {
    ManagedWorkload {
        kind,
        namespace: "shop".to_owned(),
        name: "shop".to_owned(),
        observed,
    }
}

fn of_application(annotations: &Value, managed: Managed) -> Observed {
    let live = json!({
        "metadata": {"name": "shop", "namespace": "argocd", "uid": UID, "generation": 9, "annotations": annotations},
        "spec": {"project": "default", "destination": {"namespace": "shop"}},
        "status": {},
    });
    Observed {
        managed,
        ..observed(Some(Workload::Application(read(&live))), &[], &[])
    }
}

#[test]
fn an_application_is_as_its_canaries_are() {
    let none = json!({});
    let holds = |all: Vec<ManagedWorkload>| of_application(&none, Managed::Seen(all));
    let rollout = |scene: &Value| managed(WorkloadKind::Rollout, of_rollout(scene));
    let plain = || {
        let live = deployment("shop", &image("ab"));
        let workload = Some(Workload::Deployment(read(&live)));
        managed(WorkloadKind::Deployment, observed(workload, &[], &[]))
    };
    let ours = holds(vec![plain(), rollout(&aborted("ab", "cd"))]);
    failed(&judged(&ours), FailureReason::Aborted, "Rollout shop/shop: ");
    let theirs = holds(vec![plain(), rollout(&aborted("ee", "cd"))]);
    assert_eq!(judged(&theirs), Late::Stands);
    assert_eq!(judged(&holds(vec![plain()])), Late::NoCanary);
    let unreadable = Managed::Unreadable("forbidden".to_owned());
    for unknown in [Managed::Seen(Vec::new()), Managed::Unknown, unreadable] {
        assert_eq!(judged(&of_application(&none, unknown)), Late::Stands);
    }
    // Epochs of the same lane only.
    let written = |lane: &str| {
        let annotations = json!({
            "deploy.slipway.dev/epoch": "9", "deploy.slipway.dev/target": lane, "deploy.slipway.dev/deployment": "dep-2",
        });
        let canary = rollout(&aborted("ab", "cd"));
        judged(&of_application(&annotations, Managed::Seen(vec![canary])))
    };
    assert!(matches!(written(LANE), Late::Superseded(_)));
    assert!(matches!(
        written("main/argocd/Application/other"),
        Late::Failed(_)
    ));
}

#[test]
fn kinds_without_steps_have_no_canary() {
    let live = deployment("shop", &image("ab"));
    let seen = observed(Some(Workload::Deployment(read(&live))), &[], &[]);
    assert_eq!(judged(&seen), Late::NoCanary);
}
