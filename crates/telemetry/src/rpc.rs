//! Trace context through gRPC: tower layers for both sides.

mod client;
mod server;

pub use client::{TraceClient, TraceClientLayer};
pub use server::{TraceServer, TraceServerLayer};
