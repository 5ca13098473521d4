//! OCI image layouts: what their files contain, and blobs that are checked against their digests.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::kubelet::reference::checked_digest;

/// A manifest, index or configuration is never near this large.
pub(crate) const MAX_JSON: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) annotations: std::collections::HashMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An image manifest or an index of them: each has what the other lacks.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// The manifest for this machine, when this is an index.
    pub(crate) fn for_this_machine(&self) -> Option<&Descriptor> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |d: &&Descriptor| {
            d.platform
                .as_ref()
                .is_some_and(|p| p.os == "linux" && p.architecture == architecture)
        };
        match self.manifests.as_slice() {
            [only] => Some(only),
            all => all.iter().find(fits),
        }
    }
}

pub(crate) fn blob_path(layout: &Path, digest: &str) -> Option<PathBuf> {
    let hex = checked_digest(digest)?.strip_prefix("sha256:")?;
    Some(layout.join("blobs").join("sha256").join(hex))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_JSON).read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The file of a blob, after its content was checked against the digest.
pub(crate) fn checked_blob(layout: &Path, digest: &str) -> Result<PathBuf, String> {
    let path = blob_path(layout, digest).ok_or_else(|| format!("digest {digest} is not a sha256 digest"))?;
    let mut file = File::open(&path).map_err(|error| format!("blob {digest}: {error}"))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(|error| format!("blob {digest}: {error}"))?;
    let actual = format!("sha256:{}", hex::encode(hash.finalize()));
    if actual == digest {
        Ok(path)
    } else {
        Err(format!("blob {digest} has the content of {actual}"))
    }
}
