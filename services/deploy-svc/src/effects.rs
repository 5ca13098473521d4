//! Carries out what the deciders ask for, with the backends.

pub(crate) mod canary_watches;
pub(crate) mod deployments;
pub mod lanes;
pub(crate) mod releases;
