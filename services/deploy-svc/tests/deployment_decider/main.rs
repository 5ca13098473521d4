//! Deployments: every outcome of every step, stale results, deadlines, and the events' JSON form.
#![allow(clippy::unwrap_used)]

mod bake;
mod deadline;
mod golden;
mod jobs;
mod life;
mod promotion;
mod property;
mod rollback;
mod steps;
