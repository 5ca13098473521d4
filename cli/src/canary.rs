//! What became of a release's canaries after its end, as people read it. Pure: returns text.

use std::fmt::Write;

use slipway_proto::{
    common::v1::Reason,
    release::v1::{CanaryWatch, canary_watch::Status},
};

use crate::{
    readable::{micros, seconds},
    retry,
};

/// Why there was nothing that could fail.
const NOTHING_TO_WATCH: [&str; 2] = ["NO_CANARY", "NOT_APPLIED"];

/// A line for each canary that there is something to say of.
pub(crate) fn canaries(out: &mut String, watches: &[CanaryWatch], now: i64) {
    for watch in watches {
        if let Some(line) = line(watch, now) {
            let _ = writeln!(out, "canary  {}: {line}", watch.environment);
        }
    }
}

fn line(watch: &CanaryWatch, now: i64) -> Option<String> {
    let deployment = &watch.deployment_id;
    let failed = |then: &str| format!("failed later: {}; {then}", words(watch.failure.as_ref()));
    let line = match watch.status() {
        Status::Watching => {
            let left = micros(watch.until_time.as_ref()).unwrap_or(now) - now;
            format!("watched for {} more", seconds(left))
        }
        Status::Failed if watch.waits_for.is_empty() => failed("what ran before is about to be put back"),
        Status::Failed => {
            let waits = format!(
                "what ran before is put back after the turn of {}",
                watch.waits_for
            );
            failed(&waits)
        }
        Status::PuttingBack => failed(&format!("{deployment} puts back what ran before")),
        Status::PutBack => failed(&format!("{deployment} put back what ran before")),
        Status::NotPutBack => {
            let by = match deployment.as_str() {
                "" => String::new(),
                deployment => format!(" by {deployment}"),
            };
            failed(&format!("not put back{by}: {}", words(watch.reason.as_ref())))
        }
        Status::Superseded if watch.failure.is_some() => {
            failed(&format!("not put back: {}", words(watch.reason.as_ref())))
        }
        Status::Passed if could_fail(watch) && watch.reason.is_some() => {
            format!("not watched to the end: {}", words(watch.reason.as_ref()))
        }
        Status::Passed | Status::Superseded | Status::Unspecified => return None,
    };
    Some(match &watch.retry {
        Some(retry) => format!("{line}; {}", retry::line(retry, now)),
        None => line,
    })
}

/// Most Applications have no canary.
fn could_fail(watch: &CanaryWatch) -> bool {
    let code = watch.reason.as_ref().map(|reason| reason.code.as_str());
    code.is_none_or(|code| !NOTHING_TO_WATCH.contains(&code))
}

fn words(reason: Option<&Reason>) -> String {
    reason.map_or_else(
        || "no reason given".to_owned(),
        |reason| format!("{}: {}", reason.code, reason.message),
    )
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use prost_types::Timestamp;

    use super::*;

    fn reason(code: &str, message: &str) -> Option<Reason> {
        Some(Reason {
            code: code.to_owned(),
            message: message.to_owned(),
        })
    }

    #[test]
    fn what_happened_after_the_release_is_told() {
        let watch = |status: Status| CanaryWatch {
            environment: "prod".to_owned(),
            status: status.into(),
            until_time: Some(Timestamp {
                seconds: 3600,
                nanos: 0,
            }),
            ..CanaryWatch::default()
        };
        let failed = |status: Status| CanaryWatch {
            failure: reason("ABORTED", "the rollout was aborted"),
            ..watch(status)
        };
        let put_back = CanaryWatch {
            deployment_id: "dep-2".to_owned(),
            ..failed(Status::PutBack)
        };
        let waits = CanaryWatch {
            waits_for: "rel-2".to_owned(),
            ..failed(Status::Failed)
        };
        let moved_on = CanaryWatch {
            reason: reason("CHANGED_SINCE", "apps/shop names sha256:cd"),
            ..failed(Status::NotPutBack)
        };
        let unseen = CanaryWatch {
            reason: reason("CLUSTER_UNAVAILABLE", "no answer"),
            ..watch(Status::Passed)
        };
        let none = CanaryWatch {
            reason: reason("NO_CANARY", "the Application has no Rollout and no Canary"),
            ..watch(Status::Passed)
        };
        for (watch, line) in [
            (none, ""),
            (watch(Status::Watching), "canary  prod: watched for 50m00s more\n"),
            (watch(Status::Passed), ""),
            (watch(Status::Superseded), ""),
            (
                unseen,
                "canary  prod: not watched to the end: CLUSTER_UNAVAILABLE: no answer\n",
            ),
            (
                failed(Status::Failed),
                "canary  prod: failed later: ABORTED: the rollout was aborted; what ran before is about to be put back\n",
            ),
            (
                waits,
                "canary  prod: failed later: ABORTED: the rollout was aborted; what ran before is put back after the turn of rel-2\n",
            ),
            (
                put_back,
                "canary  prod: failed later: ABORTED: the rollout was aborted; dep-2 put back what ran before\n",
            ),
            (
                moved_on,
                "canary  prod: failed later: ABORTED: the rollout was aborted; not put back: CHANGED_SINCE: apps/shop names sha256:cd\n",
            ),
        ] {
            let mut out = String::new();
            canaries(&mut out, &[watch], 600_000_000);
            assert_eq!(out, line);
        }
    }
}
