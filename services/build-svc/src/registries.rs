//! Where images go. One file per kind of registry; which one an image belongs to follows from its name.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_model::{Digest, ImageName, Tag};

use crate::{
    build::{Reason, codes},
    layout::{Image, LayoutError},
    spec::Found,
};

pub(crate) mod oci;
pub(crate) mod oci_layout;

/// A place for images. Everything is idempotent.
#[async_trait]
pub(crate) trait Registry: Send + Sync + std::fmt::Debug {
    /// Uploads an image under its digest; no tag names it yet.
    async fn push(&self, name: &ImageName, image: &Image) -> Result<(), RegistryError>;
    /// What a tag names now.
    async fn inspect(&self, name: &ImageName, tag: &Tag) -> Result<Option<Found>, RegistryError>;
    /// Makes a tag name an image that was pushed, whatever it named before.
    async fn tag(&self, name: &ImageName, digest: &Digest, tag: &Tag) -> Result<(), RegistryError>;
}

/// Why a registry did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It says no, and will say so again.
    #[error("registry {registry} refuses: {message}")]
    Refused { registry: String, message: String },
    /// It cannot be reached, is overloaded or broken: may pass.
    #[error("registry {registry} cannot be used now: {message}")]
    Unavailable { registry: String, message: String },
    /// The image that was built is not one.
    #[error("built image: {0}")]
    Image(#[from] LayoutError),
}

impl RegistryError {
    /// As the build's reason, and whether it is final.
    pub(crate) fn reason(&self) -> (Reason, bool) {
        match self {
            Self::Refused { .. } => (Reason::new(codes::REGISTRY_REFUSED, self.to_string()), true),
            Self::Unavailable { .. } => (Reason::new(codes::REGISTRY_UNAVAILABLE, self.to_string()), false),
            Self::Image(_) => (Reason::new(codes::BUILDER_UNAVAILABLE, self.to_string()), false),
        }
    }
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
