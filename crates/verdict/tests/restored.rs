//! A version from before that is named by tag: what ran is recorded, and must run again.
#![allow(clippy::unwrap_used)]

mod scene;

use scene::{Judged, UID, crashing, digest, expected, metadata, now, observed, pod, read, running, template};
use serde_json::{Value, json};
use slipway_verdict::{
    Expected, FailureReason, Observed, Restored, Workload,
    before::{RunningContainer, containers},
};

const TAGGED: &str = "registry.example/shop:v1";

fn set(name: &str, image: &str) -> Value {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(name);
    json!({
        "metadata": {
            "name": name, "uid": name, "creationTimestamp": scene::CREATED,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": UID, "controller": true}],
        },
        "spec": {"selector": {}, "template": template},
    })
}

/// A Deployment of three replicas whose pods run these digests.
fn deployment(image: &str, runs: &[&str]) -> Observed {
    let live = json!({
        "metadata": metadata(4),
        "spec": {"replicas": 3, "selector": {}, "template": template(image)},
        "status": {"observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3},
    });
    let pods: Vec<Value> = runs
        .iter()
        .enumerate()
        .map(|(n, byte)| {
            pod(
                &format!("shop-{n}"),
                ("ReplicaSet", "now"),
                &json!({}),
                &running(byte),
            )
        })
        .collect();
    observed(
        Some(Workload::Deployment(read(&live))),
        &[set("now", image)],
        &pods,
    )
}

fn restored(bytes: &[&str]) -> Expected {
    Expected {
        restored: Some(Restored {
            image: TAGGED.parse().unwrap(),
            containers: vec!["app".to_owned()],
            digests: bytes.iter().map(|byte| digest(byte).parse().unwrap()).collect(),
        }),
        ..expected()
    }
}

#[test]
fn what_pods_run_is_recorded_and_not_what_a_tag_means() {
    let recorded = |observed: &Observed| containers(observed.workload.as_ref().unwrap(), observed);
    let container = |bytes: &[&str]| {
        vec![RunningContainer {
            name: "app".to_owned(),
            image: TAGGED.to_owned(),
            digests: bytes.iter().map(|byte| digest(byte).parse().unwrap()).collect(),
        }]
    };
    assert_eq!(
        recorded(&deployment(TAGGED, &["ab", "ab", "ab"])),
        container(&["ab"])
    );
    // While a tag moves: that of the most pods first.
    assert_eq!(
        recorded(&deployment(TAGGED, &["cd", "ab", "ab"])),
        container(&["ab", "cd"])
    );
    assert_eq!(recorded(&deployment(TAGGED, &[])), container(&[]));
    // The current template does not run, and the one before serves.
    let mut stuck = deployment(TAGGED, &[]);
    let broken = pod("shop-0", ("ReplicaSet", "now"), &json!({}), &crashing(5));
    let serving = pod("shop-1", ("ReplicaSet", "old"), &json!({}), &running("cd"));
    stuck.pods = [broken, serving].iter().map(read).collect();
    assert_eq!(recorded(&stuck), container(&["cd"]));
}

#[test]
fn it_is_complete_when_its_pods_run_what_ran() {
    let judge = |expected: &Expected, runs: &[&str]| Judged::at(expected, &deployment(TAGGED, runs), now());
    judge(&restored(&["ab"]), &["ab", "ab", "ab"]).completes();
    judge(&restored(&["ab", "cd"]), &["ab", "cd", "ab"]).completes();
    judge(&restored(&["ab"]), &["ab", "ab"]).waits("2 of 3 new pods seen to run abababababab");
    judge(&restored(&["ab"]), &["ab", "cd", "ab"])
        .fails(FailureReason::WrongImage, &["instead of", &digest("ab")]);
    // No pod told: the rollout alone counts.
    judge(&restored(&[]), &["cd", "cd", "cd"]).completes();
    // Without the recorded containers it is another template.
    let mut other = restored(&["ab"]);
    other.restored.as_mut().unwrap().containers = vec!["web".to_owned()];
    judge(&other, &["ab", "ab", "ab"]).fails(FailureReason::Superseded, &["someone else's update"]);
}
