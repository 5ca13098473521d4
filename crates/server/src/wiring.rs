//! What a service's `run` is given besides its configuration, and how it fails.

use std::{error::Error, fmt, net::SocketAddr, sync::Arc};

use slipway_events::Bus;
use slipway_telemetry::Service;
use tokio::net::TcpListener;

use crate::{ConfigError, ServeError, ServerConfig, web};

/// What a service's `run` is given besides its configuration: what the process creates for it, or shares among several
/// services.
pub struct Wiring {
    /// Already bound.
    pub listeners: Listeners,
    /// The event bus.
    pub bus: Arc<dyn Bus>,
    /// Where this service's spans and measurements are sent.
    pub telemetry: Service,
}

impl Wiring {
    /// With listeners that are bound already; a `TcpListener` alone is the one for gRPC.
    pub fn new(listeners: impl Into<Listeners>, bus: Arc<dyn Bus>, telemetry: Service) -> Self {
        Self {
            listeners: listeners.into(),
            bus,
            telemetry,
        }
    }
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// Why a service ended other than by shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Anything else; `what` names what failed.
    #[error("{what}: {source}")]
    Other {
        what: String,
        source: Box<dyn Error + Send + Sync>,
    },
}

impl RunError {
    /// For `map_err`: names what failed.
    pub fn other<E: Into<Box<dyn Error + Send + Sync>>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Other {
            what,
            source: source.into(),
        }
    }
}

/// The sockets on which a service listens, bound by the code that starts it.
#[derive(Debug)]
pub struct Listeners {
    pub grpc: TcpListener,
    pub http: Option<TcpListener>,
    pub ops: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    /// gRPC alone.
    fn from(grpc: TcpListener) -> Self {
        Self {
            grpc,
            http: None,
            ops: None,
        }
    }
}

impl Listeners {
    /// Binds the configured addresses.
    ///
    /// # Errors
    /// Names the key of the address that cannot be listened on.
    pub async fn bind(config: &ServerConfig) -> Result<Self, ConfigError> {
        let maybe = async |key: &str, address: Option<SocketAddr>| match address {
            Some(address) => web::bind(key, address).await.map(Some),
            None => Ok(None),
        };
        Ok(Self {
            grpc: web::bind("server.listen", config.listen).await?,
            http: maybe("server.http_listen", config.http_listen).await?,
            ops: maybe("server.ops_listen", config.ops_listen).await?,
        })
    }
}
