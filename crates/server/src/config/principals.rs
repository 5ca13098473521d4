//! Who may call, and what they may do: tokens by their hashes, and roles.

use std::fmt;

use serde::{Deserialize, Serialize};
use slipway_model::Principal;

use super::ConfigError;

/// A principal with a bearer token. Two entries with the same subject are one principal with two tokens, for rotation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalConfig {
    /// The principal is then `token/<subject>`.
    pub subject: Subject,
    /// What `printf %s "$TOKEN" | sha256sum` prints.
    pub token_sha256: TokenHash,
    #[serde(default)]
    pub roles: Vec<RoleConfig>,
}

impl PrincipalConfig {
    /// An entry for `subject`, which presents `token`.
    ///
    /// # Errors
    /// A subject that is not well-formed.
    pub fn new(subject: &str, token: &str, roles: Vec<RoleConfig>) -> Result<Self, ConfigError> {
        let subject = Subject::try_from(subject.to_owned())
            .map_err(|message| ConfigError::invalid("subject", message))?;
        Ok(Self {
            subject,
            token_sha256: TokenHash::of(token),
            roles,
        })
    }

    /// `token/<subject>`.
    pub fn principal(&self) -> Principal {
        Principal::new("token", self.subject.0.clone())
    }
}

/// 1 to 200 printable ASCII characters without space.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

impl TryFrom<String> for Subject {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("subject is not valid: use 1 to 200 printable ASCII characters without space".to_owned())
        }
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a bearer token, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash(pub(crate) [u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        use sha2::{Digest, Sha256};
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        // The text is not repeated: it may be the token itself.
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(
            |_| "is not a SHA-256 of 64 hexadecimal digits; take what printf %s \"$TOKEN\" | sha256sum prints",
        )?;
        let hash = Self(bytes);
        if hash == Self::of("") {
            Err("is the hash of an empty token; make a token first")
        } else {
            Ok(hash)
        }
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> String {
        hex::encode(hash.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}…)", hex::encode(&self.0[..4]))
    }
}

/// What a principal may do, and where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    pub actions: Vec<Action>,
    /// Patterns in which `*` stands for any text, such as `shop-*`.
    #[serde(default = "everything")]
    pub services: Vec<String>,
    /// As `services`.
    #[serde(default = "everything")]
    pub environments: Vec<String>,
}

impl RoleConfig {
    /// These actions on every service and environment.
    pub fn everywhere(actions: impl IntoIterator<Item = Action>) -> Self {
        Self {
            actions: actions.into_iter().collect(),
            services: everything(),
            environments: everything(),
        }
    }
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

/// What roles allow. Written in lower case in configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Read resources, logs and events.
    Read,
    /// Start builds, changes, deployments, releases; request approvals.
    Start,
    /// Cancel what was started.
    Cancel,
    /// Roll back.
    Rollback,
    /// Decide on approvals.
    Approve,
    /// Pass a gate without the approvals that it requires; always conspicuous.
    Override,
    /// Name another principal as the one who requests or decides.
    Delegate,
    /// Keep the service running: resume what it has parked.
    Operate,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 8] = [
        Action::Read,
        Action::Start,
        Action::Cancel,
        Action::Rollback,
        Action::Approve,
        Action::Override,
        Action::Delegate,
        Action::Operate,
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Read => "read",
            Action::Start => "start",
            Action::Cancel => "cancel",
            Action::Rollback => "rollback",
            Action::Approve => "approve",
            Action::Override => "override",
            Action::Delegate => "delegate",
            Action::Operate => "operate",
        })
    }
}
