//! What `--check` looks at besides the configuration itself: the database and the ports of this machine.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::net::TcpListener;

use crate::{Config, ConfigError, ServiceSettings, ledger};

/// Whether a service could start here with this configuration, whose files were checked before. Connects to the
/// database and changes nothing in it. The answers are notes: what may be in order.
///
/// # Errors
/// Names the key of what would keep the service from starting.
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

/// A port in use is no mistake of the configuration: mostly the service that is being checked runs already.
async fn port(key: &str, address: SocketAddr) -> Result<Option<String>, ConfigError> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Some(format!(
            "{key}: {address} is in use; that is in order if this service is running"
        ))),
        Err(error) => Err(ConfigError::invalid(
            key,
            format!("cannot listen on {address}: {error}"),
        )),
    }
}
