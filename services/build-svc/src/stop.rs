//! Why a step of a build did not come to its end.

use std::io;

use slipway_model::{Fault, Reason};

use crate::build::codes;

#[derive(Debug)]
pub(crate) enum Stop {
    /// A permanent one ends the build; a transient one is waited out.
    Fault(Fault<Reason>),
    /// Nobody wants it any more.
    Cancelled,
}

impl Stop {
    /// The answer is no.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Fault(Fault::refused(code, message))
    }

    /// May pass.
    pub(crate) fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::Fault(Fault::unavailable(code, message))
    }
}

impl From<Fault<Reason>> for Stop {
    fn from(fault: Fault<Reason>) -> Self {
        Self::Fault(fault)
    }
}

/// This machine's disk is at fault, perhaps not for long.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::unavailable(codes::BUILDER_UNAVAILABLE, format!("scratch space: {error}"))
    }
}

#[cfg(test)]
impl Stop {
    /// The code of a fault, and whether it may pass.
    pub(crate) fn kind(&self) -> Option<(&str, bool)> {
        match self {
            Self::Fault(fault) => Some((fault.error().code.as_str(), fault.is_transient())),
            Self::Cancelled => None,
        }
    }
}
