//! A release as a waterfall: each step, when it ran, what it waited for, and where the time went. Pure: returns text.

use std::fmt::Write;

use slipway_proto::{
    common::v1::waiting_on,
    release::v1::{Release, Step, release, step},
};

use crate::{
    canary::canaries,
    evidence::evidence,
    readable::{micros, seconds, short},
    retry,
};

/// Columns of the bars.
const WIDTH: usize = 36;

/// Draws `release` as it was at `now` (microseconds since 1970).
pub(crate) fn draw(release: &Release, now: i64) -> String {
    let mut out = String::new();
    let plan = release.plan.clone().unwrap_or_default();
    let begin = micros(release.create_time.as_ref()).unwrap_or(now);
    let end = micros(release.end_time.as_ref()).unwrap_or(now).max(begin + 1);
    let _ = writeln!(
        out,
        "{}  {} {}  {}  {}",
        release.id,
        plan.service,
        short(&plan.commit),
        status(release.status()),
        seconds(end - begin)
    );
    for image in &release.images {
        let _ = writeln!(out, "image  {}@{}", image.repository, image.digest);
    }
    let _ = writeln!(out, "trace  {}", release.trace_id);
    let _ = writeln!(out);
    let name_width = release
        .steps
        .iter()
        .map(|step| step.name.len())
        .max()
        .unwrap_or(4)
        .max(4);
    for step in &release.steps {
        let from = micros(step.queue_time.as_ref()).unwrap_or(begin);
        let to = micros(step.end_time.as_ref()).unwrap_or(end);
        let bar = bar(begin, end, from, to, glyph(step));
        let _ = writeln!(
            out,
            "{} {:name_width$}  {bar}  {:>8}  {:7}  {}",
            mark(step.status()),
            step.name,
            seconds(to - from),
            party(step),
            detail(step, now)
        );
    }
    let _ = writeln!(out);
    if let Some(spent) = &release.time_spent {
        let part = |duration: &Option<prost_types::Duration>| {
            seconds(
                duration
                    .as_ref()
                    .map_or(0, |d| d.seconds * 1_000_000 + i64::from(d.nanos) / 1000),
            )
        };
        let _ = writeln!(
            out,
            "total {} = machine {} + human {} + lane {}",
            part(&spent.total),
            part(&spent.machine),
            part(&spent.human),
            part(&spent.lane)
        );
    }
    if let Some(reason) = &release.reason {
        let _ = writeln!(out, "reason  {}: {}", reason.code, reason.message);
    }
    if let Some(waiting) = &release.waiting_on {
        let _ = writeln!(
            out,
            "waits for {} {}  {}",
            waiting_kind(waiting.kind()),
            waiting.r#ref,
            waiting.message
        );
    }
    evidence(&mut out, &release.evidence);
    canaries(&mut out, &release.canary_watches, now);
    let deployed = release.steps.iter().rev().find(|step| {
        matches!(step.kind(), step::Kind::Deploy | step::Kind::Redeploy) && !step.r#ref.is_empty()
    });
    if let Some(step) = deployed.filter(|_| release.status() != release::Status::Succeeded) {
        let _ = writeln!(
            out,
            "{} details  slipway deployment get {}",
            step.name, step.r#ref
        );
    }
    out
}

fn bar(begin: i64, end: i64, from: i64, to: i64, glyph: char) -> String {
    let column = |time: i64| {
        let share = (time - begin).clamp(0, end - begin) as f64 / (end - begin) as f64;
        (share * WIDTH as f64).round() as usize
    };
    let left = column(from).min(WIDTH - 1);
    let right = column(to).clamp(left + 1, WIDTH);
    let mut bar = " ".repeat(left);
    bar.extend(std::iter::repeat_n(glyph, right - left));
    bar.extend(std::iter::repeat_n(' ', WIDTH - right));
    bar
}

fn glyph(step: &Step) -> char {
    match step.kind() {
        step::Kind::Gate => '░',
        step::Kind::Lane => '·',
        _ => '█',
    }
}

fn party(step: &Step) -> &'static str {
    match step.kind() {
        step::Kind::Gate => "human",
        step::Kind::Lane => "lane",
        _ => "machine",
    }
}

fn detail(step: &Step, now: i64) -> String {
    if let Some(retry) = &step.retry {
        return retry::line(retry, now);
    }
    let said = match (&step.waiting_on, &step.reason) {
        (Some(waiting), _) if !waiting.message.is_empty() => waiting.message.clone(),
        (_, Some(reason)) if step.status() != step::Status::Succeeded => {
            format!("{}: {}", reason.code, reason.message)
        }
        _ => step.result.clone(),
    };
    let line = said.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(100).collect();
    if cut.len() < line.len() {
        format!("{cut}…")
    } else {
        cut
    }
}

fn mark(status: step::Status) -> char {
    match status {
        step::Status::Succeeded => '✓',
        step::Status::Failed | step::Status::Errored => '✗',
        step::Status::Cancelled => '-',
        step::Status::Running | step::Status::Queued => '…',
        step::Status::Skipped | step::Status::Unspecified => ' ',
    }
}

/// A status as people read it: `ROLLED_BACK`.
pub(crate) fn status(status: release::Status) -> &'static str {
    status.as_str_name().trim_start_matches("STATUS_")
}

fn waiting_kind(kind: waiting_on::Kind) -> String {
    kind.as_str_name().trim_start_matches("KIND_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use slipway_proto::common::v1::{Reason, Retry};

    use super::*;

    #[test]
    fn a_step_that_is_tried_again_says_so() {
        let release = Release {
            steps: vec![Step {
                name: "build".to_owned(),
                status: step::Status::Running.into(),
                retry: Some(Retry {
                    error: Some(Reason {
                        code: "UNAVAILABLE".to_owned(),
                        message: "build-svc: connection refused".to_owned(),
                    }),
                    attempt: 4,
                    next_time: Some(prost_types::Timestamp {
                        seconds: 112,
                        nanos: 0,
                    }),
                }),
                ..Step::default()
            }],
            ..Release::default()
        };
        let text = draw(&release, 100_000_000);
        let said = "retrying: build-svc: connection refused (tried 4 times, next try in 12s)";
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn bars_stay_within_their_columns_and_are_never_empty() {
        assert_eq!(bar(0, 100, 0, 100, '#'), "#".repeat(WIDTH));
        assert_eq!(bar(0, 100, 100, 100, '#').trim(), "#");
        assert_eq!(bar(0, 100, 0, 0, '#').chars().count(), WIDTH);
    }
}
