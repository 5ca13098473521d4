//! Jobs: their pods must be what Kubernetes accepts, and they must end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;
use slipway_check::Faults;
use slipway_model::Name;

use super::{
    super::{Job, Jobs, WorkloadKind},
    HOUR, duplicates,
};

/// For one environment, before and after together.
const MAX_JOBS: usize = 10;
const MAX_RETRIES: u32 = 20;
const MAX_JOB: Duration = HOUR.saturating_mul(24);
/// A pod is copied into every release's plan.
const MAX_POD: usize = 32 * 1024;

pub(super) fn check(jobs: &Jobs, target: WorkloadKind, path: &str, faults: &mut Faults) {
    let sides = [("before", &jobs.before), ("after", &jobs.after)];
    let all: Vec<(String, &Job)> = sides
        .into_iter()
        .flat_map(|(side, jobs)| {
            let at = move |index| format!("{path}.{side}[{index}]");
            jobs.iter().enumerate().map(move |(index, job)| (at(index), job))
        })
        .collect();
    faults.require(all.len() <= MAX_JOBS, path, "name at most 10 Jobs");
    let names: Vec<Name> = jobs.before.iter().map(|job| job.name.clone()).collect();
    duplicates(&names, &format!("{path}.before"), faults);
    for (index, job) in jobs.after.iter().enumerate() {
        if names.contains(&job.name) || jobs.after[..index].iter().any(|other| other.name == job.name) {
            faults.add(
                format!("{path}.after[{index}]"),
                format!(
                    "{} is already used: names must be unique, before and after together",
                    job.name
                ),
            );
        }
    }
    for (path, job) in all {
        check_job(job, target, &path, faults);
    }
}

fn check_job(job: &Job, target: WorkloadKind, path: &str, faults: &mut Faults) {
    faults.period(format!("{path}.timeout"), job.timeout, MAX_JOB);
    faults.require(
        job.retries <= MAX_RETRIES,
        format!("{path}.retries"),
        "must be at most 20",
    );
    faults.require(
        job.namespace.is_some() || target != WorkloadKind::Application,
        format!("{path}.namespace"),
        "is missing: an Application is in Argo CD's own namespace, so name the one that the Job runs in",
    );
    let path = format!("{path}.pod");
    if job.pod.to_string().len() > MAX_POD {
        faults.add(
            &path,
            "is larger than 32 KiB as JSON: put what is long into a ConfigMap",
        );
        return;
    }
    let pod: PodSpec = match serde_path_to_error::deserialize(&job.pod) {
        Ok(pod) => pod,
        Err(error) => {
            let at = match error.path().to_string() {
                at if at == "." => path,
                at => format!("{path}.{at}"),
            };
            faults.add(
                at,
                format!("{}, as Kubernetes has it in a PodSpec", error.inner()),
            );
            return;
        }
    };
    // What was read and is not written again is not in Kubernetes' own schema.
    if let Ok(read) = serde_json::to_value(&pod) {
        for unknown in lost(&job.pod, &read) {
            faults.add(
                format!("{path}.{unknown}"),
                "is not a field of a Kubernetes PodSpec: fix its name, or leave it out",
            );
        }
    }
    check_pod(&pod, &path, faults);
}

fn check_pod(pod: &PodSpec, path: &str, faults: &mut Faults) {
    faults.require(
        !pod.containers.is_empty(),
        format!("{path}.containers"),
        "name at least one container; one without image runs the image that is released",
    );
    faults.require(
        matches!(pod.restart_policy.as_deref(), None | Some("Never" | "OnFailure")),
        format!("{path}.restartPolicy"),
        "must be Never or OnFailure: a Job has to end",
    );
    let init = pod.init_containers.as_deref().unwrap_or_default();
    let mut seen: Vec<&str> = Vec::new();
    for (key, containers) in [("initContainers", init), ("containers", &pod.containers)] {
        for (index, Container { name, image, .. }) in containers.iter().enumerate() {
            let path = format!("{path}.{key}[{index}]");
            faults.require(
                name.parse::<Name>().is_ok() && name.len() <= 63,
                format!("{path}.name"),
                "give the container a name of a-z, 0-9 and -, beginning and ending with a letter or digit",
            );
            if seen.contains(&name.as_str()) {
                faults.add(
                    format!("{path}.name"),
                    format!("{name} is already used: names must be unique in a pod"),
                );
            }
            seen.push(name);
            faults.require(
                image.as_deref() != Some(""),
                format!("{path}.image"),
                "must not be empty: leave it out for the image that is released",
            );
        }
    }
}

/// Paths of `given` that are missing from `read`. A null counts as missing.
fn lost(given: &Value, read: &Value) -> Vec<String> {
    fn walk(given: &Value, read: Option<&Value>, path: &str, lost: &mut Vec<String>) {
        match (given, read) {
            (Value::Null, _) => {}
            (Value::Object(given), Some(Value::Object(read))) => {
                for (key, value) in given {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(value, read.get(key), &path, lost);
                }
            }
            (Value::Array(given), Some(Value::Array(read))) => {
                for (index, value) in given.iter().enumerate() {
                    walk(value, read.get(index), &format!("{path}[{index}]"), lost);
                }
            }
            (_, Some(_)) => {}
            (_, None) => lost.push(path.to_owned()),
        }
    }
    let mut paths = Vec::new();
    walk(given, Some(read), "", &mut paths);
    paths
}
