//! The sections of the configuration that every service has, and how a configuration file is read: YAML, unknown
//! keys refused, every error with file, line, column and key.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_model::Principal;

/// A configuration file is at most this long; a longer one is a mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: is larger than 4 MiB; is it the right file?", path.display())]
    TooLarge { path: PathBuf },
    /// The text is not what it must be. `key` is the path to the value, such as `server.principals[0].subject`.
    #[error("{}:{line}:{column}: {key}: {message}", path.display())]
    Parse {
        path: PathBuf,
        line: u64,
        column: u64,
        key: String,
        message: String,
    },
    /// The values do not fit together.
    #[error("{key}: {message}")]
    Invalid { key: String, message: String },
}

// Messages come as errors and as formatted texts; callers hand them over.
#[allow(clippy::needless_pass_by_value)]
impl ConfigError {
    /// A value that parses and yet cannot be used; `message` says what to do.
    pub fn invalid(key: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid {
            key: key.into(),
            message: message.to_string(),
        }
    }
}

/// Reads a YAML file.
///
/// # Errors
/// Names the file, and within it the line, the column and the key. Values are not repeated except where the type's own
/// message does.
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, ConfigError> {
    let path = path.as_ref();
    let unreadable = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
}

/// Reads YAML text; `path` is only for errors.
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned>(path: impl AsRef<Path>, text: &str) -> Result<T, ConfigError> {
    // Snippets would show neighbouring lines, and one of them may hold a password.
    let options = serde_saphyr::options! { with_snippet: false };
    let mut key = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            key = error.path().to_string();
            error.into_inner()
        })
    });
    parsed.map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = plain_message(&error.to_string());
        let key = if key.is_empty() || key == "." {
            "(document)".to_owned()
        } else {
            key
        };
        ConfigError::Parse {
            path: path.as_ref().to_owned(),
            line,
            column,
            key,
            message,
        }
    })
}

/// The library's message without the position, which our error has in front.
fn plain_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    match first.rfind(" at line ") {
        Some(at) => first[..at].trim_end_matches([',', ':']).to_owned(),
        None => first.to_owned(),
    }
}

/// Reads and writes durations as text such as `30s`, `5m`, `1h 30m`: `#[serde(with = "slipway_server::config::duration")]`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// # Errors
    /// Text that is no duration, and negative ones.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || {
            D::Error::custom(format!(
                "duration {text:?} is not valid: write it as 30s, 5m or 1h 30m"
            ))
        };
        let signed: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
        Duration::try_from(signed).map_err(|_| bad())
    }

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let signed = jiff::SignedDuration::try_from(*duration).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&format!("{signed:#}"))
    }
}

/// The `server:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where to listen for gRPC.
    pub listen: SocketAddr,
    /// Without it the server speaks plain text, which it refuses on other than loopback addresses unless told so.
    pub tls: Option<Tls>,
    /// Listen without TLS on any address: for a mesh or a proxy that brings its own.
    pub allow_plaintext: bool,
    /// Who may call, and what for. Nobody by default.
    pub principals: Vec<PrincipalConfig>,
    /// Larger requests are refused. Services give it to tonic as well (`max_decoding_message_size`), whose own default
    /// is the same 4 MiB.
    pub max_message_bytes: usize,
    /// The longest that a unary request may take; a caller may ask for less with `grpc-timeout`. Streams are exempt.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Unary requests at once over all connections; more are refused with `RESOURCE_EXHAUSTED`.
    pub max_concurrent_requests: usize,
    /// Streams (watches, logs, event tails) at once over all connections.
    pub max_concurrent_streams: usize,
    /// How long a shutdown waits for requests that are being answered.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            allow_plaintext: false,
            principals: Vec::new(),
            max_message_bytes: 4 << 20,
            request_timeout: Duration::from_secs(30),
            max_concurrent_requests: 1024,
            max_concurrent_streams: 4096,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl ServerConfig {
    /// What the single values do not show.
    ///
    /// # Errors
    /// Plain text on an address that others can reach; limits of zero.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.tls.is_none() && !self.allow_plaintext && !self.listen.ip().is_loopback() {
            return Err(ConfigError::invalid(
                "server.tls",
                format!(
                    "is required to listen on {}, since tokens would travel readable; set server.tls, or \
                     server.allow_plaintext: true behind a proxy that brings TLS",
                    self.listen
                ),
            ));
        }
        for (key, value) in [
            ("server.max_message_bytes", self.max_message_bytes),
            ("server.max_concurrent_requests", self.max_concurrent_requests),
            ("server.max_concurrent_streams", self.max_concurrent_streams),
        ] {
            if value == 0 {
                return Err(ConfigError::invalid(
                    key,
                    "must be more than 0; leave it out for the default",
                ));
            }
        }
        if self.request_timeout.is_zero() {
            return Err(ConfigError::invalid(
                "server.request_timeout",
                "must be more than 0s",
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (at, principal) in self.principals.iter().enumerate() {
            if !seen.insert(principal.token_sha256.0) {
                return Err(ConfigError::invalid(
                    format!("server.principals[{at}].token_sha256"),
                    "is another principal's too; give each its own token",
                ));
            }
        }
        Ok(())
    }
}

/// Certificate chain and private key, PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Someone with a bearer token. Two entries with one subject are one person with two tokens, for rotation.
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
    /// An entry for `subject`, who shows `token`.
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
        // The text is not repeated: somebody may have put the token itself there.
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
    /// See resources, logs and events.
    Read,
    /// Start builds, changes, deployments, releases; ask for approvals.
    Start,
    /// Cancel what was started.
    Cancel,
    /// Roll back.
    Rollback,
    /// Decide on approvals.
    Approve,
    /// Get past a gate without the approvals that it asks for; loud.
    Override,
    /// Name somebody else as the one who asks or decides.
    Delegate,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 7] = [
        Action::Read,
        Action::Start,
        Action::Cancel,
        Action::Rollback,
        Action::Approve,
        Action::Override,
        Action::Delegate,
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
        })
    }
}

/// The `database:` section. One of `url` and `url_file`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host/database` or `sqlite:///absolute/path.db`.
    #[serde(default)]
    pub url: Option<SecretString>,
    /// A file that holds the URL and nothing else.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// Connections to PostgreSQL at most.
    #[serde(default)]
    pub max_connections: Option<u32>,
}

impl DatabaseConfig {
    /// A configuration with this URL.
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: Some(SecretString::from(url.into())),
            ..Self::default()
        }
    }

    /// The URL, from wherever it is.
    ///
    /// # Errors
    /// Neither or both are given, or the file cannot be read.
    pub fn url(&self) -> Result<SecretString, ConfigError> {
        one_secret(
            "database.url",
            self.url.as_ref(),
            "database.url_file",
            self.url_file.as_deref(),
        )?
        .ok_or_else(|| {
            ConfigError::invalid(
                "database.url",
                "is required: postgres://… or sqlite:///absolute/path.db, or url_file",
            )
        })
    }
}

/// The `bus:` section. Without either key, events stay in this process and in `StreamEvents`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusConfig {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS.
    #[serde(default)]
    pub redis_url: Option<SecretString>,
    /// A file that holds the URL and nothing else.
    #[serde(default)]
    pub redis_url_file: Option<PathBuf>,
}

impl BusConfig {
    /// The URL of Redis, if there is one.
    ///
    /// # Errors
    /// Both are given, or the file cannot be read.
    pub fn redis_url(&self) -> Result<Option<SecretString>, ConfigError> {
        one_secret(
            "bus.redis_url",
            self.redis_url.as_ref(),
            "bus.redis_url_file",
            self.redis_url_file.as_deref(),
        )
    }
}

/// A secret that is given in place or as the name of a file.
pub(crate) fn one_secret(
    key: &str,
    value: Option<&SecretString>,
    file_key: &str,
    file: Option<&Path>,
) -> Result<Option<SecretString>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::invalid(
            key,
            format!("and {file_key} exclude each other; keep one"),
        )),
        (Some(value), None) if value.expose_secret().trim().is_empty() => {
            Err(ConfigError::invalid(key, "is empty"))
        }
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => secret_file(file_key, path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The one line of a file that holds a secret.
pub(crate) fn secret_file(key: &str, path: &Path) -> Result<SecretString, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::invalid(key, format!("{}: cannot be read: {error}", path.display())))?;
    match text.trim() {
        "" => Err(ConfigError::invalid(key, format!("{}: is empty", path.display()))),
        secret if secret.contains('\n') => Err(ConfigError::invalid(
            key,
            format!("{}: has more than one line", path.display()),
        )),
        secret => Ok(SecretString::from(secret.to_owned())),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
