//! Everything that talks to an outside system, one module for each: git's remotes and mirrors, GitHub, kustomize, and
//! the files that contain secrets.

pub(crate) mod credentials;
pub(crate) mod github;
mod process;
pub(crate) mod render;
pub(crate) mod repository;
pub(crate) mod signing;
