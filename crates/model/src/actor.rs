//! Who did something.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Someone whose credential was verified: issuer and subject, printed `issuer/subject`.
///
/// The issuer of static tokens is `token`; the issuer of Slipway's own doings is `slipway`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal {
    pub issuer: String,
    pub subject: String,
}

impl Principal {
    pub fn new(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
        }
    }

    /// One of Slipway's own parts, such as the executor of a timer.
    pub fn system(part: &str) -> Self {
        Self::new("slipway", part)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}

impl FromStr for Principal {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once('/') {
            Some((issuer, subject)) if !issuer.is_empty() && !subject.is_empty() && text.len() <= 512 => {
                Ok(Self::new(issuer, subject))
            }
            _ => Err(Invalid::new("principal", text, "write it issuer/subject")),
        }
    }
}

impl TryFrom<String> for Principal {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> String {
        principal.to_string()
    }
}

/// The principal that called and, where it holds the `delegate` role, the one it acts for. Both are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// Whose credential was verified.
    pub principal: Principal,
    /// For whom it acted, when that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Principal>,
}

impl Actor {
    pub fn direct(principal: Principal) -> Self {
        Self {
            principal,
            on_behalf_of: None,
        }
    }

    pub fn system(part: &str) -> Self {
        Self::direct(Principal::system(part))
    }

    /// The person or program that the deed counts for.
    pub fn effective(&self) -> &Principal {
        self.on_behalf_of.as_ref().unwrap_or(&self.principal)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.on_behalf_of {
            Some(person) => write!(f, "{person} (through {})", self.principal),
            None => write!(f, "{}", self.principal),
        }
    }
}
