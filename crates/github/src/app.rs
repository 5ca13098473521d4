//! Installation tokens of a GitHub App: requested through octocrab, kept until shortly before they expire.

use std::{fmt, time::Duration};

use octocrab::{
    Octocrab,
    auth::EncodingKey,
    models::{AppId, InstallationId},
};
use secrecy::{ExposeSecret as _, SecretString};
use slipway_model::{Fault, Reason};

use crate::{Address, Error, ErrorKind, error::paragraph};

/// A token that expires sooner is not used any more: an exchange with the remote, which may take two minutes, must be
/// able to finish with it.
const MIN_TOKEN_LIFE: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// GitHub's API must answer within this time; otherwise it is asked again later.
const API_TIMEOUT: Duration = Duration::from_secs(30);

/// An App, and where its API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSettings {
    pub app_id: u64,
    /// The App's installation on the repository's owner; looked up where it is not given.
    pub installation_id: Option<u64>,
    /// Where the API is, if not where the repository's address implies.
    pub api_url: Option<String>,
}

/// An App's private key.
pub struct AppKey(EncodingKey);

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey").finish_non_exhaustive()
    }
}

impl AppKey {
    /// Reads it from its PEM form; `None` if that is not an RSA private key, which is what GitHub issues for an App.
    pub fn from_pem(pem: &SecretString) -> Option<Self> {
        EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes())
            .ok()
            .map(Self)
    }
}

/// A GitHub App's installation on one repository.
pub struct App {
    settings: AppSettings,
    repository: Address,
    /// The client, which keeps the token while it is valid. Locked while a token is requested, so that many waiting
    /// uses ask once.
    installation: tokio::sync::Mutex<Option<Octocrab>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.settings)
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

impl App {
    pub fn new(settings: AppSettings, repository: Address) -> Self {
        Self {
            settings,
            repository,
            installation: tokio::sync::Mutex::default(),
        }
    }

    /// Forgets the token; returns whether there was one.
    pub async fn forget(&self) -> bool {
        self.installation.lock().await.take().is_some()
    }

    /// A token that is valid for this repository only, and for at least some minutes. `key` reads the App's key, if a
    /// client has to be created.
    ///
    /// Those of `key`, as [`ErrorKind::NoCredentials`]; GitHub's error when it does not issue a token.
    /// Those of `key`, as [`ErrorKind::NoCredentials`]; what GitHub says when it gives no token.
    pub async fn token(
        &self,
        key: impl FnOnce() -> Result<AppKey, Reason> + Send,
    ) -> Result<SecretString, Fault<Error>> {
        let mut known = self.installation.lock().await;
        if let Some(installation) = &*known {
            match within(installation.installation_token_with_buffer(MIN_TOKEN_LIFE)).await {
                Ok(token) => return Ok(token),
                Err(fault @ Fault::Transient { .. }) => return Err(fault),
                // The key or installation has changed since; everything is looked up again.
                Err(_) => *known = None,
            }
        }
        // The file may be about to be replaced.
        let key = key().map_err(|reason| Fault::transient(Error::no_credentials(reason)))?;
        let installation = self.connect(key).await?;
        let token = within(installation.installation_token_with_buffer(MIN_TOKEN_LIFE)).await?;
        *known = Some(installation);
        Ok(token)
    }

    /// A client whose tokens are valid for this repository only.
    async fn connect(&self, AppKey(key): AppKey) -> Result<Octocrab, Fault<Error>> {
        let Address { owner, name, api_url } = &self.repository;
        let api_url = self.settings.api_url.as_deref().unwrap_or(api_url);
        let app = Octocrab::builder()
            .base_uri(api_url)
            .map_err(|error| meaning(&error))?
            .set_connect_timeout(Some(API_TIMEOUT))
            .set_read_timeout(Some(API_TIMEOUT))
            .app(AppId(self.settings.app_id), key)
            .build()
            .map_err(|error| meaning(&error))?;
        let id = match self.settings.installation_id {
            Some(id) => InstallationId(id),
            None => {
                let route = format!("/repos/{owner}/{name}/installation");
                within(app.get::<Installation, _, _>(route, None::<&()>))
                    .await?
                    .id
            }
        };
        app.installation_builder(id)
            .repositories(vec![name.clone()])
            .build()
            .map_err(|error| meaning(&error))
    }
}

/// The parts of GitHub's response that are needed; octocrab's own type insists on the account of a person or
/// organisation.
#[derive(serde::Deserialize)]
struct Installation {
    id: InstallationId,
}

async fn within<T>(asked: impl Future<Output = octocrab::Result<T>>) -> Result<T, Fault<Error>> {
    match tokio::time::timeout(API_TIMEOUT, asked).await {
        Ok(result) => result.map_err(|error| meaning(&error)),
        Err(_) => Err(Error::unreachable(format!(
            "GitHub's API did not answer within {} s",
            API_TIMEOUT.as_secs()
        ))),
    }
}

/// What GitHub's response to an App means.
fn meaning(error: &octocrab::Error) -> Fault<Error> {
    match error {
        octocrab::Error::GitHub { source, .. } => answered(source.status_code.as_u16(), &source.message),
        error => Error::of(error),
    }
}

/// By status, as GitHub documents them for `/app/installations/{id}/access_tokens` and `/repos/…/installation`.
fn answered(status: u16, message: &str) -> Fault<Error> {
    let error = |kind, text: &str| Error {
        kind,
        status,
        message: format!("{text} (GitHub says: {status} {})", paragraph(message)),
    };
    match status {
        401 => Fault::Permanent(error(ErrorKind::Unauthorized, "GitHub does not know the App")),
        403 if message.to_lowercase().contains("rate limit") => {
            Fault::transient(error(ErrorKind::Unreachable, "GitHub's rate limit is reached"))
        }
        403 => Fault::Permanent(error(
            ErrorKind::Forbidden,
            "the App's installation may not be used, and may be suspended",
        )),
        404 => Fault::Permanent(error(
            ErrorKind::NotFound,
            "the App is not installed on the repository",
        )),
        422 => Fault::Permanent(error(
            ErrorKind::NotCovered,
            "the App's installation does not cover the repository",
        )),
        _ => Fault::transient(error(ErrorKind::Unreachable, "GitHub's API cannot answer")),
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::Fault;

    use super::answered;
    use crate::ErrorKind;

    #[test]
    fn answers_to_an_app_are_final_or_passing() {
        for (status, message, wanted) in [
            (401, "Bad credentials", Some(ErrorKind::Unauthorized)),
            (
                403,
                "This installation has been suspended",
                Some(ErrorKind::Forbidden),
            ),
            (404, "Not Found", Some(ErrorKind::NotFound)),
            (
                422,
                "There is at least one repository that does not exist",
                Some(ErrorKind::NotCovered),
            ),
            (403, "You have exceeded a secondary rate limit", None),
            (429, "Too many requests", None),
            (500, "", None),
            (503, "Unavailable", None),
        ] {
            let found = match answered(status, message) {
                Fault::Permanent(error) => Some(error.kind),
                _ => None,
            };
            assert_eq!(found, wanted, "{status} {message}");
        }
    }
}
