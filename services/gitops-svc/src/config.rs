//! The configuration of gitops-svc: typed, checked, unknown keys refused.

mod pull_requests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use slipway_model::BranchName;
use slipway_server::{BusConfig, ConfigError, DatabaseConfig, ServerConfig, ServiceConfig};
use slipway_telemetry::TelemetryConfig;

use crate::{
    credentials::{self, GithubRepository},
    layout::Layout,
};

pub use pull_requests::PullRequestsConfig;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    #[serde(default)]
    pub bus: BusConfig,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Mirrors and scratch space of this replica. What is lost here is fetched again.
    pub data_dir: PathBuf,
    #[serde(default)]
    pub kustomize: KustomizeConfig,
    /// Author and committer of the commits, unless a repository has its own.
    #[serde(default)]
    pub author: Author,
    /// Commits are signed with this key, unless a repository has its own.
    #[serde(default)]
    pub signing: Option<SigningConfig>,
    /// A change that is not pushed after this time ends `ERRORED`.
    #[serde(default = "push_deadline", with = "slipway_server::config::duration")]
    pub push_deadline: Duration,
    /// Changes that share one push at most.
    #[serde(default = "max_batch")]
    pub max_batch: usize,
    pub repositories: BTreeMap<String, RepositoryConfig>,
}

fn push_deadline() -> Duration {
    Duration::from_secs(600)
}

/// A batch is settled in one transaction; beyond this the wait for the first of them grows.
fn max_batch() -> usize {
    100
}

/// `kustomize:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KustomizeConfig {
    /// kustomize 5, by its path or on PATH. Where there is none, `kubectl kustomize` of version 5 takes its place.
    pub path: PathBuf,
    #[serde(with = "slipway_server::config::duration")]
    pub timeout: Duration,
    /// Manifests beyond this are refused.
    pub max_output_bytes: usize,
    /// A repository whose files are larger together is not rendered.
    pub max_tree_bytes: u64,
    /// A repository with more files is not rendered.
    pub max_tree_files: usize,
}

impl Default for KustomizeConfig {
    fn default() -> Self {
        Self {
            path: "kustomize".into(),
            timeout: Duration::from_secs(20),
            max_output_bytes: 16 << 20,
            max_tree_bytes: 256 << 20,
            max_tree_files: 50_000,
        }
    }
}

/// Who the commits are by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Author {
    pub name: String,
    pub email: String,
}

impl Default for Author {
    fn default() -> Self {
        Self {
            name: "Slipway".to_owned(),
            email: "slipway@localhost".to_owned(),
        }
    }
}

/// One of `repositories:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// `https://…`, `ssh://…`, `user@host:path`, or the path of a local repository. Without credentials.
    #[serde(default)]
    pub url: Option<String>,
    /// The branch that is meant when a request names none.
    #[serde(default = "main_branch")]
    pub branch: BranchName,
    #[serde(default)]
    pub credentials: Credentials,
    /// Whom an https remote's certificate must be from, in PEM form; instead of those that this machine trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub author: Option<Author>,
    /// Signs the repository's commits, instead of the service's own `signing`.
    #[serde(default)]
    pub signing: Option<SigningConfig>,
    /// Changes that go by pull request instead of by push.
    #[serde(default)]
    pub pull_requests: Option<PullRequestsConfig>,
    /// Where each environment's images of a service stand.
    #[serde(default)]
    pub environments: Layout,
    /// For benchmarks of what is around it: changes are answered at once and nothing is written.
    #[serde(default)]
    pub pretend: bool,
}

fn main_branch() -> BranchName {
    #[allow(clippy::unwrap_used)] // a constant
    "main".parse().unwrap()
}

/// How the remote knows us.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CredentialsConfig")]
pub enum Credentials {
    #[default]
    None,
    /// For https: the file holds a token or password, and is read again for each use.
    Token { username: String, token_file: PathBuf },
    /// For ssh.
    SshKey {
        key_file: PathBuf,
        known_hosts_file: Option<PathBuf>,
    },
    /// For https: an installation of the App gives the tokens.
    GithubApp(GithubApp),
}

/// `github_app:`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GithubApp {
    pub app_id: u64,
    /// The App's installation on the repository's owner; looked up when it is not given.
    #[serde(default)]
    pub installation_id: Option<u64>,
    /// The App's RSA key in PEM form.
    pub private_key_file: PathBuf,
    /// Where the API is when it is not where GitHub has it: `https://…`, or http on this machine.
    #[serde(default)]
    pub api_url: Option<String>,
}

/// `signing:`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningConfig {
    /// An ed25519, ECDSA P-256 or RSA private key in OpenSSH's form.
    pub ssh_key_file: PathBuf,
    /// The key's passphrase, when it has one.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
}

/// `credentials:` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialsConfig {
    token_file: Option<PathBuf>,
    /// Goes with the token; hosts that look only at the token take anything.
    username: Option<String>,
    ssh_key_file: Option<PathBuf>,
    known_hosts_file: Option<PathBuf>,
    github_app: Option<GithubApp>,
}

impl TryFrom<CredentialsConfig> for Credentials {
    type Error = &'static str;
    fn try_from(config: CredentialsConfig) -> Result<Self, Self::Error> {
        match config {
            CredentialsConfig {
                token_file: Some(token_file),
                username,
                ssh_key_file: None,
                known_hosts_file: None,
                github_app: None,
            } => Ok(Self::Token {
                username: username.unwrap_or_else(|| credentials::TOKEN_USER.to_owned()),
                token_file,
            }),
            CredentialsConfig {
                token_file: None,
                username: None,
                ssh_key_file: Some(key_file),
                known_hosts_file,
                github_app: None,
            } => Ok(Self::SshKey {
                key_file,
                known_hosts_file,
            }),
            CredentialsConfig {
                token_file: None,
                username: None,
                ssh_key_file: None,
                known_hosts_file: None,
                github_app: Some(app),
            } => Ok(Self::GithubApp(app)),
            _ => Err("give token_file (and username), or ssh_key_file (and known_hosts_file), or github_app"),
        }
    }
}

impl ServiceConfig for Config {
    fn server(&self) -> &ServerConfig {
        &self.server
    }

    fn bus(&self) -> &BusConfig {
        &self.bus
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.data_dir.is_absolute() {
            return Err(ConfigError::invalid("data_dir", "must be an absolute path"));
        }
        if self.max_batch == 0 || self.push_deadline.is_zero() {
            return Err(ConfigError::invalid(
                "max_batch",
                "and push_deadline must be more than 0",
            ));
        }
        check_author("author", &self.author)?;
        if self.repositories.is_empty() {
            return Err(ConfigError::invalid("repositories", "needs at least one"));
        }
        for (name, repository) in &self.repositories {
            repository.check(name)?;
        }
        Ok(())
    }
}

impl RepositoryConfig {
    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let key = |field: &str| format!("repositories.{name}.{field}");
        if name.parse::<slipway_model::Name>().is_err() {
            return Err(ConfigError::invalid(
                format!("repositories.{name}"),
                "use a-z, 0-9 and - for the name: it becomes a folder",
            ));
        }
        if let Some(author) = &self.author {
            check_author(&key("author"), author)?;
        }
        if let Some(pull_requests) = &self.pull_requests {
            pull_requests.check(name, self)?;
        }
        self.environments.check().map_err(|(environment, error)| {
            ConfigError::invalid(key(&format!("environments.{environment}")), error.to_string())
        })?;
        let Some(url) = &self.url else {
            return if self.pretend {
                Ok(())
            } else {
                Err(ConfigError::invalid(key("url"), "is required"))
            };
        };
        let transport = transport(url).map_err(|message| ConfigError::invalid(key("url"), message))?;
        match (&self.credentials, transport) {
            (Credentials::Token { username, .. }, _)
                if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) =>
            {
                return Err(ConfigError::invalid(
                    key("credentials.username"),
                    "must be one word without a colon",
                ));
            }
            (Credentials::GithubApp(app), Transport::Https) => {
                check_github_app(app, url).map_err(|(field, message)| {
                    ConfigError::invalid(key(&format!("credentials.github_app{field}")), message)
                })?
            }
            (Credentials::GithubApp(_), _) => {
                return Err(ConfigError::invalid(
                    key("credentials.github_app"),
                    "goes with an https:// url; a token must not travel readable",
                ));
            }
            (Credentials::None, _)
            | (Credentials::Token { .. }, Transport::Https)
            | (Credentials::SshKey { .. }, Transport::Ssh) => {}
            (Credentials::Token { .. }, _) => {
                return Err(ConfigError::invalid(
                    key("credentials.token_file"),
                    "goes with an https:// url; a token must not travel readable",
                ));
            }
            (Credentials::SshKey { .. }, _) => {
                return Err(ConfigError::invalid(
                    key("credentials.ssh_key_file"),
                    "goes with an ssh url",
                ));
            }
        }
        if let Credentials::SshKey {
            key_file,
            known_hosts_file,
        } = &self.credentials
        {
            for path in [Some(key_file), known_hosts_file.as_ref()].into_iter().flatten() {
                if !is_shell_safe(path) {
                    return Err(ConfigError::invalid(
                        key("credentials"),
                        "ssh files need absolute paths of letters, digits, / . _ and -, since git gives them to a shell",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The field at fault, and what is wrong with it.
fn check_github_app(app: &GithubApp, url: &str) -> Result<(), (&'static str, &'static str)> {
    if GithubRepository::of(url).is_none() {
        return Err(("", "goes with a url of the form https://HOST/OWNER/REPOSITORY"));
    }
    if app.app_id == 0 {
        return Err((".app_id", "is the number on the App's page"));
    }
    let Some(api_url) = &app.api_url else {
        return Ok(());
    };
    let parsed = url::Url::parse(api_url).map_err(|_| (".api_url", "is not a URL"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err((".api_url", "must not hold a user or password"));
    }
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&parsed) => Ok(()),
        _ => Err((
            ".api_url",
            "write https://…; over http a token would travel readable",
        )),
    }
}

/// Whether it stays on this machine.
fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn check_author(key: &str, author: &Author) -> Result<(), ConfigError> {
    let bad = |text: &str| {
        text.trim().is_empty()
            || text.len() > 200
            || text.contains(['<', '>'])
            || text.contains(char::is_control)
    };
    if bad(&author.name) || bad(&author.email) {
        return Err(ConfigError::invalid(
            key,
            "name and email are needed, one line each, without < and >",
        ));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Local,
    Http,
    Https,
    Ssh,
}

/// How git reaches a URL. Helpers such as `ext::` run programs and are refused, as is a URL that holds a secret.
fn transport(url: &str) -> Result<Transport, &'static str> {
    if url.is_empty()
        || url.starts_with('-')
        || url.contains(char::is_control)
        || url.contains(char::is_whitespace)
    {
        return Err("is not a URL");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        // user@host:path, unless a slash comes before the colon.
        return match url.split_once(':') {
            _ if url.starts_with('/') => Ok(Transport::Local),
            Some((host, path)) if !host.contains('/') && !path.starts_with(':') && host.contains('@') => {
                Ok(Transport::Ssh)
            }
            _ => Err("write https://…, ssh://…, user@host:path or the absolute path of a local repository"),
        };
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    match scheme {
        "file" => Ok(Transport::Local),
        "ssh" if user.is_some_and(|user| user.contains(':')) => Err("must not hold a password"),
        "ssh" => Ok(Transport::Ssh),
        "https" | "http" if user.is_some() => {
            Err("must not hold a user or password; use credentials.token_file")
        }
        "https" => Ok(Transport::Https),
        "http" => Ok(Transport::Http),
        _ => Err("write https://…, ssh://…, user@host:path or the absolute path of a local repository"),
    }
}

fn is_shell_safe(path: &Path) -> bool {
    path.is_absolute()
        && path.to_str().is_some_and(|path| {
            path.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use slipway_server::{ServiceConfig, config::parse};

    use super::{Config, Transport, transport};

    fn read(repository: &str) -> Result<Config, String> {
        let text = format!(
            "database: {{url: 'sqlite:///tmp/x.db'}}\ndata_dir: /tmp/x\nrepositories:\n  shop: {repository}\n"
        );
        let config: Config = parse("x.yaml", &text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn repositories_are_checked() {
        for good in [
            "{url: /srv/shop.git}",
            "{url: 'https://git.example/shop.git', credentials: {token_file: /run/token}, branch: prod}",
            "{url: 'git@git.example:shop.git', credentials: {ssh_key_file: /run/key, known_hosts_file: /run/hosts}}",
            "{pretend: true}",
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good).err());
        }
        for (bad, words) in [
            ("{}", "repositories.shop.url: is required"),
            (
                "{url: 'https://bot:secret@git.example/shop.git'}",
                "must not hold",
            ),
            ("{url: 'ext::sh -c x'}", "is not a URL"),
            ("{url: 'ext::x'}", "write https://"),
            ("{url: --upload-pack=x}", "is not a URL"),
            (
                "{url: 'http://git.example/x', credentials: {token_file: /run/token}}",
                "must not travel readable",
            ),
            (
                "{url: /srv/x, credentials: {ssh_key_file: /run/key}}",
                "goes with an ssh url",
            ),
            (
                "{url: 'git@x:y', credentials: {ssh_key_file: '/run/a b'}}",
                "shell",
            ),
            ("{url: /srv/x, credentials: {token: abc}}", "token"),
            ("{url: /srv/x, brunch: main}", "brunch"),
            ("{url: /srv/x, author: {name: 'a <b>', email: c}}", "author"),
        ] {
            let error = read(bad).expect_err(bad);
            assert!(error.contains(words), "{bad}: {error}");
            assert!(!error.contains("secret") && !error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn urls_say_how_they_are_reached() {
        for (url, wanted) in [
            ("/srv/x.git", Transport::Local),
            ("file:///srv/x.git", Transport::Local),
            ("https://h/x", Transport::Https),
            ("http://h/x", Transport::Http),
            ("ssh://git@h/x", Transport::Ssh),
            ("git@h:x/y.git", Transport::Ssh),
        ] {
            assert_eq!(transport(url), Ok(wanted), "{url}");
        }
        assert!(transport("relative/path").is_err());
    }
}
