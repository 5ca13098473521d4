//! The verdict on a StatefulSet: [`kubectl`](crate::kubectl)'s, with the additions for every workload, a deadline of
//! our own since Kubernetes has none for this kind, and a verdict where kubectl has none (`OnDelete`).

use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus},
    core::v1::Pod,
};
use slipway_model::Timestamp;

use crate::{
    Expected, FailureReason, Observed, REVISION_HASH, Verdict, WorkloadKind, fail,
    kubectl::{self, WaitsFor},
    label, owned_by,
    pods::{self, Current},
    running, stalled, still_ours,
};

/// Judges one StatefulSet.
pub fn judge(expected: &Expected, live: &StatefulSet, observed: &Observed, now: Timestamp) -> Verdict {
    let spec = live.spec.clone().unwrap_or_default();
    let template = Some(&spec.template);
    if let Some(verdict) = still_ours::check(expected, WorkloadKind::StatefulSet, &live.metadata, template) {
        return verdict;
    }
    let status = live.status.clone().unwrap_or_default();
    let current = current_pods(live, observed);
    let all = owned_pods(live, observed);
    let message = match kubectl::stateful_set(live) {
        Ok(kubectl) if kubectl.done => match complete(expected, &spec, &all, &current) {
            Ok(message) => message,
            Err(verdict) => return verdict,
        },
        Ok(kubectl) => words(kubectl.waits_for, &spec, &status, &all, &current),
        Err(_) => match on_delete(expected, live, &spec, &status, &all, &current) {
            Ok(message) => message,
            Err(verdict) => return verdict,
        },
    };
    let fault = pods::judge(&current, &expected.verify, now);
    let deadline = stalled::deadline(expected, &current.pods);
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let hint = if all.len() < wanted {
        stalled::NOT_CREATED
    } else {
        ""
    };
    stalled::verdict(message, fault, deadline, hint, now)
}

/// What is missing although kubectl is satisfied, or the verdict.
fn complete(
    expected: &Expected,
    spec: &StatefulSetSpec,
    all: &[&Pod],
    current: &Current<'_>,
) -> Result<String, Verdict> {
    if !expected.verify.digest {
        return Err(Verdict::Complete);
    }
    let replicas = spec.replicas.unwrap_or(1);
    if replicas == 0 {
        return Err(scaled_to_zero());
    }
    let wanted = must_be_updated(spec);
    if wanted == 0 && !pods::old(all, current).is_empty() {
        let partition = partition(spec);
        return Err(fail(
            FailureReason::NotRolledOut,
            &format!(
                "updateStrategy.rollingUpdate.partition {partition} keeps all {replicas} pods at the version before: \
                 lower it to roll out"
            ),
        ));
    }
    prove(
        expected,
        spec,
        current,
        if wanted == 0 { replicas } else { wanted },
    )
}

fn scaled_to_zero() -> Verdict {
    fail(
        FailureReason::ScaledToZero,
        "it is scaled to zero, so nothing runs: scale it up, or set verify.digest to false",
    )
}

/// What is missing from the proof, or the verdict.
fn prove(
    expected: &Expected,
    spec: &StatefulSetSpec,
    current: &Current<'_>,
    wanted: i32,
) -> Result<String, Verdict> {
    let Some(digest) = running::digest_to_prove(expected) else {
        return Err(Verdict::Complete);
    };
    let ours = running::containers_of(expected, Some(&spec.template));
    match running::prove(&current.pods, &ours, digest) {
        Err(failure) => Err(Verdict::Failed(failure)),
        Ok(proven) if proven < wanted => Ok(running::unproven(proven, wanted, digest)),
        Ok(_) => Err(Verdict::Complete),
    }
}

/// kubectl does not judge strategies other than RollingUpdate. Under `OnDelete` nothing is rolled out by itself, but
/// what was requested may be running anyway: at the first creation, or once the old pods were deleted.
fn on_delete(
    expected: &Expected,
    live: &StatefulSet,
    spec: &StatefulSetSpec,
    status: &StatefulSetStatus,
    all: &[&Pod],
    current: &Current<'_>,
) -> Result<String, Verdict> {
    if !expected.verify.digest {
        return Err(pods::not_rolled_out(0));
    }
    let observed = status.observed_generation.unwrap_or(0);
    if observed == 0 || live.metadata.generation.unwrap_or(0) > observed {
        return Ok(stalled::UNNOTICED.to_owned());
    }
    let old = pods::old(all, current);
    if !old.is_empty() {
        return Err(pods::not_rolled_out(old.len()));
    }
    let replicas = spec.replicas.unwrap_or(1);
    if replicas == 0 {
        return Err(scaled_to_zero());
    }
    let ready = status.ready_replicas.unwrap_or(0);
    if ready < replicas {
        let waits = WaitsFor::Ready {
            missing: replicas - ready,
        };
        return Ok(words(waits, spec, status, all, current));
    }
    prove(expected, spec, current, replicas)
}

/// The pods of the revision that is being rolled out, by the label that the controller gives them.
pub fn current_pods<'a>(live: &StatefulSet, observed: &'a Observed) -> Current<'a> {
    let status = live.status.as_ref();
    let seen = status.and_then(|status| status.observed_generation).unwrap_or(0);
    // The revision of an older generation says nothing about this one's pods.
    if seen < live.metadata.generation.unwrap_or(0) {
        return Current::default();
    }
    let Some(revision) = status.and_then(|status| status.update_revision.as_deref()) else {
        return Current::default();
    };
    let pods = owned_pods(live, observed)
        .into_iter()
        .filter(|pod| label(&pod.metadata, REVISION_HASH) == Some(revision))
        .collect();
    Current {
        replica_set: None,
        pods,
    }
}

fn owned_pods<'a>(live: &StatefulSet, observed: &'a Observed) -> Vec<&'a Pod> {
    observed
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| owned_by(&pod.metadata, live.metadata.uid.as_deref()))
        .collect()
}

fn partition(spec: &StatefulSetSpec) -> i32 {
    spec.update_strategy
        .as_ref()
        .and_then(|strategy| strategy.rolling_update.as_ref())
        .and_then(|rolling| rolling.partition)
        .unwrap_or(0)
}

/// Pods that the partition does not hold back.
fn must_be_updated(spec: &StatefulSetSpec) -> i32 {
    spec.replicas.unwrap_or(1).saturating_sub(partition(spec)).max(0)
}

fn words(
    waits_for: WaitsFor,
    spec: &StatefulSetSpec,
    status: &StatefulSetStatus,
    all: &[&Pod],
    current: &Current<'_>,
) -> String {
    let replicas = spec.replicas.unwrap_or(1);
    let message = match waits_for {
        WaitsFor::Updated { updated, wanted } => format!("{updated} of {wanted} pods are of the new version"),
        WaitsFor::OneRevision { updated } => format!("{updated} of {replicas} pods are of the new version"),
        WaitsFor::Ready { missing } => {
            let ready = replicas - missing;
            let updated = status.updated_replicas.unwrap_or(0).min(must_be_updated(spec));
            let wanted = must_be_updated(spec);
            if updated < wanted {
                format!("{updated} of {wanted} pods are of the new version, {ready} of {replicas} pods ready")
            } else {
                format!("{ready} of {replicas} pods ready")
            }
        }
        _ => return stalled::UNNOTICED.to_owned(),
    };
    if let Some(pod) = pods::worst(&current.pods) {
        return format!("{message}; {pod}");
    }
    // A broken old pod is not this version's fault, yet it holds up the rollout: the controller goes pod by pod and
    // waits for each.
    if let Some(pod) = pods::worst(&pods::old(all, current)) {
        return format!("{message}; held up by the version before: {pod}");
    }
    let living = pods::living(all).count();
    // While one is terminating, its successor cannot exist yet.
    if all.len() == living && living < usize::try_from(replicas).unwrap_or(0) {
        return format!("{message}; {living} of {replicas} pods exist");
    }
    message
}
