//! A real sshd for git over ssh, for one test.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};

use crate::{
    Error, Result, TestDir,
    process::{Server, guarded, on_free_port, run},
    tool,
};

/// What sshd needs when it runs as root; Debian's start script creates it.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// sshd on 127.0.0.1 for this user, which allows nothing but git; killed when dropped.
#[derive(Debug)]
pub struct SshServer {
    _server: Server,
    folder: TestDir,
    port: u16,
    user: String,
}

impl SshServer {
    /// Starts it with its own host key and client key.
    ///
    /// # Errors
    /// When sshd is not installed or does not start.
    pub fn start() -> Result<Self> {
        let folder = TestDir::new("sshd")?;
        let user = User::from_uid(geteuid())
            .ok()
            .flatten()
            .ok_or_else(|| {
                Error::io("this user")(io::Error::other("has no name, and sshd lets nobody else in"))
            })?
            .name;
        ssh_key(&folder.path().join("host_key"), &["-t", "ed25519"], "")?;
        ssh_key(&folder.path().join("key"), &["-t", "ed25519"], "")?;
        if geteuid().is_root() && !Path::new(PRIVILEGE_SEPARATION).is_dir() {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(PRIVILEGE_SEPARATION)
                .map_err(Error::io(format!("cannot create {PRIVILEGE_SEPARATION}")))?;
        }
        let read = |name: &str| {
            fs::read_to_string(folder.path().join(name)).map_err(Error::io(format!("cannot read {name}")))
        };
        let (key, host_key) = (read("key.pub")?, read("host_key.pub")?);
        write(
            &folder.path().join("authorized_keys"),
            &format!(
                "restrict,command=\"env GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git-shell -c \
                 \\\"$SSH_ORIGINAL_COMMAND\\\"\" {key}"
            ),
        )?;
        let (server, port) = on_free_port(|port| serve(folder.path(), &user, port))?;
        write(
            &folder.path().join("known_hosts"),
            &format!("[127.0.0.1]:{port} {host_key}"),
        )?;
        Ok(Self {
            _server: server,
            folder,
            port,
            user,
        })
    }

    /// `ssh://<user>@127.0.0.1:<port><path>` of a repository on this machine, by its absolute path.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, path.display())
    }

    /// The private key that is accepted.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// A file with this server's host key.
    pub fn known_hosts_file(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }
}

/// Creates a key pair at `path` and `path.pub`; `kind` is passed to ssh-keygen, such as `["-t", "rsa", "-b", "3072"]`.
///
/// # Errors
/// When ssh-keygen is not installed or does not know the kind.
pub fn ssh_key(path: &Path, kind: &[&str], passphrase: &str) -> Result<()> {
    let mut command = Command::new(tool("ssh-keygen")?);
    command
        .args(["-q", "-C", "test", "-N", passphrase])
        .args(kind)
        .arg("-f")
        .arg(path);
    run(&mut command).map(|_| ())
}

fn serve(folder: &Path, user: &str, port: u16) -> Result<Server> {
    // sshd re-executes itself for each connection, and must be called by its full path for that.
    let sshd = tool("sshd")?;
    let path = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nAllowUsers {user}\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         UsePAM no\nStrictModes no\nUseDNS no\nMaxStartups 1000\n",
        path("host_key"),
        path("authorized_keys"),
    );
    let file = folder.join("sshd_config");
    // Since OpenSSH 9.8 a client that failed several times is locked out for a while.
    write(&file, &format!("{config}PerSourcePenalties no\n"))?;
    if run(Command::new(&sshd).arg("-t").arg("-f").arg(&file)).is_err() {
        write(&file, &config)?;
    }
    let mut command = guarded(sshd.as_os_str(), Signal::SIGTERM, None)?;
    command.args(["-D", "-e", "-f"]).arg(&file);
    let ready = |line: &str| line.starts_with("Server listening on 127.0.0.1").then_some(());
    Server::start("sshd", command, Signal::SIGTERM, ready).map(|(server, ())| server)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    fs::write(path, text).map_err(Error::io(cannot()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Error::io(cannot()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GitRepo;

    #[test]
    fn it_serves_git_to_its_key_and_nothing_else() {
        let server = SshServer::start().unwrap();
        let folder = TestDir::new("ssh-root").unwrap();
        let repo = GitRepo::bare(folder.path().join("app.git")).unwrap();
        let head = repo.commit("main", "one", &[("a", b"")]).unwrap();
        let ssh = |key: &Path| {
            format!(
                "ssh -F none -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o \
                 StrictHostKeyChecking=yes -o UserKnownHostsFile={}",
                key.display(),
                server.known_hosts_file().display()
            )
        };
        let ls_remote = |key: &Path| {
            let mut command = Command::new(tool("git").unwrap());
            command
                .env("GIT_SSH_COMMAND", ssh(key))
                .args(["ls-remote", &server.url(repo.path())]);
            run(&mut command)
        };
        let listed = ls_remote(&server.key_file()).unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains(&head));

        let other = folder.path().join("other");
        ssh_key(&other, &["-t", "ed25519"], "").unwrap();
        let error = ls_remote(&other).unwrap_err().to_string();
        assert!(error.contains("Permission denied (publickey)"), "{error}");

        let mut shell = Command::new(tool("ssh").unwrap());
        shell
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-p",
            ])
            .arg(server.port.to_string())
            .arg("-i")
            .arg(server.key_file())
            .arg("-o")
            .arg(format!(
                "UserKnownHostsFile={}",
                server.known_hosts_file().display()
            ))
            .arg(format!("{}@127.0.0.1", server.user))
            .arg("id");
        assert!(run(&mut shell).is_err());
    }
}
