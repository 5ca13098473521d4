//! The commits of a group that may be pushed: those whose folders render, or cannot be rendered here.
//!
//! A folder that takes long to render keeps nobody else waiting: its change is left to the next round, and finds the
//! answer there.

use std::time::Duration;

use futures::future::join_all;
use gitops_domain::change;
use slipway_model::{CommitSha, Fault, Id, Reason};

use super::{
    attempt::{Attempt, Head, plan},
    waiting::Waiting,
};
use crate::{
    backends::repository::{Applied, Plan},
    effects::rendering::{Admission, Candidate, Rendering},
};

/// How long the others of a group wait for a folder to be rendered.
const PATIENCE: Duration = Duration::from_millis(500);

/// The commits of a group on one head.
pub(super) struct Commits<'a> {
    pub(super) tip: CommitSha,
    /// What became of each change, and what it is to say.
    pub(super) made: Vec<(&'a Waiting, Applied, String)>,
    /// Those whose folders do not render.
    pub(super) refused: Vec<(Id, Reason)>,
    /// Whether some are left to the next round.
    pub(super) left: bool,
}

impl Commits<'_> {
    /// Whether all of them are left to the next round.
    pub(super) fn all_left(&self) -> bool {
        self.left && self.made.is_empty() && self.refused.is_empty()
    }
}

impl<'a> Attempt<'a> {
    /// Makes the commits, without those of changes whose folders do not render. After each that is left out the others
    /// are made again, on what is before them then.
    pub(super) async fn commits(
        &self,
        head: &Head,
        mut rest: Vec<&'a Waiting>,
    ) -> Result<Commits<'a>, Fault<Reason>> {
        let rendering = Rendering::of(&self.round.worker.renderer, self.repository);
        let (mut refused, mut left) = (Vec::new(), false);
        loop {
            let plans: Vec<Plan> = rest.iter().filter_map(|(id, state)| plan(id, state)).collect();
            let (tip, applied) = self.repository.apply(&head.commit, plans).await?;
            let admissions = match &rendering {
                Some(rendering) => self.admissions(rendering, head, &rest, &applied).await?,
                None => rest.iter().map(|_| Some(Ok(String::new()))).collect(),
            };
            if admissions
                .iter()
                .all(|admission| matches!(admission, Some(Ok(_))))
            {
                let notes = admissions
                    .into_iter()
                    .map(|note| note.and_then(Result::ok).unwrap_or_default());
                let made = rest.into_iter().zip(applied).zip(notes);
                return Ok(Commits {
                    tip,
                    made: made
                        .map(|((change, applied), note)| (change, applied, note))
                        .collect(),
                    refused,
                    left,
                });
            }
            let mut kept = Vec::with_capacity(rest.len());
            for (change, admission) in rest.into_iter().zip(admissions) {
                match admission {
                    Some(Ok(_)) => kept.push(change),
                    Some(Err(reason)) => refused.push((change.0.clone(), reason)),
                    None => left = true,
                }
            }
            rest = kept;
        }
    }

    /// What a change is to say that an earlier run has pushed as this commit.
    pub(super) async fn note(
        &self,
        commit: &CommitSha,
        state: &change::State,
    ) -> Result<String, Fault<Reason>> {
        let rendering = Rendering::of(&self.round.worker.renderer, self.repository);
        let (Some(rendering), Some(request)) = (rendering, &state.request) else {
            return Ok(String::new());
        };
        rendering.note(commit, request.edits.clone()).await
    }

    /// What rendering says of each change; `None`: not yet.
    async fn admissions(
        &self,
        rendering: &Rendering,
        head: &Head,
        rest: &[&'a Waiting],
        applied: &[Applied],
    ) -> Result<Vec<Option<Admission>>, Fault<Reason>> {
        let mut candidates = Vec::new();
        let mut admissions: Vec<Option<Admission>> = Vec::with_capacity(rest.len());
        for ((_, state), applied) in rest.iter().zip(applied) {
            let (Applied::Commit { commit, .. }, Some(request)) = (applied, &state.request) else {
                admissions.push(Some(Ok(String::new())));
                continue;
            };
            admissions.push(None);
            candidates.push(Candidate {
                commit: commit.clone(),
                edits: request.edits.clone(),
                reverts: request.reverts.is_some(),
            });
        }
        let inputs = rendering.inputs(&candidates).await?;
        loop {
            // Each is made on the one before it, which may be what breaks it.
            let bases = candidates.iter().map(|candidate| &candidate.commit);
            let bases = std::iter::once(&head.commit).chain(bases);
            let asked = candidates.iter().zip(&inputs).zip(bases);
            let asked = asked.map(|((candidate, inputs), base)| {
                let admission = rendering.admission(candidate, base, inputs.clone());
                tokio::time::timeout(PATIENCE, admission)
            });
            let mut answers = join_all(asked).await.into_iter();
            for admission in admissions.iter_mut().filter(|admission| admission.is_none()) {
                if let Some(Ok(answer)) = answers.next() {
                    *admission = Some(answer?);
                }
            }
            // If nothing else is to be pushed, nobody else waits.
            let decided = admissions.is_empty() || admissions.iter().any(Option::is_some);
            let others = !decided && self.others_wait().await.unwrap_or(true);
            if decided || others || self.round.cancelled.is_cancelled() {
                return Ok(admissions);
            }
        }
    }
}
