//! The verdict on a Deployment. The base is `kubectl rollout status` (kubectl 1.32, `rollout_status.go`), which
//! [`rollout`] follows to the letter and the recordings check. [`judge`] adds what kubectl does not look at: that the
//! thing is still ours, that the running containers have our digest, and faults that do not heal by themselves.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use slipway_model::{Digest, ImageRef, Timestamp};

use crate::{
    DEPLOYMENT, Expected, FailureReason, Observed, TEMPLATE_HASH, UNSEEN, Verdict, annotation, created, epoch_of,
    fail, last_manager, owned_by, pods as faults, progressing,
};

/// Where `kubectl rollout status deployment` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// The controller has not seen the present generation.
    NotObserved,
    ProgressDeadlineExceeded,
    /// Fewer pods than wanted are of the new template.
    Updating {
        updated: i32,
        wanted: i32,
    },
    /// Pods of older templates are counted still.
    OldPending {
        old: i32,
    },
    /// New pods are not available.
    Unavailable {
        available: i32,
        updated: i32,
    },
    Complete,
}

/// kubectl's judgement, in kubectl's order.
pub fn rollout(deployment: &Deployment) -> Rollout {
    let status = deployment.status.clone().unwrap_or_default();
    if deployment.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return Rollout::NotObserved;
    }
    let timed_out = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Progressing" && c.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    if timed_out {
        return Rollout::ProgressDeadlineExceeded;
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    match deployment.spec.as_ref().and_then(|spec| spec.replicas) {
        Some(wanted) if updated < wanted => Rollout::Updating { updated, wanted },
        _ if total > updated => Rollout::OldPending { old: total - updated },
        _ if available < updated => Rollout::Unavailable { available, updated },
        _ => Rollout::Complete,
    }
}

/// Judges one Deployment.
pub fn judge(expected: &Expected, live: &Deployment, observed: &Observed, now: Timestamp) -> Verdict {
    if let Some(verdict) = still_ours(expected, &live.metadata, live) {
        return verdict;
    }
    let current = current_pods(live, observed);
    let spec = live.spec.clone().unwrap_or_default();
    match rollout(live) {
        Rollout::NotObserved => progressing("waiting for the cluster to notice the new version".to_owned()),
        Rollout::ProgressDeadlineExceeded => {
            let detail = faults::worst(&current.pods)
                .map(|words| format!(": {words}"))
                .unwrap_or_default();
            fail(
                FailureReason::ProgressDeadlineExceeded,
                &format!(
                    "no progress within {} s{detail}",
                    spec.progress_deadline_seconds.unwrap_or(600)
                ),
            )
        }
        Rollout::Complete => complete(expected, live, &current),
        state => {
            let mut look_again = None;
            if expected.verify.fail_early {
                match faults::judge(&current, &expected.verify, now) {
                    faults::Fault::Fatal(failure) => return Verdict::Failed(failure),
                    faults::Fault::FatalAt(at) => look_again = Some(at),
                    faults::Fault::None => {}
                }
            }
            let mut message = words(state, spec.replicas.unwrap_or(1));
            if spec.paused == Some(true) {
                message = format!("{message}; it is paused: kubectl rollout resume lets it go on");
            } else if let Some(pod) = faults::worst(&current.pods) {
                message = format!("{message}; {pod}");
            }
            Verdict::Progressing { message, look_again }
        }
    }
}

/// Whether the live object is the one that we wrote. `None`: it is.
fn still_ours(expected: &Expected, metadata: &ObjectMeta, live: &Deployment) -> Option<Verdict> {
    let applied = &expected.applied;
    let stale = || Some(progressing(UNSEEN.to_owned()));
    if !applied.uid.is_empty() && metadata.uid.as_deref() != Some(applied.uid.as_str()) {
        // A watch that lags shows the one from before ours; a younger one is somebody else's.
        let younger = created(metadata) > applied.created_at;
        return if younger {
            Some(fail(
                FailureReason::Replaced,
                "someone deleted the Deployment and created another of its name",
            ))
        } else {
            stale()
        };
    }
    if metadata.generation.unwrap_or(0) < applied.generation {
        return stale();
    }
    let epoch = epoch_of(metadata);
    if epoch > expected.epoch {
        let by = annotation(metadata, DEPLOYMENT).unwrap_or("another deployment");
        let message = format!("{by} took its place (epoch {epoch} after {})", expected.epoch);
        return Some(fail(FailureReason::SupersededEpoch, &message));
    }
    let template = live.spec.as_ref().map(|spec| &spec.template);
    if expected.verify.digest && containers_with(template, &expected.image).is_empty() {
        let images = images_of(template).join(", ");
        let who = last_manager(metadata)
            .map(|manager| format!(", by {manager}"))
            .unwrap_or_default();
        let message = format!("someone else's update took its place{who}: it is to run {images} now");
        return Some(fail(FailureReason::Superseded, &message));
    }
    None
}

fn complete(expected: &Expected, live: &Deployment, current: &Current<'_>) -> Verdict {
    if !expected.verify.digest {
        return Verdict::Complete;
    }
    let wanted = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if wanted == 0 {
        return fail(
            FailureReason::ScaledToZero,
            "it is scaled to zero, so nothing runs: scale it up, or set verify.digest to false",
        );
    }
    let ours = containers_with(live.spec.as_ref().map(|spec| &spec.template), &expected.image);
    let Some(digest) = &expected.image.digest else {
        return Verdict::Complete;
    };
    let mut proven = 0;
    for pod in current
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        match pod_runs(pod, &ours, digest) {
            Runs::Ours => proven += 1,
            Runs::NotYet => {}
            Runs::Other(id) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = format!("pod {name} runs {id} instead of {digest}");
                return fail(FailureReason::WrongImage, &message);
            }
        }
    }
    if proven < wanted {
        return progressing(format!(
            "{proven} of {wanted} new pods seen to run {}",
            digest.short()
        ));
    }
    Verdict::Complete
}

enum Runs {
    Ours,
    NotYet,
    Other(String),
}

/// Whether the pod's containers of those names run that digest.
fn pod_runs(pod: &Pod, containers: &[&str], digest: &Digest) -> Runs {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut seen = 0;
    for status in statuses.filter(|status| containers.contains(&status.name.as_str())) {
        if status.state.as_ref().is_none_or(|state| state.running.is_none()) {
            return Runs::NotYet;
        }
        match status.image_id.rsplit_once('@') {
            Some((_, id)) if id == digest.as_str() => seen += 1,
            Some((_, id)) => return Runs::Other(id.to_owned()),
            // Runtimes that know no repository digest (images loaded into a node) report the configuration's id;
            // there, that the pod asks for exactly this digest has to do.
            None if asks_for(pod, &status.name, digest) => seen += 1,
            None => return Runs::Other(status.image_id.clone()),
        }
    }
    if seen == containers.len() {
        Runs::Ours
    } else {
        Runs::NotYet
    }
}

fn asks_for(pod: &Pod, container: &str, digest: &Digest) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers
        .iter()
        .filter(|one| one.name == container)
        .any(|one| {
            one.image
                .as_deref()
                .is_some_and(|image| image.ends_with(&format!("@{digest}")))
        })
}

/// The ReplicaSet of the Deployment's present template, and its pods.
#[derive(Debug, Default)]
pub struct Current<'a> {
    pub replica_set: Option<&'a ReplicaSet>,
    pub pods: Vec<&'a Pod>,
}

/// Finds what belongs to the present template, as the Deployment controller does: equal but for the hash label.
pub fn current_pods<'a>(live: &Deployment, observed: &'a Observed) -> Current<'a> {
    let Some(template) = live.spec.as_ref().map(|spec| &spec.template) else {
        return Current::default();
    };
    let mut matching: Vec<&ReplicaSet> = observed
        .replica_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|set| owned_by(&set.metadata, live.metadata.uid.as_deref()))
        .filter(|set| {
            let its = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            its.is_some_and(|its| same_template(its, template))
        })
        .collect();
    // The controller takes the oldest of several.
    matching.sort_by_key(|set| created(&set.metadata));
    let Some(set) = matching.first().copied() else {
        return Current::default();
    };
    let pods = observed
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| owned_by(&pod.metadata, set.metadata.uid.as_deref()))
        .collect();
    Current {
        replica_set: Some(set),
        pods,
    }
}

fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    fn labels(template: &PodTemplateSpec) -> impl Iterator<Item = (&String, &String)> {
        let labels = template
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.labels.as_ref());
        labels
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != TEMPLATE_HASH)
    }
    fn annotations(template: &PodTemplateSpec) -> impl Iterator<Item = (&String, &String)> {
        let metadata = template.metadata.as_ref();
        metadata
            .and_then(|metadata| metadata.annotations.as_ref())
            .into_iter()
            .flatten()
    }
    one.spec == other.spec && labels(one).eq(labels(other)) && annotations(one).eq(annotations(other))
}

/// The names of the template's containers that run exactly this image, whatever its tag.
pub fn containers_with<'a>(template: Option<&'a PodTemplateSpec>, image: &ImageRef) -> Vec<&'a str> {
    let Some(spec) = template.and_then(|template| template.spec.as_ref()) else {
        return Vec::new();
    };
    let is_ours = |text: &str| {
        text.parse::<ImageRef>()
            .is_ok_and(|one| one.name == image.name && one.digest == image.digest)
    };
    spec.containers
        .iter()
        .filter(|container| container.image.as_deref().is_some_and(is_ours))
        .map(|container| container.name.as_str())
        .collect()
}

fn images_of(template: Option<&PodTemplateSpec>) -> Vec<&str> {
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.iter()
        .flat_map(|spec| &spec.containers)
        .filter_map(|container| container.image.as_deref())
        .collect()
}

fn words(state: Rollout, replicas: i32) -> String {
    match state {
        Rollout::Updating { updated, wanted } => format!("{updated} of {wanted} pods are of the new version"),
        Rollout::OldPending { old: 1 } => "1 old pod has yet to go".to_owned(),
        Rollout::OldPending { old } => format!("{old} old pods have yet to go"),
        Rollout::Unavailable { available, .. } => format!("{available} of {replicas} new pods ready"),
        Rollout::NotObserved | Rollout::ProgressDeadlineExceeded | Rollout::Complete => String::new(),
    }
}
