//! Builders make an image from a checkout. One file per kind of builder.

use std::{collections::BTreeMap, path::Path};

use async_trait::async_trait;
use slipway_model::{Digest, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{logs::Log, stop::Stop, workspace::Attempt};

pub(crate) mod buildah;

/// The image that a builder is to make.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The build context: a folder of the checkout.
    pub(crate) context: &'a Path,
    /// The Dockerfile, somewhere in the checkout.
    pub(crate) dockerfile: &'a Path,
    /// The stage; empty is the last.
    pub(crate) target: &'a str,
    pub(crate) arguments: &'a BTreeMap<String, String>,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// The time stamp of everything in the image, so that a second run makes the same one.
    pub(crate) created: Timestamp,
    /// The folder to create, as an OCI image layout with the image.
    pub(crate) image: &'a Path,
    pub(crate) attempt: &'a Attempt,
    pub(crate) log: &'a Log,
    pub(crate) cancelled: &'a CancellationToken,
}

/// A program or service that builds.
#[async_trait]
pub(crate) trait Builder: Send + Sync + std::fmt::Debug {
    /// Builds, and leaves the image in `job.image`. Failures of the Dockerfile and of the commands in it are permanent; a
    /// base image that could not be pulled, and a builder that does not work, are transient.
    async fn build(&self, job: Job<'_>) -> Result<Digest, Stop>;
}
