//! The words all parts of Slipway share: typed names and ids, commits, digests, image references, actors, time.
//!
//! Every type validates on construction, prints the way it is written in files and APIs, and (de)serialises as that
//! string, so that every value that exists is well-formed.

mod actor;
pub mod duration;
mod fault;
mod git;
mod hash;
mod id;
mod image;
mod name;
mod time;
mod trace;

pub use actor::{Actor, Authentication, Link, Principal};
pub use fault::{Fault, Reason, Retry, causes};
pub use git::{BranchName, CommitSha, GitTag};
pub use hash::ContentHash;
pub use id::Id;
pub use image::{Digest, Image, ImageName, ImageRef, Images, NotOneImage, ServiceImage, Tag};
pub use name::Name;
pub use time::Timestamp;
pub use trace::{SpanId, TraceContext, TraceId};

/// Why a text is not a value of one of this crate's types: names the kind of value, the text and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct Invalid {
    pub what: &'static str,
    pub text: String,
    pub rule: &'static str,
}

impl Invalid {
    /// The offending text is truncated, so that an error never carries a whole upload.
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        let text = text.chars().take(120).collect();
        Self { what, text, rule }
    }
}

/// Gives a string newtype its parsing, printing and serde forms; the type brings `fn check(&str) -> Result<(), Invalid>`.
macro_rules! text_type {
    ($type:ident) => {
        impl $type {
            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $type {
            type Err = $crate::Invalid;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::check(text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = $crate::Invalid;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::check(&text)?;
                Ok(Self(text))
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.0
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use text_type;
