//! Checks an open pull request, and moves it along.

use gitops_domain::{
    change::{News, Outcome},
    pull_request::{Base, Method, Pull, PullRequest, PullState, Step, follow, text},
    reason::Code,
    remote::Moved,
};
use slipway_github::{Error, ErrorKind};
use slipway_model::{CommitSha, Fault, Reason};

use super::{Halt, Progress, Work};
use crate::backends::{github::reason, repository::Applied};

/// How often one run checks: after a push GitHub has to work out whether it can be merged, and a merge may lose a race.
const LOOKS: u32 = 4;

impl Work<'_> {
    /// Checks, and does what [`follow`] says.
    pub(super) async fn follow(&self) -> Progress {
        let Some(recorded) = &self.state.pull_request else {
            return Ok(None);
        };
        let mut last = None;
        for look in 0..LOOKS {
            if look > 0 {
                self.pause().await?;
            }
            self.check()?;
            let pull = self.forge.github.pull(recorded.number).await?;
            if pull.state == PullState::Merged {
                return self.merged(recorded, &pull).await;
            }
            let ours = pull.head == recorded.commit;
            if !ours
                && pull.state == PullState::Open
                && let Some((base, differences)) = self.ours(&pull.head).await?
            {
                // Pushed by a run that was killed before it could record it.
                let commit = pull.head;
                let not_rendered = self.state.not_rendered.clone();
                return Ok(Some(News::Revised {
                    commit,
                    base,
                    differences,
                    not_rendered,
                }));
            }
            let head = self.forge.head(&self.request.branch).await?;
            let (base, applied, not_rendered) = self.base(recorded, &head).await?;
            match follow(&pull, ours, &base, self.forge.config.auto_merge.is_some()) {
                Step::Merged => return self.merged(recorded, &pull).await,
                Step::Closed => {
                    let by = self.forge.github.closed_by(pull.number).await?;
                    self.tidy(ours).await?;
                    let message = match by.as_str() {
                        "" => format!("pull request #{} was closed without being merged", pull.number),
                        by => format!(
                            "pull request #{} was closed by {by} without being merged",
                            pull.number
                        ),
                    };
                    let outcome = Outcome::Failed(Reason::new(Code::PullRequestClosed, message));
                    return Ok(Some(News::Closed { by, outcome }));
                }
                Step::Needless => {
                    let differences = match applied {
                        Some(Applied::Unchanged { differences, .. }) => differences,
                        _ => self.state.differences.clone(),
                    };
                    let outcome = Outcome::Unchanged {
                        commit: head,
                        differences,
                    };
                    return self.close(recorded, &text::needless(), ours, outcome).await;
                }
                Step::Impossible(reason) => {
                    let comment = text::impossible(&reason);
                    return self
                        .close(recorded, &comment, ours, Outcome::Failed(reason))
                        .await;
                }
                Step::Revise => match applied {
                    Some(Applied::Commit { commit, differences }) => {
                        let revised = News::Revised {
                            commit,
                            base: head,
                            differences,
                            not_rendered,
                        };
                        return self.revise(recorded, revised).await;
                    }
                    _ => return Ok(None),
                },
                Step::Merge => last = self.merge(&pull).await?,
                Step::LookAgain => {}
                Step::Wait(None) => return Ok(None),
                Step::Wait(Some(message)) => return Ok(Some(News::Noted(message.to_owned()))),
            }
        }
        Ok(last.map(News::Noted))
    }

    /// What our edits result in on the current head of the target branch, and what the change is to say then.
    async fn base(
        &self,
        recorded: &PullRequest,
        head: &CommitSha,
    ) -> Result<(Base, Option<Applied>, String), Halt> {
        if recorded.base.as_ref() == Some(head) {
            return Ok((Base::Unmoved, None, String::new()));
        }
        let (applied, note) = self.apply_rendered(head).await?;
        let base = match &applied {
            Applied::Refused(reason) if reason.code == Code::RenderFailed => Base::Broken,
            Applied::Refused(reason) => Base::Refuses(reason.clone()),
            Applied::Unchanged { .. } => Base::Has,
            Applied::Commit { differences, .. } if *differences == self.state.differences => Base::Same,
            Applied::Commit { .. } => Base::Differs,
        };
        Ok((base, Some(applied), note))
    }

    /// Asks GitHub to merge our commit; returns what it waits for if GitHub does not.
    async fn merge(&self, pull: &Pull) -> Result<Option<String>, Halt> {
        let Some(method) = self.forge.config.auto_merge else {
            return Ok(None);
        };
        self.check()?;
        // A squash creates a new commit, which must be found by the same trailers.
        let message = (method == Method::Squash).then(|| text::split(&self.message));
        slipway_faults::point("gitops.merge.before");
        let merged = self
            .forge
            .github
            .merge(pull.number, &pull.head, method, message)
            .await;
        match merged {
            Ok(()) => {
                slipway_faults::point("gitops.merge.after");
                Ok(None)
            }
            Err(Fault::Permanent(error)) => match error.status {
                // Another push was faster, at the base or at the branch: checked again.
                Error::NOT_MERGEABLE | Error::HEAD_MOVED => Ok(Some(error.message)),
                Error::UNPROCESSABLE => Ok(Some(format!("a person to merge it: {error}"))),
                // Another account may be allowed to do it, or may allow it.
                _ if error.kind == ErrorKind::Forbidden => Ok(Some(format!(
                    "a person to merge it, since this service may not: {error}"
                ))),
                _ => Err(Fault::Permanent(error).into()),
            },
            Err(fault) => Err(fault.into()),
        }
    }

    /// Repeats the edits on a newer head. Only our own commit is replaced.
    async fn revise(&self, recorded: &PullRequest, revised: News) -> Progress {
        self.check()?;
        let News::Revised {
            commit, differences, ..
        } = &revised
        else {
            return Ok(None);
        };
        slipway_faults::point("gitops.revise.push.before");
        match self
            .forge
            .repository
            .push(&self.branch, &recorded.commit, commit)
            .await
        {
            Ok(Moved::Yes) => slipway_faults::point("gitops.revise.push.after"),
            // Others pushed, or it is merged and its branch deleted: the next check will show.
            Ok(Moved::LostRace(_)) => return Ok(None),
            Err(fault) => return Err(fault.into()),
        }
        let body = text::body(&self.message, differences);
        if let Err(fault) = self.forge.github.describe(recorded.number, &body).await {
            let Reason { code, message } = reason(fault.error());
            tracing::warn!(id = %self.run.id, code, error = message, "the description of a pull request could not be updated");
        }
        Ok(Some(revised))
    }

    /// It is merged: as which commit, and how.
    pub(super) async fn merged(&self, recorded: &PullRequest, pull: &Pull) -> Progress {
        let Some(commit) = &pull.merge_commit else {
            return Ok(None);
        };
        let info = self.forge.github.commit(commit).await?;
        let auto_merge = self.forge.config.auto_merge;
        let method = match info.parents.len() {
            2.. => Method::Merge,
            // Both leave our message as it is; so does a squash if we merge.
            _ if info.message.trim_end() != self.message.trim_end() => Method::Squash,
            _ if auto_merge == Some(Method::Squash) => Method::Squash,
            _ => Method::Rebase,
        };
        self.forge.fresh_head(&self.request.branch).await?;
        let repository = &self.forge.repository;
        let mut differences = if repository.ensure(commit).await? {
            repository.differences(commit, self.request.edits.clone()).await?
        } else {
            Vec::new()
        };
        if differences.is_empty() {
            differences.clone_from(&self.state.differences);
        }
        if self.forge.config.delete_branch {
            self.delete_branch(recorded.number).await?;
        }
        Ok(Some(News::Merged {
            commit: commit.clone(),
            differences,
            by: pull.merged_by.clone(),
            method,
        }))
    }
}
