//! The verdict on a Deployment: [`kubectl`](crate::kubectl)'s, and what kubectl does not check: that the object is
//! still ours, that the running containers have our digest, and faults that do not pass by themselves.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::PodTemplateSpec,
};
use slipway_model::Timestamp;

use crate::{
    Expected, FailureReason, Observed, TEMPLATE_HASH, Verdict, WorkloadKind, complaint, created, fail,
    kubectl::{self, WaitsFor},
    owned_by, pods, progressing, running, stalled, still_ours,
};

pub use crate::{pods::Current, running::containers_with};

/// What Kubernetes treats as "no deadline" in `progressDeadlineSeconds`.
const NO_DEADLINE: i32 = i32::MAX;

/// Judges one Deployment.
pub fn judge(expected: &Expected, live: &Deployment, observed: &Observed, now: Timestamp) -> Verdict {
    let spec = live.spec.clone().unwrap_or_default();
    if let Some(verdict) = still_ours::check(
        expected,
        WorkloadKind::Deployment,
        &live.metadata,
        Some(&spec.template),
    ) {
        return verdict;
    }
    let current = current_pods(live, observed);
    let waits_for = match kubectl::deployment(live, 0) {
        Err(_) => {
            let seconds = spec.progress_deadline_seconds.unwrap_or(600);
            let detail = pods::worst(&current.pods)
                .or_else(|| not_created(live))
                .or_else(|| complaint::most_telling(&current, observed, now))
                .or_else(|| pods::unready(&current.pods))
                .map(|words| format!(": {words}"))
                .unwrap_or_default();
            let message = format!("no progress within {seconds} s{detail}");
            return fail(FailureReason::ProgressDeadlineExceeded, &message);
        }
        Ok(status) if status.done => return complete(expected, live, &current),
        Ok(status) => status.waits_for,
    };
    let mut message = words(waits_for, spec.replicas.unwrap_or(1));
    if spec.paused == Some(true) {
        message = format!("{message}; it is paused: kubectl rollout resume lets it go on");
    } else if waits_for != WaitsFor::Observation
        && let Some(detail) = pods::worst(&current.pods).or_else(|| not_created(live))
    {
        message = format!("{message}; {detail}");
    } else if waits_for != WaitsFor::Observation {
        message = complaint::added(message, &current, observed, now);
    }
    // Kubernetes enforces the deadline for this kind, unless told not to; a paused one does not have one.
    let ours = spec.progress_deadline_seconds == Some(NO_DEADLINE) && spec.paused != Some(true);
    let deadline = ours.then(|| stalled::deadline(expected, &current.pods)).flatten();
    let hopeless = if waits_for == WaitsFor::Observation {
        pods::Fault::None
    } else {
        pods::judge(&current, &expected.verify, now)
    };
    stalled::verdict(message, hopeless, deadline, "", now)
}

fn complete(expected: &Expected, live: &Deployment, current: &Current<'_>) -> Verdict {
    if !expected.verify.digest {
        return Verdict::Complete;
    }
    let spec = live.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    if wanted == 0 {
        return fail(
            FailureReason::ScaledToZero,
            "it is scaled to zero, so nothing runs: scale it up, or set verify.digest to false",
        );
    }
    let Some(digests) = running::digests_to_prove(expected) else {
        return Verdict::Complete;
    };
    let ours = running::ours(expected, spec.map(|spec| &spec.template));
    match running::prove(&current.pods, &ours, digests) {
        Err(failure) => Verdict::Failed(failure),
        Ok(proven) if proven < wanted => progressing(running::unproven(proven, wanted, digests)),
        Ok(_) => Verdict::Complete,
    }
}

/// The controller's message about pods that it may not create.
fn not_created(live: &Deployment) -> Option<String> {
    let conditions = live.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(pods::not_created(condition.message.as_deref()))
}

/// Finds what belongs to the current template, as the Deployment controller does: equal except for the hash label.
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
    matching
        .first()
        .map(|set| Current::of_replica_set(set, observed))
        .unwrap_or_default()
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

fn words(waits_for: WaitsFor, replicas: i32) -> String {
    match waits_for {
        WaitsFor::Updated { updated, wanted } => format!("{updated} of {wanted} pods are of the new version"),
        WaitsFor::OldPods { old: 1 } => "1 old pod has yet to go".to_owned(),
        WaitsFor::OldPods { old } => format!("{old} old pods have yet to go"),
        WaitsFor::Available { available, .. } => format!("{available} of {replicas} new pods ready"),
        WaitsFor::Observation | WaitsFor::Ready { .. } | WaitsFor::OneRevision { .. } | WaitsFor::Nothing => {
            stalled::UNNOTICED.to_owned()
        }
    }
}
