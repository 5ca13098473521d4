//! Installation tokens of a GitHub App: asked for by octocrab, kept until shortly before they expire.

use std::{path::Path, time::Duration};

use octocrab::{
    Octocrab,
    auth::EncodingKey,
    models::{AppId, InstallationId},
};
use secrecy::{ExposeSecret as _, SecretString};
use slipway_model::{Fault, Reason};

use super::{read, unusable};
use crate::{change::Code, config::GithubApp, repository::words};

/// A token that expires sooner is not used any more: one exchange with the remote, which may take two minutes, must
/// come to its end with it.
const MIN_TOKEN_LIFE: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// GitHub's API answers within this time, or is asked again later.
const API_TIMEOUT: Duration = Duration::from_secs(30);

/// A GitHub App's installation on one repository.
pub(super) struct App {
    config: GithubApp,
    /// The configuration was checked: there is one.
    repository: Option<GithubRepository>,
    /// The client, and within it the token as long as it is good. Held while a token is asked for, so that many
    /// waiting uses ask once.
    installation: tokio::sync::Mutex<Option<Octocrab>>,
}

impl App {
    pub(super) fn new(config: &GithubApp, url: &str) -> Self {
        Self {
            config: config.clone(),
            repository: GithubRepository::of(url),
            installation: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn private_key_file(&self) -> &Path {
        &self.config.private_key_file
    }

    /// The App's key as its file holds it now. The error reads on from the file's name.
    pub(super) fn key(&self) -> Result<EncodingKey, String> {
        let pem = read(&self.config.private_key_file)?;
        EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes())
            .map_err(|_| "is not an RSA private key in PEM form, as GitHub gives it for an App".to_owned())
    }

    /// Forgets the token; says whether there was one.
    pub(super) async fn forget(&self) -> bool {
        self.installation.lock().await.take().is_some()
    }

    /// See [`super::Access::token`].
    pub(super) async fn token(&self) -> Result<SecretString, Fault<Reason>> {
        let mut known = self.installation.lock().await;
        if let Some(installation) = &*known {
            match within(installation.installation_token_with_buffer(MIN_TOKEN_LIFE)).await {
                Ok(token) => return Ok(token),
                Err(fault @ Fault::Transient { .. }) => return Err(fault),
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
    async fn connect(&self) -> Result<Octocrab, Fault<Reason>> {
        let Some(repository) = &self.repository else {
            return Err(unusable(
                "the repository's url names no owner and repository of GitHub".to_owned(),
            ));
        };
        let key = self.key().map_err(|problem| {
            unusable(format!(
                "the repository's credentials.github_app.private_key_file {problem}"
            ))
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

async fn within<T>(asked: impl Future<Output = octocrab::Result<T>>) -> Result<T, Fault<Reason>> {
    match tokio::time::timeout(API_TIMEOUT, asked).await {
        Ok(result) => result.map_err(|error| github(&error)),
        Err(_) => Err(Fault::unavailable(
            Code::RemoteUnreachable,
            format!("GitHub's API did not answer within {API_TIMEOUT:?}"),
        )),
    }
}

/// What GitHub's answer to an App means.
fn github(error: &octocrab::Error) -> Fault<Reason> {
    let octocrab::Error::GitHub { source, .. } = error else {
        // The error and its causes, but not the place in the code that it comes with.
        let mut text = String::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        return Fault::unavailable(
            Code::RemoteUnreachable,
            format!("GitHub's API cannot be reached: {}", words(&text)),
        );
    };
    let status = source.status_code.as_u16();
    answered(status, &source.message)
}

/// By status, as GitHub documents them for `/app/installations/{id}/access_tokens` and `/repos/…/installation`.
fn answered(status: u16, message: &str) -> Fault<Reason> {
    let told = |text: &str| format!("{text}; GitHub says: {status} {}", words(message));
    match status {
        401 => Fault::refused(
            Code::CredentialsRefused,
            told("GitHub does not know the App: check app_id and private_key_file of credentials.github_app"),
        ),
        403 if message.to_lowercase().contains("rate limit") => {
            Fault::unavailable(Code::RemoteUnreachable, told("GitHub's limit is reached"))
        }
        403 => Fault::refused(
            Code::CredentialsRefused,
            told("the App's installation may not be used: it may be suspended"),
        ),
        404 => Fault::refused(
            Code::CredentialsRefused,
            told("the App is not installed on the repository: install it, or check installation_id"),
        ),
        422 => Fault::refused(
            Code::RepositoryNotFound,
            told("the App's installation does not cover the repository"),
        ),
        _ => Fault::unavailable(Code::RemoteUnreachable, told("GitHub's API cannot answer")),
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
    use super::{GithubRepository, answered};
    use slipway_model::Fault;

    use crate::change::Code;

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
                Fault::Permanent(reason) => Some(reason.code),
                _ => None,
            };
            assert_eq!(found, wanted.map(String::from), "{status} {message}");
        }
    }
}
