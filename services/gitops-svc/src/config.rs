//! The configuration of gitops-svc: typed, checked, unknown keys refused.

mod pull_requests;
mod remote;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use gitops_domain::layout::Layout;
use serde::Deserialize;
use slipway_model::BranchName;
use slipway_server::ConfigError;

pub(crate) use pull_requests::PullRequestsConfig;
pub(crate) use remote::{Credentials, SigningConfig, TOKEN_USER};

/// The whole file.
pub type Config = slipway_server::Config<Settings>;

/// The keys that are specific to this service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Mirrors and scratch space of this replica. Anything lost here is fetched again.
    pub data_dir: PathBuf,
    /// Renders folders, before they are committed and for RenderManifests.
    #[serde(default)]
    pub kustomize: RendererConfig,
    /// Renders charts before their values are committed.
    #[serde(default)]
    pub helm: RendererConfig,
    /// Author and committer of the commits, unless a repository has its own.
    #[serde(default)]
    pub author: Author,
    /// Commits are signed with this key, unless a repository has its own.
    #[serde(default)]
    pub signing: Option<SigningConfig>,
    /// A change that is not pushed after this time ends `ERRORED`.
    #[serde(default = "push_deadline", with = "slipway_model::duration")]
    pub push_deadline: Duration,
    /// The maximum number of changes that share one push.
    #[serde(default = "max_batch")]
    pub max_batch: usize,
    pub repositories: BTreeMap<String, RepositoryConfig>,
}

fn push_deadline() -> Duration {
    Duration::from_secs(600)
}

/// A batch is settled in one transaction; with larger batches the first changes wait longer.
fn max_batch() -> usize {
    100
}

/// `kustomize:` and `helm:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RendererConfig {
    /// The program, by its path or on PATH. If there is no kustomize 5, `kubectl kustomize` of version 5 is used instead.
    pub path: Option<PathBuf>,
    #[serde(with = "slipway_model::duration")]
    pub timeout: Duration,
    /// Larger manifests are refused.
    pub max_output_bytes: usize,
    /// A repository, or a chart, whose files are larger in total is not rendered.
    pub max_tree_bytes: u64,
    /// A repository, or a chart, with more files is not rendered.
    pub max_tree_files: usize,
}

impl Default for RendererConfig {
    fn default() -> Self {
        Self {
            path: None,
            timeout: Duration::from_secs(20),
            max_output_bytes: 16 << 20,
            max_tree_bytes: 256 << 20,
            max_tree_files: 50_000,
        }
    }
}

/// The author of the commits.
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
    pub url: String,
    /// The branch that is used when a request does not name one.
    #[serde(default = "main_branch")]
    pub branch: BranchName,
    #[serde(default)]
    pub credentials: Credentials,
    /// Authorities for an https remote's certificate, in PEM form; instead of those that this machine trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub author: Option<Author>,
    /// Signs the repository's commits, instead of the service's own `signing`.
    #[serde(default)]
    pub signing: Option<SigningConfig>,
    /// Whether a folder is rendered before a change of it is committed. A change whose folder does not render is
    /// refused.
    #[serde(default = "yes")]
    pub render_before_commit: bool,
    /// Changes that are made by pull request instead of by push.
    #[serde(default)]
    pub pull_requests: Option<PullRequestsConfig>,
    /// Where each environment's images of a service are.
    #[serde(default)]
    pub environments: Layout,
}

fn yes() -> bool {
    true
}

fn main_branch() -> BranchName {
    #[allow(clippy::unwrap_used)] // a constant
    "main".parse().unwrap()
}

impl Settings {
    /// What the single values do not show.
    ///
    /// # Errors
    /// Names the key and the remedy.
    pub(crate) fn check_values(&self) -> Result<(), ConfigError> {
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
        remote::check(self, &self.url).map_err(|(field, message)| ConfigError::invalid(key(&field), message))
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

#[cfg(test)]
mod tests {
    use slipway_server::config::parse;

    use super::Config;

    /// A configuration with this one repository.
    pub(crate) fn read(repository: &str) -> Result<Config, String> {
        let text = format!(
            "database: {{url: 'sqlite:///tmp/x.db'}}\ndata_dir: /tmp/x\nrepositories:\n  shop: {repository}\n"
        );
        let config: Config = parse("x.yaml", &text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn both_renderers_have_the_same_settings() {
        for name in ["kustomize", "helm"] {
            let read = |settings: &str| {
                parse::<Config>(
                    "x.yaml",
                    &format!(
                        "database: {{url: 'sqlite:///tmp/x.db'}}\ndata_dir: /tmp/x\nrepositories: {{a: {{url: /srv/a}}}}\n\
                         {name}: {settings}\n"
                    ),
                )
            };
            let config = read("{timeout: 1s, max_output_bytes: 1}").unwrap().settings;
            let [this, other] = match name {
                "kustomize" => [config.kustomize, config.helm],
                _ => [config.helm, config.kustomize],
            };
            assert_eq!(
                (this.path, this.timeout.as_secs(), this.max_output_bytes),
                (None, 1, 1)
            );
            assert_eq!((other.timeout.as_secs(), other.max_tree_files), (20, 50_000));
            let all =
                "{path: /opt/x, timeout: 1s, max_output_bytes: 1, max_tree_bytes: 1, max_tree_files: 1}";
            assert!(read(all).is_ok(), "{name}");
            let error = read("{program: /opt/x}").unwrap_err().to_string();
            assert!(error.contains("program"), "{error}");
        }
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        for (repository, key) in [
            (
                "{url: 'https://git.example/a/b.git', ca_file: /nowhere/ca.pem, credentials: {token_file: /nowhere/token}}",
                "repositories.shop.ca_file",
            ),
            (
                "{url: 'git@git.example:a/b.git', credentials: {ssh_key_file: /nowhere/key}}",
                "repositories.shop.credentials.ssh_key_file",
            ),
            (
                "{url: 'https://github.com/a/b', credentials: {github_app: {app_id: 7, private_key_file: /nowhere/key}}}",
                "repositories.shop.credentials.github_app.private_key_file",
            ),
            (
                "{url: /srv/shop.git, signing: {ssh_key_file: /nowhere/key}}",
                "repositories.shop.signing.ssh_key_file",
            ),
        ] {
            let error = read(repository).unwrap().check_files().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("/nowhere/"), "{error}");
        }
    }

    #[test]
    fn repositories_are_checked() {
        for good in [
            "{url: /srv/shop.git}",
            "{url: 'https://git.example/shop.git', credentials: {token_file: /run/token}, branch: prod}",
            "{url: 'git@git.example:shop.git', credentials: {ssh_key_file: /run/key, known_hosts_file: /run/hosts}}",
            "{url: 'https://git.example/shop.git', ca_file: /run/ca.pem, credentials: {token_file: /run/token, username: bot}}",
            "{url: 'https://github.com/acme/shop', credentials: {github_app: {app_id: 7, private_key_file: /run/key}}}",
            "{url: 'https://ghe.example/acme/shop.git', credentials: {github_app: {app_id: 7, installation_id: 1, private_key_file: /run/key, api_url: 'https://ghe.example/api/v3'}}}",
            "{url: /srv/shop.git, signing: {ssh_key_file: /run/key, passphrase_file: /run/passphrase}}",
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good).err());
        }
        for (bad, words) in [
            ("{}", "missing field `url`"),
            (
                "{url: 'https://bot:secret@git.example/shop.git'}",
                "must not contain",
            ),
            ("{url: 'ext::sh -c x'}", "is not a URL"),
            ("{url: 'ext::x'}", "write https://"),
            ("{url: --upload-pack=x}", "is not a URL"),
            (
                "{url: 'http://git.example/x', credentials: {token_file: /run/token}}",
                "must not be sent in plain text",
            ),
            (
                "{url: /srv/x, credentials: {ssh_key_file: /run/key}}",
                "requires an ssh url",
            ),
            (
                "{url: 'git@x:y', credentials: {ssh_key_file: '/run/a b'}}",
                "shell",
            ),
            (
                "{url: /srv/x, ca_file: /run/ca.pem}",
                "ca_file: requires an https",
            ),
            (
                "{url: 'https://x/y', credentials: {token_file: /run/token, username: 'a:b'}}",
                "credentials.username",
            ),
            (
                "{url: 'git@github.com:acme/shop', credentials: {github_app: {app_id: 7, private_key_file: /run/key}}}",
                "credentials.github_app: requires an https",
            ),
            (
                "{url: 'https://github.com/shop', credentials: {github_app: {app_id: 7, private_key_file: /run/key}}}",
                "https://HOST/OWNER/REPOSITORY",
            ),
            (
                "{url: 'https://github.com/a/b', credentials: {github_app: {app_id: 0, private_key_file: /run/key}}}",
                "github_app.app_id",
            ),
            (
                "{url: 'https://github.com/a/b', credentials: {github_app: {app_id: 7, private_key_file: /run/key, api_url: 'http://api.example'}}}",
                "github_app.api_url: write https",
            ),
            (
                "{url: 'https://x/y', credentials: {token_file: /run/token, ssh_key_file: /run/key}}",
                "or github_app",
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
}
