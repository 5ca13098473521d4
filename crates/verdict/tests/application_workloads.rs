//! An Application judged by the workloads that it manages: each rule from small objects.
#![allow(clippy::unwrap_used)]

mod scene;

use std::sync::Arc;

use pretty_assertions::assert_eq;
use scene::{crashing, digest, image, pod, read, running, template, time};
use serde_json::{Value, json};
use slipway_model::Timestamp;
use slipway_verdict::{
    Applied, Expected, Managed, ManagedWorkload, Next as Step, Observed, Verdict, Verify, Workload,
    WorkloadKind,
    application::{
        self, Application, DestinationCluster, Next, OPERATION, Situation, Sync, WhenBlocked, warnings,
        workloads,
    },
    judge,
};

const OURS: &str = "1111111111111111111111111111111111111111";
const ID: &str = "dep-1/shop";

/// An application that was synced by us from 12:00:01 to 12:00:05 and compared at 12:00:06, on 2026-11-01.
struct Scene {
    app: Value,
    restores: bool,
    require_synced: bool,
    promotes: bool,
    managed: Managed,
    now: Timestamp,
}

impl Scene {
    fn of(managed: Vec<ManagedWorkload>) -> Self {
        let operation = json!({
            "info": [{"name": OPERATION, "value": ID}],
            "initiatedBy": {"username": "slipway"}, "sync": {"revision": OURS},
        });
        Self {
            app: json!({
                "metadata": {"name": "shop", "namespace": "argocd", "uid": "a-1", "generation": 9},
                "spec": {"destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"}},
                "status": {
                    "operationState": {
                        "operation": operation, "phase": "Succeeded",
                        "startedAt": "2026-11-01T12:00:01Z", "finishedAt": "2026-11-01T12:00:05Z",
                        "syncResult": {"revision": OURS, "resources": []},
                    },
                    "sync": {"status": "Synced", "revision": OURS},
                    "health": {"status": "Healthy"}, "reconciledAt": "2026-11-01T12:00:06Z",
                    "resources": [{"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "shop",
                        "status": "Synced"}],
                },
            }),
            restores: false,
            require_synced: false,
            promotes: false,
            managed: Managed::Seen(managed),
            now: time("2026-11-01T12:01:00Z"),
        }
    }

    fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.app.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    fn health(self, status: &str) -> Self {
        self.set("/status/health/status", json!(status))
    }

    fn with(mut self, bend: impl FnOnce(&mut Self)) -> Self {
        bend(&mut self);
        self
    }

    fn expected(&self) -> Expected {
        Expected {
            image: image("ab").parse().unwrap(),
            epoch: 7,
            applied: Applied {
                uid: "a-1".to_owned(),
                generation: 4,
                ..Applied::default()
            },
            verify: Verify::default(),
            since: time("2026-11-01T12:00:00Z"),
            sync: Some(Sync {
                operation: ID.to_owned(),
                revision: OURS.parse().unwrap(),
                lane: "prod/argocd/Application/shop".to_owned(),
                descendants: Vec::new(),
                when_busy: WhenBlocked::Wait,
                when_closed: WhenBlocked::Wait,
                restores: self.restores,
                require_synced: self.require_synced,
            }),
            promotes: self.promotes,
            restored: None,
            moving_tag: false,
        }
    }

    fn live(&self) -> Application {
        serde_json::from_value(self.app.clone()).unwrap()
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            managed: Some(&self.managed),
            ..Situation::default()
        }
    }

    fn next(&self) -> Next {
        application::next(&self.expected(), &self.live(), &self.situation(), self.now)
    }

    fn warnings(&self) -> Vec<String> {
        warnings(&self.expected(), &self.live(), &self.situation(), self.now)
    }

    #[track_caller]
    fn expect(&self, outcome: &str, parts: &[&str]) {
        let next = self.next();
        let (found, words) = match &next {
            Next::Complete => ("complete", self.warnings().join("\n")),
            Next::Failed(failure) => (failure.reason.code(), failure.message.clone()),
            Next::Wait { message, .. } => ("wait", message.clone()),
            Next::Refresh { message, .. } => ("refresh", message.clone()),
            Next::StartSync => ("start", String::new()),
        };
        assert_eq!(found, outcome, "{next:?}");
        for part in parts {
            assert!(words.contains(part), "{part:?} is not in {words:?}");
        }
        if outcome == "complete" && parts.is_empty() {
            assert_eq!(words, "", "no warnings");
        }
    }
}

fn managed(kind: WorkloadKind, name: &str, observed: Observed) -> ManagedWorkload {
    ManagedWorkload {
        kind,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        observed,
    }
}

/// A Deployment of one pod of that image, whose container is in that state.
fn deployment(name: &str, its_image: &str, replicas: i32, container: &Value) -> ManagedWorkload {
    let ready = container["ready"] == true;
    let ready = if ready { replicas } else { 0 };
    let live = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("d-{name}"), "generation": 3},
        "spec": {"replicas": replicas, "selector": {}, "template": template(its_image)},
        "status": {"observedGeneration": 3, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": ready, "availableReplicas": ready},
    });
    let set = json!({
        "metadata": {"name": format!("{name}-7d9"), "namespace": "shop", "uid": format!("s-{name}"),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": name,
                "uid": format!("d-{name}"), "controller": true}]},
        "spec": {"selector": {}, "template": template(its_image)},
    });
    let set_id = format!("s-{name}");
    let mut its_pod = pod(
        &format!("{name}-7d9-x"),
        ("ReplicaSet", &set_id),
        &json!({}),
        container,
    );
    its_pod["metadata"]["uid"] = json!(format!("p-{name}"));
    managed(
        WorkloadKind::Deployment,
        name,
        Observed {
            workload: Some(Workload::Deployment(read(&live))),
            replica_sets: vec![read(&set)],
            pods: if replicas == 0 {
                Vec::new()
            } else {
                vec![read(&its_pod)]
            },
            ..Observed::default()
        },
    )
}

fn good(name: &str) -> ManagedWorkload {
    deployment(name, &image("ab"), 1, &running("ab"))
}

#[allow(clippy::needless_pass_by_value)] // what `json!` makes
fn rollout(phase: &str, status: Value) -> ManagedWorkload {
    let mut live = json!({
        "metadata": {"name": "shop", "namespace": "shop", "uid": "r-1", "generation": 3},
        "spec": {"replicas": 1, "template": template(&image("ab")),
            "strategy": {"canary": {"steps": [{"setWeight": 25}, {"pause": {}}]}}},
        "status": {"observedGeneration": "3", "phase": phase, "currentPodHash": "new", "stableRS": "old",
            "currentStepIndex": 1, "updatedReplicas": 1, "availableReplicas": 1},
    });
    for (key, value) in status.as_object().unwrap() {
        live["status"][key] = value.clone();
    }
    managed(
        WorkloadKind::Rollout,
        "shop",
        Observed {
            workload: Some(Workload::Rollout(read(&live))),
            ..Observed::default()
        },
    )
}

#[test]
fn the_earliest_certain_failure_decides_and_names_object_and_pod() {
    let crash = || deployment("shop", &image("ab"), 1, &crashing(3));
    Scene::of(vec![crash()]).health("Progressing").expect(
        "CRASH_LOOP",
        &[
            "Deployment shop/shop: ",
            "pod shop-7d9-x",
            "CrashLoopBackOff",
            "exit code 137",
        ],
    );
    // Argo CD 3 does not say which object is ill.
    Scene::of(vec![crash()])
        .health("Degraded")
        .expect("CRASH_LOOP", &["Deployment shop/shop: "]);
    // Two restarts are not certain yet: the cause is named all the same.
    let wavers = deployment("shop", &image("ab"), 1, &crashing(2));
    Scene::of(vec![wavers]).health("Progressing").expect(
        "wait",
        &[
            "synced; rolling out: Deployment shop/shop",
            "CrashLoopBackOff, exit code 137",
        ],
    );
    // Of several it is the one that carries our image.
    let other = deployment("cart", &image("cd"), 1, &crashing(9));
    Scene::of(vec![other, good("shop")]).expect("complete", &["neighbour", "Deployment shop/cart: "]);
}

#[test]
fn what_the_sync_has_not_written_is_not_judged() {
    let crash = || deployment("shop", &image("ab"), 1, &crashing(9));
    let running = |resources: Value| {
        Scene::of(vec![crash()])
            .health("Progressing")
            .set("/status/operationState/phase", json!("Running"))
            .set("/status/operationState/finishedAt", Value::Null)
            .set("/status/operationState/syncResult/resources", resources)
    };
    running(json!([])).expect("wait", &["running"]);
    let written = json!([{"kind": "Deployment", "namespace": "shop", "name": "shop", "status": "Synced"}]);
    running(written.clone()).expect("CRASH_LOOP", &["Deployment shop/shop"]);
    // The result of the operation before is shown until the first object is written.
    running(written)
        .set(
            "/status/operationState/syncResult/revision",
            json!("2".repeat(40)),
        )
        .expect("wait", &["running"]);
    // Just after the sync the watch may show the pods of before.
    let fresh = Scene::of(vec![crash()])
        .health("Progressing")
        .with(|scene| scene.now = time("2026-11-01T12:00:06Z"));
    let Next::Wait { look_again, .. } = fresh.next() else {
        panic!("{:?}", fresh.next())
    };
    assert_eq!(look_again, Some(time("2026-11-01T12:00:08Z")));
}

#[test]
fn a_rollout_inside_waits_for_a_person() {
    let paused = || {
        rollout(
            "Paused",
            json!({"controllerPause": true, "pauseConditions": [{"reason": "CanaryPauseStep"}]}),
        )
    };
    let scene = Scene::of(vec![paused()]).health("Suspended");
    scene.expect(
        "wait",
        &[
            "Rollout shop/shop: ",
            "it is paused until it is promoted or aborted",
        ],
    );
    let steps = |scene: &Scene| {
        let expected = scene.expected();
        let steps = application::steps(&expected, &scene.managed);
        let [(one, step)] = &steps[..] else {
            panic!("{steps:?}")
        };
        (one.to_string(), step.clone())
    };
    let (name, step) = steps(&scene);
    assert_eq!(name, "Rollout shop/shop");
    assert!(matches!(step, Step::Ask(_)), "{step:?}");
    let scene = scene.with(|scene| scene.promotes = true);
    assert_eq!(steps(&scene).1, Step::Promote);
    // Aborted by the plugin: the reason is that of the Rollout.
    let aborted = rollout(
        "Degraded",
        json!({"abort": true, "message": "RolloutAborted: Rollout aborted update to revision 2"}),
    );
    Scene::of(vec![aborted])
        .health("Degraded")
        .expect("ABORTED", &["Rollout shop/shop: ", "revision 2"]);
}

#[test]
fn a_difference_that_stays_is_a_warning() {
    let drifts = || {
        Scene::of(vec![good("shop")])
            .set("/status/sync/status", json!("OutOfSync"))
            .set(
                "/status/resources",
                json!([
                    {"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "shop", "status": "OutOfSync"},
                    {"kind": "Service", "namespace": "shop", "name": "old", "status": "OutOfSync", "requiresPruning": true},
                ]),
            )
    };
    drifts().expect(
        "complete",
        &[
            "difference from git",
            "Deployment shop/shop differs",
            "Service shop/old left git",
        ],
    );
    drifts()
        .with(|scene| scene.require_synced = true)
        .expect("refresh", &["the cluster differs from git"]);
    // Not in the second in which the sync ended, and not if nothing is seen to run our image.
    drifts()
        .set("/status/reconciledAt", json!("2026-11-01T12:00:05Z"))
        .expect("refresh", &["differs"]);
    drifts()
        .with(|scene| scene.managed = Managed::Unknown)
        .expect("refresh", &["differs"]);
    // What runs is another digest.
    let other = deployment("shop", &image("cd"), 1, &running("cd"));
    drifts()
        .with(|scene| scene.managed = Managed::Seen(vec![other]))
        .expect("refresh", &["differs"]);
    // The sync itself left something behind.
    drifts()
        .set(
            "/status/operationState/syncResult/resources",
            json!([{"kind": "Service", "namespace": "shop", "name": "old", "status": "PruneSkipped"}]),
        )
        .expect("complete", &["Service shop/old left git"]);
    // Not synced at all.
    drifts()
        .set("/status/operationState/phase", json!("Failed"))
        .expect("SYNC_FAILED", &[]);
}

#[test]
fn a_neighbours_fault_is_a_warning() {
    let ill = || deployment("cart", &image("cd"), 1, &crashing(9));
    for health in ["Degraded", "Progressing"] {
        Scene::of(vec![ill(), good("shop")]).health(health).expect(
            "complete",
            &["neighbour", "Deployment shop/cart: ", "CrashLoopBackOff"],
        );
    }
    // Compared within the second in which the sync ended: nothing of ours will change any more, so it is asked for.
    let next = Scene::of(vec![ill(), good("shop")])
        .health("Progressing")
        .set("/status/reconciledAt", json!("2026-11-01T12:00:05Z"))
        .next();
    assert!(
        matches!(&next, Next::Refresh { message, .. } if message.contains("Deployment shop/cart: ")),
        "{next:?}"
    );
    // Nobody is seen to be ill: something else is, a Job or a claim.
    Scene::of(vec![good("cart"), good("shop")])
        .health("Degraded")
        .expect("DEGRADED", &[]);
}

#[test]
fn a_sync_that_failed_before_anything_was_replaced() {
    let hook = json!([{"kind": "Job", "namespace": "shop", "name": "migrate", "status": "Synced",
        "hookType": "PreSync", "hookPhase": "Failed", "message": "Job has reached the specified backoff limit"}]);
    let failed = |workloads| {
        Scene::of(workloads)
            .set("/status/operationState/phase", json!("Failed"))
            .set("/status/operationState/syncResult/resources", hook.clone())
            .set("/status/sync/status", json!("OutOfSync"))
    };
    let back = |scene: Scene| scene.with(|scene| scene.restores = true);
    back(failed(vec![good("shop")])).expect(
        "complete",
        &[
            "never stopped running",
            "Job shop/migrate (PreSync hook)",
            "backoff limit",
        ],
    );
    failed(vec![good("shop")]).expect("SYNC_FAILED", &["migrate"]);
    let other = deployment("shop", &image("cd"), 1, &running("cd"));
    back(failed(vec![other])).expect("SYNC_FAILED", &["migrate"]);
    back(failed(vec![deployment("shop", &image("ab"), 1, &crashing(9))])).expect("SYNC_FAILED", &["migrate"]);
    // Something was written: what runs is not as before.
    let written = json!([
        {"kind": "Deployment", "namespace": "shop", "name": "shop", "status": "Synced"},
        {"kind": "ConfigMap", "namespace": "shop", "name": "shop", "status": "SyncFailed", "message": "denied"},
    ]);
    back(failed(vec![good("shop")]))
        .set("/status/operationState/syncResult/resources", written)
        .expect("SYNC_FAILED", &["denied"]);
    // The folder does not render.
    let broken = |scene: Scene| {
        scene.set(
            "/status/conditions",
            json!([{"type": "ComparisonError", "message": "no such file", "lastTransitionTime": "2026-11-01T11:00:00Z"}]),
        )
    };
    let later = |scene: Scene| scene.with(|scene| scene.now = time("2026-11-01T12:10:00Z"));
    later(broken(Scene::of(vec![good("shop")]))).expect("COMPARISON_FAILED", &["no such file"]);
}

#[test]
fn workloads_that_cannot_be_read() {
    let blind = |scene: Scene| {
        scene.with(|scene| scene.managed = Managed::Unreadable("deployments: forbidden".to_owned()))
    };
    blind(Scene::of(Vec::new()).health("Progressing"))
        .expect("wait", &["cannot be read: deployments: forbidden"]);
    blind(Scene::of(Vec::new())).expect(
        "complete",
        &["cannot be read (deployments: forbidden)", "word alone counts"],
    );
    blind(Scene::of(Vec::new()).health("Degraded"))
        .expect("DEGRADED", &["cannot be read: deployments: forbidden"]);
}

#[test]
fn what_others_scale_is_judged_by_them() {
    // Argo CD is content before the pods are proven.
    let starting = deployment(
        "shop",
        &image("ab"),
        1,
        &json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
    );
    Scene::of(vec![starting]).expect("wait", &["Deployment shop/shop: 0 of 1 new pods ready"]);
    // Scaled to zero on demand, beside one that runs.
    let idle = || deployment("worker", &image("ab"), 0, &json!({}));
    Scene::of(vec![idle(), good("shop")]).expect("complete", &["Deployment shop/worker is scaled to zero"]);
    Scene::of(vec![idle()]).expect("SCALED_TO_ZERO", &["Deployment shop/worker"]);
    // Flagger scales the target to zero; the Canary says how it went.
    let target = deployment("shop", &image("ab"), 0, &json!({}));
    let Some(Workload::Deployment(primary)) = good("shop-primary").observed.workload else {
        unreachable!()
    };
    let canary = |phase: &str| {
        let live = json!({
            "metadata": {"name": "shop", "namespace": "shop", "uid": "c-1", "generation": 1},
            "spec": {"targetRef": {"kind": "Deployment", "name": "shop"}},
            "status": {"phase": phase, "lastAppliedSpec": "b", "lastPromotedSpec": "a", "conditions": [{
                "type": "Promoted", "reason": phase, "message": "Canary analysis failed, Deployment scaled to zero.",
                "lastUpdateTime": "2026-11-01T12:00:40Z"}]},
        });
        let observed = Observed {
            workload: Some(Workload::Canary(read(&live))),
            primary: Some(Arc::clone(&primary)),
            ..Observed::default()
        };
        managed(WorkloadKind::Canary, "shop", observed)
    };
    Scene::of(vec![target.clone(), canary("Succeeded")]).expect("complete", &[]);
    Scene::of(vec![target.clone(), canary("Progressing")])
        .health("Progressing")
        .expect("wait", &["Canary shop/shop: the new version is tried"]);
    Scene::of(vec![target, canary("Failed")])
        .health("Degraded")
        .expect("ABORTED", &["Canary shop/shop: Flagger rolled back"]);
}

/// A warning of the kubelet about the pod of [`deployment`].
fn complains(mut one: ManagedWorkload, reason: &str, message: &str, count: i32) -> ManagedWorkload {
    let event = json!({
        "metadata": {"name": "e", "namespace": "shop"}, "type": "Warning", "reason": reason, "message": message,
        "count": count, "lastTimestamp": "2026-11-01T12:00:57Z",
        "involvedObject": {"kind": "Pod", "name": "shop-7d9-x", "uid": "p-shop"},
    });
    one.observed.events = vec![read(&event)];
    one
}

#[test]
fn progress_names_the_cause() {
    let unready = || deployment("shop", &image("ab"), 1, &json!({"state": {"running": {}}}));
    for (reason, message, words) in [
        (
            "Unhealthy",
            "Readiness probe failed: HTTP probe failed with statuscode: 503",
            "pod shop-7d9-x: readiness probe: HTTP 503 (22 times, last 3 s ago)",
        ),
        (
            "Unhealthy",
            "Startup probe failed: dial tcp 10.0.0.7:8080: connect: connection refused",
            "pod shop-7d9-x: startup probe: dial tcp 10.0.0.7:8080: connect: connection refused (22 times, last 3 s ago)",
        ),
        (
            "FailedMount",
            "MountVolume.SetUp failed for volume \"config\" : configmap \"shop\" not found",
            "pod shop-7d9-x: FailedMount: MountVolume.SetUp failed",
        ),
    ] {
        let one = complains(unready(), reason, message, 22);
        Scene::of(vec![one.clone()])
            .health("Progressing")
            .expect("wait", &[words]);
        // A Deployment that is a target of its own says the same.
        let expected = application::expected_of_one(&Scene::of(Vec::new()).expected());
        match judge(&expected, &one.observed, time("2026-11-01T12:01:00Z")) {
            Verdict::Progressing { message, .. } => assert!(message.contains(words), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    // Once, and not about a pod that is ready by now.
    let once = complains(
        unready(),
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
        1,
    );
    Scene::of(vec![once]).expect("wait", &["readiness probe: HTTP 503 (3 s ago)"]);
    let ready = complains(
        good("shop"),
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
        1,
    );
    Scene::of(vec![ready]).expect("complete", &[]);
    assert!(digest("ab").starts_with("sha256:"));
}

#[test]
fn which_workloads_and_in_which_cluster() {
    let live: Application = serde_json::from_value(json!({
        "spec": {"destination": {"server": "https://10.0.0.1:6443/", "namespace": "shop"}},
        "status": {"resources": [
            {"group": "apps", "kind": "Deployment", "name": "a"},
            {"group": "argoproj.io", "kind": "Rollout", "namespace": "other", "name": "b"},
            {"group": "flagger.app", "kind": "Canary", "namespace": "shop", "name": "c"},
            {"group": "example.com", "kind": "Deployment", "namespace": "shop", "name": "not-kubernetes'"},
            {"group": "apps", "kind": "StatefulSet", "namespace": "shop", "name": "left", "requiresPruning": true},
            {"kind": "Service", "namespace": "shop", "name": "a"},
        ]},
    }))
    .unwrap();
    let found: Vec<String> = workloads(&live)
        .iter()
        .map(|(kind, namespace, name)| format!("{kind} {namespace}/{name}"))
        .collect();
    assert_eq!(found, ["Deployment shop/a", "Rollout other/b", "Canary shop/c"]);
    for (server, name, cluster) in [
        ("https://kubernetes.default.svc", "", DestinationCluster::Own),
        ("https://kubernetes.default.svc/", "", DestinationCluster::Own),
        ("", "in-cluster", DestinationCluster::Own),
        ("", "", DestinationCluster::Own),
        (
            "https://10.0.0.1:6443/",
            "",
            DestinationCluster::Server("https://10.0.0.1:6443"),
        ),
        ("", "prod", DestinationCluster::Named("prod")),
    ] {
        let mut live = live.clone();
        live.spec.destination.server = server.to_owned();
        live.spec.destination.name = name.to_owned();
        assert_eq!(live.spec.destination.cluster(), cluster, "{server} {name}");
    }
}
