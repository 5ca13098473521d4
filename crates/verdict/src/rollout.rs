//! The verdict on a Rollout of Argo Rollouts (1.0 and later), and whether a promotion is due.
//!
//! The controller computes `status.phase`; like its own plugin (`utils/rollout`, `GetRolloutPhase`) we trust it only
//! for the current generation, and not while an unpause has yet to be noticed. A Rollout that went back to its stable
//! version is Healthy too, so the current and stable versions, and what the pods run, are checked as well.

use std::time::Duration;

use slipway_model::Timestamp;

use crate::{
    Expected, FailureReason, Next, Observed, Verdict, WorkloadKind, complaint, cut, fail, label,
    objects::rollout::Rollout,
    pods::{self, Current},
    progressing, running, stalled, still_ours,
};

/// How long the controller may take to notice a change of the workload that `workloadRef` names.
const REFERENCE_PATIENCE: Duration = Duration::from_secs(30);

/// Label of ReplicaSets and pods with the hash of their template.
pub const POD_HASH: &str = "rollouts-pod-template-hash";

/// Judges one Rollout.
pub fn judge(expected: &Expected, live: &Rollout, observed: &Observed, now: Timestamp) -> Verdict {
    let template = live.spec.template.as_ref();
    if let Some(verdict) = still_ours::check(expected, WorkloadKind::Rollout, &live.metadata, template) {
        return verdict;
    }
    if !live.is_observed() {
        return progressing(stalled::UNNOTICED.to_owned());
    }
    let current = current_pods(live, observed);
    if live.status.abort && !live.is_fully_promoted() {
        return aborted(live, &current);
    }
    if live.status.controller_pause && live.pauses().is_empty() {
        return progressing("promoted; waiting for Argo Rollouts to go on".to_owned());
    }
    let mut message = match live.status.phase.as_deref().unwrap_or_default() {
        "Healthy" => match healthy(expected, live, &current, now) {
            Ok(message) => message,
            Err(verdict) => return verdict,
        },
        "Degraded" => return degraded(live, &current, observed, now),
        "Paused" => format!("{}; {}", words(live), pause_words(live)),
        "Progressing" => words(live),
        "" => "Argo Rollouts reports no phase: versions before 1.0 are not supported".to_owned(),
        other => format!("Argo Rollouts says {other}: {}", words(live)),
    };
    if let Some(pod) = pods::worst(&current.pods) {
        message = format!("{message}; {pod}");
    } else {
        message = complaint::added(message, &current, observed, now);
    }
    // The controller enforces progressDeadlineSeconds itself, and stops the clock while it is paused.
    let fault = pods::judge(&current, &expected.verify, now);
    stalled::verdict(message, fault, None, "", now)
}

/// What is missing although the controller is satisfied, or the verdict.
fn healthy(
    expected: &Expected,
    live: &Rollout,
    current: &Current<'_>,
    now: Timestamp,
) -> Result<String, Verdict> {
    if !live.is_fully_promoted() {
        return Ok("the new version is not yet the stable one".to_owned());
    }
    if !expected.verify.digest {
        return Err(Verdict::Complete);
    }
    let wanted = live.spec.replicas.unwrap_or(1);
    if wanted == 0 {
        return Err(fail(
            FailureReason::ScaledToZero,
            "it is scaled to zero, so nothing runs: scale it up, or set verify.digest to false",
        ));
    }
    // With a workloadRef the template is the ReplicaSet's.
    let its = current
        .replica_set
        .and_then(|set| set.spec.as_ref()?.template.as_ref());
    let template = live.spec.template.as_ref().or(its);
    let ours = running::ours(expected, template);
    // The controller learns of a change of the workload that it refers to some time after it.
    if let (None, Some(its)) = (&live.spec.template, template)
        && running::is_not_ours(expected, its)
        && now < expected.since + REFERENCE_PATIENCE
    {
        return Ok(format!(
            "it runs {}; waiting for Argo Rollouts to take up the new version",
            running::images_of(its).join(", ")
        ));
    }
    if let Some(its) = template
        && running::is_not_ours(expected, its)
    {
        let message = format!(
            "someone else's update took its place: it runs {}; if ours is right, deploy again",
            running::images_of(its).join(", ")
        );
        return Err(fail(FailureReason::Superseded, &message));
    }
    let Some(digests) = running::digests_to_prove(expected) else {
        return Err(Verdict::Complete);
    };
    match running::prove(&current.pods, &ours, digests) {
        Err(failure) => Err(Verdict::Failed(failure)),
        Ok(proven) if proven < wanted => Ok(running::unproven(proven, wanted, digests)),
        Ok(_) => Err(Verdict::Complete),
    }
}

fn aborted(live: &Rollout, current: &Current<'_>) -> Verdict {
    let why = live
        .condition("Progressing")
        .filter(|condition| condition.reason.as_deref() == Some("RolloutAborted"))
        .and_then(|condition| condition.message.as_deref())
        .or(live.status.message.as_deref());
    let why = why.map_or_else(String::new, |why| format!(": {}", cut(why)));
    let pod = pods::worst(&current.pods).map_or_else(String::new, |pod| format!("; {pod}"));
    fail(
        FailureReason::Aborted,
        &format!("the rollout was aborted, and the version before serves everything{why}{pod}"),
    )
}

fn degraded(live: &Rollout, current: &Current<'_>, observed: &Observed, now: Timestamp) -> Verdict {
    let progress = live.condition("Progressing");
    let reason = progress.and_then(|condition| condition.reason.as_deref());
    let said = live
        .status
        .message
        .as_deref()
        .or(progress.and_then(|condition| condition.message.as_deref()));
    let said = cut(said.unwrap_or("no reason given"));
    let pod = pods::worst(&current.pods)
        .or_else(|| complaint::most_telling(current, observed, now))
        .map_or_else(String::new, |pod| format!("; {pod}"));
    let (reason, message) = match reason {
        _ if live.condition("InvalidSpec").is_some() => (
            FailureReason::Degraded,
            format!("Argo Rollouts refuses its spec: {said}"),
        ),
        Some("RolloutAborted") => (
            FailureReason::Aborted,
            format!("the rollout was aborted, and the version before serves everything: {said}{pod}"),
        ),
        Some("ProgressDeadlineExceeded") => (
            FailureReason::ProgressDeadlineExceeded,
            format!("no progress within its progressDeadlineSeconds: {said}{pod}"),
        ),
        _ => (
            FailureReason::Degraded,
            format!("Argo Rollouts says Degraded: {said}{pod}"),
        ),
    };
    fail(reason, &message)
}

/// What to do with it next.
pub fn next(expected: &Expected, live: &Rollout) -> Next {
    let other = still_ours::check(
        expected,
        WorkloadKind::Rollout,
        &live.metadata,
        live.spec.template.as_ref(),
    );
    if other.is_some() || !live.is_observed() || live.status.abort {
        return Next::Wait;
    }
    match pause(live) {
        Some(Pause::Person) if expected.promotes => Next::Promote,
        Some(Pause::Person | Pause::Judgement | Pause::Stopped) => Next::Ask(pause_words(live)),
        Some(Pause::Time) | None => Next::Wait,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// It continues by itself after a while.
    Time,
    /// A step asks for an approval.
    Person,
    /// An analysis was inconclusive: it should not continue without a person looking.
    Judgement,
    /// It was stopped with `spec.paused`.
    Stopped,
}

/// What it is paused for (`requiresManualAction`).
fn pause(live: &Rollout) -> Option<Pause> {
    if live.spec.paused {
        return Some(Pause::Stopped);
    }
    let reasons = live.pauses().iter().map(|pause| match pause.reason.as_str() {
        "InconclusiveAnalysisRun" | "InconclusiveExperiment" => Pause::Judgement,
        "CanaryPauseStep" => {
            let index = usize::try_from(live.status.current_step_index.unwrap_or(0)).unwrap_or(0);
            let step = live.steps().get(index).and_then(|step| step.pause.as_ref());
            match step {
                Some(step) if step.duration.is_none() => Pause::Person,
                _ => Pause::Time,
            }
        }
        "BlueGreenPause" => match &live.spec.strategy.blue_green {
            Some(strategy)
                if strategy.auto_promotion_enabled == Some(false)
                    && strategy.auto_promotion_seconds.unwrap_or(0) == 0 =>
            {
                Pause::Person
            }
            _ => Pause::Time,
        },
        // An unknown reason must not be promoted blindly.
        _ => Pause::Judgement,
    });
    // The one that asks for most.
    reasons.max_by_key(|pause| match pause {
        Pause::Time => 0,
        Pause::Person => 1,
        Pause::Judgement | Pause::Stopped => 2,
    })
}

fn pause_words(live: &Rollout) -> String {
    let reason = live.pauses().first().map_or("", |pause| pause.reason.as_str());
    match pause(live) {
        Some(Pause::Stopped) => "it was paused by hand (spec.paused): promoting resumes it".to_owned(),
        Some(Pause::Judgement) => {
            format!("it is paused, since an analysis came to no conclusion ({reason}): promote or abort")
        }
        Some(Pause::Person) => "it is paused until it is promoted or aborted".to_owned(),
        Some(Pause::Time) => "it is paused for a while, as its strategy says".to_owned(),
        None => "it is paused".to_owned(),
    }
}

fn words(live: &Rollout) -> String {
    let status = &live.status;
    let wanted = live.spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    let steps = live.steps().len();
    let done = usize::try_from(status.current_step_index.unwrap_or(0)).unwrap_or(0);
    let mut message = format!("{updated} of {wanted} pods are of the new version");
    if steps > 0 && !live.is_fully_promoted() {
        message = format!("{message}, {} of {steps} steps done", done.min(steps));
    } else if updated >= wanted {
        let available = status.available_replicas.unwrap_or(0).min(wanted);
        message = format!("{available} of {wanted} pods ready");
    }
    match status.message.as_deref() {
        // A pause's message is its reason, which is described in words.
        Some(said) if !said.is_empty() && live.pauses().is_empty() && !live.spec.paused => {
            format!("{message} ({})", cut(said))
        }
        _ => message,
    }
}

/// The ReplicaSet of the current template, and its pods.
pub fn current_pods<'a>(live: &Rollout, observed: &'a Observed) -> Current<'a> {
    let Some(hash) = live
        .status
        .current_pod_hash
        .as_deref()
        .filter(|_| live.is_observed())
    else {
        return Current::default();
    };
    observed
        .replica_sets
        .iter()
        .find(|set| label(&set.metadata, POD_HASH) == Some(hash))
        .map(|set| Current::of_replica_set(set, observed))
        .unwrap_or_default()
}
