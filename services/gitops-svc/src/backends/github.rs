//! GitHub: requests go through the crate `slipway-github`; here its answers are translated into the terms of the
//! domain.

use std::sync::Arc;

use gitops_domain::{
    pull_request::{Method, Pull, PullState, Readiness},
    reason::Code,
};
use slipway_github::{
    Address, Client, Commit, Error, ErrorKind, MergeMethod, Proposal, PullRequest, TokenSource,
};
use slipway_model::{BranchName, CommitSha, Fault, Reason};

/// One repository at GitHub.
#[derive(Debug)]
pub(crate) struct Github(Client);

impl Github {
    pub(crate) fn new(address: Address, tokens: Arc<dyn TokenSource>) -> Self {
        Self(Client::new(address, tokens))
    }

    /// The pull request that comes from a branch: the open one, or else the latest.
    pub(crate) async fn find(&self, head: &BranchName) -> Result<Option<Pull>, Fault<Error>> {
        let mut pulls: Vec<Pull> = self.0.pulls_from(head).await?.into_iter().map(pull).collect();
        let open = pulls.iter().position(|pull| pull.state == PullState::Open);
        Ok((!pulls.is_empty()).then(|| pulls.swap_remove(open.unwrap_or(0))))
    }

    /// A pull request in its current state.
    pub(crate) async fn pull(&self, number: u64) -> Result<Pull, Fault<Error>> {
        self.0.pull(number).await.map(pull)
    }

    pub(crate) async fn open(&self, proposal: &Proposal<'_>) -> Result<Pull, Fault<Error>> {
        self.0.open(proposal).await.map(pull)
    }

    /// Closes it, and returns its state then: merged, if another client was faster.
    pub(crate) async fn close(&self, number: u64) -> Result<Pull, Fault<Error>> {
        self.0.close(number).await.map(pull)
    }

    /// Merges it, if its head is still `head`.
    pub(crate) async fn merge(
        &self,
        number: u64,
        head: &CommitSha,
        method: Method,
        message: Option<(&str, &str)>,
    ) -> Result<(), Fault<Error>> {
        let method = match method {
            Method::Merge => MergeMethod::Merge,
            Method::Squash => MergeMethod::Squash,
            Method::Rebase => MergeMethod::Rebase,
        };
        self.0.merge(number, head, method, message).await
    }

    pub(crate) async fn add_labels(&self, number: u64, labels: &[String]) -> Result<(), Fault<Error>> {
        self.0.add_labels(number, labels).await
    }

    pub(crate) async fn request_reviews(
        &self,
        number: u64,
        people: &[String],
        teams: &[String],
    ) -> Result<(), Fault<Error>> {
        self.0.request_reviews(number, people, teams).await
    }

    pub(crate) async fn comment(&self, number: u64, text: &str) -> Result<(), Fault<Error>> {
        self.0.comment(number, text).await
    }

    pub(crate) async fn describe(&self, number: u64, body: &str) -> Result<(), Fault<Error>> {
        self.0.describe(number, body).await
    }

    /// Deletes a branch; it is fine if it is gone already.
    pub(crate) async fn delete_branch(&self, branch: &BranchName) -> Result<(), Fault<Error>> {
        self.0.delete_branch(branch).await
    }

    /// Who closed a pull request; empty if GitHub does not say.
    pub(crate) async fn closed_by(&self, number: u64) -> Result<String, Fault<Error>> {
        self.0.closed_by(number).await
    }

    pub(crate) async fn commit(&self, commit: &CommitSha) -> Result<Commit, Fault<Error>> {
        self.0.commit(commit).await
    }
}

/// What GitHub's refusal means for a change.
pub(crate) fn reason(error: &Error) -> Reason {
    let code = match &error.kind {
        ErrorKind::NoCredentials(code) => return Reason::new(code.as_str(), error.message.as_str()),
        ErrorKind::Unauthorized => Code::CredentialsRefused,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound | ErrorKind::NotCovered => Code::PullRequestNotFound,
        ErrorKind::Rejected => Code::PullRequestRefused,
        ErrorKind::RateLimited => Code::RateLimited,
        ErrorKind::Untrusted => Code::CertificateRefused,
        ErrorKind::Unreachable => Code::RemoteUnreachable,
    };
    Reason::new(code, error.message.as_str())
}

fn pull(pull: PullRequest) -> Pull {
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
    Pull {
        number: pull.number,
        url: pull.html_url.unwrap_or_default(),
        state,
        head: pull.head.sha,
        mergeable: pull.mergeable,
        readiness,
        // For an open one it is a trial merge.
        merge_commit: pull.merge_commit_sha.filter(|_| merged),
        merged_by: pull.merged_by.map(|user| user.login).unwrap_or_default(),
        labels: pull.labels.into_iter().map(|label| label.name).collect(),
        reviewers: !pull.requested_reviewers.is_empty() || !pull.requested_teams.is_empty(),
    }
}
