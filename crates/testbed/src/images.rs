//! Images of a static program, where a cluster finds them.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use flate2::{Compression, write::GzEncoder};
use http::HeaderValue;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OCI_IMAGE_MEDIA_TYPE as MANIFEST,
    secrets::RegistryAuth,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// The tag of an image in the index of a layout (image-spec 1.1).
const TAG: &str = "org.opencontainers.image.ref.name";

/// An OCI image layout, and with it the registry of a cluster that reads no layouts.
#[derive(Debug, Clone)]
pub struct Images {
    layout: PathBuf,
    registry: Option<String>,
}

impl Images {
    /// `layout` is a folder; `registry` is the image's name, such as `registry.example/team/app`.
    pub fn new(layout: impl Into<PathBuf>, registry: Option<String>) -> Self {
        let layout = layout.into();
        Self { layout, registry }
    }

    /// Adds an image of the program with these environment variables, and returns its digest.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn add(&self, program: &Path, env: &[(&str, &str)]) -> Result<String> {
        let blobs = self.layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("cannot create an image layout"))?;
        let blob = |bytes: &[u8], kind: &str| {
            let hex = hex::encode(Sha256::digest(bytes));
            fs::write(blobs.join(&hex), bytes).map_err(Error::io("cannot write a blob"))?;
            let kind = format!("application/vnd.oci.image.{kind}");
            Ok(json!({"digest": format!("sha256:{hex}"), "size": bytes.len(), "mediaType": kind}))
        };
        let mut archive = tar::Builder::new(Vec::new());
        let archive = archive
            .append_path_with_name(program, "app")
            .and_then(|()| archive.into_inner())
            .map_err(Error::io("cannot pack the program"))?;
        let mut layer = GzEncoder::new(Vec::new(), Compression::fast());
        let layer = layer
            .write_all(&archive)
            .and_then(|()| layer.finish())
            .map_err(Error::io("cannot compress the program"))?;
        let content = format!("sha256:{}", hex::encode(Sha256::digest(&archive)));
        let layer = blob(&layer, "layer.v1.tar+gzip")?;
        let env: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let architecture = match cfg!(target_arch = "aarch64") {
            true => "arm64",
            false => "amd64",
        };
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Entrypoint": ["/app"], "Env": env},
            "rootfs": {"type": "layers", "diff_ids": [content]},
        });
        let config = blob(config.to_string().as_bytes(), "config.v1+json")?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config, "layers": [layer],
        });
        let manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json")?;
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
        fs::write(self.layout.join("oci-layout"), version).map_err(Error::io("cannot write a layout"))?;
        self.change(|images| images.push(manifest))?;
        Ok(digest)
    }

    /// Points a tag to one of the images; no longer to another one.
    ///
    /// # Errors
    /// When there is no such image, or it cannot be pushed.
    pub async fn tag(&self, tag: &str, digest: &str) -> Result<()> {
        self.change(|images| {
            images.retain(|image| image["annotations"][TAG] != tag);
            let image = images.iter().find(|image| image["digest"] == digest).cloned();
            images.extend(image.map(|mut image| {
                image["annotations"] = json!({TAG: tag});
                image
            }));
        })?;
        match &self.registry {
            Some(image) => self.push(&format!("{image}:{tag}"), digest).await,
            None => Ok(()),
        }
    }

    async fn push(&self, image: &str, digest: &str) -> Result<()> {
        let (client, reference) = client(image).await?;
        let manifest = self.blob(digest)?;
        let parts: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        for part in [&parts["config"], &parts["layers"][0]] {
            let digest = part["digest"].as_str().unwrap_or_default();
            client
                .push_blob(&reference, self.blob(digest)?, digest)
                .await
                .map_err(refused(image))?;
        }
        client
            .push_manifest_raw(&reference, manifest, HeaderValue::from_static(MANIFEST))
            .await
            .map(drop)
            .map_err(refused(image))
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let name = digest.trim_start_matches("sha256:");
        fs::read(self.layout.join("blobs/sha256").join(name)).map_err(Error::io(format!("no blob {digest}")))
    }

    /// Changes the index, which others may be reading.
    fn change(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.layout.join("index.json");
        let mut images = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(|mut index: Value| index["manifests"].take())
                .ok(),
            Err(_) => None,
        }
        .and_then(|images| match images {
            Value::Array(images) => Some(images),
            _ => None,
        })
        .unwrap_or_default();
        change(&mut images);
        let index = json!({"schemaVersion": 2, "manifests": images});
        let new = path.with_extension("new");
        fs::write(&new, index.to_string())
            .and_then(|()| fs::rename(&new, &path))
            .map_err(Error::io("cannot write a layout's index"))
    }
}

/// The tags of an image in a registry, in order.
///
/// # Errors
/// When the registry does not say.
pub async fn tags(image: &str) -> Result<Vec<String>> {
    let (client, reference) = client(image).await?;
    let listed = client.list_tags(&reference, &RegistryAuth::Anonymous, None, None);
    let mut tags = listed.await.map_err(refused(image))?.tags;
    tags.sort();
    Ok(tags)
}

/// Whether images of this name are pushed and pulled by plain HTTP: those of a registry on this machine.
pub fn is_plain(image: &str) -> bool {
    ["127.0.0.1:", "localhost:"]
        .iter()
        .any(|host| image.starts_with(host))
}

async fn client(image: &str) -> Result<(Client, Reference)> {
    // Fails when there is one already, which is as good.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let reference: Reference = image
        .parse()
        .map_err(|error| Error::io(format!("{image} is not an image"))(io::Error::other(error)))?;
    let client = Client::new(ClientConfig {
        protocol: match is_plain(image) {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        },
        ..ClientConfig::default()
    });
    client
        .store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous)
        .await;
    Ok((client, reference))
}

fn refused(image: &str) -> impl FnOnce(OciDistributionError) -> Error {
    let what = format!("the registry of {image}");
    |error| Error::io(what)(io::Error::other(error))
}
