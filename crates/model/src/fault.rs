//! Why something did not happen: the reason, and whether trying again may help.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Why something is the way it is: a code for programs, and words for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Reason {
    /// Pinned, UPPER_SNAKE_CASE: part of the API.
    pub code: String,
    /// Its wording may change.
    pub message: String,
}

impl Reason {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// An error, classified by whether it makes sense to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault<E> {
    /// Refused; asking again will not change it.
    Permanent(E),
    /// It could not be asked, or did not answer: trying again may help.
    Transient {
        error: E,
        /// Do not try earlier than this, if the remote system said so.
        not_before: Option<Timestamp>,
    },
}

impl<E> Fault<E> {
    /// Worth another try, at any time.
    pub fn transient(error: E) -> Self {
        Self::Transient {
            error,
            not_before: None,
        }
    }

    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    pub fn error(&self) -> &E {
        match self {
            Self::Permanent(error) | Self::Transient { error, .. } => error,
        }
    }

    pub fn into_error(self) -> E {
        match self {
            Self::Permanent(error) | Self::Transient { error, .. } => error,
        }
    }

    /// The same fault in other words.
    pub fn map<F>(self, map: impl FnOnce(E) -> F) -> Fault<F> {
        match self {
            Self::Permanent(error) => Fault::Permanent(map(error)),
            Self::Transient { error, not_before } => Fault::Transient {
                error: map(error),
                not_before,
            },
        }
    }
}

impl Fault<Reason> {
    /// A permanent fault with its reason.
    pub fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Permanent(Reason::new(code, message))
    }

    /// A transient fault with its reason.
    pub fn unavailable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::transient(Reason::new(code, message))
    }
}

/// What is being retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The result of the last try.
    pub error: Reason,
    /// Tries made so far; 0 where they are not counted.
    pub attempt: u32,
    /// When the next one begins; absent while one is running, and where that is not known.
    pub next_time: Option<Timestamp>,
}

impl<E: fmt::Display> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Fault<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error().source()
    }
}

/// An error's text with what caused it, outermost first: a client's own message alone says little. A cause that its
/// error repeats is not written twice.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored in events of every service.
    #[test]
    fn the_json_of_a_reason_is_pinned() {
        let reason = Reason::new("NO_ROOM", "the disk is full");
        let json = r#"{"code":"NO_ROOM","message":"the disk is full"}"#;
        assert_eq!(serde_json::to_string(&reason).unwrap(), json);
        assert_eq!(serde_json::from_str::<Reason>(json).unwrap(), reason);
    }

    #[test]
    fn other_words_keep_the_kind_and_the_time() {
        let until = Timestamp::from_micros(7);
        let fault = Fault::Transient {
            error: "busy",
            not_before: Some(until),
        };
        let mapped = fault.map(|words| Reason::new("BUSY", words));
        assert_eq!(
            mapped,
            Fault::Transient {
                error: Reason::new("BUSY", "busy"),
                not_before: Some(until),
            }
        );
        assert_eq!(mapped.to_string(), "busy");
        assert_eq!(Fault::refused("NO", "no").into_error(), Reason::new("NO", "no"));
    }
}
