//! Images: found in OCI layouts or pulled from a registry on loopback, checked by digest, unpacked once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::kubelet::layout::{Manifest, blob_path, checked_blob, read_json};
use crate::kubelet::reference::Reference;
use crate::kubelet::{registry, unpack};

/// Why a container has no image, as shown in its waiting reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// The reference cannot be read.
    #[error(
        "Failed to apply default image tag \"{0}\": couldn't parse image name \"{0}\": invalid reference format"
    )]
    InvalidName(String),
    /// The image does not exist, or is not available. The message is containerd's.
    #[error("{0}")]
    Pull(String),
}

impl ImageError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "InvalidImageName",
            Self::Pull(_) => "ErrImagePull",
        }
    }
}

fn not_found(image: &str) -> ImageError {
    ImageError::Pull(format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
    ))
}

fn broken(image: &str, why: impl std::fmt::Display) -> ImageError {
    ImageError::Pull(format!(
        "rpc error: code = Unknown desc = failed to pull and unpack image \"{image}\": {why}"
    ))
}

/// The part of an image's configuration that says what to run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Run {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<Run>,
}

/// An image that can be run.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// `NAME@sha256:…`, of what the reference points to: the manifest, or the index it was chosen from.
    pub(crate) id: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) run: Run,
}

/// Where images come from and where they are unpacked.
#[derive(Debug)]
pub(crate) struct Images {
    layouts: Vec<PathBuf>,
    cache: PathBuf,
    /// One image at a time is pulled and unpacked, so that none is unpacked twice.
    busy: tokio::sync::Mutex<()>,
}

impl Images {
    pub(crate) fn new(layouts: Vec<PathBuf>, cache: PathBuf) -> Self {
        Self {
            layouts,
            cache,
            busy: tokio::sync::Mutex::new(()),
        }
    }

    /// The image behind a reference, unpacked.
    ///
    /// # Errors
    /// When the reference is wrong, or there is no such image, or its content does not match its digests.
    pub(crate) async fn get(&self, image: &str) -> Result<Arc<Image>, ImageError> {
        let reference = Reference::parse(image).ok_or_else(|| ImageError::InvalidName(image.to_owned()))?;
        let _busy = self.busy.lock().await;
        let (layout, digest) = match self.find(image, &reference)? {
            Some(found) => found,
            None if reference.registry.as_deref().is_some_and(registry::is_loopback) => {
                let layout = self.cache.join("pulled");
                let digest = registry::pull(&reference, &layout)
                    .await
                    .map_err(|why| match why {
                        registry::PullError::NotFound => not_found(image),
                        registry::PullError::Failed(why) => broken(image, why),
                    })?;
                (layout, digest)
            }
            None => return Err(not_found(image)),
        };
        let (cache, name, image) = (self.cache.clone(), reference.name(), image.to_owned());
        let prepared = tokio::task::spawn_blocking(move || {
            prepare(&layout, &digest, &cache, &name).map_err(|why| broken(&image, why))
        });
        prepared
            .await
            .unwrap_or_else(|error| Err(ImageError::Pull(error.to_string())))
    }

    /// The layout that has the image, and the digest of what the reference points to.
    fn find(&self, image: &str, reference: &Reference) -> Result<Option<(PathBuf, String)>, ImageError> {
        for root in &self.layouts {
            let layout = root.join(&reference.path);
            let index = layout.join("index.json");
            if !index.is_file() {
                continue;
            }
            let index: Manifest = read_json(&index).map_err(|why| broken(image, why))?;
            if let Some(digest) = &reference.digest {
                let listed = index.manifests.iter().any(|d| d.digest == *digest);
                if listed || blob_path(&layout, digest).is_some_and(|path| path.is_file()) {
                    return Ok(Some((layout, digest.clone())));
                }
            } else if let Some(tag) = &reference.tag {
                let full = format!("{}:{tag}", reference.name());
                let named = index.manifests.iter().rev().find(|d| {
                    d.annotations
                        .get("org.opencontainers.image.ref.name")
                        .is_some_and(|name| name == tag || *name == full)
                });
                if let Some(descriptor) = named {
                    return Ok(Some((layout, descriptor.digest.clone())));
                }
            }
        }
        Ok(None)
    }
}

fn prepare(layout: &Path, digest: &str, cache: &Path, name: &str) -> Result<Arc<Image>, String> {
    let mut manifest: Manifest = read_json(&checked_blob(layout, digest)?)?;
    let mut chosen = digest.to_owned();
    if !manifest.manifests.is_empty() {
        let descriptor = manifest
            .for_this_machine()
            .ok_or("no manifest for linux on this machine's architecture")?;
        chosen = descriptor.digest.clone();
        manifest = read_json(&checked_blob(layout, &chosen)?)?;
    }
    let config = manifest.config.as_ref().ok_or("the manifest has no config")?;
    let config: Configuration = read_json(&checked_blob(layout, &config.digest)?)?;
    let dir = cache.join(chosen.replace(':', "-"));
    if !dir.is_dir() {
        unpack::unpack(layout, &manifest.layers, &dir)?;
    }
    Ok(Arc::new(Image {
        id: format!("{name}@{digest}"),
        rootfs: dir,
        run: config.config.unwrap_or_default(),
    }))
}
