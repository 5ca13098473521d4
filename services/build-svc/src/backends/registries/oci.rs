//! Any registry with the API of the OCI distribution specification 1.1 (or its parent, the Docker Registry HTTP API V2).

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use build_domain::spec::TaggedImage;
use futures::{StreamExt, TryStreamExt};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::{OciDescriptor, OciManifest},
    secrets::RegistryAuth,
};
use slipway_model::{Digest, Fault, ImageName, Reason, Tag};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::{Registry, refused, unusable};
use crate::backends::image_layout::{Image, LayoutError, MAX_MANIFEST, labels_of};

/// The longest wait for any answer, except for the upload of a blob.
const ANSWER: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
/// Blobs of one image that are uploaded at once.
const UPLOADS: usize = 3;
const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// How a registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Https,
    /// HTTPS whose certificate is not verified.
    InsecureHttps,
    Http,
}

/// One registry and the credential for it.
pub(crate) struct Oci {
    client: Client,
    auth: RegistryAuth,
}

impl std::fmt::Debug for Oci {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oci({:?})", self.auth)
    }
}

impl Oci {
    /// # Errors
    /// The message of why the CA file cannot be used.
    pub(crate) fn new(
        transport: Transport,
        ca_file: Option<&PathBuf>,
        credential: Option<(String, String)>,
    ) -> Result<Self, String> {
        // The process's crypto library may already have been chosen; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut extra_root_certificates = Vec::new();
        if let Some(path) = ca_file {
            let data = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            extra_root_certificates.push(Certificate {
                encoding: CertificateEncoding::Pem,
                data,
            });
        }
        let config = ClientConfig {
            protocol: match transport {
                Transport::Http => ClientProtocol::Http,
                Transport::Https | Transport::InsecureHttps => ClientProtocol::Https,
            },
            accept_invalid_certificates: transport == Transport::InsecureHttps,
            extra_root_certificates,
            // One PUT for each blob, which every registry supports.
            use_monolithic_push: true,
            platform_resolver: None,
            // No read timeout: it would run while a large blob is uploaded.
            connect_timeout: Some(CONNECT),
            user_agent: concat!("slipway-build/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let auth = credential.map_or(RegistryAuth::Anonymous, |(user, password)| {
            RegistryAuth::Basic(user, password)
        });
        Ok(Self {
            client: Client::try_from(config).map_err(|error| error.to_string())?,
            auth,
        })
    }

    async fn upload(&self, at: &Reference, image: &Image, blob: &OciDescriptor) -> Result<(), Fault<Reason>> {
        let answered = within(at, self.client.blob_exists(at, &blob.digest)).await;
        match answered {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // Some registries allow robots to push but not to look.
            Err(Fault::Permanent(_)) => {}
            Err(fault) => return Err(fault),
        }
        let path = image.blob_file(blob).map_err(|error| unusable(&error))?;
        let file = tokio::fs::File::open(&path)
            .await
            .map_err(|source| unusable(&LayoutError::Io { path, source }))?;
        let bytes = ReaderStream::with_capacity(file, 128 * 1024).map_err(OciDistributionError::IoError);
        let size = u64::try_from(blob.size).ok();
        // The build's own deadline bounds this.
        self.client
            .push_blob_stream(at, bytes, &blob.digest, size)
            .await
            .map_err(|error| classify(at, &error))?;
        Ok(())
    }

    async fn manifest(&self, at: &Reference) -> Result<Option<(Vec<u8>, String)>, Fault<Reason>> {
        let pulled = async {
            match self
                .client
                .pull_manifest_raw(at, &self.auth, &MANIFEST_TYPES)
                .await
            {
                Ok((bytes, digest)) => Ok(Some((bytes.to_vec(), digest))),
                Err(error) if status_of(&error) == Some(404) => Ok(None),
                Err(error) => Err(error),
            }
        };
        within(at, pulled).await
    }

    async fn put_manifest(
        &self,
        at: &Reference,
        bytes: Vec<u8>,
        media_type: &str,
    ) -> Result<(), Fault<Reason>> {
        let media_type = http::HeaderValue::from_str(media_type)
            .map_err(|_| unavailable(at, "the manifest has no usable media type"))?;
        within(at, self.client.push_manifest_raw(at, bytes, media_type)).await?;
        Ok(())
    }
}

#[async_trait]
impl Registry for Oci {
    async fn push(&self, name: &ImageName, image: &Image) -> Result<(), Fault<Reason>> {
        let at = by_digest(name, &image.digest);
        // A token for pushing is fetched first, so that a wrong password is reported as such.
        within(&at, self.client.auth(&at, &self.auth, RegistryOperation::Push)).await?;
        let uploads: Vec<_> = image.blobs().map(|blob| self.upload(&at, image, blob)).collect();
        futures::stream::iter(uploads)
            .buffer_unordered(UPLOADS)
            .try_collect::<()>()
            .await?;
        self.put_manifest(&at, image.manifest_bytes.clone(), &image.media_type)
            .await
    }

    async fn has(&self, name: &ImageName, digest: &Digest) -> Result<bool, Fault<Reason>> {
        match self.manifest(&by_digest(name, digest)).await {
            Ok(found) => Ok(found.is_some()),
            // Some registries allow robots to push but not to look.
            Err(Fault::Permanent(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn inspect(&self, name: &ImageName, tag: &Tag) -> Result<Option<TaggedImage>, Fault<Reason>> {
        let at = by_tag(name, tag);
        let Some((bytes, digest)) = self.manifest(&at).await? else {
            return Ok(None);
        };
        let digest: Digest = digest
            .parse()
            .map_err(|error: slipway_model::Invalid| unavailable(&at, &error.to_string()))?;
        let parsed = serde_json::from_slice(&bytes).map_err(|error| unavailable(&at, &error.to_string()))?;
        let labels = match parsed {
            OciManifest::Image(manifest)
                if u64::try_from(manifest.config.size).is_ok_and(|size| size <= MAX_MANIFEST) =>
            {
                let mut config = Vec::new();
                within(&at, self.client.pull_blob(&at, &manifest.config, &mut config)).await?;
                // What is not an image (a chart, a signature) has no labels.
                labels_of(&config).unwrap_or_default()
            }
            _ => Default::default(),
        };
        Ok(Some(TaggedImage { digest, labels }))
    }

    async fn tag(&self, name: &ImageName, digest: &Digest, tag: &Tag) -> Result<(), Fault<Reason>> {
        let at = by_digest(name, digest);
        let Some((bytes, _)) = self.manifest(&at).await? else {
            return Err(unavailable(&at, "the pushed image is gone"));
        };
        let parsed: OciManifest =
            serde_json::from_slice(&bytes).map_err(|error| unavailable(&at, &error.to_string()))?;
        let media_type = parsed.content_type().to_owned();
        self.put_manifest(&by_tag(name, tag), bytes, &media_type).await
    }
}

fn by_digest(name: &ImageName, digest: &Digest) -> Reference {
    Reference::with_digest(host(name), name.repository().to_owned(), digest.to_string())
}

fn by_tag(name: &ImageName, tag: &Tag) -> Reference {
    Reference::with_tag(host(name), name.repository().to_owned(), tag.to_string())
}

fn host(name: &ImageName) -> String {
    name.registry().unwrap_or_default().to_owned()
}

async fn within<T>(
    at: &Reference,
    call: impl Future<Output = Result<T, OciDistributionError>>,
) -> Result<T, Fault<Reason>> {
    match timeout(ANSWER, call).await {
        Ok(result) => result.map_err(|error| classify(at, &error)),
        Err(_) => Err(unavailable(at, "no answer in time")),
    }
}

/// The HTTP status of a registry's error, if it is an answer.
fn status_of(error: &OciDistributionError) -> Option<u16> {
    match error {
        OciDistributionError::ServerError { code, .. } => Some(*code),
        OciDistributionError::RequestError(error) => error.status().map(|status| status.as_u16()),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            Some(401)
        }
        OciDistributionError::ImageManifestNotFoundError(_) => Some(404),
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.first().map(|error| match error.code {
                OciErrorCode::ManifestUnknown | OciErrorCode::NotFound | OciErrorCode::NameUnknown => 404,
                OciErrorCode::Unauthorized => 401,
                OciErrorCode::Denied => 403,
                OciErrorCode::Unsupported => 405,
                OciErrorCode::Toomanyrequests => 429,
                OciErrorCode::BlobUploadUnknown
                | OciErrorCode::BlobUnknown
                | OciErrorCode::ManifestBlobUnknown => 503,
                _ => 400,
            })
        }
        _ => None,
    }
}

/// What a registry's error means. 4xx is a rejection, except for those that ask to retry; all others are transient
/// faults.
fn classify(at: &Reference, error: &OciDistributionError) -> Fault<Reason> {
    let message = without_url(error);
    match status_of(error) {
        Some(404) => refused(at.registry(), "not found"),
        Some(408 | 425 | 429) => unavailable(at, &message),
        Some(code @ (401 | 403)) => {
            let message = format!("{message} (HTTP {code}); check the registry's username and password_file");
            refused(at.registry(), &message)
        }
        Some(code @ 400..500) => refused(at.registry(), &format!("{message} (HTTP {code})")),
        _ => unavailable(at, &message),
    }
}

/// The message of an error: bounded, and without URLs, since those of uploads can contain a signature.
fn without_url(error: &OciDistributionError) -> String {
    let text = match error {
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .map(|error| match error.message.as_str() {
                "" => "no message",
                message => message,
            })
            .collect::<Vec<_>>()
            .join("; "),
        OciDistributionError::ServerError { message, .. } => message.clone(),
        OciDistributionError::UnauthorizedError { .. } => "not authorized".to_owned(),
        OciDistributionError::RequestError(error) => match std::error::Error::source(error) {
            Some(source) => format!("{source}"),
            None if error.is_timeout() => "no answer in time".to_owned(),
            None => "the request failed".to_owned(),
        },
        other => other.to_string(),
    };
    text.chars().take(500).collect()
}

fn unavailable(at: &Reference, message: &str) -> Fault<Reason> {
    super::unavailable(at.registry(), message)
}
