//! Runs a Job before or after a rollout: creates it once, reads what its last pod wrote, deletes it with its pods.
//!
//! A Job's name is derived from the deployment and the Job's name in the catalog, so that creating it twice has the
//! effect of creating it once; a Job found under that name is ours if it carries our deployment's id.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStatus, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use slipway_model::{Fault, Id, ImageRef, Name, Reason};
use slipway_verdict::{
    DEPLOYMENT, EPOCH, TARGET, Target, annotation, cut,
    evidence::Redactor,
    pods::{containers, exit_code},
};

use super::{
    CALL_TIMEOUT, Kubernetes,
    apply::FIELD_MANAGER,
    call,
    fault::{fault_of, refused, unavailable},
};

/// Label with the Job's name in the catalog, on the Job and its pods.
pub const JOB: &str = "deploy.slipway.dev/job";
/// A Job's name is a label of its pods, whose length is limited; so is the length of pods' names, which append to it.
const LONGEST_NAME: usize = 57;
/// How long ended Jobs stay for people to look at. Longer than any deployment takes: while one may still ask for its
/// Job, the Job must exist, or it would be run again.
const KEPT: Duration = Duration::from_secs(48 * 60 * 60);
/// How much later than ours the Job's own deadline is: ours reads the log first, Kubernetes' deletes the pods with it.
const NET: Duration = Duration::from_secs(60);
/// Lines of log that are kept.
const LOG_LINES: usize = 50;
/// Longest line kept, in characters.
const LINE: usize = 500;
/// The maximum read of a log, in bytes.
const READ: i64 = 64 * 1024;

/// One Job to run.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    pub deployment: &'a Id,
    pub target: &'a Target,
    pub epoch: u64,
    /// As the catalog names it.
    pub name: &'a Name,
    pub namespace: &'a Name,
    /// A PodSpec.
    pub pod: &'a Value,
    /// For containers that do not name one.
    pub image: &'a ImageRef,
    /// `backoffLimit`.
    pub retries: u32,
    /// From its creation to its end.
    pub timeout: Duration,
}

/// The name of a deployment's Job in the cluster: the catalog's, truncated, and a suffix that makes it this
/// deployment's.
pub fn name(deployment: &Id, job: &Name) -> String {
    let digest = Sha256::digest(format!("{deployment}/{job}"));
    let suffix = &hex::encode(digest)[..12];
    let kept: String = job
        .as_str()
        .chars()
        .take(LONGEST_NAME - 1 - suffix.len())
        .collect();
    format!("{}-{suffix}", kept.trim_matches('-'))
}

/// The Job as it is created.
///
/// # Errors
/// What is wrong with the PodSpec, naming the field.
pub fn manifest(order: &Order<'_>) -> Result<Value, String> {
    let mut pod = order.pod.clone();
    let Some(spec) = pod.as_object_mut() else {
        return Err("pod: must be a PodSpec, an object".to_owned());
    };
    let containers = spec.get("containers").and_then(Value::as_array);
    if containers.is_none_or(Vec::is_empty) {
        return Err("pod.containers: at least one is needed".to_owned());
    }
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(container) = container.as_object_mut() else {
                return Err(format!("pod.{list}: each must be an object"));
            };
            container
                .entry("image")
                .or_insert_with(|| json!(order.image.to_string()));
        }
    }
    spec.entry("restartPolicy").or_insert_with(|| json!("Never"));
    let labels = BTreeMap::from([
        ("app.kubernetes.io/managed-by", "slipway"),
        (JOB, order.name.as_str()),
    ]);
    Ok(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(order.deployment, order.name),
            "namespace": order.namespace,
            "labels": labels,
            "annotations": {
                EPOCH: order.epoch.to_string(),
                TARGET: order.target.key(),
                DEPLOYMENT: order.deployment,
            },
        },
        "spec": {
            "backoffLimit": order.retries,
            "activeDeadlineSeconds": (order.timeout + NET).as_secs(),
            "ttlSecondsAfterFinished": KEPT.as_secs(),
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }))
}

/// Creates the Job, or finds the one that an earlier try created.
///
/// # Errors
/// Refused when the API server does not accept it, or something else has its name.
pub async fn create(cluster: &Kubernetes, order: &Order<'_>) -> Result<Job, Fault<Reason>> {
    let what = format!("create Job {}", order.name);
    let body = manifest(order).map_err(|words| refused(format!("{what}: {words}")))?;
    let job: Job = serde_json::from_value(body)
        .map_err(|error| refused(format!("{what}: pod is not a PodSpec: {error}")))?;
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let api: Api<Job> = Api::namespaced(cluster.client().clone(), order.namespace.as_str());
    slipway_faults::point("deploy.job.before");
    let created = tokio::time::timeout(CALL_TIMEOUT, api.create(&parameters, &job)).await;
    slipway_faults::point("deploy.job.after");
    match created {
        Ok(Ok(created)) => Ok(created),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 && status.reason == "AlreadyExists" => {
            adopt(&api, order, &what).await
        }
        Ok(Err(error)) => Err(fault_of(&what, &error)),
        Err(_) => Err(unavailable(format!(
            "{what}: no answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

async fn adopt(api: &Api<Job>, order: &Order<'_>, what: &str) -> Result<Job, Fault<Reason>> {
    let name = name(order.deployment, order.name);
    let Some(found) = call(what, api.get_opt(&name)).await? else {
        return Err(unavailable(format!("{what}: it was deleted a moment ago")));
    };
    if annotation(&found.metadata, DEPLOYMENT) != Some(order.deployment.as_str()) {
        return Err(refused(format!(
            "{what}: there is a Job {name} already that is not this deployment's: delete it"
        )));
    }
    Ok(found)
}

/// The Job as the API server has it now.
///
/// # Errors
/// When it cannot be asked.
pub async fn read(cluster: &Kubernetes, namespace: &Name, name: &str) -> Result<Option<Job>, Fault<Reason>> {
    let api: Api<Job> = Api::namespaced(cluster.client().clone(), namespace.as_str());
    call("read the Job", api.get_opt(name)).await
}

/// Deletes the Job with its pods; it is not an error if it does not exist.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub async fn delete(cluster: &Kubernetes, namespace: &Name, name: &str) -> Result<(), Fault<Reason>> {
    let api: Api<Job> = Api::namespaced(cluster.client().clone(), namespace.as_str());
    match call("delete the Job", api.delete(name, &DeleteParams::background())).await {
        Ok(_) => Ok(()),
        Err(Fault::Permanent(_)) if call("read the Job", api.get_opt(name)).await?.is_none() => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// How many pods of the Job exist, not counting ended ones.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn running(cluster: &Kubernetes, namespace: &Name, name: &str) -> Result<usize, Fault<Reason>> {
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pods = pods(cluster, namespace, name).await?;
    Ok(pods.iter().filter(|pod| !ended(pod)).count())
}

/// The outcome of the Job's last pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastPod {
    /// Such as `pod migrate-1f-x2x: exit code 3`; empty when there is nothing to say.
    pub words: String,
    /// Its last lines, oldest first.
    pub log_tail: Vec<String>,
}

/// Reads the last pod's log. What cannot be read is left out: a Job's end does not wait for it.
pub async fn last_pod(cluster: &Kubernetes, namespace: &Name, name: &str) -> LastPod {
    let found = match pods(cluster, namespace, name).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(job = name, %error, "no pods");
            return LastPod::default();
        }
    };
    let newest = found.into_iter().max_by(|one, other| {
        let age = |pod: &Pod| {
            pod.metadata
                .creation_timestamp
                .as_ref()
                .map(slipway_verdict::micros)
        };
        age(one)
            .cmp(&age(other))
            .then_with(|| one.metadata.name.cmp(&other.metadata.name))
    });
    let Some(pod) = newest else {
        return LastPod::default();
    };
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    // The container that failed, or else the last one that is running or ran.
    let status = containers(&pod)
        .find(|status| exit_code(status).is_some_and(|code| code != 0))
        .or_else(|| containers(&pod).last());
    let Some(status) = status else {
        let words = slipway_verdict::pods::worst(&[&pod]).unwrap_or_default();
        return LastPod {
            words,
            log_tail: Vec::new(),
        };
    };
    let api: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace.as_str());
    LastPod {
        words: state(&pod_name, status),
        log_tail: log(&api, &pod, status).await,
    }
}

fn state(pod: &str, status: &ContainerStatus) -> String {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    if let Some(waiting) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        return match waiting.message.as_deref() {
            Some(message) => format!("pod {pod}: {reason}: {}", cut(message)),
            None => format!("pod {pod}: {reason}"),
        };
    }
    match exit_code(status) {
        Some(code) => format!("pod {pod}: exit code {code}"),
        None => String::new(),
    }
}

async fn log(api: &Api<Pod>, pod: &Pod, status: &ContainerStatus) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.iter();
    let specified = spec.flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    });
    let redactor = specified
        .filter(|container| container.name == status.name)
        .map(Redactor::of)
        .next()
        .unwrap_or_default();
    let parameters = LogParams {
        container: Some(status.name.clone()),
        tail_lines: Some(i64::try_from(LOG_LINES).unwrap_or(i64::MAX)),
        limit_bytes: Some(READ),
        ..LogParams::default()
    };
    match call("read the log", api.logs(name, &parameters)).await {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(LOG_LINES);
            redactor.lines(lines[last..].iter().copied(), LINE)
        }
        Err(error) => {
            tracing::debug!(pod = name, %error, "no log");
            Vec::new()
        }
    }
}

async fn pods(cluster: &Kubernetes, namespace: &Name, name: &str) -> Result<Vec<Pod>, Fault<Reason>> {
    let api: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace.as_str());
    let list = ListParams::default().labels(&format!("job-name={name}"));
    Ok(call("list the Job's pods", api.list(&list)).await?.items)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;
    use slipway_model::{Id, Name};
    use slipway_verdict::{Target, WorkloadKind};

    use super::{Order, manifest, name};

    #[test]
    fn names_are_the_same_again_and_short_enough() {
        let (one, other): (Id, Id) = ("dep-1".parse().unwrap(), "dep-2".parse().unwrap());
        let migrate: Name = "migrate".parse().unwrap();
        assert_eq!(name(&one, &migrate), name(&one, &migrate));
        assert_ne!(name(&one, &migrate), name(&other, &migrate));
        assert!(name(&one, &migrate).starts_with("migrate-"));
        let long: Name = "a".repeat(63).parse().unwrap();
        assert!(name(&one, &long).len() <= 57, "{}", name(&one, &long));
    }

    #[test]
    fn what_the_catalog_leaves_out_is_filled_in() {
        let target = Target {
            cluster: "local".parse().unwrap(),
            namespace: "dev".parse().unwrap(),
            kind: WorkloadKind::Deployment,
            name: "shop".to_owned(),
        };
        let (deployment, job): (Id, Name) = ("dep-1".parse().unwrap(), "migrate".parse().unwrap());
        let image = format!("registry.example/shop@sha256:{}", "ab".repeat(32))
            .parse()
            .unwrap();
        let pod = json!({
            "initContainers": [{"name": "wait"}],
            "containers": [{"name": "migrate", "args": ["up"]}, {"name": "proxy", "image": "proxy:1"}],
        });
        let mut order = Order {
            deployment: &deployment,
            target: &target,
            epoch: 7,
            name: &job,
            namespace: &target.namespace,
            pod: &pod,
            image: &image,
            retries: 2,
            timeout: std::time::Duration::from_secs(600),
        };
        let made = manifest(&order).unwrap();
        let spec = &made["spec"]["template"]["spec"];
        assert_eq!(spec["initContainers"][0]["image"], json!(image.to_string()));
        assert_eq!(spec["containers"][0]["image"], json!(image.to_string()));
        assert_eq!(spec["containers"][1]["image"], "proxy:1");
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(made["spec"]["backoffLimit"], 2);
        assert_eq!(made["spec"]["activeDeadlineSeconds"], 660);
        assert_eq!(made["metadata"]["annotations"]["deploy.slipway.dev/epoch"], "7");
        assert_eq!(
            made["metadata"]["annotations"]["deploy.slipway.dev/deployment"],
            "dep-1"
        );

        let theirs = json!({"containers": [{"name": "a"}], "restartPolicy": "OnFailure"});
        order.pod = &theirs;
        assert_eq!(
            manifest(&order).unwrap()["spec"]["template"]["spec"]["restartPolicy"],
            "OnFailure"
        );
        let (empty, text) = (json!({"containers": []}), json!("x"));
        order.pod = &empty;
        assert!(manifest(&order).unwrap_err().contains("pod.containers"));
        order.pod = &text;
        assert!(manifest(&order).unwrap_err().contains("PodSpec"));
    }
}
