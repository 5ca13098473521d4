//! `kubectl rollout status` as it was recorded against a real control plane, replayed event by event: with the
//! additions off our verdict is kubectl's, with them on it is never more hopeful.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use deploy_svc::{
    catalog::Verify,
    kubernetes::verdict::{self, Applied, Expected, FailureReason, Observed, Rollout, Verdict},
};
use flate2::read::GzDecoder;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use serde_json::Value;
use slipway_model::Timestamp;

/// kubectl's own watch and start-up: a line may lag behind the state it tells, and recorded times are not exact.
const LAG_MS: i64 = 120;
const LEAD_MS: i64 = 60;

/// Recorded runs begin here; only the distance matters, for thresholds.
const START: i64 = 1_795_000_000_000_000;

struct Recording {
    name: String,
    lines: Vec<Value>,
}

fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recordings");
    // A checkout elsewhere names the folder itself.
    let folder = std::env::var_os("SLIPWAY_RECORDINGS").map_or(folder, PathBuf::from);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("recordings in {}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("deployment-")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings in {}", folder.display());
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Recording {
    let reader = BufReader::new(GzDecoder::new(fs::File::open(path).unwrap()));
    let lines = reader
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    Recording {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        lines,
    }
}

/// The cluster as the watches showed it, by resource and name.
#[derive(Default, Clone)]
struct Cluster {
    deployments: BTreeMap<String, Arc<Deployment>>,
    replica_sets: BTreeMap<String, Arc<ReplicaSet>>,
    pods: BTreeMap<String, Arc<Pod>>,
}

impl Cluster {
    fn apply(&mut self, resource: &str, event: &Value) {
        let object = event["object"].clone();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let deleted = event["type"] == "DELETED";
        match resource {
            "deployments" => put(&mut self.deployments, name, object, deleted),
            "replicasets" => put(&mut self.replica_sets, name, object, deleted),
            "pods" => put(&mut self.pods, name, object, deleted),
            _ => {}
        }
    }

    fn observed(&self, name: &str) -> Observed {
        Observed {
            deployment: self.deployments.get(name).cloned(),
            gone: true,
            replica_sets: self.replica_sets.values().cloned().collect(),
            pods: self.pods.values().cloned().collect(),
        }
    }
}

fn put<K: serde::de::DeserializeOwned>(
    map: &mut BTreeMap<String, Arc<K>>,
    name: String,
    object: Value,
    deleted: bool,
) {
    if deleted {
        map.remove(&name);
    } else {
        map.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
    }
}

/// One `kubectl rollout status`, with the cluster's states while it ran.
struct Run {
    name: String,
    kubectl: Vec<(i64, String)>,
    exit: i64,
    /// Each state with the time from which it held.
    states: Vec<(i64, Cluster)>,
}

fn runs(recording: &Recording) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut current: Option<Run> = None;
    let mut cluster = Cluster::default();
    let mut recent: Vec<(i64, Cluster)> = Vec::new();
    for line in &recording.lines[1..] {
        let t = line["t_ms"].as_i64().unwrap();
        match (
            line["kind"].as_str().unwrap(),
            line["event"].as_str().unwrap_or_default(),
        ) {
            ("watch", _) => {
                cluster.apply(line["resource"].as_str().unwrap(), &line["event"]);
                recent.push((t, cluster.clone()));
                if let Some(run) = &mut current {
                    run.states.push((t, cluster.clone()));
                }
            }
            ("kubectl", "started") => {
                let target = line["args"][2].as_str().unwrap();
                let name = target.strip_prefix("deployment/").unwrap().to_owned();
                let states = recent.last().cloned().into_iter().collect();
                current = Some(Run {
                    name,
                    kubectl: Vec::new(),
                    exit: -1,
                    states,
                });
            }
            ("kubectl", "line") => {
                current
                    .as_mut()
                    .unwrap()
                    .kubectl
                    .push((t, line["text"].as_str().unwrap().to_owned()));
            }
            ("kubectl", "exited") => {
                let mut run = current.take().unwrap();
                run.exit = line["code"].as_i64().unwrap();
                runs.push(run);
            }
            _ => {}
        }
    }
    runs
}

/// kubectl's own words for a state.
fn words(name: &str, rollout: Rollout) -> String {
    let waiting = |rest: String| format!("Waiting for deployment {name:?} rollout to finish: {rest}...");
    match rollout {
        Rollout::NotObserved => "Waiting for deployment spec update to be observed...".to_owned(),
        Rollout::ProgressDeadlineExceeded => {
            format!("error: deployment {name:?} exceeded its progress deadline")
        }
        Rollout::Updating { updated, wanted } => waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        )),
        Rollout::OldPending { old } => waiting(format!("{old} old replicas are pending termination")),
        Rollout::Unavailable { available, updated } => {
            waiting(format!("{available} of {updated} updated replicas are available"))
        }
        Rollout::Complete => format!("deployment {name:?} successfully rolled out"),
    }
}

fn expected(live: &Deployment, verify: Verify) -> Expected {
    let template = live.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    Expected {
        image: template.containers[0].image.as_ref().unwrap().parse().unwrap(),
        epoch: 1,
        applied: Applied::default(),
        verify,
    }
}

#[test]
fn kubectls_lines_and_exit_codes_are_ours() {
    for recording in recordings() {
        for (number, run) in runs(&recording).iter().enumerate() {
            let place = format!("{} run {number}", recording.name);
            let states: Vec<(i64, String)> = run
                .states
                .iter()
                .filter_map(|(t, cluster)| {
                    Some((
                        *t,
                        words(&run.name, verdict::rollout(cluster.deployments.get(&run.name)?)),
                    ))
                })
                .collect();
            let mut at = 0;
            for (t, line) in &run.kubectl {
                let found = (at..states.len()).find(|index| {
                    let from = states[*index].0;
                    let until = states.get(index + 1).map_or(i64::MAX, |next| next.0);
                    states[*index].1 == *line && from <= t + LEAD_MS && until >= t - LAG_MS
                });
                at = found.unwrap_or_else(|| {
                    panic!("{place}: at {t} ms kubectl says {line:?}; we say {states:#?}")
                });
            }
            // The exit code is the last line's.
            let last = run
                .kubectl
                .last()
                .map(|(_, line)| line.as_str())
                .unwrap_or_default();
            let complete = words(&run.name, Rollout::Complete);
            assert_eq!(run.exit == 0, last == complete, "{place}");
        }
    }
}

#[test]
fn without_additions_the_verdict_is_kubectls_at_every_event() {
    for recording in recordings() {
        for run in runs(&recording) {
            for (t, cluster) in &run.states {
                let Some(live) = cluster.deployments.get(&run.name) else {
                    continue;
                };
                let now = Timestamp::from_micros(START + t * 1000);
                let ours = verdict::deployment(
                    &expected(live, Verify::AS_KUBECTL),
                    &cluster.observed(&run.name),
                    now,
                );
                let agrees = match verdict::rollout(live) {
                    Rollout::Complete => ours == Verdict::Complete,
                    Rollout::ProgressDeadlineExceeded => matches!(
                        &ours,
                        Verdict::Failed(failure) if failure.reason == FailureReason::ProgressDeadlineExceeded
                    ),
                    _ => matches!(&ours, Verdict::Progressing { message, .. } if !message.is_empty()),
                };
                assert!(agrees, "{} at {t} ms: {ours:?}", recording.name);
            }
        }
    }
}

#[test]
fn with_additions_it_may_fail_earlier_and_never_succeeds_where_kubectl_does_not() {
    let verify = Verify {
        crash_loop_restarts: 2,
        ..Verify::default()
    };
    let mut early = BTreeMap::new();
    for recording in recordings() {
        for run in runs(&recording) {
            // What this run waits for is the template as it stands at its start, or when it first appears.
            let first = run
                .states
                .iter()
                .find_map(|(_, cluster)| cluster.deployments.get(&run.name))
                .unwrap();
            let expected = expected(first, verify);
            let mut failed = None;
            for (t, cluster) in &run.states {
                let Some(live) = cluster.deployments.get(&run.name) else {
                    continue;
                };
                let now = Timestamp::from_micros(START + t * 1000);
                match verdict::deployment(&expected, &cluster.observed(&run.name), now) {
                    Verdict::Complete => {
                        assert_eq!(
                            verdict::rollout(live),
                            Rollout::Complete,
                            "{} at {t} ms",
                            recording.name
                        );
                    }
                    // After the end of the run the recording goes on to something else (an undo).
                    Verdict::Failed(failure) if failed.is_none() => failed = Some((*t, failure)),
                    Verdict::Failed(_) | Verdict::Progressing { .. } => {}
                }
            }
            let end = run.kubectl.last().unwrap().0;
            match (run.exit, failed) {
                (0, Some((t, failure))) => panic!("{}: fails at {t} ms: {failure:?}", recording.name),
                (0, None) => {}
                (_, failed) => {
                    let (t, failure) = failed.unwrap_or_else(|| panic!("{}: does not fail", recording.name));
                    assert!(
                        t <= end + LEAD_MS,
                        "{}: fails at {t} ms, kubectl at {end} ms",
                        recording.name
                    );
                    assert!(
                        failure.message.contains("pod ms-identity-"),
                        "names the pod: {failure:?}"
                    );
                    early.insert(recording.name.clone(), (failure.reason, end - t));
                }
            }
        }
    }
    // The two known ones are found seconds before Kubernetes' own deadline.
    for (name, reason) in [
        ("deployment-crash-loop.jsonl", FailureReason::CrashLoop),
        ("deployment-image-missing.jsonl", FailureReason::ImageNotFound),
    ] {
        if let Some((found, lead)) = early.get(name) {
            assert_eq!(*found, reason, "{name}");
            assert!(*lead > 1000, "{name}: only {lead} ms before kubectl");
        }
    }
}
