//! Pushes a branch with our commit and opens the pull request.

use gitops_domain::{
    change::{News, Outcome},
    pull_request::{Pull, PullState, text},
    reason::Code,
    remote::Moved,
};
use slipway_edit::Difference;
use slipway_github::{Error, Proposal};
use slipway_model::{CommitSha, Fault, Reason};

use super::{Halt, Progress, Work};
use crate::backends::{github::reason, repository::Applied};

/// How often a proposal starts over because the target branch has moved.
const PROPOSALS: u32 = 3;

impl Work<'_> {
    /// Pushes the branch and opens the pull request, unless that is done already.
    pub(super) async fn propose(&self) -> Progress {
        for _ in 0..PROPOSALS {
            self.check()?;
            if let Some(pull) = self.forge.github.find(&self.branch).await? {
                return self.found(pull).await.map(Some);
            }
            let base = self.forge.fresh_head(&self.request.branch).await?;
            let (applied, not_rendered) = self.apply_rendered(&base).await?;
            let (commit, differences) = match applied {
                Applied::Commit { commit, differences } => (commit, differences),
                Applied::Unchanged { commit, differences } => {
                    self.sweep().await;
                    return Ok(Some(News::Ended(Outcome::Unchanged { commit, differences })));
                }
                Applied::Refused(reason) => {
                    self.sweep().await;
                    return Ok(Some(News::Ended(Outcome::Failed(reason))));
                }
            };
            self.publish(&commit).await?;
            let body = text::body(&self.message, &differences);
            let proposal = Proposal {
                title: text::split(&self.message).0,
                body: &body,
                head: &self.branch,
                base: &self.request.branch,
            };
            slipway_faults::point("gitops.propose.open.before");
            match self.forge.github.open(&proposal).await {
                Ok(pull) => {
                    slipway_faults::point("gitops.propose.open.after");
                    self.decorate(&pull).await?;
                    let opened = self.opened(pull, commit, Some(base), differences, not_rendered);
                    return Ok(Some(opened));
                }
                // Opened by a run whose answer was lost, or the branch contains everything meanwhile: checked again.
                Err(Fault::Permanent(error)) if error.status == Error::UNPROCESSABLE => {
                    let message = &error.message;
                    if !message.contains("already exists") && !message.contains("No commits between") {
                        self.sweep().await;
                        return Err(Fault::Permanent(error).into());
                    }
                    tracing::debug!(id = %self.run.id, message, "the pull request may exist already; it is looked for again");
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Err(Halt::from(Fault::unavailable(
            Code::PullRequestRefused,
            "GitHub does not open the pull request, and lists none for the branch; it is tried again",
        )))
    }

    fn opened(
        &self,
        pull: Pull,
        commit: CommitSha,
        base: Option<CommitSha>,
        differences: Vec<Difference>,
        not_rendered: String,
    ) -> News {
        News::Opened {
            number: pull.number,
            url: pull.url,
            branch: self.branch.clone(),
            commit,
            base,
            differences,
            not_rendered,
            poll: self.forge.config.poll,
        }
    }

    /// A pull request that an earlier run opened before it was killed.
    async fn found(&self, pull: Pull) -> Result<News, Halt> {
        if pull.state != PullState::Open {
            // How it ended is seen at the first check.
            let commit = pull.head.clone();
            return Ok(self.opened(pull, commit, None, Vec::new(), String::new()));
        }
        self.decorate(&pull).await?;
        if let Some((base, differences)) = self.ours(&pull.head).await? {
            let commit = pull.head.clone();
            let note = self.note(&commit).await?;
            return Ok(self.opened(pull, commit, Some(base), differences, note));
        }
        // Others have pushed to it since. Our commit is known anyway.
        let base = self.forge.fresh_head(&self.request.branch).await?;
        match self.apply(&base).await? {
            Applied::Commit { commit, differences } => {
                let note = self.note(&commit).await?;
                Ok(self.opened(pull, commit, Some(base), differences, note))
            }
            Applied::Unchanged { .. } | Applied::Refused(_) => {
                let commit = pull.head.clone();
                Ok(self.opened(pull, commit, None, Vec::new(), String::new()))
            }
        }
    }

    /// Adds labels and requests reviews. A label or reviewer that GitHub does not know does not stop the change.
    async fn decorate(&self, pull: &Pull) -> Result<(), Halt> {
        let (github, config) = (&self.forge.github, &self.forge.config);
        let tolerate = |what: &str, result: Result<(), Fault<Error>>| match result {
            Err(Fault::Permanent(error))
                if !matches!(
                    error.status,
                    Error::UNAUTHORIZED | Error::NOT_MERGEABLE | Error::HEAD_MOVED
                ) =>
            {
                let Reason { code, message } = reason(&error);
                tracing::warn!(id = %self.run.id, number = pull.number, code, error = message, "{what}");
                Ok(())
            }
            result => result,
        };
        if config.labels.iter().any(|label| !pull.labels.contains(label)) {
            let added = github.add_labels(pull.number, &config.labels).await;
            tolerate("labels could not be set", added)?;
        }
        let reviewers = config.reviewers.len() + config.team_reviewers.len();
        if reviewers > 0 && !pull.reviewers {
            let asked = github
                .request_reviews(pull.number, &config.reviewers, &config.team_reviewers)
                .await;
            tolerate("reviews could not be requested", asked)?;
        }
        Ok(())
    }

    /// Puts our commit on its branch.
    async fn publish(&self, commit: &CommitSha) -> Result<(), Halt> {
        slipway_faults::point("gitops.propose.push.before");
        let created = self
            .forge
            .repository
            .push(&self.branch, &nothing(commit), commit)
            .await;
        let said = match created {
            Ok(Moved::Yes) => {
                slipway_faults::point("gitops.propose.push.after");
                return Ok(());
            }
            Ok(Moved::LostRace(said)) => said,
            Err(fault) => return Err(fault.into()),
        };
        // It is there: from a run that was killed.
        let there = match self.forge.repository.fetch(&self.branch).await {
            Err(Fault::Permanent(reason)) if reason.code == Code::BranchNotFound => {
                let message = format!("the remote does not take the branch {}: {said}", self.branch);
                return Err(Fault::<Reason>::unavailable(Code::RemoteUnreachable, message).into());
            }
            there => there?,
        };
        if there == *commit {
            return Ok(());
        }
        if self.ours(&there).await?.is_none() {
            let message = format!(
                "the branch {} holds commits of others: delete it, and ask for the change again",
                self.branch
            );
            return Err(Fault::<Reason>::refused(Code::PullRequestConflict, message).into());
        }
        let moved = self.forge.repository.push(&self.branch, &there, commit).await?;
        match moved {
            Moved::Yes => Ok(()),
            Moved::LostRace(_) => Err(Halt::from(Fault::unavailable(
                Code::RemoteUnreachable,
                "another writer moved the branch at the same time; it is tried again",
            ))),
        }
    }
}

/// Instead of a commit: the branch does not exist.
fn nothing(like: &CommitSha) -> CommitSha {
    #[allow(clippy::unwrap_used)] // zeros are hexadecimal digits
    "0".repeat(like.as_str().len()).parse().unwrap()
}
