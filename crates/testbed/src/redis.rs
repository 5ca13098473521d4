//! A Redis server for one test, which may stop it, empty it and bring it back.

use std::{
    net::{Ipv4Addr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    Error, Result, TestDir, blocking,
    process::{Server, guarded, on_free_port},
    tool,
};

/// A Redis server on 127.0.0.1 that keeps nothing on disk, killed when dropped.
#[derive(Debug)]
pub struct Redis {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<Option<Server>>,
    folder: TestDir,
}

impl Redis {
    /// Starts a new server.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub async fn start() -> Result<Self> {
        blocking(|| {
            let shared = Shared {
                server: Mutex::new(None),
                folder: TestDir::new("redis")?,
            };
            let (server, port) = on_free_port(|port| shared.serve(port))?;
            *shared.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
            Ok(Self {
                shared: Arc::new(shared),
                port,
            })
        })
        .await
    }

    /// `redis://127.0.0.1:<port>`; the same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Removes every key; connections stay.
    ///
    /// # Errors
    /// When the server is down.
    pub async fn flush_all(&self) -> Result<()> {
        let port = self.port;
        blocking(move || command(port, "FLUSHALL").map(drop)).await
    }

    /// Kills the server. Does nothing when it is down.
    pub async fn stop(&self) {
        let shared = Arc::clone(&self.shared);
        let _ = blocking(move || {
            drop(
                shared
                    .server
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
            Ok(())
        })
        .await;
    }

    /// Kills the server if it is up and starts an empty one on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart_empty(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let port = self.port;
        blocking(move || {
            let mut server = shared.server.lock().unwrap_or_else(PoisonError::into_inner);
            drop(server.take());
            *server = Some(shared.serve(port)?);
            Ok(())
        })
        .await
    }
}

impl Shared {
    fn serve(&self, port: u16) -> Result<Server> {
        let mut command = guarded(tool("redis-server")?.as_os_str(), Signal::SIGKILL, None)?;
        command
            .current_dir(self.folder.path())
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .arg("--dir")
            .arg(self.folder.path());
        let ready = |line: &str| line.contains("Ready to accept connections").then_some(());
        Server::start("redis-server", command, Signal::SIGKILL, ready).map(|(server, ())| server)
    }
}

/// One inline command; returns the first line of the reply.
fn command(port: u16, command: &str) -> Result<String> {
    use std::io::{BufRead, BufReader, Write};
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        if answer.starts_with('-') || answer.is_empty() {
            return Err(std::io::Error::other(format!("redis answers {answer:?}")));
        }
        Ok(answer.trim_end().to_owned())
    };
    ask().map_err(Error::io(format!("{command} failed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_can_be_emptied_stopped_and_brought_back_empty() {
        let redis = Redis::start().await.unwrap();
        let port = redis.port();

        assert_eq!(command(port, "SET a 1").unwrap(), "+OK");
        redis.flush_all().await.unwrap();
        assert_eq!(command(port, "EXISTS a").unwrap(), ":0");

        assert_eq!(command(port, "SET a 1").unwrap(), "+OK");
        redis.stop().await;
        assert!(redis.flush_all().await.is_err());
        redis.restart_empty().await.unwrap();
        assert_eq!(redis.port(), port);
        assert_eq!(command(port, "EXISTS a").unwrap(), ":0");
    }
}
