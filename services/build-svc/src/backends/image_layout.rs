//! Reads an OCI image layout (image specification 1.1) with one image: what builders make and registries push.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use slipway_model::Digest;

/// The largest manifest or configuration that is read, in bytes (registries commonly reject larger ones).
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// Why a folder cannot be read as the layout of one image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
}

/// One image in a folder, checked: its manifest matches its digest, and each blob has the size that the manifest says.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) manifest: OciImageManifest,
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<OciDescriptor>,
}

/// The part of an image's configuration that is read.
#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    config: Option<ConfigSection>,
}

#[derive(Debug, Default, Deserialize)]
struct ConfigSection {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl Image {
    /// Reads and checks the only image of a layout.
    pub(crate) fn open(folder: &Path) -> Result<Self, LayoutError> {
        let index_path = folder.join("index.json");
        let index: Index = serde_json::from_slice(&read_bounded(&index_path)?)
            .map_err(|error| invalid(&index_path, error.to_string()))?;
        let [entry] = index.manifests.as_slice() else {
            return Err(invalid(
                &index_path,
                format!("has {} manifests instead of one", index.manifests.len()),
            ));
        };
        let digest: Digest = entry
            .digest
            .parse()
            .map_err(|error: slipway_model::Invalid| invalid(&index_path, error.to_string()))?;
        let image = Self::read(folder, &digest)?;
        for blob in image.blobs() {
            let path = blob_path(folder, &blob.digest)
                .ok_or_else(|| invalid(&index_path, format!("{:?} is not a SHA-256 digest", blob.digest)))?;
            let size = fs::metadata(&path)
                .map_err(|source| LayoutError::Io {
                    path: path.clone(),
                    source,
                })?
                .len();
            if i64::try_from(size) != Ok(blob.size) {
                return Err(invalid(
                    &path,
                    format!("has {size} bytes instead of {}", blob.size),
                ));
            }
        }
        Ok(image)
    }

    /// Reads one manifest of a layout that may hold several.
    pub(crate) fn read(folder: &Path, digest: &Digest) -> Result<Self, LayoutError> {
        let path = folder.join("blobs/sha256").join(digest.hex());
        let manifest_bytes = read_bounded(&path)?;
        if hex::encode(Sha256::digest(&manifest_bytes)) != digest.hex() {
            return Err(invalid(&path, "content does not match its digest"));
        }
        let parsed: OciManifest =
            serde_json::from_slice(&manifest_bytes).map_err(|error| invalid(&path, error.to_string()))?;
        let media_type = parsed.content_type().to_owned();
        let OciManifest::Image(manifest) = parsed else {
            return Err(invalid(&path, "is an index of several platforms, not one image"));
        };
        Ok(Self {
            digest: digest.clone(),
            media_type,
            manifest_bytes,
            manifest,
            folder: folder.to_owned(),
        })
    }

    /// Configuration and layers, which must be pushed before the manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &OciDescriptor> {
        std::iter::once(&self.manifest.config).chain(&self.manifest.layers)
    }

    /// The file of a blob of this image.
    pub(crate) fn blob_file(&self, blob: &OciDescriptor) -> Result<PathBuf, LayoutError> {
        blob_path(&self.folder, &blob.digest)
            .ok_or_else(|| invalid(&self.folder, format!("{:?} is not a SHA-256 digest", blob.digest)))
    }

    /// The labels in the image's configuration.
    pub(crate) fn labels(&self) -> Result<BTreeMap<String, String>, LayoutError> {
        let path = self.blob_file(&self.manifest.config)?;
        labels_of(&read_bounded(&path)?).map_err(|error| invalid(&path, error.to_string()))
    }
}

/// The labels in the bytes of an image's configuration.
pub(crate) fn labels_of(config: &[u8]) -> Result<BTreeMap<String, String>, serde_json::Error> {
    let file: ConfigFile = serde_json::from_slice(config)?;
    Ok(file.config.and_then(|section| section.labels).unwrap_or_default())
}

/// The file of a blob; `None` for an invalid digest (which could lead out of the folder).
pub(crate) fn blob_path(folder: &Path, digest: &str) -> Option<PathBuf> {
    let digest: Digest = digest.parse().ok()?;
    Some(folder.join("blobs/sha256").join(digest.hex()))
}

pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let io = |source| LayoutError::Io {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(io)?.len();
    if size > MAX_MANIFEST {
        return Err(invalid(
            path,
            format!("has {size} bytes, more than {MAX_MANIFEST}"),
        ));
    }
    fs::read(path).map_err(io)
}

pub(crate) fn invalid(path: &Path, message: impl Into<String>) -> LayoutError {
    LayoutError::Invalid {
        path: path.to_owned(),
        message: message.into(),
    }
}
