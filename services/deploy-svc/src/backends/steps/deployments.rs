//! This service's own deployments, as the backend of the prepare, deploy and redeploy steps. They are in the same
//! database.

use std::time::Duration;

use async_trait::async_trait;
use deploy_domain::{
    catalog::{Job, Jobs, time_of},
    deployment::{
        Action, Deployment, DeploymentCommand, DeploymentRequest, DeploymentStatus, Source, fencing_epoch,
        put_back,
    },
    plan::PlannedEnvironment,
    release::{Facts, Observation, StepKind, Waiting, WaitingKind},
};
use slipway_ledger::{Ledger, Meta, Snapshot, executor::codes};
use slipway_model::{Actor, Fault, Id, Image, Images, Reason};
use slipway_verdict::{Previous, Restored};

use super::{Order, StepBackend, Taken};

/// What a deployment that only runs Jobs may take in addition to them: each Job's own time ends it with its own
/// message.
const JOBS_MARGIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Deployments {
    ledger: Ledger,
}

impl std::fmt::Debug for Deployments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployments").finish_non_exhaustive()
    }
}

impl Deployments {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    async fn execute(
        &self,
        order: Order<'_>,
        id: &Id,
        command: DeploymentCommand,
    ) -> Result<Observation, Fault<Reason>> {
        let meta = Meta::new(Actor::system("deploy"), Some(order.trace()));
        let executed = self
            .ledger
            .execute::<Deployment>(id, || command.clone(), &meta)
            .await;
        executed.map(|snapshot| observation(&snapshot)).map_err(passing)
    }
}

/// What is to run, where its manifests are, and how the change is applied to the cluster.
struct Aim {
    image: Image,
    source: Option<Source>,
    action: Action,
    /// What is put back, where the manifests name it by tag.
    restores: Option<Restored>,
    /// Whether the running containers' digest is known, and so can be checked.
    by_digest: bool,
}

impl Deployments {
    /// What this step of the release asks of the cluster; `Err` with an observation if there is nothing to ask.
    async fn aim(&self, order: Order<'_>) -> Result<Result<Aim, Observation>, Fault<Reason>> {
        let planned = order.planned()?;
        let source = |commit: &slipway_model::CommitSha| {
            planned.gitops.as_ref().map(|gitops| Source {
                repository: gitops.repository.clone(),
                path: gitops.path.clone(),
                commit: commit.clone(),
            })
        };
        let new = |source, action| -> Result<Aim, Fault<Reason>> {
            Ok(Aim {
                image: order.image()?.clone(),
                source,
                action,
                restores: None,
                by_digest: true,
            })
        };
        match order.step.kind {
            // A gate before the commit: there is no commit yet.
            StepKind::Prepare => {
                let commit = order.change().ok().map(|change| &change.commit);
                new(commit.and_then(source), Action::Nothing).map(Ok)
            }
            StepKind::Redeploy if planned.gitops.is_some() => {
                // What is restored is what was there before the change.
                let aim = |image, commit, restores: Option<Restored>| Aim {
                    image,
                    source: source(commit),
                    action: action(planned),
                    by_digest: restores
                        .as_ref()
                        .is_none_or(|restored| !restored.digests.is_empty()),
                    restores,
                };
                let reverted = &order.revert()?.commit;
                Ok(Ok(match (&order.change()?.previous, &order.progress()?.pin) {
                    (Some(images), _) => aim(images.only().clone(), reverted, None),
                    (None, Some(pin)) => aim(order.pinned()?, &pin.commit, None),
                    (None, None) => {
                        let restored = order
                            .restored()
                            .ok_or_else(|| super::missing("a previous image"))?;
                        // Without a recorded digest it stands for the image only by name; it is not compared then.
                        let image = order.pinned().or_else(|_| order.image().cloned())?;
                        aim(image, reverted, Some(restored))
                    }
                }))
            }
            StepKind::Redeploy => {
                let aim = |to: Previous| -> Result<Aim, Fault<Reason>> {
                    Ok(Aim {
                        image: put_back(&to, order.image()?),
                        source: None,
                        // Named by tag only: the expected digest is not known, so it is not checked.
                        by_digest: to.image.digest.is_some(),
                        restores: None,
                        action: Action::Undo { to },
                    })
                };
                match self.before(order).await? {
                    Ok(previous) => aim(previous).map(Ok),
                    Err(reason) => Ok(Err(Observation::Skipped(reason))),
                }
            }
            _ => {
                let source = match &planned.gitops {
                    Some(_) => source(&order.change()?.commit),
                    None => None,
                };
                new(source, action(planned)).map(Ok)
            }
        }
    }

    /// What ran before this release's deployment, as reported by the cluster when it was changed.
    async fn before(&self, order: Order<'_>) -> Result<Result<Previous, Reason>, Fault<Reason>> {
        let nothing = |words: &str| Ok(Err(Reason::new("NOTHING_TO_PUT_BACK", words)));
        let Some(deployment) = failed_deployment(order) else {
            return nothing("Nothing was changed in the cluster");
        };
        let snapshot = self
            .ledger
            .get::<Deployment>(&deployment)
            .await
            .map_err(passing)?;
        let Some(applied) = snapshot.and_then(|snapshot| snapshot.state.applied) else {
            return nothing("Nothing was changed in the cluster");
        };
        match applied.previous {
            Some(previous) => Ok(Ok(previous)),
            None => nothing(
                "There was no version before it that could be put back, so it is still there: look at it",
            ),
        }
    }
}

/// The deployment that a redeploy rolls back. Its id is known even if the release never learnt that it was started.
fn failed_deployment(order: Order<'_>) -> Option<Id> {
    let mut steps = order.state.steps.iter().rev();
    let step =
        steps.find(|step| step.kind == StepKind::Deploy && step.environment == order.step.environment)?;
    Some(Id::derived("dep", &[&order.request_id_of(step)]))
}

/// How a change is applied in a planned environment.
fn action(planned: &PlannedEnvironment) -> Action {
    let git = planned.gitops.is_some();
    Action::of(planned.target.kind, planned.action, git, &planned.argo_cd)
}

#[async_trait]
impl StepBackend for Deployments {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let planned = order.planned()?;
        let reference = Id::derived("dep", &[&order.request_id()]);
        let aim = match self.aim(order).await? {
            Ok(aim) => aim,
            Err(observation) => {
                return Ok(Taken {
                    reference,
                    observation,
                });
            }
        };
        let requested_by = order
            .state
            .requested_by
            .clone()
            .ok_or_else(|| super::missing("a requester"))?;
        let kind = order.step.kind;
        let (deploy, redeploy) = (kind == StepKind::Deploy, kind == StepKind::Redeploy);
        // The Jobs before have their own step; a restored version is verified, without its Jobs and without a bake.
        let jobs = match kind {
            StepKind::Prepare => Jobs {
                before: planned.jobs.before.clone(),
                after: Vec::new(),
            },
            StepKind::Deploy => Jobs {
                before: Vec::new(),
                after: planned.jobs.after.clone(),
            },
            _ => Jobs::default(),
        };
        let timeout = match kind {
            StepKind::Prepare => time_of(&jobs.before) + JOBS_MARGIN,
            _ => planned.timeout.deploy + time_of(&jobs.after),
        };
        let mut verify = planned.verify;
        verify.digest &= aim.by_digest;
        let request = DeploymentRequest {
            service: order.plan.service.clone(),
            environment: planned.name.clone(),
            target: planned.target.clone(),
            shared: planned.shared.clone(),
            images: Images::one(aim.image),
            source: aim.source,
            action: aim.action,
            jobs,
            bake: planned.bake.clone().filter(|_| deploy),
            pauses: planned.pauses,
            create_namespace: planned.create_namespace,
            restores: aim.restores,
            rolls_back: failed_deployment(order).filter(|_| redeploy),
            reverts: None,
            epoch: fencing_epoch(order.epoch()?, redeploy),
            checks: match kind {
                StepKind::Prepare => Vec::new(),
                _ => planned.checks.clone(),
            },
            verify,
            timeout,
            follows_steps: planned.timeout.follows_steps && kind != StepKind::Prepare,
            correlation_id: order.release.to_string(),
            labels: Default::default(),
            requested_by,
            holds_lane: false,
        };
        let observation = self
            .execute(order, &reference, DeploymentCommand::Request(Box::new(request)))
            .await?;
        Ok(Taken {
            reference,
            observation,
        })
    }

    async fn observe(&self, _: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let snapshot = self.ledger.get::<Deployment>(reference).await.map_err(passing)?;
        snapshot
            .map(|snapshot| observation(&snapshot))
            .ok_or_else(|| super::missing("a deployment"))
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let message = order.stop_message();
        self.execute(order, reference, DeploymentCommand::Cancel { message })
            .await
    }
}

fn passing(error: impl std::fmt::Display) -> Fault<Reason> {
    Fault::unavailable(codes::LEDGER, error.to_string())
}

fn observation(deployment: &Snapshot<Deployment>) -> Observation {
    let state = &deployment.state;
    let reason = |fallback| {
        state
            .reason
            .clone()
            .unwrap_or_else(|| Reason::new(fallback, "no reason given"))
    };
    match state.status {
        DeploymentStatus::Pending | DeploymentStatus::Applying | DeploymentStatus::Verifying => {
            let progress = state.progress_words();
            let message = if progress.is_empty() {
                state.status.as_str()
            } else {
                &progress
            };
            let kind = if state.human && state.ask.is_none() {
                WaitingKind::Human
            } else {
                WaitingKind::Machine
            };
            let retry = deployment.retrying().map(|retry| retry.error);
            let until = state.deadline.filter(|_| !state.deadline_basis.is_empty());
            Observation::Pending(Waiting {
                until,
                ..Waiting::new(kind, message).retrying(retry)
            })
        }
        DeploymentStatus::Succeeded => Observation::Succeeded {
            result: with_warnings(
                state.request.as_ref().map(result).unwrap_or_default(),
                &state.warnings,
            ),
            facts: Facts::None,
        },
        DeploymentStatus::Failed | DeploymentStatus::RollbackFailed => {
            Observation::Failed(reason("DEPLOYMENT_FAILED"))
        }
        DeploymentStatus::Errored => Observation::Errored(reason("DEPLOYMENT_ERRORED")),
        DeploymentStatus::Cancelled => Observation::Cancelled(reason("DEPLOYMENT_CANCELLED")),
    }
}

/// A result, and what a person should know all the same.
fn with_warnings(result: String, warnings: &[String]) -> String {
    if warnings.is_empty() {
        return result;
    }
    format!("{result}; warning: {}", warnings.join("; "))
}

/// The result of a successful deployment, for people.
fn result(request: &DeploymentRequest) -> String {
    let jobs = |jobs: &[Job]| {
        let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        names.join(", ")
    };
    match &request.action {
        Action::Nothing => format!("ran {}", jobs(&request.jobs.before)),
        Action::Undo { to } if to.image.digest.is_none() => format!("runs revision {} again", to.revision),
        _ if request
            .restores
            .as_ref()
            .is_some_and(|restored| restored.digests.is_empty()) =>
        {
            "runs what git named before".to_owned()
        }
        _ => format!("runs {}", request.images.only().digest.short()),
    }
}
