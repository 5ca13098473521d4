//! Whether the live object is the one that we wrote: the same for every kind of workload.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::{
    DEPLOYMENT, Expected, FailureReason, UNSEEN, Verdict, WorkloadKind, annotation, created, epoch_of, fail,
    last_manager, progressing, running,
};

/// `None`: it is ours, as far as metadata and template show. The template is given if the object has one.
pub(crate) fn check(
    expected: &Expected,
    kind: WorkloadKind,
    metadata: &ObjectMeta,
    template: Option<&PodTemplateSpec>,
) -> Option<Verdict> {
    let applied = &expected.applied;
    let stale = || Some(progressing(UNSEEN.to_owned()));
    if !applied.uid.is_empty() && metadata.uid.as_deref() != Some(applied.uid.as_str()) {
        // A watch that lags shows the object from before ours; a younger one is another client's. Creation times are
        // truncated to seconds, so one created within the same second is detected only by the watch, later.
        let younger = created(metadata) > applied.created_at;
        return if younger {
            let message = format!("someone deleted the {kind} and created another of its name: deploy again");
            Some(fail(FailureReason::Replaced, &message))
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
        let message = format!(
            "{by} took its place (epoch {epoch} after {}): that one answers for what runs now, look at it",
            expected.epoch
        );
        return Some(fail(FailureReason::SupersededEpoch, &message));
    }
    // kubectl does not check any of what follows.
    if expected.verify.beyond_kubectl() && metadata.deletion_timestamp.is_some() {
        let message = format!("the {kind} is being deleted");
        return Some(fail(FailureReason::Deleted, &message));
    }
    if expected.verify.digest
        && let Some(template) = template
        && running::containers_of(expected, Some(template)).is_empty()
    {
        let images = running::images_of(template).join(", ");
        let who = last_manager(metadata)
            .map(|manager| format!(", by {manager}"))
            .unwrap_or_default();
        let message = format!(
            "someone else's update took its place{who}: it is to run {images} now; if ours is right, stop what writes \
             it and deploy again"
        );
        return Some(fail(FailureReason::Superseded, &message));
    }
    None
}
