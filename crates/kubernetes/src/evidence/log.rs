//! The last lines of a container's log.

use k8s_openapi::{api::core::v1::Pod, jiff};
use kube::{Api, api::LogParams};
use slipway_model::Timestamp;
use slipway_verdict::evidence::{Redactor, RunLog};

use super::tell;
use crate::call;

/// Lines kept per container and run.
const LINES: usize = 50;
/// Longest line kept, in characters.
const LINE: usize = 500;
/// What is asked of the API server, as its errors begin.
const WHAT: &str = "read the log";
/// The maximum read of one log, in bytes.
const READ: usize = 256 * 1024;

/// The last lines of the run that `kubectl logs` shows, or of the one before it (`previous`): at most [`LINES`],
/// redacted, and written since a time if there is one. Fewer if they are so long that the API server would cut off the last
/// ones.
pub(super) async fn tail(
    pods: &Api<Pod>,
    (pod, container): (&str, &str),
    previous: bool,
    since: Option<Timestamp>,
    redactor: &Redactor,
) -> RunLog {
    let since_time = since.and_then(|time| jiff::Timestamp::from_microsecond(time.as_micros()).ok());
    let mut text = String::new();
    for lines in [LINES, 5, 1] {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            tail_lines: i64::try_from(lines).ok(),
            limit_bytes: i64::try_from(READ).ok(),
            previous,
            since_time,
            ..LogParams::default()
        };
        text = match call(WHAT, pods.logs(pod, &parameters)).await {
            Ok(text) => text,
            Err(fault) => {
                let words = fault.into_error().message;
                let words = words.strip_prefix(WHAT).unwrap_or(&words);
                return RunLog::refused(&tell::line(redactor, words.trim_start_matches(": ")));
            }
        };
        // A log that fills the limit has lost its end, which matters most.
        if text.len() < READ {
            break;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(LINES);
    RunLog::of(redactor.lines(lines[last..].iter().copied(), LINE))
}
