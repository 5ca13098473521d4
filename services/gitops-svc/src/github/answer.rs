//! What GitHub's answers mean. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use slipway_model::{CommitSha, Timestamp};

use crate::{
    change::{Code, Reason},
    repository::words,
};

/// GitHub asks for at least a minute after a secondary limit that names no time.
const SECONDARY_WAIT: Duration = Duration::from_secs(60);
/// A wait beyond this is a clock that is wrong: limits are by the hour.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);

/// A pull request, in a list or alone.
#[derive(Debug, Deserialize)]
pub(super) struct Pull {
    pub(super) number: u64,
    pub(super) html_url: Option<String>,
    pub(super) state: String,
    pub(super) head: Head,
    pub(super) draft: Option<bool>,
    pub(super) merged: Option<bool>,
    pub(super) merged_at: Option<String>,
    pub(super) merged_by: Option<User>,
    pub(super) merge_commit_sha: Option<CommitSha>,
    pub(super) mergeable: Option<bool>,
    pub(super) mergeable_state: Option<String>,
    #[serde(default)]
    pub(super) labels: Vec<Label>,
    #[serde(default)]
    pub(super) requested_reviewers: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(super) requested_teams: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) sha: CommitSha,
}

#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) login: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Label {
    pub(super) name: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// GitHub asks us to wait.
    Limited { reason: Reason, until: Timestamp },
    /// Worth another try.
    Transient(Reason),
    /// 401: the token is not good, until it is replaced.
    Unauthorized(Reason),
    /// The answer is no, and stays no.
    Final(Reason),
    /// 405: it cannot be merged now.
    NotMergeable(String),
    /// 409: its head is another one.
    HeadMoved(String),
    /// 422: what was asked for does not fit.
    Unprocessable(String),
}

impl Trouble {
    /// For those who only want to tell it.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Limited { reason, .. }
            | Self::Transient(reason)
            | Self::Unauthorized(reason)
            | Self::Final(reason) => reason,
            Self::NotMergeable(message) | Self::HeadMoved(message) | Self::Unprocessable(message) => {
                Reason::new(Code::PullRequestRefused, message)
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<serde_json::Value>,
}

/// What an answer that is no success means.
pub(super) fn trouble(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Trouble {
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
        format!("GitHub: {}", words(&all.join("\n")))
    };
    if let Some(wait) = limited(status, headers, &message, now) {
        return Trouble::Limited {
            reason: Reason::new(Code::RateLimited, message),
            until: now + wait.min(LONGEST_WAIT),
        };
    }
    match status.as_u16() {
        401 => Trouble::Unauthorized(Reason::new(Code::CredentialsRefused, message)),
        403 | 451 => Trouble::Final(Reason::new(Code::PermissionDenied, message)),
        404 | 410 => Trouble::Final(Reason::new(Code::PullRequestNotFound, message)),
        405 => Trouble::NotMergeable(message),
        409 => Trouble::HeadMoved(message),
        422 => Trouble::Unprocessable(message),
        408 | 429 | 500..=599 => Trouble::Transient(Reason::new(Code::RemoteUnreachable, message)),
        _ => Trouble::Final(Reason::new(Code::PullRequestRefused, message)),
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
    use slipway_model::Timestamp;

    use super::{Trouble, trouble};
    use crate::change::Code;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn read(status: u16, headers: &[(&'static str, &str)], body: &str) -> Trouble {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        trouble(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes(), NOW)
    }

    #[test]
    fn limits_are_told_from_missing_rights() {
        let wait = |trouble: Trouble| match trouble {
            Trouble::Limited { until, reason } => {
                assert_eq!(reason.code, Code::RateLimited);
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
            // A reset in the past is a clock that differs, not a reason to go on at once.
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
    fn each_no_has_its_own_code() {
        let code = |trouble: Trouble| match trouble {
            Trouble::Final(reason) | Trouble::Unauthorized(reason) => reason.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            code(read(401, &[], r#"{"message": "Bad credentials"}"#)),
            Code::CredentialsRefused
        );
        assert_eq!(
            code(read(
                403,
                &[],
                r#"{"message": "Resource not accessible by integration"}"#
            )),
            Code::PermissionDenied
        );
        assert_eq!(
            code(read(404, &[], r#"{"message": "Not Found"}"#)),
            Code::PullRequestNotFound
        );
        assert!(matches!(read(502, &[], "<html>"), Trouble::Transient(_)));
        assert_eq!(
            read(
                405,
                &[],
                r#"{"message": "Base branch was modified. Review and try the merge again."}"#
            ),
            Trouble::NotMergeable(
                "GitHub: Base branch was modified. Review and try the merge again.".to_owned()
            )
        );
        assert_eq!(
            read(
                422,
                &[],
                r#"{"message": "Validation Failed", "errors": [{"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for acme:x."}]}"#
            ),
            Trouble::Unprocessable(
                "GitHub: Validation Failed; A pull request already exists for acme:x.".to_owned()
            )
        );
    }
}
