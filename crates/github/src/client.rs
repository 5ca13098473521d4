//! The pull requests of one repository, and what belongs to them.
//!
//! Responses are read into the few fields that are used, since GitHub adds and omits others freely. Requests are
//! conditional, because a "not modified" response does not count against the hourly limit; when GitHub asks us to back
//! off, nothing is sent until then.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use octocrab::{Octocrab, service::middleware::retry::RetryConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use slipway_model::{BranchName, CommitSha, Fault, Reason, Timestamp};

use crate::{
    Address,
    answer::{self, Commit, PullRequest, User},
    error::{Error, ErrorKind},
};

/// GitHub itself gives up on a request after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No response that is requested here is larger.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Responses that are kept for conditional requests: those of the open pull requests.
const MAX_KNOWN: u64 = 1_000;

/// Gives a client its tokens.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// The current token; asked for before each request, since tokens are replaced.
    ///
    /// # Errors
    /// Why there is none.
    async fn token(&self) -> Result<SecretString, Fault<Reason>>;

    /// GitHub did not accept the token. Returns whether there is a new one to try, once.
    async fn rejected(&self) -> bool;
}

/// One repository at GitHub.
pub struct Client {
    owner: String,
    name: String,
    api_url: String,
    tokens: Arc<dyn TokenSource>,
    /// octocrab's client for the current token.
    inner: Mutex<Option<(SecretString, Octocrab)>>,
    /// The last responses, by path.
    known: moka::sync::Cache<String, (HeaderValue, Arc<Vec<u8>>)>,
    /// GitHub must not be asked again until then.
    quiet: Mutex<Option<(Timestamp, String)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("owner", &self.owner)
            .field("name", &self.name)
            .field("api_url", &self.api_url)
            .finish_non_exhaustive()
    }
}

/// What a pull request is opened with.
#[derive(Debug)]
pub struct Proposal<'a> {
    pub title: &'a str,
    pub body: &'a str,
    pub head: &'a BranchName,
    pub base: &'a BranchName,
}

/// How a pull request is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeMethod {
    Merge,
    Squash,
    Rebase,
}

impl MergeMethod {
    fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Squash => "squash",
            Self::Rebase => "rebase",
        }
    }
}

enum Body {
    None,
    Json(serde_json::Value),
}

impl Client {
    pub fn new(address: Address, tokens: Arc<dyn TokenSource>) -> Self {
        Self {
            owner: address.owner,
            name: address.name,
            api_url: address.api_url,
            tokens,
            inner: Mutex::default(),
            known: moka::sync::Cache::new(MAX_KNOWN),
            quiet: Mutex::default(),
        }
    }

    /// The latest pull requests that come from a branch, open or not.
    ///
    /// # Errors
    /// As for all requests: a [`Fault`] with GitHub's error, or with the reason why it could not be asked.
    pub async fn pulls_from(&self, head: &BranchName) -> Result<Vec<PullRequest>, Fault<Error>> {
        let head = format!("{}:{head}", self.owner);
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("state", "all")
            .append_pair("head", &head)
            .append_pair("per_page", "20")
            .finish();
        self.get(&self.path(&format!("pulls?{query}"))).await
    }

    /// A pull request in its current state.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn pull(&self, number: u64) -> Result<PullRequest, Fault<Error>> {
        self.get(&self.path(&format!("pulls/{number}"))).await
    }

    /// Opens a pull request.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn open(&self, proposal: &Proposal<'_>) -> Result<PullRequest, Fault<Error>> {
        let body = json!({
            "title": proposal.title,
            "body": proposal.body,
            "head": proposal.head.as_str(),
            "base": proposal.base.as_str(),
        });
        self.post(&self.path("pulls"), body).await
    }

    /// Adds labels to it.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn add_labels(&self, number: u64, labels: &[String]) -> Result<(), Fault<Error>> {
        let path = self.path(&format!("issues/{number}/labels"));
        self.post::<serde::de::IgnoredAny>(&path, json!({ "labels": labels }))
            .await
            .map(drop)
    }

    /// Asks people and teams of the owner for a review.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn request_reviews(
        &self,
        number: u64,
        people: &[String],
        teams: &[String],
    ) -> Result<(), Fault<Error>> {
        let path = self.path(&format!("pulls/{number}/requested_reviewers"));
        let body = json!({ "reviewers": people, "team_reviewers": teams });
        self.post::<serde::de::IgnoredAny>(&path, body).await.map(drop)
    }

    /// Comments on it.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn comment(&self, number: u64, text: &str) -> Result<(), Fault<Error>> {
        let path = self.path(&format!("issues/{number}/comments"));
        self.post::<serde::de::IgnoredAny>(&path, json!({ "body": text }))
            .await
            .map(drop)
    }

    /// Replaces its description.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn describe(&self, number: u64, body: &str) -> Result<(), Fault<Error>> {
        let path = self.path(&format!("pulls/{number}"));
        let body = Body::Json(json!({ "body": body }));
        self.ask(&http::Method::PATCH, &path, body).await.map(drop)
    }

    /// Closes it, and returns its state then: merged, if another client was faster.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn close(&self, number: u64) -> Result<PullRequest, Fault<Error>> {
        let path = self.path(&format!("pulls/{number}"));
        let body = Body::Json(json!({ "state": "closed" }));
        let answer = self.ask(&http::Method::PATCH, &path, body).await?;
        read(&answer)
    }

    /// Merges it, if its head is still `head`.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn merge(
        &self,
        number: u64,
        head: &CommitSha,
        method: MergeMethod,
        message: Option<(&str, &str)>,
    ) -> Result<(), Fault<Error>> {
        let path = self.path(&format!("pulls/{number}/merge"));
        let mut body = json!({ "sha": head.as_str(), "merge_method": method.as_str() });
        if let Some((title, rest)) = message {
            body["commit_title"] = title.into();
            body["commit_message"] = rest.into();
        }
        self.ask(&http::Method::PUT, &path, Body::Json(body))
            .await
            .map(drop)
    }

    /// Deletes a branch; it is fine if it is gone already.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn delete_branch(&self, branch: &BranchName) -> Result<(), Fault<Error>> {
        let path = self.path(&format!("git/refs/heads/{branch}"));
        match self.ask(&http::Method::DELETE, &path, Body::None).await {
            // "Reference does not exist"
            Ok(_) => Ok(()),
            Err(Fault::Permanent(error)) if error.status == Error::UNPROCESSABLE => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Who closed a pull request; empty if GitHub does not say.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn closed_by(&self, number: u64) -> Result<String, Fault<Error>> {
        #[derive(Deserialize)]
        struct Issue {
            closed_by: Option<User>,
        }
        let issue: Issue = self.get(&self.path(&format!("issues/{number}"))).await?;
        Ok(issue.closed_by.map(|user| user.login).unwrap_or_default())
    }

    /// A commit's message and parents.
    ///
    /// # Errors
    /// See [`pulls_from`](Self::pulls_from).
    pub async fn commit(&self, commit: &CommitSha) -> Result<Commit, Fault<Error>> {
        self.get(&self.path(&format!("git/commits/{commit}"))).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/repos/{}/{}/{rest}", self.owner, self.name)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault<Error>> {
        read(&self.ask(&http::Method::GET, path, Body::None).await?)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: serde_json::Value,
    ) -> Result<T, Fault<Error>> {
        read(&self.ask(&http::Method::POST, path, Body::Json(body)).await?)
    }

    /// One request, and a second one if the token was revoked and there is a new one.
    async fn ask(&self, method: &http::Method, path: &str, body: Body) -> Result<Arc<Vec<u8>>, Fault<Error>> {
        if let Some((until, message)) = self.quiet() {
            return Err(Fault::Transient {
                error: Error {
                    kind: ErrorKind::RateLimited,
                    status: 0,
                    message,
                },
                not_before: Some(until),
            });
        }
        match self.send(method, path, &body).await {
            Err(Fault::Permanent(error))
                if error.status == Error::UNAUTHORIZED && self.tokens.rejected().await =>
            {
                self.send(method, path, &body).await
            }
            Err(Fault::Transient {
                error,
                not_before: Some(until),
            }) => {
                let message = &error.message;
                tracing::warn!(github = %self.api_url, error = message, next_try = %until, "GitHub asked for no more requests until then");
                let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
                *quiet = Some((until, message.clone()));
                Err(Fault::Transient {
                    error,
                    not_before: Some(until),
                })
            }
            result => result,
        }
    }

    fn quiet(&self) -> Option<(Timestamp, String)> {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet
            .as_ref()
            .is_some_and(|(until, _)| *until <= Timestamp::now())
        {
            *quiet = None;
        }
        quiet.clone()
    }

    async fn send(
        &self,
        method: &http::Method,
        path: &str,
        body: &Body,
    ) -> Result<Arc<Vec<u8>>, Fault<Error>> {
        let client = self.client().await?;
        match tokio::time::timeout(TIMEOUT, self.exchange(&client, method, path, body)).await {
            Ok(result) => result,
            Err(_) => Err(Error::unreachable(format!(
                "GitHub's API did not answer within {} s",
                TIMEOUT.as_secs()
            ))),
        }
    }

    async fn exchange(
        &self,
        client: &Octocrab,
        method: &http::Method,
        path: &str,
        body: &Body,
    ) -> Result<Arc<Vec<u8>>, Fault<Error>> {
        let mut request = http::Request::builder().method(method).uri(path);
        let known = (method == http::Method::GET)
            .then(|| self.known.get(path))
            .flatten();
        if let Some((etag, _)) = &known {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let body = match body {
            Body::None => None,
            Body::Json(value) => Some(value),
        };
        let request = client
            .build_request(request, body)
            .map_err(|error| Error::of(&error))?;
        let (parts, body) = client
            .execute(request)
            .await
            .map_err(|error| Error::of(&error))?
            .into_parts();
        if let (StatusCode::NOT_MODIFIED, Some((_, text))) = (parts.status, known) {
            return Ok(text);
        }
        let text = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| Error::unreachable(format!("GitHub's answer could not be read: {error}")))?
            .to_bytes();
        if !parts.status.is_success() {
            return Err(answer::fault(
                parts.status,
                &parts.headers,
                &text,
                Timestamp::now(),
            ));
        }
        let text = Arc::new(text.to_vec());
        self.remember(method, path, &parts.headers, &text);
        Ok(text)
    }

    fn remember(&self, method: &http::Method, path: &str, headers: &HeaderMap, text: &Arc<Vec<u8>>) {
        if method == http::Method::GET
            && let Some(etag) = headers.get(header::ETAG)
        {
            self.known
                .insert(path.to_owned(), (etag.clone(), Arc::clone(text)));
        }
    }

    /// For the current token; tokens are replaced while we run.
    async fn client(&self) -> Result<Octocrab, Fault<Error>> {
        let token = self
            .tokens
            .token()
            .await
            .map_err(|fault| fault.map(Error::no_credentials))?;
        let mut client = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*client
            && known.expose_secret() == token.expose_secret()
        {
            return Ok(client.clone());
        }
        let new = Octocrab::builder()
            .base_uri(self.api_url.as_str())
            .map_err(|error| Error::of(&error))?
            .set_connect_timeout(Some(TIMEOUT))
            .set_read_timeout(Some(TIMEOUT))
            // Whether and when to retry is decided from its responses here.
            .add_retry_config(RetryConfig::None)
            .personal_token(token.clone())
            .build()
            .map_err(|error| Error::of(&error))?;
        // Another token may see other things.
        self.known.invalidate_all();
        *client = Some((token, new.clone()));
        Ok(new)
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Fault<Error>> {
    serde_json::from_slice(answer).map_err(|error| {
        Error::unreachable(format!(
            "GitHub's answer is not what its documentation says: {error}"
        ))
    })
}
