//! Connections to addresses that were vetted: a name is resolved once, each of its addresses is looked at, and exactly
//! those are connected to, so that a name server that changes its mind in between gains nothing. TLS and `Host` go by
//! the name.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use slipway_model::Fault;
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use url::{Host, Url};

use super::address::{Allow, vet};

/// A file of certificate authorities is at most this long, in bytes.
const MAX_CA_FILE: u64 = 1024 * 1024;
/// A name with more addresses than this is cut short: each costs a share of the time.
const MAX_ADDRESSES: usize = 8;

/// A connection, with or without TLS.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Remote {
    /// Reads `host:port`, IPv6 in brackets.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let words = || "write host:port, with a port from 1 to 65535 and IPv6 in brackets".to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if text.len() > 300 || !text.bytes().all(plain) {
            return Err(words());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(words)?;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(words());
        }
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(words)?;
        let host = Host::parse(host).map_err(|_| words())?;
        Ok(Self { host, port })
    }

    /// Reads the base of an `http` or `https` URL: no credentials, no path, no query. The second is whether it is
    /// `https`.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn of_url(text: &str) -> Result<(Self, bool), String> {
        let (url, tls) = web_url(text)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(
                "write scheme, host and port alone, such as https://shop.example: path has a key of its own"
                    .into(),
            );
        }
        Ok((Self::of(&url)?, tls))
    }

    /// The host and port of a URL that [`web_url`] has read.
    pub(crate) fn of(url: &Url) -> Result<Self, String> {
        let host = url.host().ok_or("has no host")?.to_owned();
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or("must have a port from 1 to 65535")?;
        Ok(Self { host, port })
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An `http` or `https` URL without credentials; the second is whether it is `https`.
///
/// # Errors
/// In words.
pub(crate) fn web_url(text: &str) -> Result<(Url, bool), String> {
    // The parser forgives tabs, line ends and backslashes; people are better told.
    let plain = text.len() <= 2000 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let url = Url::parse(text).ok().filter(|_| plain);
    let url = url.ok_or("write an http:// or https:// URL")?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("must begin with http:// or https://".to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err("must not hold a user or a password".to_owned());
    }
    Ok((url, tls))
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tls<'a> {
    /// PEM authorities beside the system's.
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
                    // Questions are short, and wait for nothing.
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
                .map_err(|_| Fault::Permanent(format!("{name} is no name that a certificate can have")))?,
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
            // One address that may not be is enough: a name that mixes them is not to be trusted.
            for address in &addresses {
                vet(address.ip(), allow).map_err(|refused| {
                    Fault::Permanent(match &remote.host {
                        Host::Domain(name) => format!("{name} leads to {refused}"),
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
            let certificate = certificate.map_err(|error| wrong(format!("is no PEM: {error}")))?;
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

/// The system's authorities, read once. Those that cannot be used are left out, as other programs do.
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

#[cfg(test)]
mod tests {
    use super::{Remote, web_url};

    #[test]
    fn addresses_are_host_and_port() {
        for (text, shown) in [
            ("shop:80", "shop:80"),
            ("Shop.Example:443", "shop.example:443"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            // Other ways to write an address are read before it is vetted.
            ("2130706433:80", "127.0.0.1:80"),
            ("0x7f.1:80", "127.0.0.1:80"),
        ] {
            assert_eq!(Remote::parse(text).unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "shop",
            ":80",
            "shop:",
            "shop:0",
            "shop:65536",
            "shop:+80",
            "shop:http",
            "2001:db8::1:80",
            "[::1:80",
            "user@shop:80",
            "shop:80/",
            "sh op:80",
            "http://shop:80",
            "[fe80::1%eth0]:80",
        ] {
            assert!(Remote::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_scheme_host_and_port() {
        for (text, shown, tls) in [
            ("http://shop", "shop:80", false),
            ("https://shop/", "shop:443", true),
            ("https://shop:8443", "shop:8443", true),
            ("HTTP://[::1]:8080", "[::1]:8080", false),
            ("http://0177.0.0.1", "127.0.0.1:80", false),
        ] {
            let (remote, encrypted) = Remote::of_url(text).unwrap();
            assert_eq!((remote.to_string().as_str(), encrypted), (shown, tls), "{text}");
        }
        for (wrong, words) in [
            ("ftp://shop", "must begin with"),
            ("file:///etc/passwd", "must begin with"),
            ("shop", "write an http"),
            ("", "write an http"),
            ("http://user:password@shop", "must not hold a user"),
            ("http://user@shop", "must not hold a user"),
            ("http://@shop", "must not hold a user"),
            ("http://shop:0", "a port from 1"),
            ("http://shop:70000", "write an http"),
            ("http://shop/health", "path has a key of its own"),
            ("http://shop?x", "path has a key of its own"),
            ("http://shop#x", "path has a key of its own"),
            ("http://sh\top", "write an http"),
            ("http:\\\\shop", "write an http"),
        ] {
            let error = Remote::of_url(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
        assert!(web_url("https://metrics.example/prometheus").is_ok());
    }
}
