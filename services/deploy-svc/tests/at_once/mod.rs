//! Deployments that succeed at once, without a cluster: for tests and measurements of what is around them.

use async_trait::async_trait;
use deploy_domain::{
    deployment::{Deployment, DeploymentCommand, DeploymentEffect, DeploymentState},
    result::{CheckResult, JobResult, Measurement},
};
use deploy_svc::testing::lane;
use slipway_ledger::{EffectRun, Effects};
use slipway_model::{Actor, Reason, Timestamp};
use slipway_verdict::Applied;

/// Does what other services are asked for as `beside` does it, and has all else succeed at once.
pub(crate) struct AtOnce {
    /// Reverts, which gitops-svc does.
    pub(crate) beside: Option<std::sync::Arc<dyn Effects<Deployment>>>,
}

#[async_trait]
impl Effects<Deployment> for AtOnce {
    async fn perform(&self, run: EffectRun<Deployment>) -> Result<Option<DeploymentCommand>, Reason> {
        match (&run.effect, &self.beside) {
            (DeploymentEffect::LeaveLane, _) => lane::leave(&run).await,
            (DeploymentEffect::Revert | DeploymentEffect::ObserveRevert, Some(beside)) => {
                beside.perform(run).await
            }
            _ => Ok(answer(&run)),
        }
    }

    fn actor(&self) -> Actor {
        Actor::system("deploy")
    }
}

/// What a cluster answers in which all is well.
fn answer(run: &EffectRun<Deployment>) -> Option<DeploymentCommand> {
    let request = run.snapshot.state.request.as_ref()?;
    let (key, state) = (run.key.clone(), &run.snapshot.state);
    Some(match run.effect {
        DeploymentEffect::Before | DeploymentEffect::After => DeploymentCommand::JobEnded {
            key,
            result: job_ended(state)?,
        },
        DeploymentEffect::Apply => DeploymentCommand::Applied {
            key,
            applied: Applied::default(),
        },
        DeploymentEffect::Rollout => DeploymentCommand::RolledOut { key },
        DeploymentEffect::Checks => DeploymentCommand::Checked {
            key,
            results: request
                .checks
                .iter()
                .map(|check| CheckResult {
                    name: check.name.clone(),
                    passed: true,
                    attempts: 1,
                    last_answer: "200".to_owned(),
                })
                .collect(),
        },
        DeploymentEffect::Bake => DeploymentCommand::Measured {
            key,
            measurements: state
                .measured()
                .map(|(metric, _)| Measurement {
                    metric: metric.name.clone(),
                    at: Timestamp::now(),
                    value: metric.max.or(metric.min),
                    message: String::new(),
                })
                .collect(),
            verdict: slipway_verdict::Verdict::Complete,
        },
        DeploymentEffect::Evidence => DeploymentCommand::Evidence {
            key,
            evidence: Vec::new(),
        },
        DeploymentEffect::Promote | DeploymentEffect::Abort => {
            DeploymentCommand::Told { key, declined: None }
        }
        DeploymentEffect::Stop => DeploymentCommand::Stopped { key },
        DeploymentEffect::Revert | DeploymentEffect::ObserveRevert | DeploymentEffect::LeaveLane => {
            return None;
        }
    })
}

fn job_ended(state: &DeploymentState) -> Option<JobResult> {
    let job = state.job()?;
    Some(JobResult {
        name: job.name.clone(),
        job: job.name.to_string(),
        succeeded: true,
        message: String::new(),
        log_tail: Vec::new(),
    })
}
