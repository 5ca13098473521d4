//! A PostgreSQL server for the tests of one process, with a database for each test.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, chown},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{sys::signal::Signal, unistd::User};
use tokio::sync::OnceCell;

use crate::{
    Error, Result, TestDir, blocking,
    process::{Server, guarded, on_free_port, run},
    tool,
};

const ROLE: &str = "slipway";

/// Enough for the concurrent tests of a process, each with its pools.
const CONNECTIONS: u32 = 400;

/// The server that all tests of this process share, without fsync. Create your own database in it.
///
/// # Errors
/// When PostgreSQL is not installed or does not start; the next call tries again.
pub async fn postgres() -> Result<&'static Postgres> {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_try_init(Postgres::start).await
}

/// A PostgreSQL server on 127.0.0.1, killed when dropped.
#[derive(Debug)]
pub struct Postgres {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    /// Stopped before its folder is removed: fields are dropped in order.
    server: Mutex<Option<Server>>,
    folder: TestDir,
    /// Loopback is open to every user of the machine, and a superuser of PostgreSQL can run programs as the server's
    /// user.
    password: String,
    fsync: bool,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts a server that loses everything in a power cut, which does not matter to tests.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(false).await
    }

    /// Starts a server. With `fsync` its commits are durable, at the same cost as in production: for measurements.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start_with(fsync: bool) -> Result<Self> {
        blocking(move || {
            let shared = Shared {
                server: Mutex::new(None),
                folder: TestDir::new("postgres")?,
                password: format!("{:032x}", fastrand::u128(..)),
                fsync,
                databases: AtomicU32::new(0),
            };
            shared.initialise()?;
            let (server, port) = on_free_port(|port| shared.serve(port))?;
            *shared.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
            Ok(Self {
                shared: Arc::new(shared),
                port,
            })
        })
        .await
    }

    /// Creates an empty database with a unique name, and returns its URL.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn create_database(&self) -> Result<String> {
        let name = format!("test_{}", self.shared.databases.fetch_add(1, Ordering::Relaxed));
        let url = self.url(&name);
        let port = self.port;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.query(port, &format!("CREATE DATABASE {name}"))).await?;
        Ok(url)
    }

    /// The URL of a database of this server, with the password in it.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{ROLE}:{}@127.0.0.1:{}/{database}",
            self.shared.password, self.port
        )
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of the role `slipway`, for programs such as `pgbench` that take it from `PGPASSWORD`.
    pub fn password(&self) -> &str {
        &self.shared.password
    }

    /// Ends the server at once, as a crash would. Does nothing when it is down.
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

    /// Ends the server if it is up and starts it on the same port with the same data.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&self) -> Result<()> {
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
    /// Initialises the empty cluster.
    fn initialise(&self) -> Result<()> {
        let user = unprivileged()?;
        let folder = self.folder.path();
        let password = folder.join("password");
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&password)
            .and_then(|mut file| file.write_all(self.password.as_bytes()))
            .map_err(Error::io("cannot write the password file"))?;
        if let Some(user) = &user {
            for path in [folder, &password] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(Error::io(format!(
                    "cannot give {} to {}",
                    path.display(),
                    user.name
                )))?;
            }
        }
        let mut initdb = guarded(tool("initdb")?.as_os_str(), Signal::SIGKILL, user.as_ref())?;
        initdb
            .current_dir(folder)
            .args([
                "--no-sync",
                "--no-instructions",
                "--encoding=UTF8",
                "--locale=C",
                "--auth=password",
            ])
            .arg(format!("--username={ROLE}"))
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--pgdata={}", self.data().display()));
        run(&mut initdb).map(drop)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn serve(&self, port: u16) -> Result<Server> {
        // SIGQUIT is PostgreSQL's immediate shutdown: it also ends its children and frees shared memory, which SIGKILL
        // does not.
        let mut command = guarded(
            tool("postgres")?.as_os_str(),
            Signal::SIGQUIT,
            unprivileged()?.as_ref(),
        )?;
        command.current_dir(self.folder.path()).arg("-D").arg(self.data());
        let mut set = |setting: &str| {
            command.args(["-c", setting]);
        };
        set("listen_addresses=127.0.0.1");
        set("unix_socket_directories=");
        set(&format!("port={port}"));
        set(&format!("max_connections={CONNECTIONS}"));
        set("shared_buffers=128MB");
        set("log_destination=stderr");
        set("logging_collector=off");
        if !self.fsync {
            set("fsync=off");
            set("synchronous_commit=off");
            set("full_page_writes=off");
        }
        let ready = |line: &str| line.contains("ready to accept connections").then_some(());
        Server::start("postgres", command, Signal::SIGQUIT, ready).map(|(server, ())| server)
    }

    fn query(&self, port: u16, sql: &str) -> Result<String> {
        let mut psql = Command::new(tool("psql")?);
        psql.env("PGPASSWORD", &self.password)
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--host=127.0.0.1",
            ])
            .args([
                &format!("--port={port}"),
                &format!("--username={ROLE}"),
                "--dbname=postgres",
            ])
            .arg(format!("--command={sql}"));
        Ok(String::from_utf8_lossy(&run(&mut psql)?.stdout).trim().to_owned())
    }
}

/// PostgreSQL refuses to run as root; its package creates a user for it.
fn unprivileged() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres") {
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) | Err(_) => Err(Error::MissingTool("the user postgres".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(server: &Postgres, sql: &str) -> Result<String> {
        server.shared.query(server.port, sql)
    }

    #[tokio::test]
    async fn databases_of_the_shared_server_are_apart() {
        let server = postgres().await.unwrap();
        let (first, second) = tokio::join!(server.create_database(), server.create_database());
        assert_ne!(first.unwrap(), second.unwrap());
        assert_eq!(query(server, "SHOW fsync").unwrap(), "off");
    }

    #[tokio::test]
    async fn committed_rows_outlive_a_crash() {
        let server = Postgres::start_with(true).await.unwrap();
        assert_eq!(query(&server, "SHOW fsync").unwrap(), "on");
        query(&server, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").unwrap();

        server.stop().await;
        assert!(query(&server, "SELECT 1").is_err());
        server.restart().await.unwrap();

        assert_eq!(query(&server, "SELECT n FROM kept").unwrap(), "7");
        let data = server.shared.folder.path().to_owned();
        drop(server);
        assert!(!data.exists());
    }

    #[tokio::test]
    async fn a_wrong_password_is_refused() {
        let server = postgres().await.unwrap();
        let mut psql = Command::new(tool("psql").unwrap());
        psql.env("PGPASSWORD", "wrong").args([
            "--host=127.0.0.1",
            &format!("--port={}", server.port()),
            "--username=slipway",
            "--dbname=postgres",
            "--command=SELECT 1",
        ]);
        assert!(
            run(&mut psql)
                .unwrap_err()
                .to_string()
                .contains("password authentication failed")
        );
    }
}
