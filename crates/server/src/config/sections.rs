//! The sections that every service's configuration has: where it listens, its database, its bus.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    ConfigError, PrincipalConfig, one_secret,
    tls::{self, Tls},
};

/// What a shutdown may take after the requests are done, unless the configuration says otherwise.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

/// The `server:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where to listen for gRPC.
    pub listen: SocketAddr,
    /// Where to listen for HTTP: webhooks, callbacks, pages. If omitted, nothing listens. TLS as for gRPC.
    pub http_listen: Option<SocketAddr>,
    /// Where to listen for `/livez` and `/readyz`, in plain HTTP and without authentication: for the kubelet and the
    /// like. If omitted, nothing listens; gRPC health is always available.
    pub ops_listen: Option<SocketAddr>,
    /// How others reach `http_listen`, such as `https://slipway.example`: links in chat and mail start with it.
    pub public_url: Option<PublicUrl>,
    /// Without it the server uses plain text, which it refuses on non-loopback addresses unless told otherwise.
    pub tls: Option<Tls>,
    /// Listen without TLS on any address: for a mesh or a proxy that adds its own.
    pub allow_plaintext: bool,
    /// Who may call, and what they may do. No one by default.
    pub principals: Vec<PrincipalConfig>,
    /// Larger requests are refused. Services also pass it to tonic (`max_decoding_message_size`), whose own default is
    /// the same 4 MiB.
    pub max_message_bytes: usize,
    /// The longest that a unary request may take; a caller may set less with `grpc-timeout`. Streams are exempt.
    #[serde(with = "slipway_model::duration")]
    pub request_timeout: Duration,
    /// Concurrent unary requests over all connections; more are refused with `RESOURCE_EXHAUSTED`.
    pub max_concurrent_requests: usize,
    /// Concurrent streams (watches, logs, event tails) over all connections.
    pub max_concurrent_streams: usize,
    /// How long a shutdown waits for requests that are being answered.
    #[serde(with = "slipway_model::duration")]
    pub drain_timeout: Duration,
    /// How long a shutdown may take in all: requests first, then background work, then the database. Must be more than
    /// `drain_timeout`, and no more than the process is granted by its environment (Kubernetes: 30 s by default). If
    /// omitted: `drain_timeout` plus 10 s.
    #[serde(with = "slipway_model::duration::option")]
    pub grace_period: Option<Duration>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_listen: None,
            ops_listen: None,
            public_url: None,
            tls: None,
            allow_plaintext: false,
            principals: Vec::new(),
            max_message_bytes: 4 << 20,
            request_timeout: Duration::from_secs(30),
            max_concurrent_requests: 1024,
            max_concurrent_streams: 4096,
            drain_timeout: Duration::from_secs(20),
            grace_period: None,
        }
    }
}

impl ServerConfig {
    /// How long a shutdown may take in all.
    pub fn grace_period(&self) -> Duration {
        self.grace_period.unwrap_or(self.drain_timeout + AFTER_DRAIN)
    }

    /// Checks what single values do not show.
    ///
    /// # Errors
    /// Plain text on an address that others can reach; limits of zero.
    pub fn check(&self) -> Result<(), ConfigError> {
        for listen in [Some(self.listen), self.http_listen].into_iter().flatten() {
            if self.tls.is_none() && !self.allow_plaintext && !listen.ip().is_loopback() {
                return Err(ConfigError::invalid(
                    "server.tls",
                    format!(
                        "is required to listen on {listen}, since tokens would be sent in plain text; set server.tls, or \
                         server.allow_plaintext: true behind a proxy that brings TLS"
                    ),
                ));
            }
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
        if self.grace_period() <= self.drain_timeout {
            return Err(ConfigError::invalid(
                "server.grace_period",
                "must be more than server.drain_timeout, so that time is left for what comes after the requests",
            ));
        }
        let mut seen = BTreeSet::new();
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

impl ServerConfig {
    /// Checks the files that it names.
    ///
    /// # Errors
    /// A certificate or key that cannot be read, or that do not belong together.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        self.tls.as_ref().map(tls::server).transpose().map(drop)
    }
}

/// The beginning of links to this service: `https://host[:port][/path]`, or `http://` on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The address of a path of this service; the path begins with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "is not a public URL: write https://host, or http:// on loopback, without user, query and fragment";
        let url = url::Url::parse(&text).map_err(|_| wrong)?;
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(wrong),
        };
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        match url.scheme() {
            "https" if plain => {}
            "http" if plain && loopback => {}
            _ => return Err(wrong),
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// The `database:` section. One of `url` and `url_file`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host/database` or `sqlite:///absolute/path.db`.
    #[serde(default)]
    pub url: Option<SecretString>,
    /// A file that contains the URL and nothing else.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// The maximum number of connections to PostgreSQL.
    #[serde(default)]
    pub max_connections: Option<u32>,
}

impl DatabaseConfig {
    /// Checks the values: exactly one of the URL and its file is given.
    ///
    /// # Errors
    /// Neither or both are given.
    pub fn check(&self) -> Result<(), ConfigError> {
        match (&self.url, &self.url_file) {
            (None, Some(_)) => Ok(()),
            _ => self.url().map(drop),
        }
    }

    /// A configuration with this URL.
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: Some(SecretString::from(url.into())),
            ..Self::default()
        }
    }

    /// The URL, from whichever of the two is given.
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

/// The `bus:` section. With neither key, events stay in this process and in `StreamEvents`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusConfig {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS.
    #[serde(default)]
    pub redis_url: Option<SecretString>,
    /// A file that contains the URL and nothing else.
    #[serde(default)]
    pub redis_url_file: Option<PathBuf>,
}

impl BusConfig {
    /// Checks the values: not both of the URL and its file are given.
    ///
    /// # Errors
    /// Both are given.
    pub fn check(&self) -> Result<(), ConfigError> {
        match (&self.redis_url, &self.redis_url_file) {
            (None, Some(_)) => Ok(()),
            _ => self.redis_url().map(drop),
        }
    }

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
