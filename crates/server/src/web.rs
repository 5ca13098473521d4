//! The two listeners besides gRPC: `http` for what other systems and browsers call, over TLS if configured, and `ops`
//! for what the machine's own network asks, always plain and without authentication.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{ConfigError, ServerConfig, config::tls};

/// The process is up.
pub const LIVE: &str = "/livez";
/// The process takes requests: it has started serving, and is not draining.
pub const READY: &str = "/readyz";

/// A TLS handshake that takes longer is aborted.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections whose handshake is done and which wait to be served.
const ACCEPTED: usize = 64;
/// The pause after a failed accept: mostly too many open files, which passes.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Whether the service takes requests. Shared between the server and the `ops` listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the `ops` listener answers.
pub(crate) fn ops(readiness: Readiness) -> Router {
    Router::new()
        .route(LIVE, get(|| async { "ok\n" }))
        .route(
            READY,
            get(|State(readiness): State<Readiness>| async move {
                if readiness.get() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "not serving\n")
                }
            }),
        )
        .with_state(readiness)
}

/// Serves in plain HTTP until `stop`, then lets open requests finish.
pub(crate) async fn serve_plain(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Serves over TLS if configured, in plain HTTP otherwise, until `stop`; then lets open requests finish.
///
/// # Errors
/// A certificate that cannot be used, an address on which plain text is not allowed, and a listener that fails.
pub(crate) async fn serve(
    config: &ServerConfig,
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> Result<(), crate::ServeError> {
    let address = listener.local_addr().map_err(crate::ServeError::Listener)?;
    // The listener may have been bound elsewhere, to an address other than the configured one.
    ServerConfig {
        http_listen: Some(address),
        ..config.clone()
    }
    .check()?;
    let served = match &config.tls {
        None => serve_plain(listener, router, stop).await,
        Some(tls) => {
            let acceptor = TlsAcceptor::from(tls::server(tls)?);
            let listener = TlsListener::spawn(listener, address, acceptor);
            axum::serve(listener, router)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await
        }
    };
    served.map_err(crate::ServeError::Listener)
}

/// Binds one of the listeners.
///
/// # Errors
/// Names the key of the address that cannot be listened on.
pub(crate) async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| ConfigError::invalid(key, format!("cannot listen on {address}: {error}")))
}

/// Connections after their TLS handshakes, which run concurrently: one slow peer does not hold up the others.
struct TlsListener {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    fn spawn(listener: TcpListener, address: SocketAddr, acceptor: TlsAcceptor) -> Self {
        let (sender, accepted) = mpsc::channel(ACCEPTED);
        tokio::spawn(async move {
            loop {
                let connection = tokio::select! {
                    () = sender.closed() => return,
                    connection = listener.accept() => connection,
                };
                let (stream, peer) = match connection {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(AFTER_FAILURE).await;
                        continue;
                    }
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        // Fails only when no one serves any more.
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "a TLS handshake timed out"),
                    }
                });
            }
        });
        Self { accepted, address }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(connection) => connection,
            // The accepting task ends only after this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
