//! Why a step of a build ended early.

use std::io;

use build_domain::build::codes;
use slipway_model::{Fault, Reason};

#[derive(Debug)]
pub(crate) enum Stop {
    /// A permanent fault ends the build; after a transient one it is tried again.
    Fault(Fault<Reason>),
    /// The effect was cancelled: the build is over, its lease is lost, or the service shuts down.
    Cancelled,
}

impl Stop {
    /// A permanent fault.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Fault(Fault::refused(code, message))
    }

    /// A transient fault.
    pub(crate) fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::Fault(Fault::unavailable(code, message))
    }
}

impl From<Fault<Reason>> for Stop {
    fn from(fault: Fault<Reason>) -> Self {
        Self::Fault(fault)
    }
}

/// A fault of this machine's disk, taken as transient.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::unavailable(codes::BUILDER_UNAVAILABLE, format!("scratch space: {error}"))
    }
}

#[cfg(test)]
impl Stop {
    /// The code of a fault, and whether it is transient.
    pub(crate) fn kind(&self) -> Option<(&str, bool)> {
        match self {
            Self::Fault(fault) => Some((fault.error().code.as_str(), fault.is_transient())),
            Self::Cancelled => None,
        }
    }
}
