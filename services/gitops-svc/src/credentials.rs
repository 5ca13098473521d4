//! How a remote knows us: everything secret that a git process or a forge's API is given, and nothing else knows.
//!
//! A secret reaches git through the environment of that one process, which only this user and root can read. It is in
//! no URL, no argument, no file of the mirror, no log, no error and no `Debug` output. Files are read again for each
//! use: whoever rotates a token or key replaces the file, and nothing is restarted.

use std::{
    fmt,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::Engine as _;
use octocrab::{
    Octocrab,
    models::{AppId, InstallationId},
};
use secrecy::{ExposeSecret as _, SecretString};
use slipway_server::ConfigError;

use crate::{
    change::{Code, Reason},
    config::{Credentials, GithubApp, RepositoryConfig},
    repository::{Problem, words},
};

/// No token and no key is larger.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// A token that expires sooner is not used any more: one exchange with the remote, which may take
/// [two minutes](crate::repository), must come to its end with it.
const MIN_TOKEN_LIFE: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// GitHub's API answers within this time, or is asked again later.
const API_TIMEOUT: Duration = Duration::from_secs(30);
/// What GitHub documents as the user of an App's token, and other hosts take as well.
pub(crate) const TOKEN_USER: &str = "x-access-token";

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
    App(Box<App>),
    SshKey {
        key_file: PathBuf,
        known_hosts_file: Option<PathBuf>,
    },
}

/// What one git process is given so that the remote knows us.
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
        let url = config.url.clone().unwrap_or_default();
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
            Credentials::GithubApp(app) => Means::App(Box::new(App {
                config: app.clone(),
                repository: GithubRepository::of(&url),
                installation: tokio::sync::Mutex::default(),
            })),
        };
        Self {
            url,
            ca_file: config.ca_file.clone(),
            means,
        }
    }

    /// What can be known to be wrong before the remote is asked: a key that is missing, readable by others, or locked.
    /// Tokens are not looked at, since they may be put in place later.
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
            Means::App(app) => {
                let field = "credentials.github_app.private_key_file";
                let path = &app.config.private_key_file;
                let pem = file(field, path)?;
                octocrab::auth::EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes()).map_err(|_| {
                    ConfigError::invalid(
                        key(field),
                        format!(
                            "{}: is not an RSA private key in PEM form, as GitHub gives it for an App",
                            path.display()
                        ),
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

    /// The token for https and the forge's API: what the token file holds now, or an App's installation token that is
    /// good for some minutes at least.
    ///
    /// # Errors
    /// [`Code::CredentialsRefused`] when there is none; what GitHub says when it gives none.
    pub(crate) async fn token(&self) -> Result<SecretString, Problem> {
        match &self.means {
            Means::Token { token_file, .. } => read_token(token_file)
                .map_err(|problem| unusable(format!("the repository's credentials.token_file {problem}"))),
            Means::App(app) => app.token().await,
            Means::None | Means::SshKey { .. } => Err(Problem::Final(Reason::new(
                Code::CredentialsRefused,
                "the repository has no token: give it credentials.token_file or credentials.github_app",
            ))),
        }
    }

    /// The remote did not take what it was given. Says whether there is something new to try, once.
    pub(crate) async fn refused(&self) -> bool {
        match &self.means {
            // Taken back before its time, as when the App's permissions were changed.
            Means::App(app) => app.installation.lock().await.take().is_some(),
            // A new file is read by the next try; the same one stays refused.
            Means::None | Means::Token { .. } | Means::SshKey { .. } => false,
        }
    }

    /// For one git process.
    ///
    /// # Errors
    /// When a secret is not there or cannot be used; the message never has any of it.
    pub(crate) async fn environment(&self) -> Result<Environment, Problem> {
        let mut environment = Environment {
            // A token must not follow to where somebody points; nor is a redirect an answer to a push.
            settings: vec![("http.followRedirects".to_owned(), "false".to_owned())],
            variables: Vec::new(),
        };
        if let Some(path) = &self.ca_file {
            // The setting http.sslCAInfo would yield to this variable of ours.
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
            Means::App(_) => {
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

    /// A header that goes to the configured URL and what is below it, and nowhere else.
    fn basic(&self, username: &str, token: &SecretString) -> (String, String) {
        let pair = format!("{username}:{}", token.expose_secret());
        let value = base64::engine::general_purpose::STANDARD.encode(pair);
        (
            format!("http.{}.extraHeader", self.url),
            format!("Authorization: Basic {value}"),
        )
    }
}

/// ssh with this key and these hosts, and with nothing that this user has set up besides.
///
/// git gives this to a shell; the configuration allows only paths that a shell leaves alone.
fn ssh_command(key_file: &Path, known_hosts_file: Option<&Path>) -> String {
    let mut command = format!(
        "ssh -F none -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes \
         -o PreferredAuthentications=publickey -o StrictHostKeyChecking=yes -o UpdateHostKeys=no \
         -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=3",
        key_file.display()
    );
    if let Some(known) = known_hosts_file {
        // Only the hosts that were named; the machine's own list does not add to them.
        command.push_str(&format!(
            " -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null",
            known.display()
        ));
    }
    command
}

/// Something here is missing, perhaps only while it is being replaced.
fn unusable(message: String) -> Problem {
    Problem::Transient(Reason::new(Code::CredentialsRefused, message))
}

/// A file with a secret. The error reads on from the file's name.
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

/// A file with a token. The error reads on from the file's name.
pub(crate) fn read_token(path: &Path) -> Result<SecretString, String> {
    let text = read(path)?;
    let token = text.expose_secret().trim();
    if token.is_empty() {
        return Err("is empty".to_owned());
    }
    if token.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("holds more than one word; write the token alone into it".to_owned());
    }
    Ok(SecretString::from(token))
}

/// A private key that is ours alone. ssh's own rule: of our own files it refuses those that others may read.
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
        return Err("has a passphrase, and nobody is there to type it: use a key without one".to_owned());
    }
    Ok(())
}

/// Whether the private key is encrypted. Forms that are not known here are left to ssh.
fn locked(text: &str) -> bool {
    match ssh_key::PrivateKey::from_openssh(text) {
        Ok(key) => key.is_encrypted(),
        Err(_) => text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED"),
    }
}

/// A GitHub App's installation on one repository.
struct App {
    config: GithubApp,
    /// The configuration was checked: there is one.
    repository: Option<GithubRepository>,
    /// The client, and within it the token as long as it is good. Held while a token is asked for, so that many
    /// waiting uses ask once.
    installation: tokio::sync::Mutex<Option<Octocrab>>,
}

impl App {
    async fn token(&self) -> Result<SecretString, Problem> {
        let mut known = self.installation.lock().await;
        if let Some(installation) = &*known {
            match within(installation.installation_token_with_buffer(MIN_TOKEN_LIFE)).await {
                Ok(token) => return Ok(token),
                Err(error @ Problem::Transient(_)) => return Err(error),
                // Another key or installation since; everything is looked up again.
                Err(_) => *known = None,
            }
        }
        let installation = self.connect().await?;
        let token = within(installation.installation_token_with_buffer(MIN_TOKEN_LIFE)).await?;
        *known = Some(installation);
        Ok(token)
    }

    /// A client whose tokens are good for this repository alone.
    async fn connect(&self) -> Result<Octocrab, Problem> {
        let Some(repository) = &self.repository else {
            return Err(unusable(
                "the repository's url names no owner and repository of GitHub".to_owned(),
            ));
        };
        let pem = read(&self.config.private_key_file).map_err(|problem| {
            unusable(format!(
                "the repository's credentials.github_app.private_key_file {problem}"
            ))
        })?;
        let key = octocrab::auth::EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes()).map_err(|_| {
            unusable(
                "the repository's credentials.github_app.private_key_file is not an RSA private key in PEM form"
                    .to_owned(),
            )
        })?;
        let api_url = self.config.api_url.as_deref().unwrap_or(&repository.api_url);
        let app = Octocrab::builder()
            .base_uri(api_url)
            .map_err(|error| github(&error))?
            .set_connect_timeout(Some(API_TIMEOUT))
            .set_read_timeout(Some(API_TIMEOUT))
            .app(AppId(self.config.app_id), key)
            .build()
            .map_err(|error| github(&error))?;
        let id = match self.config.installation_id {
            Some(id) => InstallationId(id),
            None => {
                let GithubRepository { owner, name, .. } = repository;
                let route = format!("/repos/{owner}/{name}/installation");
                within(app.get::<Installation, _, _>(route, None::<&()>))
                    .await?
                    .id
            }
        };
        app.installation_builder(id)
            .repositories(vec![repository.name.clone()])
            .build()
            .map_err(|error| github(&error))
    }
}

/// What is needed of GitHub's answer; octocrab's own type wants an account of a person or organisation.
#[derive(serde::Deserialize)]
struct Installation {
    id: InstallationId,
}

async fn within<T>(asked: impl Future<Output = octocrab::Result<T>>) -> Result<T, Problem> {
    match tokio::time::timeout(API_TIMEOUT, asked).await {
        Ok(result) => result.map_err(|error| github(&error)),
        Err(_) => Err(Problem::Transient(Reason::new(
            Code::RemoteUnreachable,
            format!("GitHub's API did not answer within {API_TIMEOUT:?}"),
        ))),
    }
}

/// What GitHub's answer to an App means.
fn github(error: &octocrab::Error) -> Problem {
    let octocrab::Error::GitHub { source, .. } = error else {
        // The error and its causes, but not the place in the code that it comes with.
        let mut text = String::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        return Problem::Transient(Reason::new(
            Code::RemoteUnreachable,
            format!("GitHub's API cannot be reached: {}", words(&text)),
        ));
    };
    let status = source.status_code.as_u16();
    answered(status, &source.message)
}

/// By status, as GitHub documents them for `/app/installations/{id}/access_tokens` and `/repos/…/installation`.
fn answered(status: u16, message: &str) -> Problem {
    let told = |text: &str| format!("{text}; GitHub says: {status} {}", words(message));
    match status {
        401 => Problem::Final(Reason::new(
            Code::CredentialsRefused,
            told("GitHub does not know the App: check app_id and private_key_file of credentials.github_app"),
        )),
        403 if message.to_lowercase().contains("rate limit") => Problem::Transient(Reason::new(
            Code::RemoteUnreachable,
            told("GitHub's limit is reached"),
        )),
        403 => Problem::Final(Reason::new(
            Code::CredentialsRefused,
            told("the App's installation may not be used: it may be suspended"),
        )),
        404 => Problem::Final(Reason::new(
            Code::CredentialsRefused,
            told("the App is not installed on the repository: install it, or check installation_id"),
        )),
        422 => Problem::Final(Reason::new(
            Code::RepositoryNotFound,
            told("the App's installation does not cover the repository"),
        )),
        _ => Problem::Transient(Reason::new(
            Code::RemoteUnreachable,
            told("GitHub's API cannot answer"),
        )),
    }
}

/// A repository of GitHub, by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GithubRepository {
    pub(crate) owner: String,
    /// Without `.git`.
    pub(crate) name: String,
    /// Where its API is, unless the configuration says otherwise: without a slash at the end.
    pub(crate) api_url: String,
}

impl GithubRepository {
    /// From `https://HOST/OWNER/NAME`, `ssh://…` or `git@HOST:OWNER/NAME`, with or without `.git`.
    ///
    /// The API of github.com is at api.github.com, that of SUB.ghe.com at api.SUB.ghe.com, and a GitHub Enterprise
    /// Server has it below /api/v3.
    pub(crate) fn of(url: &str) -> Option<Self> {
        let (host, port, path) = if url.contains("://") {
            let url = url::Url::parse(url).ok()?;
            // The port of ssh says nothing of the API's.
            let port = (url.scheme() == "https").then(|| url.port()).flatten();
            (url.host_str()?.to_owned(), port, url.path().to_owned())
        } else {
            let (host, path) = url.split_once(':')?;
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            (host.to_owned(), None, path.to_owned())
        };
        let path = path.trim_matches('/');
        let (owner, name) = path.strip_suffix(".git").unwrap_or(path).split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && part != "."
                && part != ".."
        };
        if !plain(owner) || !plain(name) {
            return None;
        }
        let host = host.to_ascii_lowercase();
        let api_url = match port {
            None if host == "github.com" || host.ends_with(".ghe.com") => format!("https://api.{host}"),
            None => format!("https://{host}/api/v3"),
            Some(port) => format!("https://{host}:{port}/api/v3"),
        };
        Some(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            api_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{GithubRepository, answered, read_token, ssh_command};
    use crate::{change::Code, repository::Problem};

    #[test]
    fn a_repository_of_github_is_known_by_its_address() {
        for (url, api_url) in [
            ("https://github.com/acme/shop", "https://api.github.com"),
            ("https://GitHub.com/acme/shop.git/", "https://api.github.com"),
            ("ssh://git@github.com/acme/shop.git", "https://api.github.com"),
            ("git@github.com:acme/shop.git", "https://api.github.com"),
            ("https://corp.ghe.com/acme/shop", "https://api.corp.ghe.com"),
            (
                "https://git.corp.example/acme/shop",
                "https://git.corp.example/api/v3",
            ),
            (
                "https://git.corp.example:8443/acme/shop",
                "https://git.corp.example:8443/api/v3",
            ),
            (
                "ssh://git@git.corp.example:2222/acme/shop",
                "https://git.corp.example/api/v3",
            ),
        ] {
            let found = GithubRepository::of(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!(
                (found.owner.as_str(), found.name.as_str(), found.api_url.as_str()),
                ("acme", "shop", api_url),
                "{url}"
            );
        }
        for url in [
            "/srv/shop.git",
            "https://github.com/shop",
            "https://github.com/a/b/c",
            "https://github.com/../b",
            "https://github.com/a/%2e%2e",
            "",
        ] {
            assert_eq!(GithubRepository::of(url), None, "{url}");
        }
    }

    #[test]
    fn answers_to_an_app_are_final_or_passing() {
        for (status, message, wanted) in [
            (401, "Bad credentials", Some(Code::CredentialsRefused)),
            (
                403,
                "This installation has been suspended",
                Some(Code::CredentialsRefused),
            ),
            (404, "Not Found", Some(Code::CredentialsRefused)),
            (
                422,
                "There is at least one repository that does not exist",
                Some(Code::RepositoryNotFound),
            ),
            (403, "You have exceeded a secondary rate limit", None),
            (429, "Too many requests", None),
            (500, "", None),
            (503, "Unavailable", None),
        ] {
            let found = match answered(status, message) {
                Problem::Final(reason) => Some(reason.code),
                _ => None,
            };
            assert_eq!(found, wanted, "{status} {message}");
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
