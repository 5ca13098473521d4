//! The certificate authority, the server's key and the bearer token: created once, kept in the data directory.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::Error;

/// The names and addresses by which the server may be called.
const NAMES: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) token: String,
    /// The authority's certificate, as clients get it.
    authority: String,
    certificate: String,
    key: String,
}

/// Writes a file that only its owner can read, completely or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

impl Credentials {
    /// Reads what is in the directory, or creates it.
    ///
    /// # Errors
    /// When a file cannot be read or written, or a key not be made.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let names = ["token", "authority.crt", "server.crt", "server.key"];
        let paths = names.map(|name| dir.join(name));
        if paths.iter().all(|path| path.exists()) {
            let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
            return Ok(Self {
                token: read(&paths[0])?.trim().to_owned(),
                authority: read(&paths[1])?,
                certificate: read(&paths[2])?,
                key: read(&paths[3])?,
            });
        }
        let made = Self::make().map_err(|error| Error::Tls(error.to_string()))?;
        let contents = [&made.token, &made.authority, &made.certificate, &made.key];
        for (path, content) in paths.iter().zip(contents) {
            write_private(path, content.as_bytes()).map_err(|error| Error::io(path, error))?;
        }
        Ok(made)
    }

    fn make() -> Result<Self, rcgen::Error> {
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "local-cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = params.self_signed(&authority_key)?;
        let issuer = Issuer::new(params, &authority_key);

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "local-cluster");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        // Two random UUIDs contain 244 random bits.
        let token = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        // The authority's key is thrown away: nothing else should ever be signed with it.
        Ok(Self {
            token,
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What the server speaks TLS with.
    ///
    /// # Errors
    /// When the stored certificate or key cannot be used.
    pub(crate) fn tls(&self) -> Result<ServerConfig, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|e| failed(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| failed(&e))?;
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(|e| failed(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A kubeconfig for the server at `address`. JSON, which is YAML too.
    pub(crate) fn kubeconfig(&self, address: SocketAddr) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "local-cluster", "preferences": {},
            "clusters": [{"name": "local-cluster", "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": BASE64.encode(&self.authority)}}],
            "users": [{"name": "local-cluster", "user": {"token": self.token}}],
            "contexts": [{"name": "local-cluster", "context": {
                "cluster": "local-cluster", "user": "local-cluster", "namespace": "default"}}],
        });
        format!("{config:#}\n")
    }
}
