//! What holds for every state of every kind, however odd: the additions are never more optimistic than kubectl, a fault
//! never passes just with time, and a verdict comes with the time at which it can change.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read and write files

mod scene;

use std::time::Duration;

use proptest::prelude::*;
use scene::{
    CREATED, UID, crashing, digest, expected, image, metadata, observed, pod, read, running, stuck, template,
    time,
};
use serde_json::{Value, json};
use slipway_model::Timestamp;
use slipway_verdict::{Expected, Observed, Verdict, Verify, Workload, judge, kubectl};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

#[derive(Debug, Clone)]
struct Numbers {
    observed: i64,
    wanted: i32,
    total: i32,
    updated: i32,
    ready: i32,
    partition: Option<i32>,
    on_delete: bool,
    timed_out: bool,
    paused: bool,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let few = || 0..4_i32;
    (
        3..6_i64,
        few(),
        0..6_i32,
        few(),
        few(),
        prop::option::of(0..5_i32),
        0..8,
        0..8,
        any::<bool>(),
    )
        .prop_map(
            |(observed, wanted, total, updated, ready, partition, strategy, condition, paused)| Numbers {
                observed,
                wanted,
                total,
                updated,
                ready,
                partition,
                on_delete: strategy == 0,
                timed_out: condition == 0,
                paused,
            },
        )
}

fn container() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(running("ab")),
        1 => Just(running("cd")),
        1 => (0..6_u32).prop_map(crashing),
        1 => Just(stuck("ContainerCreating", "")),
        1 => Just(stuck("ErrImagePull", "manifest unknown")),
        1 => Just(stuck("ErrImagePull", "i/o timeout")),
        1 => Just(stuck("CreateContainerConfigError", "secret not found")),
        1 => Just(json!({"ready": true, "state": {"running": {}}, "imageID": digest("99")})),
        1 => Just(json!({})),
    ]
}

/// Of the present template or an older one, going or staying, with or without a node.
fn pods() -> impl Strategy<Value = Vec<(bool, bool, bool, Value)>> {
    let going = prop::bool::weighted(0.1);
    prop::collection::vec(
        (
            prop::bool::weighted(0.7),
            going,
            prop::bool::weighted(0.9),
            container(),
        ),
        0..5,
    )
}

fn scene(kind: Kind, n: &Numbers, pods: &[(bool, bool, bool, Value)]) -> Observed {
    let mut metadata = metadata(4);
    metadata["annotations"]["deprecated.daemonset.template.generation"] = json!("2");
    let strategy = if n.on_delete { "OnDelete" } else { "RollingUpdate" };
    let template = template(&image("ab"));
    let conditions =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    let conditions = if n.timed_out { conditions } else { json!([]) };
    let (workload, sets) = match kind {
        Kind::Deployment => {
            let live = json!({
                "metadata": metadata,
                "spec": {"replicas": n.wanted, "selector": {}, "template": template, "paused": n.paused},
                "status": {"observedGeneration": n.observed, "replicas": n.total, "updatedReplicas": n.updated,
                    "availableReplicas": n.ready, "conditions": conditions},
            });
            let set = |name: &str, template: &Value| {
                json!({
                    "metadata": {"name": name, "uid": name, "creationTimestamp": CREATED,
                        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": UID, "controller": true}]},
                    "spec": {"selector": {}, "template": template},
                })
            };
            let sets = vec![set("new", &template), set("old", &scene::template(&image("cd")))];
            (Workload::Deployment(read(&live)), sets)
        }
        Kind::StatefulSet => {
            let live = json!({
                "metadata": metadata,
                "spec": {"replicas": n.wanted, "serviceName": "shop", "selector": {}, "template": template,
                    "updateStrategy": {"type": strategy, "rollingUpdate": {"partition": n.partition}}},
                "status": {"observedGeneration": n.observed, "replicas": n.total, "updatedReplicas": n.updated,
                    "readyReplicas": n.ready, "currentRevision": "old", "updateRevision": "new"},
            });
            (Workload::StatefulSet(read(&live)), Vec::new())
        }
        Kind::DaemonSet => {
            let live = json!({
                "metadata": metadata,
                "spec": {"selector": {}, "template": template, "updateStrategy": {"type": strategy}},
                "status": {"observedGeneration": n.observed, "desiredNumberScheduled": n.wanted,
                    "currentNumberScheduled": n.total, "updatedNumberScheduled": n.updated, "numberAvailable": n.ready,
                    "numberReady": n.ready, "numberMisscheduled": 0},
            });
            (Workload::DaemonSet(read(&live)), Vec::new())
        }
    };
    let pods: Vec<Value> = pods
        .iter()
        .enumerate()
        .map(|(number, (new, going, node, container))| {
            let revision = if *new { "new" } else { "old" };
            let owner = match kind {
                Kind::Deployment => ("ReplicaSet", revision),
                Kind::StatefulSet => ("StatefulSet", UID),
                Kind::DaemonSet => ("DaemonSet", UID),
            };
            let labels = json!({
                "controller-revision-hash": revision, "pod-template-generation": if *new { "2" } else { "1" },
            });
            let mut pod = pod(&format!("shop-{number}"), owner, &labels, container);
            if !*new {
                pod["spec"]["containers"][0]["image"] = json!(image("cd"));
            }
            if *going {
                pod["metadata"]["deletionTimestamp"] = json!(CREATED);
            }
            if !*node {
                pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "lastTransitionTime": "2026-11-01T12:00:20Z"}]});
            }
            pod
        })
        .collect();
    observed(Some(workload), &sets, &pods)
}

fn kubectls(observed: &Observed) -> Result<kubectl::Status, kubectl::Error> {
    match observed.workload.as_ref().unwrap() {
        Workload::Deployment(live) => kubectl::deployment(live, 0),
        Workload::StatefulSet(live) => kubectl::stateful_set(live),
        Workload::DaemonSet(live) => kubectl::daemon_set(live),
        other => panic!("{other:?}"),
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Deployment),
        Just(Kind::StatefulSet),
        Just(Kind::DaemonSet)
    ]
}

fn verify() -> impl Strategy<Value = Verify> {
    (
        any::<bool>(),
        0..5_u32,
        1..600_u64,
        any::<bool>(),
        prop::option::of(1..600_u64),
    )
        .prop_map(
            |(fail_early, crash_loop_restarts, after, digest, deadline)| Verify {
                fail_early,
                crash_loop_restarts,
                unschedulable_after: Duration::from_secs(after),
                digest,
                progress_deadline: deadline.map(Duration::from_secs),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_additions_the_verdict_is_kubectls(kind in kind(), n in numbers(), pods in pods()) {
        let observed = scene(kind, &n, &pods);
        let expected = Expected { verify: Verify::AS_KUBECTL, ..expected() };
        let ours = judge(&expected, &observed, time("2026-12-01T12:00:00Z"));
        match kubectls(&observed) {
            Ok(status) if status.done => prop_assert_eq!(ours, Verdict::Complete),
            Ok(_) => {
                let waits = matches!(&ours, Verdict::Progressing { message, look_again: None } if !message.is_empty());
                prop_assert!(waits, "{ours:?}");
            }
            Err(_) => prop_assert!(matches!(ours, Verdict::Failed(_)), "{:?}", ours),
        }
    }

    #[test]
    fn with_additions_it_is_never_more_hopeful(
        kind in kind(), n in numbers(), pods in pods(), verify in verify(), seconds in 0..900_u64,
    ) {
        let observed = scene(kind, &n, &pods);
        let expected = Expected { verify, ..expected() };
        let ours = judge(&expected, &observed, time(CREATED) + Duration::from_secs(seconds));
        match kubectls(&observed) {
            // kubectl does not judge this strategy. Ours is good only with proof of all that is wanted.
            Err(kubectl::Error::Strategy) => prop_assert!(verify.digest || matches!(ours, Verdict::Failed(_))),
            Err(_) => prop_assert!(matches!(ours, Verdict::Failed(_)), "{:?}", ours),
            Ok(status) => prop_assert!(status.done || ours != Verdict::Complete, "{}", status.line),
        }
        if ours == Verdict::Complete && verify.digest {
            let proven = pods.iter().filter(|(new, going, node, container)| {
                let ours = *container == running("ab") || container["imageID"] == json!(digest("99"));
                *new && !*going && *node && ours
            });
            let wanted = match kind {
                Kind::StatefulSet if !n.on_delete => {
                    let must = n.wanted - n.partition.unwrap_or(0);
                    if must > 0 { must } else { n.wanted }
                }
                _ => n.wanted,
            };
            prop_assert!(wanted > 0);
            prop_assert!(proven.count() >= usize::try_from(wanted).unwrap());
        }
    }

    /// A verdict stands until it says; the same again is the same; what has failed stays so as time goes by.
    #[test]
    fn time_alone_never_heals(
        kind in kind(), n in numbers(), pods in pods(), verify in verify(), seconds in 0..900_u64, more in 0..900_u64,
    ) {
        let observed = scene(kind, &n, &pods);
        let expected = Expected { verify, ..expected() };
        let now = time(CREATED) + Duration::from_secs(seconds);
        let later = now + Duration::from_secs(more);
        let ours = judge(&expected, &observed, now);
        prop_assert_eq!(&judge(&expected, &observed, now), &ours);
        match &ours {
            Verdict::Progressing { look_again, .. } => {
                let again = look_again.unwrap_or(later + Duration::from_secs(1));
                prop_assert!(again > now);
                let just_before = Timestamp::from_micros(again.as_micros() - 1);
                prop_assert_eq!(&judge(&expected, &observed, just_before.min(later)), &ours);
                if let Some(again) = look_again {
                    prop_assert!(matches!(judge(&expected, &observed, *again), Verdict::Failed(_)));
                }
            }
            Verdict::Complete => prop_assert_eq!(judge(&expected, &observed, later), Verdict::Complete),
            Verdict::Failed(_) => {
                prop_assert!(matches!(judge(&expected, &observed, later), Verdict::Failed(_)));
            }
        }
    }
}
