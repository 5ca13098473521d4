//! What was requested of a deployment; fixed from then on.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use slipway_model::{Actor, CommitSha, Id, Image, ImageRef, Images, Name, Reason, duration};
use slipway_verdict::{FailureReason, Previous, Restored, Target, Verify, WorkloadKind};

use super::step::DeploymentStep;
use crate::catalog::{self, ArgoCd, Bake, Check, Job, Jobs, Pauses, Shared};

/// The steps of a deployment in their order; each is taken only if the request asks for it.
const ORDER: [DeploymentStep; 7] = [
    DeploymentStep::Revert,
    DeploymentStep::Before,
    DeploymentStep::Apply,
    DeploymentStep::Rollout,
    DeploymentStep::Checks,
    DeploymentStep::After,
    DeploymentStep::Bake,
];

/// Everything that a deployment needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRequest {
    pub service: Name,
    pub environment: Name,
    pub target: Target,
    /// What the target has in common with other services: what does not carry our images may be theirs.
    #[serde(default, skip_serializing_if = "Shared::is_empty")]
    pub shared: Shared,
    /// The images that must run.
    pub images: Images,
    /// Where the manifests are; `None` if git does not manage the target.
    #[serde(flatten)]
    pub source: Option<Source>,
    /// The target's namespace is made if it does not exist.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_namespace: bool,
    /// Fencing token of the target's lane.
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "Action::is_apply")]
    pub action: Action,
    #[serde(default, skip_serializing_if = "Jobs::is_empty")]
    pub jobs: Jobs,
    #[serde(default)]
    pub checks: Vec<Check>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
    #[serde(default, skip_serializing_if = "waits")]
    pub pauses: Pauses,
    pub verify: Verify,
    /// From the request to the last passed check; the bake has its own time after that.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The version that it puts back, where the manifests name that by tag; then it counts instead of `images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Restored>,
    /// The timeout becomes longer by the steps of a canary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows_steps: bool,
    /// The deployment that this one rolls back: it ends `ROLLBACK_FAILED` where others end `FAILED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolls_back: Option<Id>,
    /// Reverted in git first; the commit that does it then becomes the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<Revert>,
    /// The caller's id for what this belongs to; may be empty.
    #[serde(default)]
    pub correlation_id: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub requested_by: Actor,
    /// This deployment holds the lane's turn itself, and gives it back when it is final. A release's deployment does
    /// not.
    #[serde(default)]
    pub holds_lane: bool,
}

/// One folder of a GitOps repository at exactly one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub repository: Name,
    pub path: String,
    pub commit: CommitSha,
}

/// A change in gitops-svc that is to be reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revert {
    pub change: Id,
    /// Why, in one line, for the commit's message.
    #[serde(default)]
    pub reason: String,
}

/// How the change is applied to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// The source is rendered and applied server-side.
    #[default]
    Apply,
    /// `kubectl rollout restart`.
    Restart,
    /// The image of the target's containers that use it is set, as `kubectl set image` does.
    SetImage,
    /// `kubectl rollout undo`.
    Undo { to: Previous },
    /// Argo CD is asked to sync the source's commit, or followed while it does so by itself.
    Sync { argo_cd: ArgoCd },
    /// Nothing: only the Jobs are run.
    Nothing,
}

impl Action {
    /// How a change is applied to the cluster according to the catalog's settings of an environment; `git`: it has a
    /// GitOps repository.
    pub fn of(kind: WorkloadKind, wanted: catalog::Action, git: bool, argo_cd: &ArgoCd) -> Self {
        match (kind, wanted) {
            (WorkloadKind::Application, _) => Self::Sync {
                argo_cd: argo_cd.clone(),
            },
            (_, catalog::Action::Restart) => Self::Restart,
            (_, catalog::Action::Apply) if !git => Self::SetImage,
            (_, catalog::Action::Apply) => Self::Apply,
        }
    }

    pub(super) fn is_apply(&self) -> bool {
        *self == Self::Apply
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) fn waits(pauses: &Pauses) -> bool {
    *pauses == Pauses::Wait
}

impl DeploymentRequest {
    /// The image as it is searched for in manifests and pods.
    pub fn image_ref(&self) -> ImageRef {
        self.images.only().reference()
    }

    /// What rolls this one, the deployment `id`, back; the caller says what is restored. `to_revert`: what a revert in git
    /// may take, where there is one.
    #[must_use]
    pub fn rolling_back(self, id: &Id, to_revert: Duration, requested_by: Actor) -> Self {
        // Its own time includes a revert already if it reverts something itself.
        let reverts = self.source.is_some() && self.reverts.is_none();
        Self {
            // What ran before had its Jobs and its bake when it was first deployed.
            jobs: Jobs::default(),
            bake: None,
            restores: None,
            rolls_back: Some(id.clone()),
            reverts: None,
            timeout: self.timeout + if reverts { to_revert } else { Duration::ZERO },
            requested_by,
            holds_lane: true,
            ..self
        }
    }

    /// Whether it was to change the target, and not only to run Jobs.
    pub fn changes(&self) -> bool {
        self.action != Action::Nothing
    }

    /// The Jobs of a step; empty for steps without.
    pub(super) fn jobs_of(&self, step: DeploymentStep) -> &[Job] {
        match step {
            DeploymentStep::Before => &self.jobs.before,
            DeploymentStep::After => &self.jobs.after,
            _ => &[],
        }
    }

    fn wants(&self, step: DeploymentStep) -> bool {
        let changes = self.changes();
        match step {
            DeploymentStep::Revert => self.reverts.is_some(),
            DeploymentStep::Before | DeploymentStep::After => !self.jobs_of(step).is_empty(),
            DeploymentStep::Apply | DeploymentStep::Rollout => changes,
            DeploymentStep::Checks => changes && !self.checks.is_empty(),
            DeploymentStep::Bake => changes && self.bake.is_some(),
            DeploymentStep::Evidence => false,
        }
    }

    /// The step after this one, or the first; `None` when everything requested is done.
    pub(super) fn next(&self, step: Option<DeploymentStep>) -> Option<DeploymentStep> {
        let done = step.and_then(|step| ORDER.iter().position(|one| *one == step));
        let rest = &ORDER[done.map_or(0, |index| index + 1)..];
        rest.iter().copied().find(|step| self.wants(*step))
    }
}

/// Whether a deployment that was to restore a version by its tag failed because the tag leads to another image, or to
/// none, while the digest of the version is known.
pub fn tag_leads_elsewhere(restored: &Restored, reason: &Reason) -> bool {
    let codes = [FailureReason::WrongImage, FailureReason::ImageNotFound].map(FailureReason::code);
    codes.contains(&reason.code.as_str()) && !restored.digests.is_empty()
}

/// The fencing token of a deployment: a rollback's is higher than that of what it replaces, under the same turn of the
/// lane, so that a stalled apply of the failed deployment cannot overwrite it.
pub fn fencing_epoch(turn: u64, redeploy: bool) -> u64 {
    2 * turn + u64::from(redeploy)
}

/// The image that `rollout undo` restores instead of `image`; with the digest of `image` if that of the previous one is
/// not known.
pub fn put_back(to: &Previous, image: &Image) -> Image {
    Image {
        name: image.name.clone(),
        repository: to.image.name.clone(),
        digest: to.image.digest.clone().unwrap_or_else(|| image.digest.clone()),
        tags: to.image.tag.iter().cloned().collect(),
    }
}
