//! `pull_requests:` of a repository.

use std::{path::PathBuf, time::Duration};

use gitops_domain::pull_request::{Method, Policy};
use serde::Deserialize;
use slipway_github::Address;
use slipway_model::Name;
use slipway_server::ConfigError;

use super::{Credentials, RepositoryConfig, remote::is_loopback};

/// GitHub's default API.
const API_URL: &str = "https://api.github.com";
/// GitHub does not accept longer labels, logins or teams.
const MAX_NAME: usize = 100;

/// Changes that are made by pull requests at GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequestsConfig {
    /// `OWNER/REPOSITORY`, if the repository's url does not say it.
    #[serde(default)]
    pub github: Option<String>,
    /// The API's address if it is not GitHub's default: `https://HOST/api/v3`, or http on this machine.
    #[serde(default)]
    pub api_url: Option<String>,
    /// A file with a token for the API, if the repository's credentials have none: with ssh.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Changes of these are made by pull request, all others only on request. Empty means all.
    #[serde(default)]
    pub environments: Vec<Name>,
    #[serde(default)]
    pub labels: Vec<String>,
    /// Logins of people whose review is requested.
    #[serde(default)]
    pub reviewers: Vec<String>,
    /// Teams of the owner, by their short names.
    #[serde(default)]
    pub team_reviewers: Vec<String>,
    /// How to merge as soon as the branch's rules allow; if absent, people merge.
    #[serde(default)]
    pub auto_merge: Option<Method>,
    /// Whether to delete the pull request's branch when it is merged or closed.
    #[serde(default = "yes")]
    pub delete_branch: bool,
    /// The time between checks.
    #[serde(default = "poll", with = "slipway_model::duration")]
    pub poll: Duration,
    /// A pull request that is not merged after this time is closed, and its change ends `ERRORED`.
    #[serde(default = "deadline", with = "slipway_model::duration")]
    pub deadline: Duration,
}

fn yes() -> bool {
    true
}

fn poll() -> Duration {
    Duration::from_secs(15)
}

/// A week.
fn deadline() -> Duration {
    Duration::from_secs(7 * 24 * 3600)
}

impl PullRequestsConfig {
    /// Which changes are made by pull request, and how long they may take.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            environments: self.environments.clone(),
            deadline: self.deadline,
        }
    }

    /// The repository's location at GitHub; `None` if neither `github` nor the repository's url says it.
    pub(crate) fn address(&self, url: &str) -> Option<Address> {
        let mut address = match &self.github {
            Some(text) => {
                let (owner, name) = text.split_once('/')?;
                (is_word(owner) && is_word(name)).then(|| Address {
                    owner: owner.to_owned(),
                    name: name.to_owned(),
                    api_url: API_URL.to_owned(),
                })?
            }
            None => Address::of(url)?,
        };
        if let Some(api_url) = &self.api_url {
            address.api_url.clone_from(api_url);
        }
        address
            .api_url
            .truncate(address.api_url.trim_end_matches('/').len());
        Some(address)
    }

    pub(super) fn check(&self, name: &str, repository: &RepositoryConfig) -> Result<(), ConfigError> {
        let bad = |field: &str, message: &str| {
            let dot = if field.is_empty() { "" } else { "." };
            let key = format!("repositories.{name}.pull_requests{dot}{field}");
            Err(ConfigError::invalid(key, message))
        };
        let url = repository.url.as_str();
        let Some(address) = self.address(url) else {
            return bad(
                "github",
                "write OWNER/REPOSITORY, or give the repository a url of the form https://HOST/OWNER/REPOSITORY",
            );
        };
        let here = url::Url::parse(&address.api_url).ok().filter(|url| {
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.has_host()
        });
        match here {
            Some(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => {}
            _ => {
                return bad(
                    "api_url",
                    "write https://HOST/PATH without user and password; over http a token would be sent in plain text",
                );
            }
        }
        match (&self.token_file, &repository.credentials) {
            (Some(path), _) if !path.is_absolute() => return bad("token_file", "must be an absolute path"),
            (Some(_), _) | (None, Credentials::Token { .. } | Credentials::GithubApp(_)) => {}
            (None, Credentials::None | Credentials::SshKey { .. }) => {
                return bad(
                    "token_file",
                    "is required where the repository's credentials have no token: GitHub's API needs one",
                );
            }
        }
        for (field, names) in [
            ("labels", &self.labels),
            ("reviewers", &self.reviewers),
            ("team_reviewers", &self.team_reviewers),
        ] {
            let unfit = |text: &String| {
                text.trim().is_empty() || text.len() > MAX_NAME || text.contains(char::is_control)
            };
            if names.len() > 15 || names.iter().any(unfit) {
                return bad(field, "give up to 15, each a short line");
            }
        }
        if self.poll.is_zero() || self.deadline < self.poll {
            return bad("deadline", "must be longer than poll, and poll more than 0");
        }
        Ok(())
    }
}

/// A part of a path that needs no quoting.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use crate::config::tests::read;

    #[test]
    fn pull_requests_need_a_repository_at_github_and_a_token() {
        for good in [
            "{url: 'https://github.com/acme/shop', credentials: {token_file: /run/token}, pull_requests: {}}",
            "{url: 'git@github.com:acme/shop', pull_requests: {github: acme/shop, token_file: /run/token, auto_merge: squash, poll: 5s, deadline: 48h}}",
            "{url: /srv/x.git, pull_requests: {github: acme/shop, api_url: 'http://127.0.0.1:81', token_file: /run/token, environments: [prod]}}",
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good).err());
        }
        for (bad, words) in [
            (
                "{url: /srv/x.git, pull_requests: {token_file: /run/token}}",
                "pull_requests.github",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: a/b/c, token_file: /run/token}}",
                "pull_requests.github",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop}}",
                "pull_requests.token_file",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop, token_file: token}}",
                "absolute",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop, token_file: /run/token, api_url: 'http://ghe.example'}}",
                "pull_requests.api_url",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop, token_file: /run/token, api_url: 'https://u:p@ghe.example'}}",
                "pull_requests.api_url",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop, token_file: /run/token, auto_merge: yes}}",
                "auto_merge",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop, token_file: /run/token, labels: ['']}}",
                "pull_requests.labels",
            ),
            (
                "{url: /srv/x.git, pull_requests: {github: acme/shop, token_file: /run/token, deadline: 1s}}",
                "pull_requests.deadline",
            ),
        ] {
            let error = read(bad).expect_err(bad);
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
