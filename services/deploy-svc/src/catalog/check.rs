//! Checks: what must answer before a deployment counts as verified.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_model::{Name, duration};

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

/// A GET, through the API server's service proxy (`service` and `port`) or to a URL.
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
    /// In place of a Service: `http://` or `https://`, host and optional port; `path` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default = "slash")]
    pub path: String,
    /// Request headers. Not for secrets: they are stored with the release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default = "ok")]
    pub expect_status: u16,
    /// Response headers that must be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect_headers: BTreeMap<String, String>,
    /// A text that the first 64 KiB of the body must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// JSON paths (RFC 9535) of the body and what each must select, as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect_json: BTreeMap<String, serde_json::Value>,
    /// For `https` URLs: a PEM file of authorities to trust beside the system's.
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
    /// The service that is asked for; empty is the server as a whole.
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
    /// How often it is asked before the answer is no.
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
