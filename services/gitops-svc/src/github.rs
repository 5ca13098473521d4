//! GitHub's REST API, by octocrab: pull requests and what belongs to them. The only file that knows it.
//!
//! Answers are read into the few fields that are used, since GitHub adds and leaves out others as it likes. Requests are
//! conditional, because an answer of "nothing new" does not count against the hourly limit; when GitHub asks to be left
//! alone, nothing is sent until then.

mod answer;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use octocrab::{Octocrab, service::middleware::retry::RetryConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use slipway_model::{BranchName, CommitSha, Fault, Reason, Timestamp};

pub(crate) use answer::No;

use crate::{
    change::Code,
    config::PullRequestsConfig,
    credentials::read_token,
    pull_request::{Method, Pull, PullState, Readiness},
    repository::{Repository, words},
};

/// GitHub gives up on a request after ten seconds itself.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No answer that is asked for here is larger.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Answers that are kept to be asked for again conditionally: those of the open pull requests.
const MAX_KNOWN: u64 = 1_000;

/// One repository at GitHub.
pub(crate) struct Github {
    owner: String,
    name: String,
    api_url: String,
    /// Instead of the repository's own credentials.
    token_file: Option<PathBuf>,
    repository: Arc<Repository>,
    /// The client for the present token.
    client: Mutex<Option<(SecretString, Octocrab)>>,
    /// The last answers, by path.
    known: moka::sync::Cache<String, (HeaderValue, Arc<Vec<u8>>)>,
    /// GitHub asks for nothing more until then.
    quiet: Mutex<Option<(Timestamp, String)>>,
}

impl fmt::Debug for Github {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Github")
            .field("owner", &self.owner)
            .field("name", &self.name)
            .field("api_url", &self.api_url)
            .finish_non_exhaustive()
    }
}

/// What a pull request is opened with.
#[derive(Debug)]
pub(crate) struct Proposal<'a> {
    pub(crate) title: &'a str,
    pub(crate) body: &'a str,
    pub(crate) head: &'a BranchName,
    pub(crate) base: &'a BranchName,
}

/// A commit as GitHub has it.
#[derive(Debug)]
pub(crate) struct CommitInfo {
    pub(crate) message: String,
    pub(crate) parents: Vec<CommitSha>,
}

enum Body {
    None,
    Json(serde_json::Value),
}

impl Github {
    /// `None` where the configuration does not say which repository is meant.
    pub(crate) fn new(repository: &Arc<Repository>, config: &PullRequestsConfig) -> Option<Self> {
        let (owner, name) = config.repository(repository.url())?;
        Some(Self {
            owner,
            name,
            api_url: config.api_url(repository.url()),
            token_file: config.token_file.clone(),
            repository: Arc::clone(repository),
            client: Mutex::default(),
            known: moka::sync::Cache::new(MAX_KNOWN),
            quiet: Mutex::default(),
        })
    }

    /// The pull request that comes from a branch: the open one, or else the latest.
    pub(crate) async fn find(&self, head: &BranchName) -> Result<Option<Pull>, Fault<No>> {
        let head = format!("{}:{head}", self.owner);
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("state", "all")
            .append_pair("head", &head)
            .append_pair("per_page", "20")
            .finish();
        let pulls: Vec<answer::Pull> = self.get(&self.path(&format!("pulls?{query}"))).await?;
        let mut pulls: Vec<Pull> = pulls.into_iter().map(Pull::from).collect();
        let open = pulls.iter().position(|pull| pull.state == PullState::Open);
        Ok((!pulls.is_empty()).then(|| pulls.swap_remove(open.unwrap_or(0))))
    }

    /// A pull request as it is now.
    pub(crate) async fn pull(&self, number: u64) -> Result<Pull, Fault<No>> {
        let pull: answer::Pull = self.get(&self.path(&format!("pulls/{number}"))).await?;
        Ok(pull.into())
    }

    pub(crate) async fn open(&self, proposal: &Proposal<'_>) -> Result<Pull, Fault<No>> {
        let body = json!({
            "title": proposal.title,
            "body": proposal.body,
            "head": proposal.head.as_str(),
            "base": proposal.base.as_str(),
        });
        let pull: answer::Pull = self.post(&self.path("pulls"), body).await?;
        Ok(pull.into())
    }

    pub(crate) async fn add_labels(&self, number: u64, labels: &[String]) -> Result<(), Fault<No>> {
        let path = self.path(&format!("issues/{number}/labels"));
        self.post::<serde::de::IgnoredAny>(&path, json!({ "labels": labels }))
            .await
            .map(drop)
    }

    pub(crate) async fn request_reviews(
        &self,
        number: u64,
        people: &[String],
        teams: &[String],
    ) -> Result<(), Fault<No>> {
        let path = self.path(&format!("pulls/{number}/requested_reviewers"));
        let body = json!({ "reviewers": people, "team_reviewers": teams });
        self.post::<serde::de::IgnoredAny>(&path, body).await.map(drop)
    }

    pub(crate) async fn comment(&self, number: u64, text: &str) -> Result<(), Fault<No>> {
        let path = self.path(&format!("issues/{number}/comments"));
        self.post::<serde::de::IgnoredAny>(&path, json!({ "body": text }))
            .await
            .map(drop)
    }

    pub(crate) async fn describe(&self, number: u64, body: &str) -> Result<(), Fault<No>> {
        let path = self.path(&format!("pulls/{number}"));
        let body = Body::Json(json!({ "body": body }));
        self.ask(&http::Method::PATCH, &path, body).await.map(drop)
    }

    /// Closes it, and gives it as it is then: merged, if somebody was faster.
    pub(crate) async fn close(&self, number: u64) -> Result<Pull, Fault<No>> {
        let path = self.path(&format!("pulls/{number}"));
        let body = Body::Json(json!({ "state": "closed" }));
        let answer = self.ask(&http::Method::PATCH, &path, body).await?;
        let pull: answer::Pull = read(&answer)?;
        Ok(pull.into())
    }

    /// Merges it, if its head is still `head`.
    pub(crate) async fn merge(
        &self,
        number: u64,
        head: &CommitSha,
        method: Method,
        message: Option<(&str, &str)>,
    ) -> Result<(), Fault<No>> {
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

    /// Takes a branch away; one that is gone already is fine.
    pub(crate) async fn delete_branch(&self, branch: &BranchName) -> Result<(), Fault<No>> {
        let path = self.path(&format!("git/refs/heads/{branch}"));
        match self.ask(&http::Method::DELETE, &path, Body::None).await {
            // "Reference does not exist"
            Ok(_) => Ok(()),
            Err(Fault::Permanent(no)) if no.status == No::UNPROCESSABLE => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Who closed a pull request; empty where GitHub does not say.
    pub(crate) async fn closed_by(&self, number: u64) -> Result<String, Fault<No>> {
        #[derive(Deserialize)]
        struct Issue {
            closed_by: Option<answer::User>,
        }
        let issue: Issue = self.get(&self.path(&format!("issues/{number}"))).await?;
        Ok(issue.closed_by.map(|user| user.login).unwrap_or_default())
    }

    pub(crate) async fn commit(&self, commit: &CommitSha) -> Result<CommitInfo, Fault<No>> {
        #[derive(Deserialize)]
        struct Parent {
            sha: CommitSha,
        }
        #[derive(Deserialize)]
        struct Commit {
            message: String,
            parents: Vec<Parent>,
        }
        let commit: Commit = self.get(&self.path(&format!("git/commits/{commit}"))).await?;
        Ok(CommitInfo {
            message: commit.message,
            parents: commit.parents.into_iter().map(|parent| parent.sha).collect(),
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("/repos/{}/{}/{rest}", self.owner, self.name)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault<No>> {
        read(&self.ask(&http::Method::GET, path, Body::None).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: serde_json::Value) -> Result<T, Fault<No>> {
        read(&self.ask(&http::Method::POST, path, Body::Json(body)).await?)
    }

    /// One request, and a second one where an App's token was taken back.
    async fn ask(&self, method: &http::Method, path: &str, body: Body) -> Result<Arc<Vec<u8>>, Fault<No>> {
        if let Some((until, words)) = self.quiet() {
            return Err(Fault::Transient {
                error: No {
                    status: 0,
                    reason: Reason::new(Code::RateLimited, words),
                },
                not_before: Some(until),
            });
        }
        match self.send(method, path, &body).await {
            Err(Fault::Permanent(no))
                if no.status == No::UNAUTHORIZED
                    && self.token_file.is_none()
                    && self.repository.access().refused().await =>
            {
                self.send(method, path, &body).await
            }
            Err(Fault::Transient {
                error,
                not_before: Some(until),
            }) => {
                let Reason { code, message } = &error.reason;
                tracing::warn!(github = %self.api_url, code, error = message, next_try = %until, "GitHub asks us to wait");
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

    async fn send(&self, method: &http::Method, path: &str, body: &Body) -> Result<Arc<Vec<u8>>, Fault<No>> {
        let client = self.client().await?;
        match tokio::time::timeout(TIMEOUT, self.exchange(&client, method, path, body)).await {
            Ok(result) => result,
            Err(_) => Err(No::none(
                Code::RemoteUnreachable,
                format!("GitHub's API did not answer within {TIMEOUT:?}"),
            )),
        }
    }

    async fn exchange(
        &self,
        client: &Octocrab,
        method: &http::Method,
        path: &str,
        body: &Body,
    ) -> Result<Arc<Vec<u8>>, Fault<No>> {
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
            .map_err(|error| unreachable(&error))?;
        let (parts, body) = client
            .execute(request)
            .await
            .map_err(|error| unreachable(&error))?
            .into_parts();
        if let (StatusCode::NOT_MODIFIED, Some((_, text))) = (parts.status, known) {
            return Ok(text);
        }
        let text = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| {
                let message = format!("GitHub's answer could not be read: {error}");
                No::none(Code::RemoteUnreachable, message)
            })?
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

    /// For the present token; tokens are replaced while we run.
    async fn client(&self) -> Result<Octocrab, Fault<No>> {
        let token = match &self.token_file {
            Some(path) => read_token(path).map_err(|problem| {
                let message = format!("pull_requests.token_file {problem}");
                No::none(Code::CredentialsRefused, message)
            })?,
            None => self
                .repository
                .access()
                .token()
                .await
                .map_err(|fault| fault.map(|reason| No { status: 0, reason }))?,
        };
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*client
            && known.expose_secret() == token.expose_secret()
        {
            return Ok(client.clone());
        }
        let new = Octocrab::builder()
            .base_uri(self.api_url.as_str())
            .map_err(|error| unreachable(&error))?
            .set_connect_timeout(Some(TIMEOUT))
            .set_read_timeout(Some(TIMEOUT))
            // What may be tried again, and when, is decided from its answers here.
            .add_retry_config(RetryConfig::None)
            .personal_token(token.clone())
            .build()
            .map_err(|error| unreachable(&error))?;
        // Another token may see other things.
        self.known.invalidate_all();
        *client = Some((token, new.clone()));
        Ok(new)
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Fault<No>> {
    serde_json::from_slice(answer).map_err(|error| {
        let message = format!("GitHub's answer is not what its documentation says: {error}");
        No::none(Code::RemoteUnreachable, message)
    })
}

/// The deepest cause, without the place in the code that octocrab's errors come with.
fn unreachable(error: &octocrab::Error) -> Fault<No> {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    No::none(
        Code::RemoteUnreachable,
        format!("GitHub's API cannot be reached: {}", words(&text)),
    )
}

impl From<answer::Pull> for Pull {
    fn from(pull: answer::Pull) -> Self {
        let merged = pull.merged_at.is_some() || pull.merged.unwrap_or_default();
        let state = match pull.state.as_str() {
            _ if merged => PullState::Merged,
            "closed" => PullState::Closed,
            _ => PullState::Open,
        };
        let readiness = match pull.mergeable_state.as_deref().unwrap_or_default() {
            _ if pull.draft.unwrap_or_default() => Readiness::Draft,
            "clean" => Readiness::Clean,
            "unstable" => Readiness::Unstable,
            "has_hooks" => Readiness::HasHooks,
            "blocked" => Readiness::Blocked,
            "behind" => Readiness::Behind,
            "dirty" => Readiness::Dirty,
            "draft" => Readiness::Draft,
            _ => Readiness::Unknown,
        };
        Self {
            number: pull.number,
            url: pull.html_url.unwrap_or_default(),
            state,
            head: pull.head.sha,
            mergeable: pull.mergeable,
            readiness,
            // Of an open one it is a trial merge.
            merge_commit: pull.merge_commit_sha.filter(|_| merged),
            merged_by: pull.merged_by.map(|user| user.login).unwrap_or_default(),
            labels: pull.labels.into_iter().map(|label| label.name).collect(),
            reviewers: !pull.requested_reviewers.is_empty() || !pull.requested_teams.is_empty(),
        }
    }
}
