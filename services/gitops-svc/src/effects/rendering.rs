//! Renders the folders of changes before they are pushed.

use std::sync::Arc;

use gitops_domain::rendering::{Answer, By, Rendered, admit};
use slipway_edit::{Edit, Inputs, NotHere};
use slipway_model::{CommitSha, Fault, Reason};

use crate::backends::{
    render::{Renderer, by},
    repository::Repository,
};

/// A commit that may be pushed if its folders render.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) commit: CommitSha,
    pub(super) edits: Vec<Edit>,
    /// Whether it restores what was there before another change.
    pub(super) reverts: bool,
}

/// What rendering a candidate's folders means: what the change is to say, or why it is refused.
pub(super) type Admission = Result<String, Reason>;

/// Renders for one repository.
#[derive(Debug, Clone)]
pub(super) struct Rendering {
    pub(super) renderer: Arc<Renderer>,
    pub(super) repository: Arc<Repository>,
}

impl Rendering {
    /// `None` where the repository's changes are not rendered before they are committed.
    pub(super) fn of(renderer: &Arc<Renderer>, repository: &Arc<Repository>) -> Option<Self> {
        repository.render_before_commit().then(|| Self {
            renderer: Arc::clone(renderer),
            repository: Arc::clone(repository),
        })
    }

    /// What each candidate's folders read.
    pub(super) async fn inputs(
        &self,
        candidates: &[Candidate],
    ) -> Result<Vec<Vec<Result<Inputs, NotHere>>>, Fault<Reason>> {
        let commits = candidates
            .iter()
            .map(|candidate| (candidate.commit.clone(), candidate.edits.clone()))
            .collect();
        self.repository.inputs(commits).await
    }

    /// Whether a candidate may be committed on `base`, from what its folders read.
    pub(super) async fn admission(
        &self,
        candidate: &Candidate,
        base: &CommitSha,
        inputs: Vec<Result<Inputs, NotHere>>,
    ) -> Result<Admission, Fault<Reason>> {
        let mut folders = Vec::with_capacity(inputs.len());
        for inputs in inputs {
            let rendered = match inputs {
                Ok(inputs) => {
                    let with = self
                        .renderer
                        .check(&self.repository, &candidate.commit, &inputs)
                        .await;
                    let without = match &with {
                        Answer::Fails(_) => self.before(candidate, base, &inputs).await?,
                        _ => None,
                    };
                    Rendered {
                        folder: inputs.folder.as_str().to_owned(),
                        by: by(&inputs),
                        with,
                        without,
                    }
                }
                Err(NotHere(why)) => Rendered {
                    folder: String::new(),
                    by: By::Kustomize,
                    with: Answer::NotHere(why),
                    without: None,
                },
            };
            folders.push(rendered);
        }
        Ok(admit(&folders, candidate.reverts))
    }

    /// What a change is to say that an earlier run has pushed as this commit: nothing is refused any more.
    pub(super) async fn note(&self, commit: &CommitSha, edits: Vec<Edit>) -> Result<String, Fault<Reason>> {
        let candidate = Candidate {
            commit: commit.clone(),
            edits,
            reverts: true,
        };
        Ok(self.admitted(&candidate, commit).await?.unwrap_or_default())
    }

    /// Whether one candidate may be committed on `base`.
    pub(super) async fn admitted(
        &self,
        candidate: &Candidate,
        base: &CommitSha,
    ) -> Result<Admission, Fault<Reason>> {
        let inputs = self.inputs(std::slice::from_ref(candidate)).await?;
        self.admission(candidate, base, inputs.into_iter().flatten().collect())
            .await
    }

    /// Whether a folder rendered without the candidate.
    async fn before(
        &self,
        candidate: &Candidate,
        base: &CommitSha,
        with: &Inputs,
    ) -> Result<Option<Answer>, Fault<Reason>> {
        let commits = vec![(base.clone(), candidate.edits.clone())];
        let inputs = self.repository.inputs(commits).await?.into_iter().flatten();
        let found = inputs
            .filter_map(Result::ok)
            .find(|inputs| inputs.is_same_place(with));
        Ok(match found {
            Some(inputs) => Some(self.renderer.check(&self.repository, base, &inputs).await),
            None => None,
        })
    }
}
