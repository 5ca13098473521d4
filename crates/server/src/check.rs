//! What `--check` examines besides the configuration itself: the database and the ports of this machine.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::net::TcpListener;

use crate::{Config, ConfigError, ServiceSettings, ledger};

/// Whether a service could start here with this configuration, whose files were checked before. Connects to the
/// database and changes nothing in it. Returns notes about what may be intended.
///
/// # Errors
/// Names the key that would keep the service from starting.
pub(crate) async fn surroundings<S: ServiceSettings>(config: &Config<S>) -> Result<Vec<String>, ConfigError> {
    ledger::check(&config.database).await?;
    let server = &config.server;
    let mut notes = Vec::new();
    for (key, address) in [
        ("server.listen", Some(server.listen)),
        ("server.http_listen", server.http_listen),
        ("server.ops_listen", server.ops_listen),
    ] {
        if let Some(address) = address {
            notes.extend(port(key, address).await?);
        }
    }
    Ok(notes)
}

/// A port in use is not a mistake in the configuration: usually the service itself is already running.
async fn port(key: &str, address: SocketAddr) -> Result<Option<String>, ConfigError> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Some(format!(
            "{key}: {address} is in use; that is fine if this service is already running"
        ))),
        Err(error) => Err(ConfigError::invalid(
            key,
            format!("cannot listen on {address}: {error}"),
        )),
    }
}
