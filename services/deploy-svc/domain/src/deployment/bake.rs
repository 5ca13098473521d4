//! The bake: metrics are measured at intervals until its time is over, and the workload must stay healthy meanwhile.

use std::time::Duration;

use slipway_model::Timestamp;
use slipway_verdict::{
    Verdict,
    analysis::{self, Limits, Sample},
};

use super::{
    DeploymentEvent as Event, DeploymentState, Reason,
    ending::{and_on, errored},
};
use crate::{catalog::Metric, result::Measurement};

/// How long after its end a bake may still wait for a last measurement that arrives late.
const GRACE: Duration = Duration::from_secs(60);
/// A pod may be moved to another node and be back at the next measurement, but must not be missing at two of them.
const MAX_UNWELL: u32 = 2;

/// A metric's thresholds.
pub fn limits(metric: &Metric) -> Limits {
    Limits {
        min: metric.min,
        max: metric.max,
        failure_limit: metric.failure_limit,
        inconclusive_limit: metric.inconclusive_limit,
    }
}

/// The first measurement comes one interval after the beginning: before that there is nothing to measure.
pub(super) fn begin(state: &mut DeploymentState, at: Timestamp) {
    let Some(bake) = state.request.as_ref().and_then(|request| request.bake.as_ref()) else {
        return;
    };
    let (first, end) = (at + bake.interval.min(bake.period), at + bake.period);
    state.attempt = 0;
    state.retry_at = Some(first);
    state.bake_until = Some(end);
}

pub(super) fn measured(
    state: &DeploymentState,
    measurements: Vec<Measurement>,
    verdict: Verdict,
    now: Timestamp,
) -> Vec<Event> {
    let bake = state.request.as_ref().and_then(|request| request.bake.as_ref());
    let (Some(bake), Some(until)) = (bake, state.bake_until) else {
        return Vec::new();
    };
    let ended = now >= until;
    let unwell = match verdict {
        Verdict::Complete => None,
        Verdict::Progressing { message, .. } => Some(message),
        Verdict::Failed(failure) => {
            let reason = Reason::new(
                failure.reason.code(),
                format!("while it was baking: {}", failure.message),
            );
            let event = Event::Measured {
                measurements,
                unwell: Some(failure.message),
                next_at: None,
            };
            return vec![event, Event::Failing { reason }];
        }
    };
    let verdict = analysis::worst(state.measured().map(|(metric, mut tally)| {
        for measurement in measurements.iter().filter(|one| one.metric == metric.name) {
            tally.add(&limits(metric), &sample(measurement));
        }
        tally.judge(metric.name.as_str(), &limits(metric), ended)
    }));
    let unwell_again = unwell
        .as_ref()
        .filter(|_| ended || state.unwell + 1 >= MAX_UNWELL)
        .map(|words| format!("while it was baking, its pods did not stay ready: {words}"));
    let failing = match verdict {
        analysis::Verdict::Failed(words) => Some(Reason::new("ANALYSIS_FAILED", words)),
        analysis::Verdict::Inconclusive(words) => Some(Reason::new("ANALYSIS_INCONCLUSIVE", words)),
        analysis::Verdict::Passed | analysis::Verdict::Measuring(_) => {
            unwell_again.map(|words| Reason::new("NOT_READY", words))
        }
    };
    let over = ended || failing.is_some();
    let event = Event::Measured {
        measurements,
        unwell,
        next_at: (!over).then(|| (now + bake.interval).min(until)),
    };
    match failing {
        Some(reason) => vec![event, Event::Failing { reason }],
        None if ended => and_on(state, event),
        None => vec![event],
    }
}

pub(super) fn evolve(
    state: &mut DeploymentState,
    measurements: &[Measurement],
    unwell: Option<&str>,
    next_at: Option<Timestamp>,
) {
    let bake = state.request.as_ref().and_then(|request| request.bake.as_ref());
    let metrics = bake.map(|bake| bake.metrics.as_slice()).unwrap_or_default();
    for measurement in measurements {
        if let Some(metric) = metrics.iter().find(|metric| metric.name == measurement.metric) {
            let tally = state.metrics.entry(metric.name.clone()).or_default();
            tally.add(&limits(metric), &sample(measurement));
        }
    }
    state.unwell = if unwell.is_some() { state.unwell + 1 } else { 0 };
    state.fault = None;
    state.stumbles = 0;
    state.retry_at = next_at;
    let standing = analysis::worst(
        state
            .measured()
            .map(|(metric, tally)| tally.judge(metric.name.as_str(), &limits(metric), false)),
    );
    state.progress = match (unwell, standing) {
        (Some(words), _) => words.to_owned(),
        (
            None,
            analysis::Verdict::Measuring(words)
            | analysis::Verdict::Failed(words)
            | analysis::Verdict::Inconclusive(words),
        ) => words,
        (None, analysis::Verdict::Passed) => "it runs as it should so far".to_owned(),
    };
}

/// When a bake without its last measurement is given up.
pub(super) fn overdue_at(state: &DeploymentState) -> Option<Timestamp> {
    state.bake_until.map(|until| until + GRACE)
}

pub(super) fn overdue(state: &DeploymentState) -> Event {
    match &state.fault {
        Some(fault) => errored(
            state,
            Reason::new(
                "DEADLINE_EXCEEDED",
                format!("its metrics were not watched to the end: {fault}"),
            ),
        ),
        None => Event::Failing {
            reason: Reason::new(
                "ANALYSIS_INCONCLUSIVE",
                format!("the last measurement is missing: {}", state.progress),
            ),
        },
    }
}

fn sample(measurement: &Measurement) -> Sample<'_> {
    Sample {
        value: measurement.value,
        message: &measurement.message,
    }
}
