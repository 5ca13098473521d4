//! A folder as a registry: `ROOT/<repository>/` is an OCI image layout (image specification 1.1).
//!
//! Each image has an entry in `index.json` and one more for each tag, with the annotation
//! `org.opencontainers.image.ref.name`. The index is replaced as a whole, under a lock, so that readers need no lock.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use build_domain::spec::TaggedImage;
use serde::{Deserialize, Serialize};
use slipway_model::{Digest, Fault, ImageName, Reason, Tag};

use super::Registry;
use crate::backends::image_layout::{Image, LayoutError, invalid, read_bounded};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
const LOCK: &str = "index.lock";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// A folder of image layouts.
#[derive(Debug, Clone)]
pub(crate) struct OciLayout {
    root: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Entry>,
    /// Fields of other programs stay as they are.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Entry {
    fn tag(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

impl OciLayout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The layout of one repository. Image names have no `..`, so it cannot leave the root; a part named like a layout's
    /// own file would mix two repositories.
    fn folder(&self, name: &ImageName) -> Result<PathBuf, Fault<Reason>> {
        if name
            .repository()
            .split('/')
            .any(|part| matches!(part, "blobs" | INDEX | LAYOUT | LOCK))
        {
            let message = format!(
                "{name:?} has a part named blobs, {INDEX}, {LAYOUT} or {LOCK}; use another image name",
                name = name.as_str()
            );
            return Err(super::refused(&self.root.display().to_string(), &message));
        }
        Ok(self.root.join(name.repository()))
    }

    /// Runs a file operation off the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        name: &ImageName,
        work: impl FnOnce(&Path) -> Result<T, LayoutError> + Send + 'static,
    ) -> Result<T, Fault<Reason>> {
        let folder = self.folder(name)?;
        let unavailable = |error: &dyn std::error::Error| {
            super::unavailable(&self.root.display().to_string(), &error.to_string())
        };
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(done) => done.map_err(|error| unavailable(&error)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

#[async_trait]
impl Registry for OciLayout {
    async fn push(&self, name: &ImageName, image: &Image) -> Result<(), Fault<Reason>> {
        let image = image.clone();
        self.blocking(name, move |folder| {
            let blobs = folder.join("blobs/sha256");
            io_at(&blobs, fs::create_dir_all(&blobs))?;
            for blob in image.blobs() {
                let from = image.blob_file(blob)?;
                let to = blobs.join(from.file_name().unwrap_or_default());
                if !to.exists() {
                    io_at(
                        &to,
                        place(&to, |file| io::copy(&mut File::open(&from)?, file).map(drop)),
                    )?;
                }
            }
            let to = blobs.join(image.digest.hex());
            if !to.exists() {
                io_at(&to, place(&to, |file| file.write_all(&image.manifest_bytes)))?;
            }
            let entry = Entry {
                media_type: image.media_type.clone(),
                digest: image.digest.to_string(),
                size: image.manifest_bytes.len() as u64,
                annotations: BTreeMap::new(),
                rest: serde_json::Map::new(),
            };
            change(folder, |index| {
                if !index
                    .manifests
                    .iter()
                    .any(|known| known.digest == entry.digest && known.tag().is_none())
                {
                    index.manifests.push(entry);
                }
                Ok(())
            })
        })
        .await
    }

    async fn has(&self, name: &ImageName, digest: &Digest) -> Result<bool, Fault<Reason>> {
        let digest = digest.clone();
        self.blocking(name, move |folder| {
            let Some(index) = read(&folder.join(INDEX))? else {
                return Ok(false);
            };
            let text = digest.to_string();
            let listed = index.manifests.iter().any(|entry| entry.digest == text);
            if !listed {
                return Ok(false);
            }
            // Someone may have removed files to make room.
            Ok(Image::read(folder, &digest).is_ok_and(|image| {
                image
                    .blobs()
                    .all(|blob| image.blob_file(blob).is_ok_and(|file| file.exists()))
            }))
        })
        .await
    }

    async fn inspect(&self, name: &ImageName, tag: &Tag) -> Result<Option<TaggedImage>, Fault<Reason>> {
        let tag = tag.clone();
        self.blocking(name, move |folder| {
            let path = folder.join(INDEX);
            let Some(index) = read(&path)? else {
                return Ok(None);
            };
            let Some(entry) = index
                .manifests
                .iter()
                .find(|entry| entry.tag() == Some(tag.as_str()))
            else {
                return Ok(None);
            };
            let digest: Digest = entry
                .digest
                .parse()
                .map_err(|error: slipway_model::Invalid| invalid(&path, error.to_string()))?;
            let labels = Image::read(folder, &digest)?.labels()?;
            Ok(Some(TaggedImage { digest, labels }))
        })
        .await
    }

    async fn tag(&self, name: &ImageName, digest: &Digest, tag: &Tag) -> Result<(), Fault<Reason>> {
        let (digest, tag) = (digest.to_string(), tag.to_string());
        self.blocking(name, move |folder| {
            change(folder, |index| {
                let image = index
                    .manifests
                    .iter()
                    .find(|entry| entry.digest == digest)
                    .cloned();
                let Some(mut entry) = image else {
                    return Err(invalid(folder, format!("has no image {digest}")));
                };
                index.manifests.retain(|known| known.tag() != Some(tag.as_str()));
                entry.annotations.insert(REF_NAME.to_owned(), tag.clone());
                index.manifests.push(entry);
                Ok(())
            })
        })
        .await
    }
}

/// Reads, changes and replaces the index, under the lock.
fn change(
    folder: &Path,
    work: impl FnOnce(&mut Index) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let lock_path = folder.join(LOCK);
    let lock = io_at(
        &lock_path,
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path),
    )?;
    io_at(&lock_path, lock.lock())?;
    let marker = folder.join(LAYOUT);
    if !marker.exists() {
        io_at(
            &marker,
            place(&marker, |file| {
                file.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#)
            }),
        )?;
    }
    let path = folder.join(INDEX);
    let mut index = read(&path)?.unwrap_or_else(|| Index {
        schema_version: 2,
        media_type: Some(INDEX_TYPE.to_owned()),
        manifests: Vec::new(),
        rest: serde_json::Map::new(),
    });
    work(&mut index)?;
    let bytes = serde_json::to_vec(&index).map_err(|error| invalid(&path, error.to_string()))?;
    io_at(&path, place(&path, |file| file.write_all(&bytes)))
}

fn read(path: &Path) -> Result<Option<Index>, LayoutError> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| invalid(path, error.to_string()))
}

/// Writes a temporary file, makes it durable and renames it: readers see the old content or the new one.
fn place(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn io_at<T>(path: &Path, result: io::Result<T>) -> Result<T, LayoutError> {
    result.map_err(|source| LayoutError::Io {
        path: path.to_owned(),
        source,
    })
}
