//! How a repository's remote is reached, how we authenticate to it, and how others recognise our commits.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use slipway_github::Address;

use super::RepositoryConfig;

/// The user name that GitHub documents for an App's token; other hosts accept it as well.
pub(crate) const TOKEN_USER: &str = "x-access-token";

/// How we authenticate to the remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CredentialsConfig")]
pub enum Credentials {
    #[default]
    None,
    /// For https: the file contains a token or password, and is read again for each use.
    Token { username: String, token_file: PathBuf },
    /// For ssh.
    SshKey {
        key_file: PathBuf,
        known_hosts_file: Option<PathBuf>,
    },
    /// For https: an installation of the App supplies the tokens.
    GithubApp(GithubApp),
}

/// `github_app:`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GithubApp {
    pub app_id: u64,
    /// The App's installation on the repository's owner; looked up if it is not given.
    #[serde(default)]
    pub installation_id: Option<u64>,
    /// The App's RSA key in PEM form.
    pub private_key_file: PathBuf,
    /// The API's address if it is not GitHub's default: `https://…`, or http on this machine.
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
    /// Sent with the token; hosts that only check the token accept anything.
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
                username: username.unwrap_or_else(|| TOKEN_USER.to_owned()),
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

/// The field at fault, and what is wrong with it.
type Wrong = (String, &'static str);

/// Whether the URL, the credentials and related settings fit together.
pub(super) fn check(config: &RepositoryConfig, url: &str) -> Result<(), Wrong> {
    let wrong = |field: &str, message: &'static str| Err((field.to_owned(), message));
    let transport = transport(url).map_err(|message| ("url".to_owned(), message))?;
    if config.ca_file.is_some() && transport != Transport::Https {
        return wrong("ca_file", "requires an https:// url");
    }
    match (&config.credentials, transport) {
        (Credentials::Token { username, .. }, _)
            if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) =>
        {
            wrong("credentials.username", "must be one word without a colon")
        }
        (Credentials::GithubApp(app), Transport::Https) => check_github_app(app, url)
            .map_err(|(field, message)| (format!("credentials.github_app{field}"), message)),
        (Credentials::GithubApp(_), _) => wrong(
            "credentials.github_app",
            "requires an https:// url; a token must not be sent in plain text",
        ),
        (Credentials::None, _) | (Credentials::Token { .. }, Transport::Https) => Ok(()),
        (Credentials::Token { .. }, _) => wrong(
            "credentials.token_file",
            "requires an https:// url; a token must not be sent in plain text",
        ),
        (
            Credentials::SshKey {
                key_file,
                known_hosts_file,
            },
            Transport::Ssh,
        ) => {
            let mut files = [Some(key_file), known_hosts_file.as_ref()].into_iter().flatten();
            if files.all(|path| is_shell_safe(path)) {
                Ok(())
            } else {
                wrong(
                    "credentials",
                    "ssh files need absolute paths of letters, digits, / . _ and -, since git gives them to a shell",
                )
            }
        }
        (Credentials::SshKey { .. }, _) => wrong("credentials.ssh_key_file", "requires an ssh url"),
    }
}

/// The field at fault, below `github_app`, and what is wrong with it.
fn check_github_app(app: &GithubApp, url: &str) -> Result<(), (&'static str, &'static str)> {
    if Address::of(url).is_none() {
        return Err(("", "requires a url of the form https://HOST/OWNER/REPOSITORY"));
    }
    if app.app_id == 0 {
        return Err((".app_id", "is the number on the App's page"));
    }
    let Some(api_url) = &app.api_url else {
        return Ok(());
    };
    let parsed = url::Url::parse(api_url).map_err(|_| (".api_url", "is not a URL"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err((".api_url", "must not contain a user or password"));
    }
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&parsed) => Ok(()),
        _ => Err((
            ".api_url",
            "write https://…; over http a token would be sent in plain text",
        )),
    }
}

/// Whether it stays on this machine.
pub(super) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Local,
    Http,
    Https,
    Ssh,
}

/// How git reaches a URL. Helpers such as `ext::` run programs and are refused, as is a URL that contains a secret.
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
        "ssh" if user.is_some_and(|user| user.contains(':')) => Err("must not contain a password"),
        "ssh" => Ok(Transport::Ssh),
        "https" | "http" if user.is_some() => {
            Err("must not contain a user or password; use credentials.token_file")
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
    use super::{Transport, transport};

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
