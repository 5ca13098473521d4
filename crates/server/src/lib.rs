//! The shell in which every service runs: configuration, authentication, health, reflection, limits, graceful drain,
//! errors on the wire, and the client side of the same conventions.
//!
//! A service is `main.rs` ([`main`]) around `run(config, wiring, shutdown)`, which adds its own parts to a [`ServiceHost`].

mod access_log;
pub mod authentication;
mod call;
mod check;
pub mod client;
pub mod config;
pub mod convert;
mod entry;
mod error;
pub mod events;
mod gate;
mod host;
pub mod ledger;
mod limits;
mod operations;
pub mod page;
mod resource;
mod server;
mod web;
mod wiring;

pub use authentication::{Authenticator, Caller};
pub use call::Call;
pub use client::{Channel, ClientConfig};
pub use config::{
    Action, BusConfig, Config, ConfigError, DatabaseConfig, PrincipalConfig, RoleConfig, ServerConfig,
    ServiceSettings, Tls, TokenHash,
};
pub use entry::{bus, main};
pub use error::{ApiError, DOMAIN, ErrorView};
pub use events::{stream_events, stream_events_to};
pub use host::ServiceHost;
pub use resource::{ListQuery, Listed, Resource, Resources, Scope};
pub use server::{ServeError, Server, ServerBuilder};
pub use slipway_telemetry::TelemetryConfig;
pub use web::{LIVE, READY};
pub use wiring::{Listeners, RunError, Wiring};
