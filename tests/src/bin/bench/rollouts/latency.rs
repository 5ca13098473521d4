//! From the status write that completes a rollout to our event on the stream, compared with kubectl.
//!
//! The write is that of the last pod's status, which is all that is missing: the time that the ReplicaSet's and the
//! Deployment's controllers need to react to it is part of our time, and of kubectl's.

use std::{
    collections::HashMap,
    io::Write,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde_json::{Value, json};
use slipway_proto::deploy::v1::deployment::Step;
use slipway_testbed::Postgres;
use slipway_tests::within;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    sync::mpsc,
};

use super::scene::{NAMESPACE, Scene, digest, image, items};
use crate::{Figure, percentile};

const DEPLOYMENTS: usize = 10;
const ROUNDS: usize = 20;
/// Longer than this takes: pods become ready only when we say so.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// Gives every watcher time to finish everything else.
const QUIET: Duration = Duration::from_millis(30);
/// How much later than kubectl we may be, in milliseconds.
const GRACE: f64 = 5.0;

/// Milliseconds after the write.
#[derive(Debug)]
struct Run {
    ours: f64,
    kubectl: f64,
    bare: f64,
}

pub(crate) async fn measure(server: &Postgres) -> Vec<Figure> {
    eprintln!("rollouts beside kubectl …");
    let scene = Scene::start("bench-rollouts", server, DEPLOYMENTS, 1, NEVER).await;
    let mut events = scene.events().await;
    let mut bare = completed(&scene).await;
    let mut runs = Vec::new();
    for round in 1..=ROUNDS {
        turn(&scene, round, &mut events, &mut bare, &mut runs).await;
    }
    let sorted = |of: fn(&Run) -> f64| {
        let mut times: Vec<f64> = runs.iter().map(of).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let (ours, kubectl, bare) = (
        sorted(|run| run.ours),
        sorted(|run| run.kubectl),
        sorted(|run| run.bare),
    );
    let told = |times: &[f64]| {
        format!(
            "p50 {:.1} ms, p99 {:.1} ms",
            percentile(times, 50),
            percentile(times, 99)
        )
    };
    let late = runs.iter().filter(|run| run.ours > run.kubectl + GRACE).count();
    let mut ahead: Vec<f64> = runs.iter().map(|run| run.kubectl - run.ours).collect();
    ahead.sort_by(f64::total_cmp);
    vec![
        Figure::new(
            "from the status write that completes a rollout to our event on the stream",
            told(&ours),
            format!(
                "a bare watch sees it: {}; one fsync: {:.1} ms",
                told(&bare),
                fsync()
            ),
            "p50 < 10 ms, p99 < 50 ms",
            percentile(&ours, 50) < 10.0 && percentile(&ours, 99) < 50.0,
        ),
        Figure::new(
            format!(
                "no later than kubectl rollout status + {GRACE} ms, of {} runs",
                runs.len()
            ),
            format!(
                "{} (ahead by {:.1} ms, median)",
                runs.len() - late,
                percentile(&ahead, 50)
            ),
            format!("kubectl: {}", told(&kubectl)),
            "99 %",
            late * 100 <= runs.len(),
        ),
    ]
}

/// The minimum cost of reporting something durably: the median, in milliseconds, of writing one page to this disk.
fn fsync() -> f64 {
    let path = std::env::temp_dir().join(format!("slipway-bench-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    let mut times: Vec<f64> = (0..50)
        .map(|_| {
            file.write_all(&[0; 8192]).unwrap();
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    std::fs::remove_file(&path).unwrap();
    times.sort_by(f64::total_cmp);
    percentile(&times, 50)
}

/// Names of Deployments as a plain watch shows them complete, with generation and time.
async fn completed(scene: &Scene) -> mpsc::UnboundedReceiver<(String, i64, Instant)> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let events = scene.api.watch(&path).await;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut events = pin!(events);
        while let Some((at, event)) = events.next().await {
            let live = &event["object"];
            let (status, generation) = (&live["status"], live["metadata"]["generation"].as_i64());
            let one = |field: &str| status[field] == 1;
            let complete = status["observedGeneration"].as_i64() == generation
                && ["replicas", "updatedReplicas", "availableReplicas"]
                    .into_iter()
                    .all(one);
            if let (true, Some(name), Some(generation)) =
                (complete, live["metadata"]["name"].as_str(), generation)
            {
                let _ = sender.send((name.to_owned(), generation, at));
            }
        }
    });
    receiver
}

/// One rollout of each Deployment: all are brought to the point where only a pod's readiness is missing, and then
/// completed one by one.
async fn turn(
    scene: &Scene,
    round: usize,
    events: &mut mpsc::UnboundedReceiver<(Instant, slipway_proto::common::v1::Event)>,
    bare: &mut mpsc::UnboundedReceiver<(String, i64, Instant)>,
    runs: &mut Vec<Run>,
) {
    let mut waiting: HashMap<&str, (String, Kubectl)> = HashMap::new();
    for name in &scene.names {
        let id = scene.deploy(name, round).await;
        scene
            .until(&id, |deployment| deployment.step() == Step::Rollout)
            .await;
        waiting.insert(name, (id, Kubectl::start(scene, name)));
    }
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let list = scene
        .api
        .until("the new pods are made", &path, |list| {
            items(list).iter().all(|live| {
                let one = |field: &str| live["status"][field] == 1;
                one("updatedReplicas") && one("replicas") && live["status"]["availableReplicas"].is_null()
            })
        })
        .await;
    let generation: HashMap<&str, i64> = items(&list)
        .iter()
        .filter_map(|live| {
            Some((
                live["metadata"]["name"].as_str()?,
                live["metadata"]["generation"].as_i64()?,
            ))
        })
        .collect();
    let pods = scene
        .api
        .until(
            "the kubelet has said its word",
            &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
            |list| {
                let new = items(list).iter().filter(|pod| is_new(pod, round));
                new.filter(|pod| !pod["status"]["containerStatuses"].is_null())
                    .count()
                    == DEPLOYMENTS
            },
        )
        .await;
    for (_, kubectl) in waiting.values_mut() {
        let line = within("kubectl's first line", kubectl.line()).await;
        assert!(
            line.is_some_and(|(_, line)| line.starts_with("Waiting")),
            "kubectl waits"
        );
    }
    for pod in items(&pods).iter().filter(|pod| is_new(pod, round)) {
        tokio::time::sleep(QUIET).await;
        while events.try_recv().is_ok() {}
        let name = pod["metadata"]["labels"]["app"].as_str().unwrap();
        let (id, mut kubectl) = waiting.remove(name).unwrap();
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/pods/{}/status",
            pod["metadata"]["name"].as_str().unwrap()
        );
        let status = ready(pod, round);
        let subject = format!("deployment/{id}");
        let wanted = generation[name];
        let began = Instant::now();
        let ours = async {
            loop {
                let (at, event) = events.recv().await.unwrap();
                let told = event.r#type.contains("rolled_out") || event.r#type.contains("succeeded");
                assert!(!event.r#type.contains("fail"), "{event:?}");
                if event.subject == subject && told {
                    return at;
                }
            }
        };
        let theirs = async {
            loop {
                let (at, line) = kubectl.line().await.expect("kubectl says that it is done");
                if line.contains("successfully rolled out") {
                    return at;
                }
            }
        };
        let seen = async {
            loop {
                let (other, generation, at) = bare.recv().await.unwrap();
                if other == name && generation == wanted {
                    return at;
                }
            }
        };
        let write = scene.api.write("PATCH", &path, &status);
        let all = async { tokio::join!(write, ours, theirs, seen) };
        let ((), ours, theirs, seen) = within("the rollout's end", all).await;
        let after = |at: Instant| at.duration_since(began).as_secs_f64() * 1e3;
        runs.push(Run {
            ours: after(ours),
            kubectl: after(theirs),
            bare: after(seen),
        });
    }
}

fn is_new(pod: &Value, round: usize) -> bool {
    pod["spec"]["containers"][0]["image"] == image(round).as_str()
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The status that a kubelet writes for a pod that has become ready.
fn ready(pod: &Value, round: usize) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}))
        .collect();
    let mut container = pod["status"]["containerStatuses"][0].clone();
    container["ready"] = json!(true);
    container["started"] = json!(true);
    container["state"] = json!({"running": {"startedAt": now}});
    container["imageID"] = json!(format!("registry.example/app@{}", digest(round)));
    json!({"status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}})
}

/// `kubectl rollout status`, line by line.
struct Kubectl {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Kubectl {
    fn start(scene: &Scene, name: &str) -> Self {
        let mut process = scene.kubectl(name);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            _process: process,
            lines,
        }
    }

    async fn line(&mut self) -> Option<(Instant, String)> {
        let line = self.lines.next_line().await.unwrap()?;
        Some((Instant::now(), line))
    }
}
