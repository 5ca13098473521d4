//! The decision in a small simulated world, and compared with recordings of a real control plane.

use std::io::Read;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A Deployment, its ReplicaSets, and pods that run as told.
struct World {
    deployment: Value,
    sets: Vec<Value>,
    now: i64,
}

impl World {
    fn new(replicas: i64, spec: &Value) -> Self {
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"image": "1"}}},
            "status": {},
        });
        deployment["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        crate::defaults::apply(&crate::resources::DEPLOYMENTS, &mut deployment);
        Self {
            deployment,
            sets: Vec::new(),
            now: 1000,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.deployment["spec"]);
        let generation = object::generation(&self.deployment) + 1;
        self.deployment["metadata"]["generation"] = json!(generation);
    }

    fn image(&mut self, image: &str) {
        let image = json!(image);
        self.change(|spec| spec["template"]["spec"]["image"] = image);
    }

    /// One pass, carried out.
    fn step(&mut self) -> Decision {
        let sets: Vec<Arc<Value>> = self.sets.iter().cloned().map(Arc::new).collect();
        let decision = reconcile(&self.deployment, &sets, &[], at(self.now));
        if let Some(mut set) = decision.create.clone() {
            set["metadata"]["uid"] = json!(object::name(&set));
            set["metadata"]["generation"] = json!(1);
            set["metadata"]["creationTimestamp"] = json!(object::stamp(at(
                self.now + i64::try_from(self.sets.len()).unwrap()
            )));
            set["status"] = json!({"replicas": 0});
            self.sets.push(set);
        }
        for set in &decision.update {
            let known = self
                .sets
                .iter_mut()
                .find(|s| object::name(s) == object::name(set))
                .unwrap();
            *known = set.clone();
        }
        self.sets
            .retain(|set| !decision.delete.contains(&object::name(set).to_owned()));
        self.deployment["status"] = decision.status.clone();
        if let Some(revision) = &decision.revision {
            object::set_annotation(&mut self.deployment, REVISION, revision);
        }
        decision
    }

    /// Passes until nothing changes any more; pods exist at once, but do not become ready by themselves.
    fn settle(&mut self) {
        for _ in 0..50 {
            let before = (self.deployment.clone(), self.sets.clone());
            self.step();
            for set in &mut self.sets {
                let replicas = set["spec"]["replicas"].as_i64().unwrap();
                let available = set["status"]["availableReplicas"]
                    .as_i64()
                    .unwrap_or(0)
                    .min(replicas);
                set["status"] = json!({"replicas": replicas, "readyReplicas": available,
                    "availableReplicas": available, "observedGeneration": object::generation(set)});
            }
            if before == (self.deployment.clone(), self.sets.clone()) {
                return;
            }
        }
        panic!("never settles: {:#} {:#?}", self.deployment, self.sets);
    }

    /// Every pod becomes ready.
    fn all_ready(&mut self) {
        for set in &mut self.sets {
            let replicas = set["spec"]["replicas"].clone();
            set["status"]["readyReplicas"] = replicas.clone();
            set["status"]["availableReplicas"] = replicas;
        }
    }

    /// Sizes of the ReplicaSets, oldest first.
    fn sizes(&self) -> Vec<i64> {
        self.sets
            .iter()
            .map(|set| set["spec"]["replicas"].as_i64().unwrap())
            .collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let condition = object::condition(&self.deployment, kind)
            .cloned()
            .unwrap_or_default();
        (
            text(&condition, &["status"]).to_owned(),
            text(&condition, &["reason"]).to_owned(),
        )
    }

    fn progressing(&self) -> String {
        self.condition("Progressing").1
    }
}

#[test]
fn a_rolling_update_goes_by_steps_of_its_fences() {
    let surge_only = json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    let unavailable_only = json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}});
    let all_at_once = json!({"strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "100%"}}});
    // Sizes of old and new after each wave of readiness.
    let table: [(Value, &[[i64; 2]]); 4] = [
        (json!({}), &[[3, 1], [2, 2], [1, 3], [0, 3]]),
        (surge_only, &[[3, 1], [2, 2], [1, 3], [0, 3]]),
        (unavailable_only, &[[2, 1], [1, 2], [0, 3]]),
        (all_at_once, &[[0, 3]]),
    ];
    for (spec, waves) in table {
        let mut world = World::new(3, &spec);
        world.settle();
        world.all_ready();
        world.settle();
        assert_eq!(world.progressing(), "NewReplicaSetAvailable");
        world.image("2");
        for wave in waves {
            world.settle();
            assert_eq!(world.sizes(), wave, "{spec}");
            if wave[0] > 0 {
                assert_eq!(world.progressing(), "ReplicaSetUpdated");
            }
            world.all_ready();
        }
        world.settle();
        assert_eq!(world.sizes(), [0, 3]);
        assert_eq!(world.progressing(), "NewReplicaSetAvailable");
        assert_eq!(annotation(&world.deployment, REVISION), "2");
        assert_eq!(world.deployment["status"]["observedGeneration"], 2);
    }
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut world = World::new(3, &json!({"strategy": {"type": "Recreate"}}));
    world.settle();
    world.all_ready();
    world.settle();
    world.image("2");
    world.step();
    assert_eq!(world.sizes(), [0]);
    world.step();
    assert_eq!(world.sizes(), [0], "three pods are still there");
    let pod = |owner: &str| {
        Arc::new(
            json!({"metadata": {"ownerReferences": [{"uid": owner, "controller": true}]},
                        "status": {"phase": "Running"}}),
        )
    };
    world.sets[0]["status"] = json!({"replicas": 0, "observedGeneration": 1});
    let sets = [Arc::new(world.sets[0].clone())];
    let still = reconcile(
        &world.deployment,
        &sets,
        &[pod(object::uid(&world.sets[0]))],
        at(1000),
    );
    assert_eq!(still.create, None, "a pod is still ending");
    world.settle();
    assert_eq!(world.sizes(), [0, 3]);
    assert_eq!(
        world.condition("Available"),
        ("False".to_owned(), "MinimumReplicasUnavailable".to_owned())
    );
}

#[test]
fn a_rollout_that_stalls_passes_its_deadline_and_can_be_undone() {
    let mut world = World::new(3, &json!({"progressDeadlineSeconds": 6}));
    world.settle();
    world.all_ready();
    world.settle();
    world.image("2");
    world.settle();
    let decision = world.step();
    assert_eq!(decision.look_again, Some(at(1007)));
    world.now = 1006;
    world.settle();
    assert_eq!(world.progressing(), "ReplicaSetUpdated");
    world.now = 1007;
    world.settle();
    assert_eq!(
        world.condition("Progressing"),
        ("False".to_owned(), "ProgressDeadlineExceeded".to_owned())
    );
    assert_eq!(world.condition("Available").0, "True");
    world.image("1");
    world.settle();
    world.settle();
    assert_eq!(world.sizes(), [3, 0]);
    assert_eq!(world.progressing(), "NewReplicaSetAvailable");
    assert_eq!(annotation(&world.deployment, REVISION), "3");
    assert_eq!(annotation(&world.sets[0], REVISION_HISTORY), "1");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(3, &json!({}));
    world.settle();
    world.all_ready();
    world.settle();
    world.change(|spec| spec["paused"] = json!(true));
    world.image("2");
    world.settle();
    assert_eq!(
        (world.sizes(), world.condition("Progressing").0.as_str()),
        (vec![3], "Unknown")
    );
    assert_eq!(world.progressing(), "DeploymentPaused");
    assert_eq!(world.deployment["status"].get("updatedReplicas"), None);
    world.change(|spec| spec["replicas"] = json!(5));
    world.settle();
    assert_eq!(world.sizes(), [5]);
    world.change(|spec| spec["paused"] = json!(false));
    world.step();
    assert_eq!(world.sizes().len(), 2);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared() {
    let mut world = World::new(
        10,
        &json!({"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}),
    );
    world.settle();
    world.all_ready();
    world.settle();
    world.image("2");
    world.settle();
    assert_eq!(world.sizes(), [8, 5]);
    world.change(|spec| spec["replicas"] = json!(15));
    world.step();
    // As the Deployment documentation's example of proportional scaling has it.
    assert_eq!(world.sizes(), [11, 7]);
}

#[test]
fn only_so_many_old_replica_sets_are_kept() {
    let mut world = World::new(1, &json!({"revisionHistoryLimit": 2}));
    for image in ["1", "2", "3", "4", "5"] {
        world.image(image);
        for _ in 0..3 {
            world.settle();
            world.all_ready();
        }
        world.settle();
    }
    let revisions: Vec<&str> = world.sets.iter().map(|set| annotation(set, REVISION)).collect();
    assert_eq!(revisions, ["3", "4", "5"]);
}

#[test]
fn refused_pods_are_told_by_the_deployment_as_long_as_they_are_refused() {
    let mut world = World::new(1, &json!({}));
    world.settle();
    let refused = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "exceeded quota", "lastTransitionTime": object::stamp(at(7))}]);
    world.sets[0]["status"]["conditions"] = refused;
    world.step();
    let failure = conditions::read(&world.deployment);
    let failure = conditions::find(&failure, "ReplicaFailure").unwrap();
    assert_eq!(
        (failure.message.as_str(), failure.last_transition),
        ("exceeded quota", at(7))
    );
    world.settle();
    assert_eq!(
        world.condition("ReplicaFailure").0,
        "",
        "the ReplicaSet says it no more"
    );
}

#[test]
fn the_hash_follows_the_template_alone() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"a": 1, "b": 2}});
    let mut labelled = template.clone();
    labelled["metadata"]["labels"][HASH_LABEL] = json!("x");
    assert_eq!(template_hash(&template, 0), template_hash(&labelled, 0));
    assert_ne!(template_hash(&template, 0), template_hash(&template, 1));
    assert_ne!(template_hash(&template, 0), template_hash(&json!({}), 0));
}

#[test]
fn percentages_round_towards_safety() {
    let table = [
        (json!("25%"), 3, true, 1),
        (json!("25%"), 3, false, 0),
        (json!("50%"), 4, true, 2),
        (json!(2), 9, true, 2),
    ];
    for (value, total, up, expected) in table {
        assert_eq!(scaled(&value, total, up), expected, "{value}");
    }
}

/// Whenever the recorded control plane had settled, this controller, given the same objects, would have left everything
/// as it was: same sizes, same status, same conditions.
#[test]
fn recorded_states_of_rest_are_states_of_rest_here() {
    let mut compared = 0;
    for scenario in [
        "rolling-success",
        "image-missing",
        "crash-loop",
        "recreate",
        "paused",
        "restart",
    ] {
        let path = slipway_testbed::data(&format!("recordings/deployment-{scenario}.jsonl.gz"));
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of_interest = |line: &&Value| {
            line["kind"] == "action" || (line["kind"] == "watch" && line["resource"] != "events")
        };
        let lines: Vec<&Value> = lines.iter().filter(of_interest).collect();
        let mut objects: std::collections::BTreeMap<(String, String), Value> =
            std::collections::BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            if line["kind"] == "watch" {
                let object = &line["event"]["object"];
                let key = (
                    line["resource"].as_str().unwrap().to_owned(),
                    object::name(object).to_owned(),
                );
                if line["event"]["type"] == "DELETED" {
                    objects.remove(&key);
                } else {
                    objects.insert(key, object.clone());
                }
            }
            let next = lines
                .get(index + 1)
                .map_or(i64::MAX, |next| next["t_ms"].as_i64().unwrap());
            if next - line["t_ms"].as_i64().unwrap() < 90 || line["kind"] == "action" {
                continue;
            }
            let all = |kind: &str| -> Vec<Arc<Value>> {
                objects
                    .iter()
                    .filter(|(key, _)| key.0 == kind)
                    .map(|(_, o)| Arc::new(o.clone()))
                    .collect()
            };
            let Some(deployment) = all("deployments").pop() else {
                continue;
            };
            let now = conditions::read(&deployment)
                .iter()
                .map(|c| c.last_update)
                .max()
                .unwrap();
            let mut decision = reconcile(&deployment, &all("replicasets"), &all("pods"), now);
            decision.look_again = None;
            let expected = Decision {
                status: deployment["status"].clone(),
                revision: decision.revision.clone(),
                ..Decision::default()
            };
            assert_eq!(decision, expected, "{scenario} at {} ms", line["t_ms"]);
            if let Some(revision) = &decision.revision {
                assert_eq!(
                    annotation(&deployment, REVISION),
                    revision,
                    "{scenario} at {} ms",
                    line["t_ms"]
                );
            }
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} states of rest were found");
}
