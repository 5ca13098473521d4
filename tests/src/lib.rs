//! What the journeys across services have in common: the four services as separate processes, on real PostgreSQL,
//! Redis, git, image builds and a cluster, and clients that act for people.
//!
//! Everything here is for tests and benchmarks: it panics where a test would, with a message that says what was waited
//! for.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // helpers of tests

pub mod clients;
pub mod cluster;
pub mod configs;
pub mod embedded;
pub mod process;
pub mod programs;
pub mod scene;
pub mod suite;

pub use clients::{Clients, Person};
pub use scene::{Application, GitOps, Version};
pub use slipway_testbed::{eventually, holds, patience, within};
pub use suite::{Options, Suite};
