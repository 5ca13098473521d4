//! What a person needs to see about a failure: pods at fault, with the last lines of their logs. Pure: returns text.

use std::fmt::Write;

use slipway_proto::deploy::v1::PodEvidence;

/// Pods at fault, with the last lines of their runs.
pub(crate) fn evidence(out: &mut String, evidence: &[PodEvidence]) {
    for pod in evidence {
        let exit = pod
            .exit_code
            .map(|code| format!(", exit code {code}"))
            .unwrap_or_default();
        let container = if pod.container.is_empty() {
            String::new()
        } else {
            format!(" container {}", pod.container)
        };
        let _ = writeln!(out, "pod {}{container}: {}{exit}", pod.pod, pod.state);
        if !pod.previous_log_tail.is_empty() {
            let _ = writeln!(out, "  the run before:");
            lines(out, &pod.previous_log_tail);
            let _ = writeln!(out, "  this run:");
        }
        lines(out, &pod.log_tail);
        for event in &pod.events {
            let _ = writeln!(out, "  * {event}");
        }
    }
}

/// Lines of a log.
pub(crate) fn lines(out: &mut String, lines: &[String]) {
    for line in lines {
        let _ = writeln!(out, "  | {line}");
    }
}
