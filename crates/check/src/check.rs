//! Checks: what must answer before a deployment counts as verified.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_model::{Name, duration};

use crate::{Fault, Faults, Remote, check_path, is_hop_by_hop, is_reserved_header, json};

/// Attempts × (timeout + interval) of one check stays below this, so that a check cannot outlive its deployment
/// unnoticed.
const LONGEST: Duration = Duration::from_secs(3600);
const MAX_ENTRIES: usize = 20;

/// Something that must answer before a deployment counts as verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: Name,
    #[serde(flatten)]
    pub kind: CheckKind,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    Http(HttpCheck),
    Grpc(GrpcCheck),
    Tcp(TcpCheck),
}

/// A GET, through the API server's service proxy (`service` and `port`) or to a URL. Redirects are not followed: they
/// count as answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Name of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Its port, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// The Service's namespace; left out, the target's (an Application's destination).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Instead of a Service: `http://` or `https://`, host and optional port; `path` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default = "slash")]
    pub path: String,
    /// Request headers. Not for secrets: they are stored with the release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default = "ok")]
    pub expect_status: u16,
    /// Response headers that must be present with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect_headers: BTreeMap<String, String>,
    /// A text that the first 64 KiB of the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// JSON paths (RFC 9535) of the body and what each must select, as JSON: the value, or the list of all values where
    /// the path can select several (`*`, `..`, slices, filters).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect_json: BTreeMap<String, serde_json::Value>,
    /// For `https` URLs: a PEM file of authorities to trust in addition to the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    #[serde(flatten)]
    pub patience: Patience,
}

/// `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcCheck {
    /// `host:port`.
    pub address: String,
    /// The service to ask about; empty means the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    #[serde(flatten)]
    pub patience: Patience,
}

/// A connection that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// `host:port`.
    pub address: String,
    #[serde(flatten)]
    pub patience: Patience,
}

/// How often a check asks, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// How often it asks before the check has failed.
    #[serde(default = "ten")]
    pub attempts: u32,
    /// For one attempt.
    #[serde(default = "two_seconds", with = "duration")]
    pub timeout: Duration,
    /// Between the end of one attempt and the next.
    #[serde(default = "half_a_second", with = "duration")]
    pub interval: Duration,
}

/// A Service's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    Number(u16),
    Name(Name),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

impl Check {
    /// What is wrong with it, with paths relative to the check, such as `http.path`.
    pub fn check(&self) -> Vec<Fault> {
        let (kind, faults) = match &self.kind {
            CheckKind::Http(check) => ("http", check.check()),
            CheckKind::Grpc(check) => ("grpc", check.check()),
            CheckKind::Tcp(check) => ("tcp", check.check()),
        };
        let below = |fault: Fault| Fault {
            path: match fault.path.as_str() {
                "" => kind.to_owned(),
                path => format!("{kind}.{path}"),
            },
            ..fault
        };
        faults.into_vec().into_iter().map(below).collect()
    }
}

impl HttpCheck {
    fn check(&self) -> Faults {
        let mut faults = self.patience.check();
        match &self.url {
            Some(url) => {
                faults.accept("url", Remote::of_url(url));
                let service = self.service.is_some() || self.port.is_some() || self.namespace.is_some();
                faults.require(
                    !service,
                    "url",
                    "replaces service, port and namespace: leave those out",
                );
            }
            None => {
                let words = "give service and port, or url";
                faults.require(self.service.is_some() && self.port.is_some(), "", words);
                faults.require(
                    self.port != Some(Port::Number(0)),
                    "port",
                    "must be from 1 to 65535, or a name",
                );
            }
        }
        check_ca_file(
            self.ca_file.as_deref(),
            self.tls(),
            "for https URLs alone",
            &mut faults,
        );
        faults.accept("path", check_path(&self.path));
        faults.require(
            (200..=599).contains(&self.expect_status),
            "expect_status",
            "must be an HTTP status from 200 to 599",
        );
        for (key, headers) in [
            ("headers", &self.headers),
            ("expect_headers", &self.expect_headers),
        ] {
            faults.require(headers.len() <= MAX_ENTRIES, key, "name at most 20 headers");
            for (name, value) in headers {
                let named = http::HeaderName::try_from(name).is_ok();
                let carried = http::HeaderValue::try_from(value).is_ok() && value.len() <= 1000;
                faults.require(named && carried, format!("{key}.{name}"), "is not an HTTP header");
            }
        }
        for name in self.headers.keys() {
            let ours = match self.url {
                Some(_) => is_hop_by_hop(&name.to_ascii_lowercase()),
                None => is_reserved_header(name),
            };
            let words = "cannot be set: the connection or the API server would take it, not the service";
            faults.require(!ours, format!("headers.{name}"), words);
        }
        if let Some(text) = &self.body_contains {
            faults.require(
                (1..=4096).contains(&text.len()),
                "body_contains",
                "must have 1 to 4096 bytes",
            );
        }
        faults.require(
            self.expect_json.len() <= MAX_ENTRIES,
            "expect_json",
            "name at most 20 paths",
        );
        for path in self.expect_json.keys() {
            faults.accept("expect_json", json::check(path));
        }
        faults
    }

    fn tls(&self) -> bool {
        let scheme = self.url.as_deref().and_then(|url| url.get(..6));
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

impl GrpcCheck {
    fn check(&self) -> Faults {
        let mut faults = self.patience.check();
        faults.accept("address", Remote::parse(&self.address));
        check_ca_file(self.ca_file.as_deref(), self.tls, "for tls alone", &mut faults);
        let plain = self.service.len() <= 255 && self.service.bytes().all(|b| b.is_ascii_graphic());
        faults.require(
            plain,
            "service",
            "write a gRPC service's full name, such as shop.v1.Shop, or nothing",
        );
        faults
    }
}

impl TcpCheck {
    fn check(&self) -> Faults {
        let mut faults = self.patience.check();
        faults.accept("address", Remote::parse(&self.address));
        faults
    }
}

impl Patience {
    fn check(&self) -> Faults {
        let mut faults = Faults::default();
        faults.require(
            (1..=1000).contains(&self.attempts),
            "attempts",
            "must be from 1 to 1000",
        );
        faults.require(!self.timeout.is_zero(), "timeout", "must be more than 0 s");
        let longest = self
            .timeout
            .saturating_add(self.interval)
            .saturating_mul(self.attempts);
        faults.require(
            longest <= LONGEST,
            "",
            "all attempts with timeout and interval must fit into one hour",
        );
        faults
    }
}

fn check_ca_file(path: Option<&str>, tls: bool, what_for: &str, faults: &mut Faults) {
    let Some(path) = path else { return };
    faults.require(tls, "ca_file", &format!("is {what_for}"));
    let absolute = path.starts_with('/') && path.len() <= 1000 && !path.contains('\0');
    faults.require(
        absolute,
        "ca_file",
        "write the absolute path of a PEM file on deploy-svc's machine",
    );
}

impl CheckKind {
    /// How often it asks, and how long it waits.
    pub fn patience(&self) -> Patience {
        match self {
            Self::Http(check) => check.patience,
            Self::Grpc(check) => check.patience,
            Self::Tcp(check) => check.patience,
        }
    }
}

fn slash() -> String {
    "/".to_owned()
}
const fn ok() -> u16 {
    200
}
const fn ten() -> u32 {
    10
}
const fn half_a_second() -> Duration {
    Duration::from_millis(500)
}
const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

#[cfg(test)]
mod tests {
    use super::Check;

    #[test]
    fn faults_name_their_place() {
        let service = r#""service": "shop", "port": "http""#;
        for (check, faults) in [
            (format!(r#""http": {{{service}}}"#), vec![]),
            (format!(r#""http": {{{service}, "namespace": "other", "path": "/a?b=c"}}"#), vec![]),
            (r#""http": {"url": "https://shop.example", "ca_file": "/etc/ca.pem"}"#.into(), vec![]),
            (r#""http": {"url": "http://shop", "headers": {"Host": "shop.example", "Authorization": "x"}}"#.into(), vec![]),
            (r#""grpc": {"address": "shop.shop.svc:50051", "service": "shop.v1.Shop"}"#.into(), vec![]),
            (r#""grpc": {"address": "shop:443", "tls": true, "ca_file": "/ca.pem"}"#.into(), vec![]),
            (r#""tcp": {"address": "[2001:db8::1]:5432"}"#.into(), vec![]),
            (r#""http": {}"#.into(), vec!["http: give service and port"]),
            (r#""http": {"service": "shop"}"#.into(), vec!["http: give service and port"]),
            (r#""http": {"service": "shop", "port": 0}"#.into(), vec!["http.port: must be"]),
            (format!(r#""http": {{{service}, "url": "http://shop"}}"#), vec!["http.url: replaces service"]),
            (r#""http": {"url": "http://bob:x@shop"}"#.into(), vec!["http.url: must not contain a user"]),
            (r#""http": {"url": "gopher://shop"}"#.into(), vec!["http.url: must begin with http"]),
            (r#""http": {"url": "http://shop:0"}"#.into(), vec!["http.url: must have a port"]),
            (r#""http": {"url": "http://shop", "ca_file": "ca.pem"}"#.into(), vec!["http.ca_file: is for https", "http.ca_file: write the absolute"]),
            (format!(r#""http": {{{service}, "path": "/%2e%2e/secrets"}}"#), vec!["http.path: write an absolute"]),
            (format!(r#""http": {{{service}, "expect_status": 99}}"#), vec!["http.expect_status: must be"]),
            (format!(r#""http": {{{service}, "headers": {{"Impersonate-User": "admin"}}}}"#), vec!["http.headers.Impersonate-User: cannot be set"]),
            (format!(r#""http": {{{service}, "headers": {{"a b": "x"}}}}"#), vec!["http.headers.a b: is not an HTTP header"]),
            (r#""http": {"url": "http://shop", "headers": {"Transfer-Encoding": "x"}}"#.into(), vec!["http.headers.Transfer-Encoding: cannot"]),
            (format!(r#""http": {{{service}, "expect_json": {{"status": 1}}}}"#), vec!["http.expect_json: \"status\" is not a JSON path"]),
            (format!(r#""http": {{{service}, "body_contains": ""}}"#), vec!["http.body_contains: must have"]),
            (format!(r#""http": {{{service}, "attempts": 0, "timeout": "0s"}}"#), vec!["http.attempts: must be", "http.timeout: must be"]),
            (format!(r#""http": {{{service}, "attempts": 1000, "interval": "10s"}}"#), vec!["http: all attempts"]),
            (r#""grpc": {"address": "shop"}"#.into(), vec!["grpc.address: write host:port"]),
            (r#""grpc": {"address": "shop:1", "service": "a b", "ca_file": "/ca.pem"}"#.into(), vec!["grpc.ca_file: is for tls", "grpc.service: write"]),
            (r#""tcp": {"address": "shop:0"}"#.into(), vec!["tcp.address: write host:port"]),
        ] {
            let text = format!(r#"{{"name": "it", {check}}}"#);
            let read: Check = serde_json::from_str(&text).unwrap();
            let found: Vec<String> = read.check().iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), faults.len(), "{text}: {found:?}");
            for (found, words) in found.iter().zip(faults) {
                assert!(found.starts_with(words), "{found}, not {words}");
            }
        }
        for wrong in [
            r#""tcp": {"address": "a:1", "tls": true}"#,
            r#""http": {"metod": "GET"}"#,
            r#""ftp": {}"#,
        ] {
            assert!(
                serde_json::from_str::<Check>(&format!(r#"{{"name": "it", {wrong}}}"#)).is_err(),
                "{wrong}"
            );
        }
    }
}
