//! What GitHub's answers mean. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use slipway_model::{CommitSha, Fault, Timestamp};

use crate::error::{Error, ErrorKind, paragraph};

/// GitHub asks for at least a minute after a secondary limit that does not give a time.
const SECONDARY_WAIT: Duration = Duration::from_secs(60);
/// A longer wait means that a clock is wrong: limits are hourly.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);

/// A pull request, in a list or alone: the few fields that are used, as GitHub has them. Lists omit some of them.
#[derive(Debug, Deserialize)]
pub struct PullRequest {
    pub number: u64,
    pub html_url: Option<String>,
    /// `open` or `closed`.
    pub state: String,
    pub head: Head,
    pub draft: Option<bool>,
    pub merged: Option<bool>,
    pub merged_at: Option<String>,
    pub merged_by: Option<User>,
    pub merge_commit_sha: Option<CommitSha>,
    pub mergeable: Option<bool>,
    pub mergeable_state: Option<String>,
    #[serde(default)]
    pub labels: Vec<Label>,
    #[serde(default)]
    pub requested_reviewers: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub requested_teams: Vec<serde::de::IgnoredAny>,
}

/// A commit by its id.
#[derive(Debug, Deserialize)]
pub struct Head {
    pub sha: CommitSha,
}

#[derive(Debug, Deserialize)]
pub struct User {
    pub login: String,
}

#[derive(Debug, Deserialize)]
pub struct Label {
    pub name: String,
}

/// A commit, as far as it is used.
#[derive(Debug, Deserialize)]
pub struct Commit {
    pub message: String,
    pub parents: Vec<Head>,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<serde_json::Value>,
}

/// What a response other than success means.
pub(crate) fn fault(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Fault<Error> {
    let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let details = body.errors.iter().filter_map(|error| {
        error
            .get("message")
            .and_then(|message| message.as_str())
            .or_else(|| error.as_str())
    });
    let all: Vec<&str> = std::iter::once(body.message.as_str())
        .chain(details)
        .filter(|text| !text.is_empty())
        .collect();
    let message = if all.is_empty() {
        format!("GitHub answered {status}")
    } else {
        format!("GitHub: {}", paragraph(&all.join("\n")))
    };
    let status_code = status.as_u16();
    let error = |kind| Error {
        kind,
        status: status_code,
        message: message.clone(),
    };
    if let Some(wait) = limited(status, headers, &message, now) {
        return Fault::Transient {
            error: error(ErrorKind::RateLimited),
            not_before: Some(now + wait.min(LONGEST_WAIT)),
        };
    }
    match status_code {
        Error::UNAUTHORIZED => Fault::Permanent(error(ErrorKind::Unauthorized)),
        403 | 451 => Fault::Permanent(error(ErrorKind::Forbidden)),
        // Also at another address: a redirect is not followed with a token.
        301 | 302 | 307 | 308 | 404 | 410 => Fault::Permanent(error(ErrorKind::NotFound)),
        408 | 429 | 500..=599 => Fault::transient(error(ErrorKind::Unreachable)),
        _ => Fault::Permanent(error(ErrorKind::Rejected)),
    }
}

/// How long GitHub asks us to wait, by
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>.
fn limited(status: StatusCode, headers: &HeaderMap, message: &str, now: Timestamp) -> Option<Duration> {
    if status != StatusCode::FORBIDDEN && status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let number = |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs(seconds.max(1)));
    }
    if number("x-ratelimit-remaining") == Some(0)
        && let Some(reset) = number("x-ratelimit-reset")
    {
        let reset =
            Timestamp::from_micros(i64::try_from(reset).unwrap_or(i64::MAX).saturating_mul(1_000_000));
        return Some(reset.since(now).max(Duration::from_secs(1)));
    }
    let lower = message.to_lowercase();
    let secondary = ["rate limit", "abuse detection"]
        .iter()
        .any(|text| lower.contains(text));
    (secondary || status == StatusCode::TOO_MANY_REQUESTS).then_some(SECONDARY_WAIT)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};
    use slipway_model::{Fault, Timestamp};

    use super::{Error, ErrorKind, fault};

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn read(status: u16, headers: &[(&'static str, &str)], body: &str) -> Fault<Error> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        fault(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes(), NOW)
    }

    #[test]
    fn limits_are_told_from_missing_rights() {
        let wait = |fault: Fault<Error>| match fault {
            Fault::Transient {
                error,
                not_before: Some(until),
            } => {
                assert!(error.kind == ErrorKind::RateLimited, "{error:?}");
                Some(until.since(NOW).as_secs())
            }
            _ => None,
        };
        let secondary =
            r#"{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}"#;
        for (status, headers, body, wanted) in [
            (403, vec![("retry-after", "30")], secondary, Some(30)),
            (403, vec![], secondary, Some(60)),
            (429, vec![], "", Some(60)),
            (
                403,
                vec![
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1800000090"),
                ],
                r#"{"message": "API rate limit exceeded for installation ID 1."}"#,
                Some(90),
            ),
            // A reset in the past means that the clocks differ, not that we may go on at once.
            (
                429,
                vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")],
                "",
                Some(1),
            ),
            (429, vec![("retry-after", "999999")], "", Some(7200)),
            (
                403,
                vec![],
                r#"{"message": "Resource not accessible by integration"}"#,
                None,
            ),
            (
                403,
                vec![
                    ("x-ratelimit-remaining", "4999"),
                    ("x-ratelimit-reset", "1800000090"),
                ],
                r#"{"message": "Must have admin rights to Repository."}"#,
                None,
            ),
        ] {
            assert_eq!(
                wait(read(status, &headers, body)),
                wanted,
                "{status} {headers:?} {body}"
            );
        }
    }

    #[test]
    fn each_refusal_has_its_own_kind() {
        let error = |status, kind, message: &str| {
            Fault::Permanent(Error {
                kind,
                status,
                message: format!("GitHub: {message}"),
            })
        };
        for (status, body, wanted, message) in [
            (
                401,
                r#"{"message": "Bad credentials"}"#,
                ErrorKind::Unauthorized,
                "Bad credentials",
            ),
            (
                403,
                r#"{"message": "Resource not accessible by integration"}"#,
                ErrorKind::Forbidden,
                "Resource not accessible by integration",
            ),
            (
                404,
                r#"{"message": "Not Found"}"#,
                ErrorKind::NotFound,
                "Not Found",
            ),
            (
                Error::NOT_MERGEABLE,
                r#"{"message": "Base branch was modified. Review and try the merge again."}"#,
                ErrorKind::Rejected,
                "Base branch was modified. Review and try the merge again.",
            ),
            (
                Error::UNPROCESSABLE,
                r#"{"message": "Validation Failed", "errors": [{"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for acme:x."}]}"#,
                ErrorKind::Rejected,
                "Validation Failed; A pull request already exists for acme:x.",
            ),
        ] {
            assert_eq!(read(status, &[], body), error(status, wanted, message));
        }
        let away = read(502, &[], "<html>");
        assert!(away.is_transient() && away.error().kind == ErrorKind::Unreachable);
    }
}
