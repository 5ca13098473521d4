//! Closes a pull request, unless it was merged just before.

use gitops_domain::{
    change::{News, Outcome},
    pull_request::{Pull, PullRequest, PullState, text},
};
use slipway_github::Error;
use slipway_model::{Fault, Reason};

use super::{Halt, Progress, Work};
use crate::backends::github::reason;

impl Work<'_> {
    /// Closes it, unless it was merged just before.
    pub(super) async fn close(
        &self,
        recorded: &PullRequest,
        comment: &str,
        ours: bool,
        outcome: Outcome,
    ) -> Progress {
        if let Some(merged) = self.shut(recorded.number, comment).await? {
            return self.merged(recorded, &merged).await;
        }
        self.tidy(ours).await?;
        Ok(Some(News::Closed {
            by: String::new(),
            outcome,
        }))
    }

    /// The pull request when it turns out to be merged.
    async fn shut(&self, number: u64, comment: &str) -> Result<Option<Pull>, Halt> {
        self.check()?;
        let github = &self.forge.github;
        let before = github.pull(number).await?;
        match before.state {
            PullState::Merged => return Ok(Some(before)),
            PullState::Closed => return Ok(None),
            PullState::Open => {}
        }
        slipway_faults::point("gitops.close.before");
        let after = match github.close(number).await {
            // GitHub does not close what is merged.
            Err(Fault::Permanent(error)) if error.status == Error::UNPROCESSABLE => {
                github.pull(number).await?
            }
            after => after?,
        };
        slipway_faults::point("gitops.close.after");
        if after.state == PullState::Merged {
            return Ok(Some(after));
        }
        if let Err(fault) = github.comment(number, comment).await {
            let Reason { code, message } = reason(fault.error());
            tracing::warn!(id = %self.run.id, number, code, error = message, "the comment that says why a pull request was closed could not be written");
        }
        Ok(None)
    }

    /// Closes what there is, unless it is merged.
    pub(super) async fn withdraw(&self) -> Progress {
        let github = &self.forge.github;
        let pull = match &self.state.pull_request {
            Some(recorded) => Some(github.pull(recorded.number).await?),
            None => github.find(&self.branch).await?,
        };
        let Some(pull) = pull else {
            self.sweep().await;
            return Ok(Some(News::Withdrawn));
        };
        let comment = text::withdrawn(self.state.cancel.as_deref());
        let merged = match pull.state {
            PullState::Merged => Some(pull.clone()),
            _ => self.shut(pull.number, &comment).await?,
        };
        if let Some(merged) = merged {
            // A list omits some of what is needed about a merged one.
            let merged = github.pull(merged.number).await?;
            let found = self.state.pull_request.clone().unwrap_or_else(|| PullRequest {
                number: merged.number,
                url: merged.url.clone(),
                status: PullState::Merged,
                branch: self.branch.clone(),
                commit: merged.head.clone(),
                base: None,
                revisions: 0,
                message: String::new(),
                by: String::new(),
                method: None,
                poll_every: self.forge.config.poll,
            });
            return self.merged(&found, &merged).await;
        }
        let ours = match &self.state.pull_request {
            Some(recorded) if recorded.commit == pull.head => true,
            _ => self.ours(&pull.head).await?.is_some(),
        };
        self.tidy(ours).await?;
        Ok(Some(News::Withdrawn))
    }
}
