//! The verdict on a Job: its conditions Complete and Failed. Retries and deadlines are the Job's own
//! (`backoffLimit`, `activeDeadlineSeconds`, `podFailurePolicy`).

use k8s_openapi::api::batch::v1::{Job, JobCondition};

use crate::{FailureReason, Verdict, cut, fail, progressing};

/// The message about a Job that disappeared before it ended: it cannot be known what it did.
pub fn deleted() -> Verdict {
    fail(
        FailureReason::Deleted,
        "the Job was deleted before it ended, so how far it got is not known: look at what it was to do before \
         deploying again",
    )
}

/// Judges one Job.
pub fn judge(live: &Job) -> Verdict {
    // The terminal conditions are written once and stay; a Job that is being deleted may have ended all the same.
    if let Some(failed) = condition(live, "Failed") {
        return fail(FailureReason::JobFailed, &why(live, failed));
    }
    if condition(live, "Complete").is_some() {
        return Verdict::Complete;
    }
    if live.metadata.deletion_timestamp.is_some() {
        return deleted();
    }
    progressing(words(live))
}

fn condition<'a>(live: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = live.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind && c.status == "True")
}

fn why(live: &Job, failed: &JobCondition) -> String {
    let spec = live.spec.as_ref();
    let said = failed.message.as_deref().unwrap_or_default();
    let reason = failed.reason.as_deref().unwrap_or_default();
    let words = match reason {
        "BackoffLimitExceeded" => {
            let tries = spec.and_then(|spec| spec.backoff_limit).unwrap_or(6);
            let failed = live.status.as_ref().and_then(|status| status.failed).unwrap_or(0);
            format!("its pods failed {failed} times; backoffLimit allows {tries} retries")
        }
        "DeadlineExceeded" => match spec.and_then(|spec| spec.active_deadline_seconds) {
            Some(seconds) => format!("it did not end within its activeDeadlineSeconds of {seconds} s"),
            None => "it did not end within its activeDeadlineSeconds".to_owned(),
        },
        "PodFailurePolicy" => format!("its podFailurePolicy ended it: {}", cut(said)),
        "" => cut(said),
        reason => format!("{reason}: {}", cut(said)),
    };
    format!("the Job failed: {words}")
}

fn words(live: &Job) -> String {
    let status = live.status.clone().unwrap_or_default();
    let spec = live.spec.as_ref();
    let failed = status.failed.unwrap_or(0);
    let mut message = if spec.and_then(|spec| spec.suspend) == Some(true) {
        "the Job is suspended: set its spec.suspend to false to let it run".to_owned()
    } else if let Some(criterion) = condition(live, "FailureTarget") {
        // Since Kubernetes 1.31 the end is announced before the last pods are gone.
        format!(
            "the Job is about to fail: {}",
            cut(criterion.message.as_deref().unwrap_or("no reason given"))
        )
    } else if condition(live, "SuccessCriteriaMet").is_some() {
        "the Job has completed; its pods are terminating".to_owned()
    } else if status.active.unwrap_or(0) > 0 {
        let completions = spec.and_then(|spec| spec.completions).unwrap_or(1);
        if completions > 1 {
            let succeeded = status.succeeded.unwrap_or(0);
            format!("the Job runs: {succeeded} of {completions} completions")
        } else {
            "the Job runs".to_owned()
        }
    } else {
        "the Job waits for a pod".to_owned()
    };
    if failed > 0 {
        let plural = if failed == 1 { "pod has" } else { "pods have" };
        message = format!("{message}; {failed} {plural} failed so far");
    }
    message
}
