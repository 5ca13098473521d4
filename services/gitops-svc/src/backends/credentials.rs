//! Credentials: all secrets that a git process or a forge's API is given. Nothing else sees them.
//!
//! A secret reaches git through the environment of that one process, which only this user and root can read. It never
//! appears in a URL, an argument, a file of the mirror, a log, an error or `Debug` output. Files are read again for
//! each use: a token or key is rotated by replacing its file, without a restart.

use std::{
    fmt,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use base64::Engine as _;
use gitops_domain::reason::Code;
use secrecy::{ExposeSecret as _, SecretString};
use slipway_github::{Address, App, AppKey, AppSettings, Error, ErrorKind, TokenSource};
use slipway_model::{Fault, Reason};
use slipway_server::ConfigError;

use crate::config::{Credentials, RepositoryConfig, TOKEN_USER};

/// Tokens and keys are not larger than this.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The access to one repository's remote.
pub(crate) struct Access {
    url: String,
    ca_file: Option<PathBuf>,
    means: Means,
}

enum Means {
    None,
    Token {
        username: String,
        token_file: PathBuf,
    },
    App {
        app: Box<App>,
        private_key_file: PathBuf,
    },
    SshKey {
        key_file: PathBuf,
        known_hosts_file: Option<PathBuf>,
    },
}

/// What one git process is given to authenticate with.
pub(crate) struct Environment {
    /// Settings of git, for `GIT_CONFIG_KEY_n` and `GIT_CONFIG_VALUE_n`.
    pub(crate) settings: Vec<(String, String)>,
    /// Variables of their own.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Access {
    pub(crate) fn new(config: &RepositoryConfig) -> Self {
        let url = config.url.clone();
        let means = match &config.credentials {
            Credentials::None => Means::None,
            Credentials::Token { username, token_file } => Means::Token {
                username: username.clone(),
                token_file: token_file.clone(),
            },
            Credentials::SshKey {
                key_file,
                known_hosts_file,
            } => Means::SshKey {
                key_file: key_file.clone(),
                known_hosts_file: known_hosts_file.clone(),
            },
            Credentials::GithubApp(app) => match Address::of(&url) {
                Some(address) => {
                    let settings = AppSettings {
                        app_id: app.app_id,
                        installation_id: app.installation_id,
                        api_url: app.api_url.clone(),
                    };
                    Means::App {
                        app: Box::new(App::new(settings, address)),
                        private_key_file: app.private_key_file.clone(),
                    }
                }
                // The configuration has been checked: it is rejected without one.
                None => Means::None,
            },
        };
        Self {
            url,
            ca_file: config.ca_file.clone(),
            means,
        }
    }

    /// Checks what can be found to be wrong before the remote is asked: a key that is missing, readable by others, or
    /// locked. Tokens are not checked, since they may be put in place later.
    ///
    /// # Errors
    /// Names the key of the configuration, below `repositories.{name}`, and the remedy.
    pub(crate) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let key = |field: &str| format!("repositories.{name}.{field}");
        let file = |field: &str, path: &Path| {
            read(path)
                .map_err(|problem| ConfigError::invalid(key(field), format!("{}: {problem}", path.display())))
        };
        if let Some(path) = &self.ca_file {
            file("ca_file", path)?;
        }
        match &self.means {
            Means::None | Means::Token { .. } => {}
            Means::App { private_key_file, .. } => {
                app_key(private_key_file).map_err(|problem| {
                    let path = private_key_file.display();
                    ConfigError::invalid(
                        key("credentials.github_app.private_key_file"),
                        format!("{path}: {problem}"),
                    )
                })?;
            }
            Means::SshKey {
                key_file,
                known_hosts_file,
            } => {
                usable_ssh_key(key_file).map_err(|problem| {
                    ConfigError::invalid(
                        key("credentials.ssh_key_file"),
                        format!("{}: {problem}", key_file.display()),
                    )
                })?;
                if let Some(path) = known_hosts_file {
                    file("credentials.known_hosts_file", path)?;
                }
            }
        }
        Ok(())
    }

    /// The token for https and the forge's API: what the token file contains now, or an App's installation token that
    /// is valid for some minutes at least.
    ///
    /// # Errors
    /// [`Code::CredentialsRefused`] when there is none; GitHub's error when it does not issue a token.
    pub(crate) async fn token(&self) -> Result<SecretString, Fault<Reason>> {
        match &self.means {
            Means::Token { token_file, .. } => read_token(token_file)
                .map_err(|problem| unusable(format!("the repository's credentials.token_file {problem}"))),
            Means::App {
                app,
                private_key_file,
            } => {
                let key = || {
                    app_key(private_key_file).map_err(|problem| {
                        let file = "the repository's credentials.github_app.private_key_file";
                        Reason::new(Code::CredentialsRefused, format!("{file} {problem}"))
                    })
                };
                let token = app.token(key).await;
                token.map_err(|fault| fault.map(|error| of_app(&error)))
            }
            Means::None | Means::SshKey { .. } => Err(Fault::refused(
                Code::CredentialsRefused,
                "the repository has no token: give it credentials.token_file or credentials.github_app",
            )),
        }
    }

    /// The remote rejected the credentials. Returns whether there are new ones to try, once.
    pub(crate) async fn refused(&self) -> bool {
        match &self.means {
            // Revoked before its time, for example because the App's permissions were changed.
            Means::App { app, .. } => app.forget().await,
            // The next try reads a new file; the same one stays rejected.
            Means::None | Means::Token { .. } | Means::SshKey { .. } => false,
        }
    }

    /// For one git process.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used; the message never contains any of it.
    pub(crate) async fn environment(&self) -> Result<Environment, Fault<Reason>> {
        let mut environment = Environment {
            // A token must not follow a redirect; nor is a redirect an answer to a push.
            settings: vec![("http.followRedirects".to_owned(), "false".to_owned())],
            variables: Vec::new(),
        };
        if let Some(path) = &self.ca_file {
            // The setting http.sslCAInfo would be overridden by this variable of ours.
            environment
                .variables
                .push(("GIT_SSL_CAINFO", path.display().to_string()));
        }
        match &self.means {
            Means::None => {}
            Means::Token { username, .. } => {
                let token = self.token().await?;
                environment.settings.push(self.basic(username, &token));
            }
            Means::App { .. } => {
                let token = self.token().await?;
                environment.settings.push(self.basic(TOKEN_USER, &token));
            }
            Means::SshKey {
                key_file,
                known_hosts_file,
            } => {
                usable_ssh_key(key_file).map_err(|problem| {
                    unusable(format!("the repository's credentials.ssh_key_file {problem}"))
                })?;
                environment.variables.push((
                    "GIT_SSH_COMMAND",
                    ssh_command(key_file, known_hosts_file.as_deref()),
                ));
            }
        }
        Ok(environment)
    }

    /// A header that is sent to the configured URL and anything below it, and nowhere else.
    fn basic(&self, username: &str, token: &SecretString) -> (String, String) {
        let pair = format!("{username}:{}", token.expose_secret());
        let value = base64::engine::general_purpose::STANDARD.encode(pair);
        (
            format!("http.{}.extraHeader", self.url),
            format!("Authorization: Basic {value}"),
        )
    }
}

#[async_trait]
impl TokenSource for Access {
    async fn token(&self) -> Result<SecretString, Fault<Reason>> {
        self.token().await
    }

    async fn rejected(&self) -> bool {
        self.refused().await
    }
}

/// A token for a forge's API only: what this file contains now.
pub(crate) struct TokenFile(pub(crate) PathBuf);

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self) -> Result<SecretString, Fault<Reason>> {
        read_token(&self.0).map_err(|problem| unusable(format!("pull_requests.token_file {problem}")))
    }

    async fn rejected(&self) -> bool {
        // The next try reads a new file; the same one stays rejected.
        false
    }
}

/// An App's key as its file contains it now. The error continues the sentence after the file's name.
fn app_key(path: &Path) -> Result<AppKey, String> {
    AppKey::from_pem(&read(path)?)
        .ok_or_else(|| "is not an RSA private key in PEM form, as GitHub gives it for an App".to_owned())
}

/// What it means that an App did not get a token: the cause, and then what to do about it.
fn of_app(error: &Error) -> Reason {
    let (code, remedy) = match &error.kind {
        ErrorKind::NoCredentials(code) => return Reason::new(code.as_str(), error.message.as_str()),
        ErrorKind::Unauthorized => (
            Code::CredentialsRefused,
            "check app_id and private_key_file of credentials.github_app",
        ),
        ErrorKind::Forbidden => (
            Code::CredentialsRefused,
            "unsuspend the installation on the App's page",
        ),
        ErrorKind::NotFound => (
            Code::CredentialsRefused,
            "install it, or check installation_id of credentials.github_app",
        ),
        ErrorKind::NotCovered => (
            Code::RepositoryNotFound,
            "add the repository to the installation on the App's page",
        ),
        ErrorKind::Untrusted => return Reason::new(Code::CertificateRefused, error.message.as_str()),
        ErrorKind::Rejected | ErrorKind::RateLimited | ErrorKind::Unreachable => {
            return Reason::new(Code::RemoteUnreachable, error.message.as_str());
        }
    };
    Reason::new(code, format!("{error}: {remedy}"))
}

/// ssh with this key and these hosts, and without anything else that this user has configured.
///
/// git passes this to a shell; the configuration allows only paths that need no quoting.
fn ssh_command(key_file: &Path, known_hosts_file: Option<&Path>) -> String {
    let mut command = format!(
        "ssh -F none -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes \
         -o PreferredAuthentications=publickey -o StrictHostKeyChecking=yes -o UpdateHostKeys=no \
         -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=3",
        key_file.display()
    );
    if let Some(known) = known_hosts_file {
        // Only the named hosts; the machine's own list does not add to them.
        command.push_str(&format!(
            " -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null",
            known.display()
        ));
    }
    command
}

/// Something is missing locally, perhaps only while it is being replaced.
fn unusable(message: String) -> Fault<Reason> {
    Fault::unavailable(Code::CredentialsRefused, message)
}

/// A file with a secret. The error continues the sentence after the file's name.
pub(crate) fn read(path: &Path) -> Result<SecretString, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    let text = SecretString::from(text);
    if text.expose_secret().len() as u64 > MAX_SECRET_BYTES {
        return Err(format!(
            "is larger than {MAX_SECRET_BYTES} bytes; is it the right file?"
        ));
    }
    Ok(text)
}

/// A file with a token. The error continues the sentence after the file's name.
pub(crate) fn read_token(path: &Path) -> Result<SecretString, String> {
    let text = read(path)?;
    let token = text.expose_secret().trim();
    if token.is_empty() {
        return Err("is empty".to_owned());
    }
    if token.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("contains more than one word; write the token alone into it".to_owned());
    }
    Ok(SecretString::from(token))
}

/// A private key that only we can read. This is ssh's own rule: it refuses our own files if others may read them.
pub(crate) fn read_private_key(path: &Path) -> Result<SecretString, String> {
    let text = read(path)?;
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if metadata.uid() == nix::unistd::Uid::effective().as_raw() && metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "may be read by others (mode {:o}), and ssh refuses such a key: chmod 600 it, or mount it with mode 0400",
            metadata.mode() & 0o777
        ));
    }
    Ok(text)
}

/// Whether ssh would use the key; ssh itself says only that the remote refused it.
fn usable_ssh_key(path: &Path) -> Result<(), String> {
    if locked(read_private_key(path)?.expose_secret()) {
        return Err("has a passphrase, which cannot be typed here: use a key without one".to_owned());
    }
    Ok(())
}

/// Whether the private key is encrypted. Unknown formats are left to ssh.
fn locked(text: &str) -> bool {
    match ssh_key::PrivateKey::from_openssh(text) {
        Ok(key) => key.is_encrypted(),
        Err(_) => text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gitops_domain::reason::Code;
    use slipway_github::{Error, ErrorKind};

    use super::{of_app, read_token, ssh_command};

    #[test]
    fn refusals_of_an_app_have_their_codes() {
        for (kind, code) in [
            (ErrorKind::Unauthorized, Code::CredentialsRefused),
            (ErrorKind::Forbidden, Code::CredentialsRefused),
            (ErrorKind::NotFound, Code::CredentialsRefused),
            (ErrorKind::NotCovered, Code::RepositoryNotFound),
            (ErrorKind::RateLimited, Code::RemoteUnreachable),
            (ErrorKind::Unreachable, Code::RemoteUnreachable),
            (
                ErrorKind::NoCredentials(Code::CredentialsRefused.as_str().to_owned()),
                Code::CredentialsRefused,
            ),
        ] {
            let error = Error {
                kind,
                status: 0,
                message: "no".to_owned(),
            };
            let reason = of_app(&error);
            assert_eq!(reason.code, code.as_str(), "{error:?}");
        }
    }

    #[test]
    fn a_token_is_one_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for (text, wanted) in [
            ("abc", Ok("abc")),
            ("abc\n", Ok("abc")),
            (" abc\r\n", Ok("abc")),
            ("", Err("is empty")),
            ("\n", Err("is empty")),
            ("user abc", Err("more than one word")),
            ("abc\ndef\n", Err("more than one word")),
        ] {
            std::fs::write(&file, text).unwrap();
            match (read_token(&file), wanted) {
                (Ok(token), Ok(wanted)) => {
                    assert_eq!(secrecy::ExposeSecret::expose_secret(&token), wanted);
                }
                (Err(error), Err(words)) => {
                    assert!(error.contains(words) && !error.contains("abc"), "{error}");
                }
                (found, wanted) => panic!("{text:?}: {:?} for {wanted:?}", found.is_ok()),
            }
        }
        assert!(read_token(folder.path()).unwrap_err().contains("is not a file"));
        std::fs::write(&file, "x".repeat(70_000)).unwrap();
        assert!(read_token(&file).unwrap_err().contains("larger than"));
    }

    #[test]
    fn ssh_trusts_nobody_that_is_not_named() {
        let command = ssh_command(Path::new("/run/key"), Some(Path::new("/run/hosts")));
        for part in [
            " -F none ",
            " -i /run/key ",
            " -o StrictHostKeyChecking=yes ",
            " -o BatchMode=yes ",
            " -o IdentityAgent=none ",
            " -o UserKnownHostsFile=/run/hosts ",
        ] {
            assert!(command.contains(part), "{command}");
        }
    }
}
