//! Pulling from an OCI registry on loopback into a layout in the cache.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use tokio::io::AsyncWriteExt;

use crate::kubelet::layout::{self, Descriptor, MAX_JSON, Manifest, blob_path};
use crate::kubelet::reference::Reference;

/// Larger blobs are refused.
const MAX_BLOB: u64 = 2 * 1024 * 1024 * 1024;
/// A registry on loopback that is silent for this long counts as dead.
const SILENCE: Duration = Duration::from_secs(30);

const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

#[derive(Debug)]
pub(crate) enum PullError {
    NotFound,
    Failed(String),
}

fn failed(error: impl std::fmt::Display) -> PullError {
    PullError::Failed(error.to_string())
}

/// Whether the registry is on this machine; others are never asked, since this tool fetches programs to run them.
pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => registry.split(':').next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Pulls what the reference names into `layout`. Returns its digest.
pub(crate) async fn pull(reference: &Reference, layout: &Path) -> Result<String, PullError> {
    tokio::fs::create_dir_all(layout.join("blobs").join("sha256"))
        .await
        .map_err(failed)?;
    let registry = reference.registry.clone().unwrap_or_default();
    // The HTTP client below uses the process's crypto provider; one that is set already stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig {
        protocol: ClientProtocol::HttpsExcept(vec![registry.clone()]),
        read_timeout: Some(SILENCE),
        connect_timeout: Some(SILENCE),
        ..ClientConfig::default()
    };
    let client = oci_client::Client::new(config);
    let name = |digest: &str| {
        oci_client::Reference::with_digest(registry.clone(), reference.path.clone(), digest.to_owned())
    };
    let first = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => name(digest),
        (None, Some(tag)) => {
            oci_client::Reference::with_tag(registry.clone(), reference.path.clone(), tag.clone())
        }
        (None, None) => return Err(PullError::NotFound),
    };
    let mut top = None;
    let mut waiting = VecDeque::from([first]);
    while let Some(wanted) = waiting.pop_front() {
        let (bytes, digest) = client
            .pull_manifest_raw(&wanted, &RegistryAuth::Anonymous, MANIFESTS)
            .await
            .map_err(|error| match error {
                OciDistributionError::ImageManifestNotFoundError(_) => PullError::NotFound,
                OciDistributionError::RegistryError { envelope, .. }
                    if envelope.errors.iter().any(|e| {
                        matches!(
                            e.code,
                            oci_client::errors::OciErrorCode::ManifestUnknown
                                | oci_client::errors::OciErrorCode::NameUnknown
                                | oci_client::errors::OciErrorCode::NotFound
                        )
                    }) =>
                {
                    PullError::NotFound
                }
                error => failed(error),
            })?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(failed("the manifest is too large"));
        }
        write_blob(layout, &digest, &bytes).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(failed)?;
        if let Some(descriptor) = manifest.for_this_machine() {
            waiting.push_back(name(&descriptor.digest));
        }
        for blob in manifest.config.iter().chain(&manifest.layers) {
            fetch(&client, &wanted, blob, layout).await?;
        }
        top.get_or_insert(digest);
    }
    top.ok_or(PullError::NotFound)
}

async fn write_blob(layout: &Path, digest: &str, bytes: &[u8]) -> Result<(), PullError> {
    let path = blob_path(layout, digest).ok_or_else(|| failed(format!("{digest} is not a sha256 digest")))?;
    tokio::fs::write(&path, bytes).await.map_err(failed)?;
    check(layout, digest).await
}

/// Content is only ever kept under the digest it has.
async fn check(layout: &Path, digest: &str) -> Result<(), PullError> {
    let (owned_layout, owned_digest) = (layout.to_owned(), digest.to_owned());
    let checked = tokio::task::spawn_blocking(move || layout::checked_blob(&owned_layout, &owned_digest));
    if let Err(why) = checked.await.map_err(failed)? {
        if let Some(path) = blob_path(layout, digest) {
            let _ = tokio::fs::remove_file(path).await;
        }
        return Err(failed(why));
    }
    Ok(())
}

async fn fetch(
    client: &oci_client::Client,
    image: &oci_client::Reference,
    blob: &Descriptor,
    layout: &Path,
) -> Result<(), PullError> {
    let path = blob_path(layout, &blob.digest)
        .ok_or_else(|| failed(format!("{} is not a sha256 digest", blob.digest)))?;
    if path.is_file() && check(layout, &blob.digest).await.is_ok() {
        return Ok(());
    }
    if blob.size > MAX_BLOB {
        return Err(failed(format!(
            "blob {} is larger than {MAX_BLOB} bytes",
            blob.digest
        )));
    }
    let mut stream = client
        .pull_blob_stream(image, blob.digest.as_str())
        .await
        .map_err(failed)?
        .stream;
    let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
    let mut left = blob.size;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(failed)?;
        left = left
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| failed(format!("blob {} is larger than its manifest says", blob.digest)))?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    drop(file);
    check(layout, &blob.digest).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_on_this_machine_are_asked() {
        let table = [
            ("127.0.0.1:5000", true),
            ("127.0.0.2", true),
            ("localhost:5000", true),
            ("[::1]:5000", true),
            ("registry.example.com", false),
            ("10.0.0.1:5000", false),
            ("127.0.0.1.example.com", false),
        ];
        for (registry, expected) in table {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
