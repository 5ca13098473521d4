//! The shell that every service runs in: configuration, authentication, health, reflection, limits, graceful drain,
//! errors on the wire, and the client side of the same conventions.
//!
//! A service is `main.rs` ([`main`]) around `run(config, wiring, shutdown)`, which ends in [`Server::serve`].

pub mod authentication;
pub mod client;
pub mod config;
pub mod convert;
mod entry;
mod error;
pub mod events;
mod gate;
pub mod ledger;
mod limits;
pub mod page;
mod server;

pub use authentication::{Authenticator, Caller};
pub use client::{Channel, ClientConfig};
pub use config::{
    Action, BusConfig, ConfigError, DatabaseConfig, PrincipalConfig, RoleConfig, ServerConfig, Tls, TokenHash,
};
pub use entry::{RunError, ServiceConfig, Wiring, bus, main};
pub use error::{ApiError, DOMAIN, ErrorView};
pub use events::{spawn_relay, stream_events, stream_events_to};
pub use server::{ServeError, Server, ServerBuilder};
pub use slipway_telemetry::TelemetryConfig;
