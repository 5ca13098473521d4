//! Carries out what deployments say must happen: render and apply, watch the rollout, run the checks, collect
//! evidence, give the lane back.

mod lane;
mod rollout;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use slipway_kubernetes::{
    ApiFault, Cluster, Clusters,
    apply::{self, ApplyError, Write, manifests},
    evidence,
};
use slipway_ledger::{EffectRun, Effects};
use slipway_model::{Actor, CommitSha, Name, SpanId, TraceContext, TraceId};
use slipway_verdict::Applied;
use tracing::Instrument;

use crate::{
    deployment::{Deployment, DeploymentCommand, DeploymentEffect, DeploymentRequest, Reason},
    checks,
    result::CheckResult,
    owners::{CallError, Changes},
};

pub use lane::{LaneError, request as request_alone};

/// Whoever renders a folder of the GitOps repository.
#[async_trait]
pub trait Manifests: Send + Sync {
    /// The manifests of a folder at exactly one commit, as a stream of YAML documents.
    ///
    /// # Errors
    /// Refused when they do not exist or do not render; away when that could not be asked.
    async fn render(
        &self,
        repository: &Name,
        commit: &CommitSha,
        path: &str,
        trace: TraceContext,
    ) -> Result<String, RenderError>;
}

/// Why there are no manifests.
#[derive(Debug)]
pub enum RenderError {
    Refused(Reason),
    Away(String),
}

#[async_trait]
impl Manifests for Changes {
    async fn render(
        &self,
        repository: &Name,
        commit: &CommitSha,
        path: &str,
        trace: TraceContext,
    ) -> Result<String, RenderError> {
        Changes::render(self, repository.as_str(), commit.as_str(), path, trace)
            .await
            .map_err(|error| match error {
                CallError::Refused(reason) => RenderError::Refused(Reason::new(reason.code, reason.message)),
                CallError::Passing(reason) => RenderError::Away(reason.message),
            })
    }
}

/// The clusters, and who renders for them.
#[derive(Clone)]
pub struct DeploymentEffects {
    pub clusters: Clusters,
    pub manifests: Arc<dyn Manifests>,
}

impl fmt::Debug for DeploymentEffects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeploymentEffects")
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}

type Run = EffectRun<Deployment>;

#[async_trait]
impl Effects<Deployment> for DeploymentEffects {
    async fn perform(&self, run: Run) -> Option<DeploymentCommand> {
        let span = tracing::info_span!("deployment", deployment = %run.id, step = %run.key);
        if let Some(parent) = run.traceparent {
            slipway_telemetry::set_parent(&span, parent);
        }
        let cancelled = run.cancelled.clone();
        let step = self.step(run).instrument(span);
        tokio::select! {
            command = step => command,
            () = cancelled.cancelled() => None,
        }
    }

    fn actor(&self) -> Actor {
        Actor::system("deploy")
    }
}

impl DeploymentEffects {
    async fn step(&self, run: Run) -> Option<DeploymentCommand> {
        if run.effect == DeploymentEffect::LeaveLane {
            return lane::leave(&run).await;
        }
        let request = run.snapshot.state.request.clone()?;
        let key = run.key.clone();
        let cluster = match self.clusters.get(&request.target.cluster) {
            Ok(cluster) => cluster,
            // A configuration can be mended within the deadline, but who waits for that would rather know now.
            Err(unknown) => {
                let reason = Reason::new("UNKNOWN_CLUSTER", unknown.to_string());
                return Some(DeploymentCommand::Refused { key, reason });
            }
        };
        Some(match run.effect {
            DeploymentEffect::Apply => match self.apply(cluster, &run, &request).await {
                Ok(applied) => DeploymentCommand::Applied { key, applied },
                Err(Outcome::Refused(reason)) => DeploymentCommand::Refused { key, reason },
                Err(Outcome::Away(message)) => DeploymentCommand::Stumbled { key, message },
            },
            DeploymentEffect::Rollout => match cluster {
                Cluster::Kubernetes(cluster) => rollout::follow(cluster, &run, &request).await?,
                Cluster::Pretend => DeploymentCommand::RolledOut { key },
            },
            DeploymentEffect::Checks => match run_checks(cluster, &request).await {
                Ok(results) => DeploymentCommand::Checked { key, results },
                Err(fault) => DeploymentCommand::Stumbled {
                    key,
                    message: fault.to_string(),
                },
            },
            DeploymentEffect::Evidence => match cluster {
                Cluster::Kubernetes(cluster) => match evidence::collect(cluster, &request.target).await {
                    Ok(evidence) => DeploymentCommand::Evidence { key, evidence },
                    Err(ApiFault::Away(message)) => DeploymentCommand::Stumbled { key, message },
                    Err(ApiFault::Refused(message)) => {
                        tracing::warn!(deployment = %run.id, message, "no evidence");
                        DeploymentCommand::Evidence {
                            key,
                            evidence: Vec::new(),
                        }
                    }
                },
                Cluster::Pretend => DeploymentCommand::Evidence {
                    key,
                    evidence: Vec::new(),
                },
            },
            DeploymentEffect::Revert
            | DeploymentEffect::Before
            | DeploymentEffect::After
            | DeploymentEffect::Bake
            | DeploymentEffect::LeaveLane => return None,
        })
    }

    async fn apply(
        &self,
        cluster: &Cluster,
        run: &Run,
        request: &DeploymentRequest,
    ) -> Result<Applied, Outcome> {
        let trace = run.traceparent.unwrap_or_else(|| own_trace(run));
        let cluster = match cluster {
            Cluster::Kubernetes(cluster) => cluster,
            Cluster::Pretend => return Ok(Applied::default()),
        };
        let Some(source) = &request.source else {
            let reason = Reason::new("NO_SOURCE", "there is no commit to apply; this is a defect");
            return Err(Outcome::Refused(reason));
        };
        let yaml = self
            .manifests
            .render(&source.repository, &source.commit, &source.path, trace)
            .await
            .map_err(|error| match error {
                RenderError::Refused(reason) => Outcome::Refused(reason),
                RenderError::Away(message) => Outcome::Away(message),
            })?;
        let objects = manifests::parse(&yaml)
            .and_then(|objects| {
                manifests::verify(&objects, &request.target, &request.image_ref())?;
                Ok(objects)
            })
            .map_err(|error| Outcome::Refused(Reason::new(error.code(), error.to_string())))?;
        let write = Write {
            deployment: &run.id,
            target: &request.target,
            epoch: request.epoch,
            commit: source.commit.as_str(),
        };
        apply::apply(cluster, objects, &write)
            .await
            .map_err(|error| match error {
                ApplyError::Superseded { .. } => {
                    Outcome::Refused(Reason::new("SUPERSEDED_EPOCH", error.to_string()))
                }
                ApplyError::Refused(message) => Outcome::Refused(Reason::new("APPLY_REFUSED", message)),
                ApplyError::Away(message) => Outcome::Away(format!("cluster {}: {message}", cluster.name())),
            })
    }
}

enum Outcome {
    Refused(Reason),
    Away(String),
}

async fn run_checks(cluster: &Cluster, request: &DeploymentRequest) -> Result<Vec<CheckResult>, ApiFault> {
    match cluster {
        Cluster::Kubernetes(cluster) => checks::run(cluster, &request.target.namespace, &request.checks).await,
        Cluster::Pretend => Ok(request
            .checks
            .iter()
            .map(|check| CheckResult {
                name: check.name.clone(),
                passed: true,
                attempts: 1,
                last_answer: "pretended".to_owned(),
            })
            .collect()),
    }
}

/// For a deployment that nobody gave a trace.
fn own_trace(run: &Run) -> TraceContext {
    let parts = ["deployment", run.id.as_str()];
    TraceContext {
        trace_id: TraceId::derived(&parts),
        span_id: SpanId::derived(&parts),
        sampled: true,
    }
}
