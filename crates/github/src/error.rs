//! What went wrong, and what that means.

use slipway_model::{Fault, Reason};

/// GitHub's own text is truncated to this length.
const MAX_TEXT: usize = 2000;

/// Why GitHub did not do what was requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    /// The HTTP status of the response; 0 if there was none.
    pub status: u16,
    pub message: String,
}

/// What an error means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no token or key to ask with; carries the code of what should have supplied it.
    NoCredentials(String),
    /// The token or the App's key is not accepted.
    Unauthorized,
    /// The token is accepted, but does not permit this.
    Forbidden,
    /// It does not exist, or this token may not see it.
    NotFound,
    /// The App's installation does not cover the repository.
    NotCovered,
    /// The request is not valid in this state.
    Rejected,
    /// GitHub must not be asked again for some time.
    RateLimited,
    /// Its certificate is not trusted.
    Untrusted,
    /// There was no response, or none that can be read.
    Unreachable,
}

impl Error {
    /// The token is not valid until it is replaced.
    pub const UNAUTHORIZED: u16 = 401;
    /// The pull request cannot be merged now.
    pub const NOT_MERGEABLE: u16 = 405;
    /// The pull request's head is a different commit.
    pub const HEAD_MOVED: u16 = 409;
    /// The request is not valid in this state.
    pub const UNPROCESSABLE: u16 = 422;

    /// There was no response, or none that can be read: worth another try.
    pub(crate) fn unreachable(message: impl Into<String>) -> Fault<Self> {
        Fault::transient(Self {
            kind: ErrorKind::Unreachable,
            status: 0,
            message: message.into(),
        })
    }

    /// There is nothing to ask with.
    pub(crate) fn no_credentials(Reason { code, message }: Reason) -> Self {
        Self {
            kind: ErrorKind::NoCredentials(code),
            status: 0,
            message,
        }
    }

    /// What octocrab says when there was no response: the deepest cause, without the source location that its errors
    /// include.
    pub(crate) fn of(error: &octocrab::Error) -> Fault<Self> {
        let mut text = String::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        let text = paragraph(&text);
        // What a certificate says does not change by itself.
        if text.contains("invalid peer certificate") {
            return Fault::Permanent(Self {
                kind: ErrorKind::Untrusted,
                status: 0,
                message: format!(
                    "the certificate of GitHub's API is not trusted: renew it, or have this machine trust the authority that signed it; {text}"
                ),
            });
        }
        Self::unreachable(format!("GitHub's API cannot be reached: {text}"))
    }
}

/// GitHub's own text, made fit for an error: one paragraph, printable, its end kept if it is too long.
pub(crate) fn paragraph(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.trim().chars().filter(|c| !c.is_control()).collect())
        .filter(|line: &String| !line.is_empty())
        .collect();
    let text = lines.join("; ");
    match text.chars().count().checked_sub(MAX_TEXT) {
        _ if text.is_empty() => "it gave no reason".to_owned(),
        None | Some(0) => text,
        Some(beyond) => format!("…{}", text.chars().skip(beyond).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_TEXT, paragraph};

    #[test]
    fn a_text_becomes_one_paragraph_that_keeps_its_end() {
        assert_eq!(paragraph(" one\r\n\n\ttwo\u{7} "), "one; two");
        assert_eq!(paragraph("\n"), "it gave no reason");
        let long = format!("{}the cause", "x".repeat(3 * MAX_TEXT));
        let cut = paragraph(&long);
        assert!(cut.starts_with('…') && cut.ends_with("the cause"));
        assert_eq!(cut.chars().count(), MAX_TEXT + 1);
    }
}
