//! An image registry (the CNCF distribution) for one test, which can make it refuse.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use nix::sys::signal::Signal;

use crate::{
    Error, Result, TestDir, blocking,
    process::{Server, guarded, on_free_port},
    tool,
};

/// What the registry lets clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything, without a password.
    Open,
    /// Pulls; a push gets a 405.
    ReadOnly,
    /// Everything for [`Registry::USER`] with [`Registry::PASSWORD`]; 401 for all others.
    Password,
}

/// A registry on 127.0.0.1, plain HTTP, deletes allowed; killed when dropped.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<Option<Server>>,
    folder: TestDir,
}

impl Registry {
    /// Who may use a registry with [`Access::Password`].
    pub const USER: &str = "robot";
    /// The password of [`Registry::USER`].
    pub const PASSWORD: &str = "registry-test-password";

    /// Starts an empty, open registry.
    ///
    /// # Errors
    /// When docker-registry is not installed or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Access::Open).await
    }

    /// Starts an empty registry.
    ///
    /// # Errors
    /// When docker-registry is not installed or does not start.
    pub async fn start_with(access: Access) -> Result<Self> {
        blocking(move || {
            let shared = Shared {
                server: Mutex::new(None),
                folder: TestDir::new("registry")?,
            };
            let (server, port) = on_free_port(|port| shared.serve(port, access))?;
            *shared.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
            Ok(Self {
                shared: Arc::new(shared),
                port,
            })
        })
        .await
    }

    /// `127.0.0.1:<port>`, the first part of an image's name.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The name of a repository here: `127.0.0.1:<port>/<name>`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Kills the registry. Does nothing when it is down.
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

    /// Kills the registry if it is up and starts it on the same port with the images that it had.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&self, access: Access) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let port = self.port;
        blocking(move || {
            let mut server = shared.server.lock().unwrap_or_else(PoisonError::into_inner);
            drop(server.take());
            *server = Some(shared.serve(port, access)?);
            Ok(())
        })
        .await
    }
}

/// [`Registry::PASSWORD`] under bcrypt, the only hash the registry takes, at its lowest cost.
const HTPASSWD: &str = "robot:$2b$04$R9ddDncXc4e3NocKewgLp.CLBkr0HGgbZFhQHxiyvhUbVr7rlI5JW\n";

impl Shared {
    fn serve(&self, port: u16, access: Access) -> Result<Server> {
        let folder = self.folder.path();
        let write = |name: &str, content: &str| {
            fs::write(folder.join(name), content)
                .map_err(Error::io(format!("cannot write the registry's {name}")))
        };
        write("htpasswd", HTPASSWD)?;
        // The folder's path is ours and free of quotes; JSON strings are YAML strings.
        let path = |name: &str| format!("{:?}", folder.join(name));
        let read_only = access == Access::ReadOnly;
        let auth = match access {
            Access::Password => format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                path("htpasswd")
            ),
            Access::Open | Access::ReadOnly => String::new(),
        };
        let config = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n  \
             maintenance: {{uploadpurging: {{enabled: false}}, readonly: {{enabled: {read_only}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\", secret: test}}\n{auth}",
            path("images"),
        );
        write("config.yml", &config)?;
        let mut command = guarded(tool("docker-registry")?.as_os_str(), Signal::SIGKILL, None)?;
        command
            .current_dir(folder)
            .arg("serve")
            .arg(folder.join("config.yml"));
        let ready = |line: &str| line.contains("listening on 127.0.0.1:").then_some(());
        Server::start("docker-registry", command, Signal::SIGKILL, ready).map(|(server, ())| server)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    /// The status code of a request without a body.
    fn ask(registry: &Registry, method: &str, path: &str, headers: &str) -> u16 {
        let mut stream = TcpStream::connect(registry.address()).unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n");
        stream
            .write_all(format!("{head}{headers}\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    const PUSH: &str = "/v2/app/blobs/uploads/";

    #[tokio::test]
    async fn it_takes_pushes_and_refuses_them_when_told_to() {
        let registry = Registry::start().await.unwrap();
        assert_eq!(ask(&registry, "POST", PUSH, ""), 202);
        registry.restart(Access::ReadOnly).await.unwrap();
        assert_eq!(ask(&registry, "POST", PUSH, ""), 405);
        assert_eq!(ask(&registry, "GET", "/v2/", ""), 200);
        registry.stop().await;
        assert!(TcpStream::connect(registry.address()).is_err());
    }

    #[tokio::test]
    async fn it_asks_for_the_password() {
        let registry = Registry::start_with(Access::Password).await.unwrap();
        assert_eq!(ask(&registry, "POST", PUSH, ""), 401);
        let right = "Authorization: Basic cm9ib3Q6cmVnaXN0cnktdGVzdC1wYXNzd29yZA==\r\n";
        assert_eq!(ask(&registry, "POST", PUSH, right), 202);
    }
}
