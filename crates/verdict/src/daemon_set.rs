//! The verdict on a DaemonSet: [`kubectl`](crate::kubectl)'s, with the additions for every workload, a deadline of our
//! own since Kubernetes has none for this kind, and a verdict where kubectl has none (`OnDelete`).

use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::{Pod, PodTemplateSpec},
};
use slipway_model::Timestamp;

use crate::{
    Expected, FailureReason, Observed, REVISION_HASH, Verdict, WorkloadKind, annotation, created, fail,
    kubectl::{self, WaitsFor},
    label, owned_by,
    pods::{self, Current},
    running, stalled, still_ours,
};

/// Annotation with the number of the current template.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// Label of a pod with the number of its template.
const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";

/// Judges one DaemonSet.
pub fn judge(expected: &Expected, live: &DaemonSet, observed: &Observed, now: Timestamp) -> Verdict {
    let template = live.spec.as_ref().map(|spec| &spec.template);
    if let Some(verdict) = still_ours::check(expected, WorkloadKind::DaemonSet, &live.metadata, template) {
        return verdict;
    }
    let status = live.status.clone().unwrap_or_default();
    let current = current_pods(live, observed);
    let all = owned_pods(live, observed);
    // Useful when the controller counts pods as updated although none has the template's number.
    let by_image = pods_by_image(live, observed);
    let message = match kubectl::daemon_set(live) {
        Ok(kubectl) if kubectl.done => {
            let updated = if current.pods.is_empty() {
                &by_image
            } else {
                &current
            };
            match complete(expected, template, &status, updated) {
                Ok(message) => message,
                Err(verdict) => return verdict,
            }
        }
        Ok(kubectl) => words(kubectl.waits_for, &status, &all, &current),
        Err(_) => match on_delete(expected, live, &status, &all, (&current, &by_image)) {
            Ok(message) => message,
            Err(verdict) => return verdict,
        },
    };
    let fault = pods::judge(&current, &expected.verify, now);
    let deadline = stalled::deadline(expected, &current.pods);
    let missing = status.current_number_scheduled < status.desired_number_scheduled;
    let hint = if missing { stalled::NOT_CREATED } else { "" };
    stalled::verdict(message, fault, deadline, hint, now)
}

/// What is missing although kubectl is satisfied, or the verdict.
fn complete(
    expected: &Expected,
    template: Option<&PodTemplateSpec>,
    status: &DaemonSetStatus,
    current: &Current<'_>,
) -> Result<String, Verdict> {
    if !expected.verify.digest {
        return Err(Verdict::Complete);
    }
    let wanted = status.desired_number_scheduled;
    if wanted == 0 {
        return Err(fail(
            FailureReason::ScaledToZero,
            "no node is to run it, so nothing runs: look at its nodeSelector, affinity and tolerations, or set \
             verify.digest to false",
        ));
    }
    let Some(digest) = running::digest_to_prove(expected) else {
        return Err(Verdict::Complete);
    };
    let ours = running::containers_of(expected, template);
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
    live: &DaemonSet,
    status: &DaemonSetStatus,
    all: &[&Pod],
    (current, by_image): (&Current<'_>, &Current<'_>),
) -> Result<String, Verdict> {
    if !expected.verify.digest {
        return Err(pods::not_rolled_out(0));
    }
    if live.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return Ok(stalled::UNNOTICED.to_owned());
    }
    let updated = usize::try_from(status.updated_number_scheduled.unwrap_or(0)).unwrap_or(0);
    let old = pods::old(all, current);
    if !old.is_empty() && updated < pods::living(all).count() {
        return Err(pods::not_rolled_out(old.len()));
    }
    let wanted = status.desired_number_scheduled;
    let available = status.number_available.unwrap_or(0);
    if available < wanted {
        return Ok(words(
            WaitsFor::Available { available, wanted },
            status,
            all,
            current,
        ));
    }
    let template = live.spec.as_ref().map(|spec| &spec.template);
    complete(
        expected,
        template,
        status,
        if current.pods.is_empty() {
            by_image
        } else {
            current
        },
    )
}

/// The pods of the current template, by the controller's own rule (`util.IsPodUpdated`): the label with the template's
/// number, or the revision's hash, which is taken from those that have the number.
pub fn current_pods<'a>(live: &DaemonSet, observed: &'a Observed) -> Current<'a> {
    let Some(generation) = annotation(&live.metadata, TEMPLATE_GENERATION) else {
        // API servers set it; without it, the template's images are the best evidence there is.
        return pods_by_image(live, observed);
    };
    let all = owned_pods(live, observed);
    let numbered = |pod: &Pod| label(&pod.metadata, POD_TEMPLATE_GENERATION) == Some(generation);
    let hash = all.iter().find(|pod| numbered(pod)).and_then(|pod| hash(pod));
    Current {
        replica_set: None,
        pods: Vec::from_iter(
            all.into_iter()
                .filter(|pod| numbered(pod) || hash.is_some() && self::hash(pod) == hash),
        ),
    }
}

/// The pods of the newest revision that runs the template's images. After a step back to a template whose pods live on,
/// none has the new number, and the controller identifies them by a hash that is not visible anywhere else.
fn pods_by_image<'a>(live: &DaemonSet, observed: &'a Observed) -> Current<'a> {
    let all = owned_pods(live, observed);
    let newest = live.spec.as_ref().and_then(|spec| {
        let same = all.iter().filter(|pod| runs_images_of(pod, &spec.template));
        same.max_by_key(|pod| created(&pod.metadata))
            .and_then(|pod| hash(pod))
    });
    Current {
        replica_set: None,
        pods: Vec::from_iter(
            all.into_iter()
                .filter(|pod| newest.is_some() && hash(pod) == newest),
        ),
    }
}

fn hash(pod: &Pod) -> Option<&str> {
    label(&pod.metadata, REVISION_HASH)
}

/// Whether the pod was told to run the template's images, container by container.
fn runs_images_of(pod: &Pod, template: &PodTemplateSpec) -> bool {
    let (Some(pod), Some(template)) = (&pod.spec, &template.spec) else {
        return false;
    };
    template.containers.iter().all(|wanted| {
        pod.containers
            .iter()
            .any(|one| one.name == wanted.name && one.image == wanted.image)
    })
}

fn owned_pods<'a>(live: &DaemonSet, observed: &'a Observed) -> Vec<&'a Pod> {
    observed
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| owned_by(&pod.metadata, live.metadata.uid.as_deref()))
        .collect()
}

fn words(waits_for: WaitsFor, status: &DaemonSetStatus, all: &[&Pod], current: &Current<'_>) -> String {
    let message = match waits_for {
        WaitsFor::Updated { updated, wanted } => format!("{updated} of {wanted} nodes have the new version"),
        WaitsFor::Available { available, wanted } => {
            format!("{available} of {wanted} nodes have an available pod of the new version")
        }
        _ => return stalled::UNNOTICED.to_owned(),
    };
    if let Some(pod) = pods::worst(&current.pods) {
        return format!("{message}; {pod}");
    }
    if let Some(pod) = pods::worst(&pods::old(all, current)) {
        return format!("{message}; held up by the version before: {pod}");
    }
    let wanted = status.desired_number_scheduled;
    let without = wanted - status.current_number_scheduled;
    // While one is terminating, its successor cannot exist yet.
    if without > 0 && pods::living(all).count() == all.len() {
        return format!("{message}; {without} of {wanted} nodes have no pod");
    }
    message
}
