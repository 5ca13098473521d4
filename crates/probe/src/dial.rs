//! Connections to addresses that were vetted: a name is resolved once, each of its addresses is vetted, and only those
//! are connected to, so that a name server that changes its answer in between gains nothing. TLS and `Host` go by the
//! name.

pub(crate) mod address;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use slipway_check::Remote;
use slipway_model::Fault;
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use url::Host;

use address::{Allow, vet};

/// A file of certificate authorities is at most this long, in bytes.
const MAX_CA_FILE: u64 = 1024 * 1024;
/// A name with more addresses than this is truncated: each takes a share of the time.
const MAX_ADDRESSES: usize = 8;

/// A connection, with or without TLS.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What a connection is for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tls<'a> {
    /// PEM authorities in addition to the system's.
    pub(crate) ca_file: Option<&'a str>,
    /// Such as `h2`.
    pub(crate) alpn: &'static [&'static [u8]],
}

/// Makes connections.
#[derive(Debug, Clone)]
pub(crate) enum Dialer {
    /// To vetted addresses, for what the catalog names.
    Confined(Allow),
    /// To any, for what this service's own configuration names.
    Free,
}

impl Dialer {
    /// Connects within `time`, which is shared between a name's addresses; the first that answers is taken.
    pub(crate) async fn tcp(&self, remote: &Remote, time: Duration) -> Result<TcpStream, Fault<String>> {
        let end = Instant::now() + time;
        let addresses = self.resolve(remote, end).await?;
        let mut last = String::new();
        for (index, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - index).unwrap_or(1);
            let share = end.saturating_duration_since(Instant::now()) / left;
            last = match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Requests are short, and must not be delayed.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => format!("connect to {address}: {error}"),
                Err(_) => format!("connect to {address}: no answer within {share:.1?}"),
            };
        }
        Err(Fault::transient(match remote.host {
            Host::Domain(_) => format!("{remote}: {last}"),
            _ => last,
        }))
    }

    /// The same with TLS, which is verified for the host's name.
    pub(crate) async fn tls(
        &self,
        remote: &Remote,
        tls: Tls<'_>,
        time: Duration,
    ) -> Result<Box<TlsStream<TcpStream>>, Fault<String>> {
        let end = Instant::now() + time;
        let config = client_config(tls).await.map_err(Fault::Permanent)?;
        let name = match &remote.host {
            Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|_| Fault::Permanent(format!("{name} is not a name that a certificate can have")))?,
            Host::Ipv4(address) => ServerName::IpAddress(IpAddr::V4(*address).into()),
            Host::Ipv6(address) => ServerName::IpAddress(IpAddr::V6(*address).into()),
        };
        let stream = self.tcp(remote, time).await?;
        match tokio::time::timeout_at(end, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Fault::transient(format!("TLS with {remote}: {error}"))),
            Err(_) => Err(Fault::transient(format!("TLS with {remote}: not agreed in time"))),
        }
    }

    async fn resolve(&self, remote: &Remote, end: Instant) -> Result<Vec<SocketAddr>, Fault<String>> {
        let port = remote.port;
        let mut addresses: Vec<SocketAddr> = match &remote.host {
            Host::Ipv4(address) => vec![(*address, port).into()],
            Host::Ipv6(address) => vec![(*address, port).into()],
            Host::Domain(name) => {
                let failed = |words: String| Fault::transient(format!("resolve {name}: {words}"));
                let found = tokio::time::timeout_at(end, tokio::net::lookup_host((name.as_str(), port)));
                match found.await {
                    Ok(Ok(found)) => found.collect(),
                    Ok(Err(error)) => return Err(failed(error.to_string())),
                    Err(_) => return Err(failed("no answer in time".to_owned())),
                }
            }
        };
        addresses.dedup();
        if let Self::Confined(allow) = self {
            // One forbidden address is enough: a name that mixes them is not to be trusted.
            for address in &addresses {
                vet(address.ip(), allow).map_err(|refused| {
                    Fault::Permanent(match &remote.host {
                        Host::Domain(name) => format!("{name} resolves to {refused}"),
                        _ => refused.to_string(),
                    })
                })?;
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(Fault::transient(format!("resolve {remote}: no address")));
        }
        Ok(addresses)
    }
}

async fn client_config(tls: Tls<'_>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = system_roots().clone();
    if let Some(path) = tls.ca_file {
        let wrong = |words: String| format!("ca_file {path}: {words}");
        let mut pem = Vec::new();
        let file = tokio::fs::File::open(path).await;
        let file = file.map_err(|error| wrong(error.to_string()))?;
        let read = file.take(MAX_CA_FILE).read_to_end(&mut pem).await;
        read.map_err(|error| wrong(error.to_string()))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(format!("is not PEM: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(format!("holds a certificate that cannot be used: {error}")))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong("holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The system's authorities, read once. Unusable ones are skipped, as other programs do.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "one of the system's certificate authorities cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}
