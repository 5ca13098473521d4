//! Registries take images. One file per kind of registry; an image's name says which one it belongs to.

use std::sync::Arc;

use async_trait::async_trait;
use build_domain::{build::codes, spec::TaggedImage};
use slipway_model::{Digest, Fault, ImageName, Reason, Tag};

use super::image_layout::{Image, LayoutError};
use crate::config::belongs;

pub(crate) mod oci;
pub(crate) mod oci_layout;

/// Stores images. Every call is idempotent. What the registry rejects is a permanent fault; that it is unavailable, a
/// transient one.
#[async_trait]
pub(crate) trait Registry: Send + Sync + std::fmt::Debug {
    /// Pushes an image by its digest, without a tag.
    async fn push(&self, name: &ImageName, image: &Image) -> Result<(), Fault<Reason>>;
    /// Whether an image is there. One that may not be looked at counts as not there.
    async fn has(&self, name: &ImageName, digest: &Digest) -> Result<bool, Fault<Reason>>;
    /// The image that a tag names.
    async fn inspect(&self, name: &ImageName, tag: &Tag) -> Result<Option<TaggedImage>, Fault<Reason>>;
    /// Makes a tag name a pushed image, whatever it named before.
    async fn tag(&self, name: &ImageName, digest: &Digest, tag: &Tag) -> Result<(), Fault<Reason>>;
}

/// The registry rejected the request: a permanent fault.
fn refused(registry: &str, message: &str) -> Fault<Reason> {
    let message = format!("registry {registry} rejected the request: {message}");
    Fault::refused(codes::REGISTRY_REFUSED, message)
}

/// The registry is unreachable, overloaded or broken: a transient fault.
fn unavailable(registry: &str, message: &str) -> Fault<Reason> {
    let message = format!("registry {registry} is unavailable: {message}");
    Fault::unavailable(codes::REGISTRY_UNAVAILABLE, message)
}

/// The built image cannot be read: a transient fault, since it is built again.
fn unusable(error: &LayoutError) -> Fault<Reason> {
    Fault::unavailable(
        codes::BUILDER_UNAVAILABLE,
        format!("cannot read the built image: {error}"),
    )
}

/// The configured registries, by prefix of the image's name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registries {
    entries: Vec<(String, Arc<dyn Registry>)>,
}

impl Registries {
    pub(crate) fn new(entries: Vec<(String, Arc<dyn Registry>)>) -> Self {
        Self { entries }
    }

    /// The registry with the longest matching prefix. The empty prefix matches names without a registry host.
    pub(crate) fn of(&self, name: &ImageName) -> Option<&Arc<dyn Registry>> {
        self.entries
            .iter()
            .filter(|(prefix, _)| belongs(prefix, name))
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, registry)| registry)
    }

    /// The prefixes, for errors.
    pub(crate) fn prefixes(&self) -> Vec<&str> {
        self.entries.iter().map(|(prefix, _)| prefix.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::registries::oci_layout::OciLayout;

    #[test]
    fn names_choose_their_registry() {
        let root = tempfile::tempdir().unwrap();
        let entry = |prefix: &str| {
            let registry: Arc<dyn Registry> = Arc::new(OciLayout::new(root.path().join(prefix)));
            (prefix.to_owned(), registry)
        };
        let registries = Registries::new(vec![entry(""), entry("r.example"), entry("r.example/team")]);
        let chosen = |name: &str| {
            registries
                .of(&name.parse().unwrap())
                .map(|registry| format!("{registry:?}"))
        };
        let at = |prefix: &str| Some(format!("{:?}", OciLayout::new(root.path().join(prefix))));
        assert_eq!(chosen("team/app"), at(""));
        assert_eq!(chosen("r.example/app"), at("r.example"));
        assert_eq!(chosen("r.example/team/app"), at("r.example/team"));
        assert_eq!(chosen("r.example/teammate"), at("r.example"));
        assert_eq!(chosen("other.example/app"), None);
    }
}
