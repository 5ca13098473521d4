//! Checks of a running service: what is asked, and what must be answered. Pure: `slipway-probe` does the asking.

mod check;
mod fault;
pub mod json;
mod remote;
mod request;

pub use check::{Check, CheckKind, GrpcCheck, HttpCheck, Patience, Port, TcpCheck};
pub use fault::{Fault, Faults};
pub use remote::{Remote, web_url};
pub use request::{check_path, is_hop_by_hop, is_reserved_header};
use serde::{Deserialize, Serialize};
use slipway_model::Name;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    pub name: Name,
    pub passed: bool,
    pub attempts: u32,
    /// The last answer: status and the beginning of the body, or the error.
    pub last_answer: String,
}
