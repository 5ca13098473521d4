//! The verdict on a Canary of Flagger, and what to do with it next.
//!
//! A Canary does not change when its target does: Flagger notices by itself, some time after our write. Until then its
//! phase is the end of the previous run. A run is proven to be ours if the condition `Promoted` changed to the phase
//! after our write, or the primary has our image. `status.lastTransitionTime` is not a proof: while the phase is
//! Failed, Flagger sets it again at every check.

use k8s_openapi::api::apps::v1::Deployment;
use slipway_model::Timestamp;

use crate::{
    Expected, FailureReason, Next, Observed, Verdict, WorkloadKind, annotation, cut, fail, kubectl,
    objects::canary::Canary, progressing, running, still_ours,
};

/// Annotation of a Canary whose analysis we skip for one run: removed at its end, together with `spec.skipAnalysis`.
pub const SKIPPED: &str = "deploy.slipway.dev/skips-analysis";

/// Judges one Canary.
pub fn judge(expected: &Expected, live: &Canary, observed: &Observed, _now: Timestamp) -> Verdict {
    if let Some(verdict) = still_ours::check(expected, WorkloadKind::Canary, &live.metadata, None) {
        return verdict;
    }
    let primary = observed.primary.as_deref();
    let status = &live.status;
    let message = match live.phase() {
        "" | "Initializing" => format!("Flagger is setting up {} for the first time", primary_name(live)),
        "Initialized" | "Succeeded" => return succeeded(expected, live, primary),
        "Failed" => return failed(expected, live, primary),
        "Waiting" => format!("the new version waits to be tried: {}", gate_words(live)),
        "WaitingPromotion" => format!(
            "the new version is tried and waits for promotion: {}",
            gate_words(live)
        ),
        "Progressing" => trial_words(live),
        "Promoting" => format!("tried; {} takes the new version", primary_name(live)),
        "Finalising" => "promoted; traffic goes back to the primary".to_owned(),
        "Terminating" | "Terminated" => {
            return fail(
                FailureReason::Deleted,
                "Flagger is giving the Canary up: it was deleted",
            );
        }
        other => format!("Flagger says {other}"),
    };
    let mut message = message;
    if live.spec.suspend {
        message = format!("{message}; it is suspended: set its spec.suspend to false to let it go on");
    }
    if status.failed_checks > 0 {
        message = format!(
            "{message}; {} of {} failed checks that end it",
            status.failed_checks,
            live.threshold()
        );
    }
    progressing(message)
}

fn succeeded(expected: &Expected, live: &Canary, primary: Option<&Deployment>) -> Verdict {
    let first = live.phase() == "Initialized";
    match primary {
        Some(primary) if has_image(expected, primary) => serves(expected, primary),
        // The previous run, or a watch of the primary that lags.
        Some(primary) => {
            let images = primary
                .spec
                .as_ref()
                .map(|spec| running::images_of(&spec.template).join(", "));
            let images = images.unwrap_or_default();
            unnoticed(live, &format!("{} runs {images}", primary_name(live)))
        }
        // A target without a primary Deployment (a DaemonSet, a Service): the time has to suffice.
        None if live.spec.target_ref.kind == "Deployment" => {
            unnoticed(live, &format!("{} is not seen", primary_name(live)))
        }
        None if live.ended_at() >= Some(cut_to_seconds(expected.since)) => Verdict::Complete,
        None if first => progressing(format!("Flagger has set up {}", primary_name(live))),
        None => unnoticed(live, "its last run was before this change"),
    }
}

/// The primary has our image: whether it has become ready with it.
fn serves(expected: &Expected, primary: &Deployment) -> Verdict {
    match kubectl::deployment(primary, 0) {
        Ok(status) if status.done => {
            let replicas = primary.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            if replicas == 0 && expected.verify.digest {
                return fail(
                    FailureReason::ScaledToZero,
                    "the primary is scaled to zero, so nothing runs: scale the target up, or set verify.digest to false",
                );
            }
            Verdict::Complete
        }
        Ok(status) => progressing(format!("the primary is not up yet: {}", status.line)),
        Err(error) => fail(
            FailureReason::ProgressDeadlineExceeded,
            &format!("the primary does not come up: {error}"),
        ),
    }
}

fn failed(expected: &Expected, live: &Canary, primary: Option<&Deployment>) -> Verdict {
    let status = &live.status;
    // Back to what already serves: Flagger does not try anything then, and leaves the phase of the previous run as it
    // is.
    let nothing_to_try =
        status.last_applied_spec.is_some() && status.last_applied_spec == status.last_promoted_spec;
    if nothing_to_try && let Some(primary) = primary.filter(|primary| has_image(expected, primary)) {
        return serves(expected, primary);
    }
    // Flagger checks every few seconds at most, so a run that began after the change did not end within the same
    // second.
    if live.ended_at() <= Some(expected.since) {
        return unnoticed(live, "its last run was before this change");
    }
    let why = live
        .promoted()
        .and_then(|condition| condition.message.as_deref())
        .unwrap_or("the analysis failed");
    let traffic = if status.canary_weight > 0 {
        "the primary did not come up, and the canary serves"
    } else {
        "the version before serves everything"
    };
    fail(
        FailureReason::Aborted,
        &format!(
            "Flagger rolled back, and {traffic}: {} The Canary's events name the checks",
            sentence(&cut(why))
        ),
    )
}

/// Still shows the end of the previous run.
fn unnoticed(live: &Canary, why: &str) -> Verdict {
    let suspended = if live.spec.suspend {
        "; it is suspended: set its spec.suspend to false"
    } else {
        ""
    };
    progressing(format!(
        "waiting for Flagger to take up the new version ({} is of the run before: {why}){suspended}",
        live.phase()
    ))
}

/// What to do with it next. Flagger is not told to promote: it asks its webhooks, and the service that answers them
/// (approval-svc) lets it continue, so this only says which ones it waits for.
pub fn next(expected: &Expected, live: &Canary) -> Next {
    if still_ours::check(expected, WorkloadKind::Canary, &live.metadata, None).is_some() {
        return Next::Wait;
    }
    match live.phase() {
        "Waiting" | "WaitingPromotion" => Next::Ask(gate_words(live)),
        "Succeeded" | "Failed" if annotation(&live.metadata, SKIPPED).is_some() => Next::Settle,
        _ => Next::Wait,
    }
}

fn has_image(expected: &Expected, primary: &Deployment) -> bool {
    let template = primary.spec.as_ref().map(|spec| &spec.template);
    match &expected.restored {
        // Its containers have the same names in every version.
        Some(restored) if !restored.containers.is_empty() => {
            !running::containers_with(template, &restored.image).is_empty()
        }
        Some(_) => true,
        None => !running::containers_with(template, &expected.image).is_empty(),
    }
}

fn primary_name(live: &Canary) -> String {
    format!("{}-primary", live.spec.target_ref.name)
}

fn gate_words(live: &Canary) -> String {
    let gates = live.gates();
    if gates.is_empty() {
        "Flagger waits for a confirmation".to_owned()
    } else {
        format!("Flagger asks its webhook {}", gates.join(", "))
    }
}

fn trial_words(live: &Canary) -> String {
    let status = &live.status;
    let analysis = live.spec.analysis.clone().unwrap_or_default();
    match (analysis.iterations, analysis.max_weight) {
        (Some(iterations), _) if iterations > 0 => format!(
            "the new version is tried: iteration {} of {iterations}",
            status.iterations
        ),
        (_, Some(most)) => format!(
            "the new version is tried with {} % of the traffic, up to {most} %",
            status.canary_weight
        ),
        _ => format!(
            "the new version is tried with {} % of the traffic",
            status.canary_weight
        ),
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

fn cut_to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}
