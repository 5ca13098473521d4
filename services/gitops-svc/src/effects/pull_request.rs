//! Works on pull requests: asks git and GitHub, does what was decided, and reports the result.
//!
//! Each run may repeat one that was killed at any point. Before anything is created, it is searched for.

mod close;
mod look;
mod propose;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use gitops_domain::{
    change::{Change, Command, Effect, News, Outcome, Request, State},
    message,
    pull_request::branch,
    reason::Code,
};
use slipway_edit::Difference;
use slipway_github::{Error, TokenSource};
use slipway_ledger::EffectRun;
use slipway_model::{BranchName, CommitSha, Fault, Reason};

use super::rendering::{Candidate, Rendering};
use crate::{
    backends::{
        credentials::TokenFile,
        github::{self, Github},
        render::Renderer,
        repository::{Applied, Plan, Repository},
    },
    config::PullRequestsConfig,
};

/// The longest pause between checks within a run.
const PAUSE: Duration = Duration::from_secs(1);

/// A repository whose changes may be made by pull request.
#[derive(Debug)]
pub(crate) struct Forge {
    repository: Arc<Repository>,
    config: PullRequestsConfig,
    github: Github,
    /// Heads of branches, and when they were fetched: many pull requests have the same target.
    heads: Mutex<HashMap<BranchName, (Instant, CommitSha)>>,
}

impl Forge {
    /// All repositories that are configured for it, by name.
    pub(crate) fn all(repositories: &BTreeMap<String, Arc<Repository>>) -> BTreeMap<String, Self> {
        let forge = |repository: &Arc<Repository>| {
            let config = repository.pull_requests()?.clone();
            let address = config.address(repository.url())?;
            let tokens: Arc<dyn TokenSource> = match &config.token_file {
                Some(path) => Arc::new(TokenFile(path.clone())),
                None => Arc::clone(repository.access()) as Arc<dyn TokenSource>,
            };
            let github = Github::new(address, tokens);
            Some(Self {
                repository: Arc::clone(repository),
                config,
                github,
                heads: Mutex::default(),
            })
        };
        repositories
            .iter()
            .filter_map(|(name, repository)| Some((name.clone(), forge(repository)?)))
            .collect()
    }

    /// The head of a branch, possibly as fetched by another run a moment ago.
    async fn head(&self, branch: &BranchName) -> Result<CommitSha, Fault<Reason>> {
        let known = {
            let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            heads
                .get(branch)
                .filter(|(at, _)| at.elapsed() < self.config.poll / 2)
                .map(|(_, head)| head.clone())
        };
        if let Some(head) = known {
            return Ok(head);
        }
        self.fresh_head(branch).await
    }

    async fn fresh_head(&self, branch: &BranchName) -> Result<CommitSha, Fault<Reason>> {
        let at = Instant::now();
        let head = self.repository.fetch(branch).await?;
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.insert(branch.clone(), (at, head.clone()));
        Ok(head)
    }
}

/// Why a run has no result.
enum Halt {
    Fault(Fault<Reason>),
    /// The state has moved on.
    Cancelled,
}

impl From<Fault<Reason>> for Halt {
    fn from(fault: Fault<Reason>) -> Self {
        Self::Fault(fault)
    }
}

impl From<Fault<Error>> for Halt {
    fn from(fault: Fault<Error>) -> Self {
        Self::Fault(fault.map(|error| github::reason(&error)))
    }
}

type Progress = Result<Option<News>, Halt>;

/// One run of an effect of a change by pull request.
pub(crate) struct Flow<'a> {
    pub(crate) forges: &'a BTreeMap<String, Forge>,
    pub(crate) renderer: &'a Arc<Renderer>,
    pub(crate) run: &'a EffectRun<Change>,
}

impl Flow<'_> {
    /// The result; `None` if a check found nothing new.
    ///
    /// # Errors
    /// A failed check; the next one comes at the usual pace.
    pub(crate) async fn perform(&self) -> Result<Option<Command>, Reason> {
        let state = &self.run.snapshot.state;
        let Some(request) = &state.request else {
            return Ok(None);
        };
        let Some(forge) = self.forges.get(&request.repository) else {
            let message = format!(
                "the configuration no longer has pull_requests for the repository {}: add them again",
                request.repository
            );
            let reason = Reason::new(Code::RepositoryNotConfigured, message);
            let ended = News::Ended(Outcome::Failed(reason));
            return Ok(Some(Command::PullRequest(ended)));
        };
        let work = Work {
            forge,
            renderer: self.renderer,
            run: self.run,
            state,
            request,
            branch: branch(&self.run.id),
            message: message::compose(&self.run.id, request),
        };
        let progress = match &self.run.effect {
            Effect::Propose => work.propose().await,
            Effect::Follow => work.follow().await,
            Effect::Withdraw => work.withdraw().await,
            Effect::Nudge { .. } => return Ok(None),
        };
        let fault = match progress {
            Ok(news) => return Ok(news.map(Command::PullRequest)),
            Err(Halt::Cancelled) => return Ok(None),
            // The token or the certificate is rejected; a new one may change that for pull requests that are open
            // already.
            Err(Halt::Fault(Fault::Permanent(reason)))
                if (reason.code == Code::CredentialsRefused || reason.code == Code::CertificateRefused)
                    && self.run.effect != Effect::Propose =>
            {
                Fault::transient(reason)
            }
            Err(Halt::Fault(fault)) => fault,
        };
        let news = match fault {
            Fault::Permanent(reason) => News::Ended(Outcome::Failed(reason)),
            Fault::Transient { error, .. } if self.run.effect == Effect::Follow => return Err(error),
            Fault::Transient { error, not_before } => News::Postponed {
                attempt: self.run.key.attempt,
                reason: error,
                not_before,
                jitter: fastrand::u16(0..=1000),
            },
        };
        Ok(Some(Command::PullRequest(news)))
    }
}

struct Work<'a> {
    forge: &'a Forge,
    renderer: &'a Arc<Renderer>,
    run: &'a EffectRun<Change>,
    state: &'a State,
    request: &'a Request,
    /// The pull request's own branch.
    branch: BranchName,
    /// Our commit's.
    message: String,
}

impl Work<'_> {
    /// Deletes a branch that an earlier run pushed without opening a pull request.
    async fn sweep(&self) {
        let swept = async {
            match self.forge.repository.fetch(&self.branch).await {
                Ok(head) if self.ours(&head).await?.is_some() => {
                    Ok(self.forge.github.delete_branch(&self.branch).await?)
                }
                Ok(_) => Ok(()),
                Err(Fault::Permanent(reason)) if reason.code == Code::BranchNotFound => Ok(()),
                Err(fault) => Err(Halt::from(fault)),
            }
        };
        if let Err(Halt::Fault(fault)) = swept.await {
            let Reason { code, message } = fault.error();
            tracing::warn!(id = %self.run.id, code, error = message, "the branch that was to be proposed could not be deleted");
        }
    }

    /// Deletes the branch of a closed pull request, if it contains only our work.
    async fn tidy(&self, ours: bool) -> Result<(), Halt> {
        if ours && self.forge.config.delete_branch {
            let number = self.state.pull_request.as_ref().map_or(0, |pull| pull.number);
            self.delete_branch(number).await?;
        }
        Ok(())
    }

    /// A branch that we may not delete stays.
    async fn delete_branch(&self, number: u64) -> Result<(), Halt> {
        match self.forge.github.delete_branch(&self.branch).await {
            Err(Fault::Permanent(error)) if error.status != Error::UNAUTHORIZED => {
                let Reason { code, message } = github::reason(&error);
                tracing::warn!(id = %self.run.id, number, code, error = message, "the branch of a pull request could not be deleted");
                Ok(())
            }
            result => Ok(result?),
        }
    }

    async fn apply(&self, head: &CommitSha) -> Result<Applied, Halt> {
        let plan = Plan {
            edits: self.request.edits.clone(),
            message: self.message.clone(),
            time: self.state.requested_at.unwrap_or(self.run.snapshot.created_at),
        };
        let (_, mut applied) = self.forge.repository.apply(head, vec![plan]).await?;
        applied.pop().ok_or_else(|| {
            Halt::from(Fault::refused(
                Code::Internal,
                "the edits have no outcome: a defect, please report it",
            ))
        })
    }

    /// As [`Work::apply`], and refuses a commit whose folders do not render. Also what the change is to say.
    async fn apply_rendered(&self, head: &CommitSha) -> Result<(Applied, String), Halt> {
        let applied = self.apply(head).await?;
        let Some(rendering) = Rendering::of(self.renderer, &self.forge.repository) else {
            return Ok((applied, String::new()));
        };
        let Applied::Commit { commit, .. } = &applied else {
            return Ok((applied, String::new()));
        };
        let candidate = Candidate {
            commit: commit.clone(),
            edits: self.request.edits.clone(),
            reverts: self.request.reverts.is_some(),
        };
        Ok(match rendering.admitted(&candidate, head).await? {
            Ok(note) => (applied, note),
            Err(reason) => (Applied::Refused(reason), String::new()),
        })
    }

    /// What the change is to say about a commit that an earlier run has pushed.
    async fn note(&self, commit: &CommitSha) -> Result<String, Halt> {
        match Rendering::of(self.renderer, &self.forge.repository) {
            Some(rendering) => Ok(rendering.note(commit, self.request.edits.clone()).await?),
            None => Ok(String::new()),
        }
    }

    /// Whether a commit is the one that we make on its parent; then that parent, and the differences.
    async fn ours(&self, commit: &CommitSha) -> Result<Option<(CommitSha, Vec<Difference>)>, Halt> {
        let info = self.forge.github.commit(commit).await?;
        let [slipway_github::Head { sha: parent }] = info.parents.as_slice() else {
            return Ok(None);
        };
        if info.message.trim_end() != self.message.trim_end() || !self.forge.repository.ensure(parent).await?
        {
            return Ok(None);
        }
        Ok(match self.apply(parent).await? {
            Applied::Commit {
                commit: made,
                differences,
            } if made == *commit => Some((parent.clone(), differences)),
            _ => None,
        })
    }

    fn check(&self) -> Result<(), Halt> {
        if self.run.cancelled.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), Halt> {
        let pause = PAUSE.min(self.forge.config.poll / 4);
        tokio::select! {
            () = self.run.cancelled.cancelled() => Err(Halt::Cancelled),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
