//! A deployment as text: what was judged, how, and what a person needs to see if it failed. Pure.

use std::fmt::Write;

use slipway_proto::{
    common::v1::Retry,
    deploy::v1::{Deployment, LiveState, Target, deployment, live_state, metric_result},
};

use super::super::word;
use crate::{
    evidence::{evidence, lines},
    readable::{micros, seconds, short},
    retry,
};

/// `cluster/namespace/kind/name`.
pub(crate) fn target(target: Option<&Target>) -> String {
    target
        .map(|target| {
            format!(
                "{}/{}/{}/{}",
                target.cluster, target.namespace, target.kind, target.name
            )
        })
        .unwrap_or_default()
}

/// A status as people read it: `ROLLBACK_FAILED`.
pub(crate) fn status(status: deployment::Status) -> &'static str {
    status.as_str_name().trim_start_matches("STATUS_")
}

/// What is being done, in a word: `rollout`.
pub(crate) fn step(one: &Deployment) -> String {
    word(one.step().as_str_name(), "STEP_")
}

/// What a person requested of a rollout, in a word: `promote`.
pub(crate) fn ask(ask: deployment::Ask) -> String {
    word(ask.as_str_name(), "ASK_")
}

/// Draws `deployment` as it was at `now` (microseconds since 1970).
pub(crate) fn deployment(one: &Deployment, now: i64) -> String {
    let mut out = String::new();
    let begin = micros(one.create_time.as_ref()).unwrap_or(now);
    let end = micros(one.end_time.as_ref()).unwrap_or(now);
    let _ = writeln!(
        out,
        "{}  {} {}  {}  {}",
        one.id,
        one.service,
        one.environment,
        status(one.status()),
        seconds(end - begin)
    );
    let mut row = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(out, "{name:<11}{text}");
        }
    };
    row("target", &target(one.target.as_ref()));
    for image in &one.images {
        row("image", &format!("{}@{}", image.repository, image.digest));
    }
    row("commit", short(&one.commit));
    row("puts back", &one.rolls_back);
    if one.end_time.is_none() {
        row("step", &step(one));
        row("progress", &one.progress);
        // The progress may say it already.
        let said = |retry: &&Retry| {
            let error = retry.error.as_ref();
            !error.is_some_and(|error| one.progress.contains(&error.message))
        };
        let retry = one
            .retry
            .as_ref()
            .filter(said)
            .map(|retry| retry::line(retry, now));
        row("", &retry.unwrap_or_default());
    }
    if let Some(reason) = &one.reason {
        row("reason", &format!("{}: {}", reason.code, reason.message));
    }
    for warning in &one.warnings {
        row("warning", warning);
    }
    if !one.deadline_basis.is_empty() {
        row("deadline", &one.deadline_basis);
    }
    for check in &one.checks {
        let attempts = if check.attempts == 1 {
            String::new()
        } else {
            format!(" after {} attempts", check.attempts)
        };
        let _ = writeln!(
            out,
            "{} check {}{attempts}: {}",
            mark(check.passed),
            check.name,
            check.last_answer
        );
    }
    for job in &one.jobs {
        let message = if job.message.is_empty() {
            String::new()
        } else {
            format!(": {}", job.message)
        };
        let _ = writeln!(
            out,
            "{} job {} ({}){message}",
            mark(job.succeeded),
            job.name,
            job.job
        );
        if !job.succeeded {
            lines(&mut out, &job.log_tail);
        }
    }
    for metric in &one.metrics {
        let sign = match metric.verdict() {
            metric_result::Verdict::Passed => '✓',
            metric_result::Verdict::Failed | metric_result::Verdict::Inconclusive => '✗',
            _ => '…',
        };
        let value = metric
            .value
            .map_or("no data".to_owned(), |value| value.to_string());
        let message = match metric.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let bound =
            |name, bound: Option<f64>| bound.map(|bound| format!(", {name} {bound}")).unwrap_or_default();
        let _ = writeln!(
            out,
            "{sign} metric {}: {value}{}{}; {} measured, {} bad, {} without a number{message}",
            metric.name,
            bound("min", metric.min),
            bound("max", metric.max),
            metric.measurements,
            metric.failures,
            metric.inconclusive
        );
    }
    evidence(&mut out, &one.evidence);
    out
}

/// What the cluster runs now.
pub(crate) fn live(state: &LiveState) -> String {
    let mut out = String::new();
    let health = match state.health() {
        live_state::Health::Complete => "✓",
        live_state::Health::Failed | live_state::Health::Missing => "✗",
        _ => "…",
    };
    let _ = writeln!(
        out,
        "{health} {}  {}",
        target(state.target.as_ref()),
        state.message
    );
    let _ = writeln!(out, "pods       {} of {} ready", state.ready_pods, state.pods);
    for image in &state.images {
        let _ = writeln!(out, "wants      {image}");
    }
    for digest in &state.running_digests {
        let _ = writeln!(out, "runs       {digest}");
    }
    if !state.deployment_id.is_empty() {
        let commit = match short(&state.commit) {
            "" => String::new(),
            commit => format!(", commit {commit}"),
        };
        let _ = writeln!(
            out,
            "written by {} (epoch {}{commit})",
            state.deployment_id, state.epoch
        );
    }
    out
}

const fn mark(good: bool) -> char {
    if good { '✓' } else { '✗' }
}

#[cfg(test)]
mod tests {
    use slipway_proto::{
        common::v1::Reason,
        deploy::v1::{CheckResult, JobResult, MetricResult, PodEvidence},
    };

    use super::*;

    #[test]
    fn a_failed_deployment_shows_why() {
        let one = Deployment {
            id: "dep-1".to_owned(),
            service: "shop".to_owned(),
            environment: "prod".to_owned(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
            end_time: Some(prost_types::Timestamp::default()),
            step: deployment::Step::Rollout.into(),
            status: deployment::Status::Failed.into(),
            reason: Some(Reason {
                code: "CRASH_LOOP".to_owned(),
                message: "pod shop-1: CrashLoopBackOff".to_owned(),
            }),
            checks: vec![CheckResult {
                name: "health".to_owned(),
                passed: false,
                attempts: 3,
                last_answer: "GET /health: 503".to_owned(),
            }],
            jobs: vec![JobResult {
                name: "migrate".to_owned(),
                job: "shop-migrate-1".to_owned(),
                succeeded: true,
                log_tail: vec!["not shown".to_owned()],
                ..JobResult::default()
            }],
            metrics: vec![MetricResult {
                name: "errors".to_owned(),
                verdict: metric_result::Verdict::Failed.into(),
                value: Some(0.2),
                max: Some(0.01),
                measurements: 4,
                failures: 2,
                ..MetricResult::default()
            }],
            evidence: vec![PodEvidence {
                pod: "shop-1".to_owned(),
                container: "app".to_owned(),
                state: "CrashLoopBackOff".to_owned(),
                exit_code: Some(3),
                log_tail: vec!["now".to_owned()],
                previous_log_tail: vec!["then".to_owned()],
                events: vec!["Warning BackOff".to_owned()],
                ..PodEvidence::default()
            }],
            ..Deployment::default()
        };
        let text = deployment(&one, 1_000_000);
        for line in [
            "dep-1  shop prod  FAILED  0ms",
            "commit     1a2b3c4",
            "reason     CRASH_LOOP: pod shop-1: CrashLoopBackOff",
            "✗ check health after 3 attempts: GET /health: 503",
            "✓ job migrate (shop-migrate-1)",
            "✗ metric errors: 0.2, max 0.01; 4 measured, 2 bad, 0 without a number",
            "pod shop-1 container app: CrashLoopBackOff, exit code 3",
            "  the run before:\n  | then\n  this run:\n  | now\n  * Warning BackOff",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("not shown"), "{text}");
        assert!(!text.contains("step "), "{text}");
        let going_on = Deployment {
            step: deployment::Step::Rollout.into(),
            ..Deployment::default()
        };
        let text = deployment(&going_on, 0);
        assert!(text.contains("step       rollout"), "{text}");
        assert_eq!(ask(deployment::Ask::Promote), "promote");
    }
}
