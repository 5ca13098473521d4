//! What build-svc decides: pure functions from state to decision, without clock or I/O.
//!
//! - [`build`]: the life of a build, from request to tags; the service's only decider
//! - [`spec`]: what is built (the recipe), and the tags, labels and build arguments that follow from it
//! - [`repository`]: the URLs that commits are fetched from, and the patterns that allow them

pub mod build;
pub mod repository;
pub mod spec;
