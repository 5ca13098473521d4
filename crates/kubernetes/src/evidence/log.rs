//! The last lines of a container's log.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use slipway_model::{Fault, Reason};
use slipway_verdict::evidence::Redactor;

use crate::call;

/// Lines kept per container and run.
const LINES: usize = 50;
/// Longest line kept, in characters.
const LINE: usize = 500;
/// The maximum read of one log, in bytes.
const READ: usize = 256 * 1024;

/// The last lines of the run that `kubectl logs` shows, or of the one before it (`previous`): at most [`LINES`],
/// redacted. Fewer if they are so long that the API server would cut off the last ones.
pub(super) async fn tail(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    previous: bool,
    redactor: &Redactor,
) -> Result<Vec<String>, Fault<Reason>> {
    let mut text = String::new();
    for lines in [LINES, 5, 1] {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            tail_lines: i64::try_from(lines).ok(),
            limit_bytes: i64::try_from(READ).ok(),
            previous,
            ..LogParams::default()
        };
        text = call("read the log", pods.logs(pod, &parameters)).await?;
        // A log that fills the limit has lost its end, which matters most.
        if text.len() < READ {
            break;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(LINES);
    Ok(redactor.lines(lines[last..].iter().copied(), LINE))
}
