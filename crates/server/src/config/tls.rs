//! The `tls:` section: a server's certificate and key, read the same way for gRPC and HTTP.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::Deserialize;

use super::ConfigError;

/// Certificate chain and private key, PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The TLS configuration of an HTTP server, which proves that certificate and key belong together.
///
/// # Errors
/// Names the key and the file that cannot be read or used.
pub(crate) fn server(tls: &Tls) -> Result<Arc<ServerConfig>, ConfigError> {
    let certificate = read("server.tls.certificate", &tls.certificate)?;
    let key = read("server.tls.key", &tls.key)?;
    let unusable = |at: &str, path: &Path, error: &dyn std::fmt::Display| {
        ConfigError::invalid(at, format!("{}: cannot be used: {error}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable("server.tls.certificate", &tls.certificate, &error))?;
    if chain.is_empty() {
        let error = "it holds no certificate in PEM form";
        return Err(unusable("server.tls.certificate", &tls.certificate, &error));
    }
    let private =
        PrivateKeyDer::from_pem_slice(&key).map_err(|error| unusable("server.tls.key", &tls.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("server.tls", &tls.certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| unusable("server.tls.key", &tls.key, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A file of the `tls` section.
pub(crate) fn read(key: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path)
        .map_err(|error| ConfigError::invalid(key, format!("{}: cannot be read: {error}", path.display())))
}
