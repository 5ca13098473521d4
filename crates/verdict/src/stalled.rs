//! Rollouts without progress: faults that do not pass, and a deadline of our own where Kubernetes has none.

use k8s_openapi::api::core::v1::Pod;
use slipway_model::Timestamp;

use crate::{
    Expected, FailureReason, Verdict, created, fail, later,
    pods::{self, Fault},
};

/// While the controller has not seen what was written.
pub(crate) const UNNOTICED: &str = "waiting for the cluster to notice the new version";

/// When the rollout has failed unless a new pod is created or becomes ready before that; `None` without
/// `verify.progress_deadline`.
pub(crate) fn deadline(expected: &Expected, current: &[&Pod]) -> Option<(Timestamp, u64)> {
    let allowed = expected.verify.progress_deadline?;
    let progress = current
        .iter()
        .flat_map(|pod| created(&pod.metadata).into_iter().chain(became_ready(pod)))
        .max();
    // The cluster truncates times to seconds.
    let last = progress.map_or(expected.since, |progress| progress.max(expected.since));
    Some((last + allowed, allowed.as_secs()))
}

fn became_ready(pod: &Pod) -> Option<Timestamp> {
    pods::ready(pod)?
        .last_transition_time
        .as_ref()
        .map(|time| later(time, std::time::Duration::ZERO))
}

/// The message when time is up and pods are missing: for these kinds, no condition says why.
pub(crate) const NOT_CREATED: &str =
    "; where a pod is missing, quota or admission may refuse it: the workload's events say why";

/// The verdict on a rollout that is not done: `message` says what is missing, `hint` what else to say when time is up.
pub(crate) fn verdict(
    message: String,
    fault: Fault,
    deadline: Option<(Timestamp, u64)>,
    hint: &str,
    now: Timestamp,
) -> Verdict {
    let fatal_at = match fault {
        Fault::Fatal(failure) => return Verdict::Failed(failure),
        Fault::FatalAt(at) => Some(at),
        Fault::None => None,
    };
    if let Some((at, seconds)) = deadline
        && now >= at
    {
        let message = format!("no progress within {seconds} s: {message}{hint}");
        return fail(FailureReason::ProgressDeadlineExceeded, &message);
    }
    let look_again = fatal_at.into_iter().chain(deadline.map(|(at, _)| at)).min();
    Verdict::Progressing { message, look_again }
}
