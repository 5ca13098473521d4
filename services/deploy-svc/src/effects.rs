//! Carries out what the deciders ask for, with the backends.

pub(crate) mod deployments;
pub mod drive;
pub(crate) mod releases;
