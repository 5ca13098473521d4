//! The client side of the same conventions: a channel that connects when it is needed, with bearer token, trace
//! context, timeouts and keepalive.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use slipway_model::TraceContext;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, ClientTlsConfig, Endpoint, Uri},
};

use crate::{ConfigError, config::one_secret};

/// A connection attempt that takes longer counts as failed.
const CONNECT: Duration = Duration::from_secs(5);
/// HTTP/2 pings detect servers that are gone, and keep watches open through proxies.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach one of Slipway's services.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// `https://host:port`, or `http://` on loopback.
    pub url: String,
    /// The bearer token to present; or `token_file`. With neither, the server will refuse everything but health.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// A file that contains the token and nothing else.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM certificates to trust instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Send the token over `http://` to addresses other than loopback: for a mesh or a proxy that adds TLS.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// How long to wait for an answer; for a stream, for its beginning.
    #[serde(default = "timeout", with = "slipway_model::duration")]
    pub timeout: Duration,
}

fn timeout() -> Duration {
    Duration::from_secs(30)
}

/// What the generated clients are built on: `BuildServiceClient::new(channel)`. Cheap to clone.
pub type Channel = InterceptedService<tonic::transport::Channel, Outgoing>;

impl ClientConfig {
    /// A configuration with this URL and token, and defaults.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: Some(SecretString::from(token.into())),
            token_file: None,
            ca_file: None,
            allow_plaintext: false,
            timeout: timeout(),
        }
    }

    /// Checks only the URL: reads no file and does not connect.
    ///
    /// # Errors
    /// A URL that cannot be used; `key` as in [`connect`](Self::connect).
    pub fn check_url(&self, key: &str) -> Result<(), ConfigError> {
        self.uri(key).map(drop)
    }

    /// Checks everything, files included, without connecting.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn check(&self, key: &str) -> Result<(), ConfigError> {
        self.endpoint(key)?;
        self.authorization(key).map(drop)
    }

    /// A channel that connects with the first request and again whenever the connection is lost. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// A URL, token or certificate that cannot be used; `key` is where this configuration is, such as `build` for
    /// errors that name `build.url`.
    pub fn connect(&self, key: &str) -> Result<Channel, ConfigError> {
        let endpoint = self.endpoint(key)?;
        let authorization = self.authorization(key)?;
        Ok(InterceptedService::new(
            endpoint.connect_lazy(),
            Outgoing { authorization },
        ))
    }

    fn uri(&self, key: &str) -> Result<Uri, ConfigError> {
        let wrong = |words: &str| Err(ConfigError::invalid(format!("{key}.url"), words));
        let uri: Uri = match self.url.parse() {
            Ok(uri) => uri,
            Err(error) => return wrong(&format!("is not a URL: {error}")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if loopback || self.allow_plaintext => Ok(uri),
            Some("http") => wrong(
                "would send the token in plain text; use https, or set allow_plaintext: true behind a proxy that brings TLS",
            ),
            _ => wrong("must begin with https:// or http://"),
        }
    }

    fn endpoint(&self, key: &str) -> Result<Endpoint, ConfigError> {
        let at = |name: &str| format!("{key}.{name}");
        let uri = self.uri(key)?;
        let tls = uri.scheme_str() == Some("https");
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT)
            .timeout(self.timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if tls {
            let tls = match &self.ca_file {
                Some(path) => {
                    let pem = std::fs::read(path).map_err(|error| {
                        ConfigError::invalid(
                            at("ca_file"),
                            format!("{}: cannot be read: {error}", path.display()),
                        )
                    })?;
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
                }
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls).map_err(|error| {
                ConfigError::invalid(at("ca_file"), format!("cannot be used for TLS: {error}"))
            })?;
        }
        Ok(endpoint)
    }

    fn authorization(&self, key: &str) -> Result<Option<MetadataValue<Ascii>>, ConfigError> {
        let at = |name: &str| format!("{key}.{name}");
        let token = one_secret(
            &at("token"),
            self.token.as_ref(),
            &at("token_file"),
            self.token_file.as_deref(),
        )?;
        token.map(|token| bearer(&at("token"), &token)).transpose()
    }
}

fn bearer(key: &str, token: &SecretString) -> Result<MetadataValue<Ascii>, ConfigError> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose_secret().trim())
        .parse()
        .map_err(|_| ConfigError::invalid(key, "contains characters that a header cannot contain"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds the token and the trace context to each request: the [`TraceContext`] among the request's extensions, otherwise
/// the current span's.
#[derive(Debug, Clone)]
pub struct Outgoing {
    authorization: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization.clone());
        }
        let context = request
            .extensions()
            .get::<TraceContext>()
            .copied()
            .or_else(slipway_telemetry::current_trace_context);
        // One that the caller set itself stays.
        if let Some(context) = context
            && !request.metadata().contains_key("traceparent")
            && let Ok(value) = context.to_string().parse()
        {
            request.metadata_mut().insert("traceparent", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn configurations_that_cannot_work_are_refused() {
        for (config, says) in [
            (
                ClientConfig::new("http://build.example:7001", "t"),
                "build.url: would send the token in plain text",
            ),
            (
                ClientConfig::new("ftp://127.0.0.1", "t"),
                "build.url: must begin with",
            ),
            (ClientConfig::new("::", "t"), "build.url: is not a URL"),
            (
                ClientConfig::new("http://127.0.0.1:1", "a\nb"),
                "build.token: contains characters",
            ),
            (
                ClientConfig::new("http://127.0.0.1:1", ""),
                "build.token: is empty",
            ),
            (
                ClientConfig {
                    ca_file: Some("/nonexistent".into()),
                    ..ClientConfig::new("https://x", "t")
                },
                "build.ca_file: /nonexistent",
            ),
        ] {
            let error = config.connect("build").expect_err(says).to_string();
            assert!(error.starts_with(says), "{error}");
        }
        for url in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            ClientConfig::new(url, "t").connect("build").unwrap();
        }
        let mesh = ClientConfig {
            allow_plaintext: true,
            ..ClientConfig::new("http://build.example:7001", "t")
        };
        mesh.connect("build").unwrap();
        assert!(!format!("{:?}", ClientConfig::new("http://x", "hunter2")).contains("hunter2"));
        assert!(
            !format!(
                "{:?}",
                ClientConfig::new("http://[::1]:1", "hunter2")
                    .connect("x")
                    .unwrap()
            )
            .contains("hunter2")
        );
    }
}
