//! A Prometheus server for one test, which scrapes one page of the test.

use std::{fs, net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    Error, Result, TestDir, blocking,
    process::{Server, guarded, on_free_port},
    tool,
};

/// A Prometheus server on 127.0.0.1 with a database of its own, killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    // Before the folder, so that it has ended when the folder is removed.
    _server: Server,
    _folder: TestDir,
    port: u16,
}

impl Prometheus {
    /// Starts a server that scrapes `http://<target>/metrics` every `interval`, under the job name `test`.
    ///
    /// # Errors
    /// When Prometheus is not installed or does not start.
    pub async fn start(target: SocketAddr, interval: Duration) -> Result<Self> {
        blocking(move || {
            let folder = TestDir::new("prometheus")?;
            let every = format!("{}ms", interval.as_millis().max(1));
            let config = format!(
                "global: {{ scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every} }}\n\
                 scrape_configs:\n  - job_name: test\n    static_configs: [{{ targets: ['{target}'] }}]\n"
            );
            let file = folder.path().join("prometheus.yml");
            fs::write(&file, config).map_err(Error::io("cannot write prometheus.yml"))?;
            let (server, port) = on_free_port(|port| {
                let mut command = guarded(tool("prometheus")?.as_os_str(), Signal::SIGKILL, None)?;
                command
                    .current_dir(folder.path())
                    .arg(format!("--config.file={}", file.display()))
                    .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                    .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                    // A series that disappears is gone at once, on the time scale of tests.
                    .arg("--query.lookback-delta=5s")
                    .arg("--log.level=info");
                let ready = |line: &str| line.contains("Server is ready to receive web requests").then_some(());
                Server::start("prometheus", command, Signal::SIGKILL, ready).map(|(server, ())| server)
            })?;
            Ok(Self {
                _server: server,
                _folder: folder,
                port,
            })
        })
        .await
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
