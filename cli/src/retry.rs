//! What is being retried, as people read it. Pure: returns text.

use slipway_proto::common::v1::Retry;

use crate::readable::{micros, seconds};

/// How much of an error is shown.
const ERROR: usize = 100;

/// `retrying: no route to the registry (tried 3 times, next try in 12s)`.
pub(crate) fn line(retry: &Retry, now: i64) -> String {
    let error = retry.error.as_ref();
    let words = error.map(|error| error.message.as_str()).unwrap_or_default();
    let first = words.lines().next().unwrap_or_default();
    let mut text: String = first.chars().take(ERROR).collect();
    if text.len() < first.len() {
        text.push('…');
    }
    let tried = match retry.attempt {
        0 => None,
        1 => Some("tried once".to_owned()),
        times => Some(format!("tried {times} times")),
    };
    let known: Vec<String> = tried.into_iter().chain(next(retry, now)).collect();
    if known.is_empty() {
        format!("retrying: {text}")
    } else {
        format!("retrying: {text} ({})", known.join(", "))
    }
}

/// For a column of a list: a status, and whether something is being retried.
pub(crate) fn status(status: &str, retry: Option<&Retry>, now: i64) -> String {
    let Some(retry) = retry else {
        return status.to_owned();
    };
    let code = retry.error.as_ref().map(|error| error.code.as_str());
    let next = next(retry, now)
        .map(|next| format!(", {next}"))
        .unwrap_or_default();
    format!("{status}, retrying: {}{next}", code.unwrap_or_default())
}

fn next(retry: &Retry, now: i64) -> Option<String> {
    let wait = micros(retry.next_time.as_ref())? - now;
    Some(match wait {
        ..=0 => "next try now".to_owned(),
        1..60_000_000 => format!("next try in {}s", (wait + 999_999) / 1_000_000),
        _ => format!("next try in {}", seconds(wait)),
    })
}

#[cfg(test)]
mod tests {
    use slipway_proto::common::v1::Reason;

    use super::*;

    #[test]
    fn it_says_what_failed_how_often_and_when_it_is_tried_again() {
        let mut retry = Retry {
            error: Some(Reason {
                code: "REGISTRY_UNAVAILABLE".to_owned(),
                message: "registry.example: connection refused\nand more".to_owned(),
            }),
            attempt: 3,
            next_time: Some(prost_types::Timestamp {
                seconds: 12,
                nanos: 0,
            }),
        };
        let all = "retrying: registry.example: connection refused (tried 3 times, next try in 12s)";
        assert_eq!(line(&retry, 0), all);
        assert_eq!(
            status("RUNNING", Some(&retry), 500_000),
            "RUNNING, retrying: REGISTRY_UNAVAILABLE, next try in 12s"
        );
        assert!(line(&retry, 12_000_000).ends_with("next try now)"));
        retry.next_time = None;
        retry.attempt = 1;
        assert!(line(&retry, 0).ends_with("refused (tried once)"));
        retry.attempt = 0;
        assert!(line(&retry, 0).ends_with(": connection refused"));
        assert_eq!(status("RUNNING", None, 0), "RUNNING");
        retry.error = Some(Reason {
            message: "x".repeat(300),
            ..Reason::default()
        });
        assert_eq!(line(&retry, 0).chars().count(), "retrying: ".len() + ERROR + 1);
    }
}
