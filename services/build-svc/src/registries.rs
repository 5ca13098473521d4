//! Where images go. One file per kind of registry; which one an image belongs to follows from its name.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_model::{Digest, Fault, ImageName, Reason, Tag};

use crate::{
    build::codes,
    layout::{Image, LayoutError},
    spec::Found,
};

pub(crate) mod oci;
pub(crate) mod oci_layout;

/// A place for images. Everything is idempotent. Refusals are permanent faults; what may pass is transient.
#[async_trait]
pub(crate) trait Registry: Send + Sync + std::fmt::Debug {
    /// Uploads an image under its digest; no tag names it yet.
    async fn push(&self, name: &ImageName, image: &Image) -> Result<(), Fault<Reason>>;
    /// What a tag names now.
    async fn inspect(&self, name: &ImageName, tag: &Tag) -> Result<Option<Found>, Fault<Reason>>;
    /// Makes a tag name an image that was pushed, whatever it named before.
    async fn tag(&self, name: &ImageName, digest: &Digest, tag: &Tag) -> Result<(), Fault<Reason>>;
}

/// It says no, and will say so again.
fn refused(registry: &str, message: &str) -> Fault<Reason> {
    let message = format!("registry {registry} refuses: {message}");
    Fault::refused(codes::REGISTRY_REFUSED, message)
}

/// It cannot be reached, is overloaded or broken: may pass.
fn unavailable(registry: &str, message: &str) -> Fault<Reason> {
    let message = format!("registry {registry} cannot be used now: {message}");
    Fault::unavailable(codes::REGISTRY_UNAVAILABLE, message)
}

/// The image that was built is not one.
fn unusable(error: &LayoutError) -> Fault<Reason> {
    Fault::unavailable(codes::BUILDER_UNAVAILABLE, format!("built image: {error}"))
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

    /// The registry with the longest prefix that fits. The empty prefix fits names without a registry host.
    pub(crate) fn of(&self, name: &ImageName) -> Option<&Arc<dyn Registry>> {
        let fits = |prefix: &str| match prefix {
            "" => name.registry().is_none(),
            _ => name
                .as_str()
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        self.entries
            .iter()
            .filter(|(prefix, _)| fits(prefix))
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
    use crate::registries::oci_layout::OciLayout;

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
