//! Carries out the effects of deployments: revert a change, run Jobs, apply the change to the cluster, watch the
//! rollout, check the running service, measure, collect evidence, give the lane back. One file per step.

mod apply;
mod argo_cd;
mod bake;
mod jobs;
pub mod lane;
pub(crate) mod newest;
mod progress;
mod promotion;
mod revert;
mod rollout;
mod steps;
mod stuck;
mod workloads;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use deploy_domain::deployment::{
    Action, Deployment, DeploymentCommand, DeploymentEffect, DeploymentRequest, Stray,
};
use slipway_kubernetes::{Clusters, Kubernetes, evidence, fault, namespace};
use slipway_ledger::{EffectRun, Effects};
use slipway_model::{Actor, Fault, Name, Reason, SpanId, Timestamp, TraceContext, TraceId};
use slipway_probe::{Checker, Prometheuses};
use slipway_verdict::{Workload, WorkloadKind, evidence::PodEvidence};
use tracing::Instrument;

use crate::backends::gitops::{Manifests, NoReverts, Reverts};

pub use bake::measure;
pub(crate) use lane::{LaneError, request as request_alone, request_as_of};
pub(super) use rollout::expected;

/// What deployments are carried out with: the clusters, what renders for them, and what reverts changes.
#[derive(Clone)]
pub struct DeploymentEffects {
    pub clusters: Clusters,
    pub manifests: Arc<dyn Manifests>,
    pub reverts: Arc<dyn Reverts>,
    pub checker: Checker,
    pub prometheus: Prometheuses,
}

impl DeploymentEffects {
    /// With the default settings for checks and metrics, and without a way to revert changes.
    pub fn new(clusters: Clusters, manifests: Arc<dyn Manifests>) -> Self {
        Self {
            clusters,
            manifests,
            reverts: Arc::new(NoReverts),
            checker: Checker::default(),
            prometheus: Prometheuses::default(),
        }
    }

    /// With gitops-svc, or a replacement, to revert changes.
    #[must_use]
    pub fn reverts(mut self, reverts: Arc<dyn Reverts>) -> Self {
        self.reverts = reverts;
        self
    }

    /// With the Prometheus servers that metrics name.
    #[must_use]
    pub fn prometheus(mut self, prometheus: Prometheuses) -> Self {
        self.prometheus = prometheus;
        self
    }

    /// With checks as configured.
    #[must_use]
    pub fn checker(mut self, checker: Checker) -> Self {
        self.checker = checker;
        self
    }
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
    async fn perform(&self, run: Run) -> Result<Option<DeploymentCommand>, Reason> {
        let span = tracing::info_span!("deployment", deployment = %run.id, step = %run.key);
        if let Some(parent) = run.traceparent {
            slipway_telemetry::set_parent(&span, parent);
        }
        let cancelled = run.cancelled.clone();
        let step = Box::pin(self.step(run)).instrument(span);
        tokio::select! {
            command = step => command,
            () = cancelled.cancelled() => Ok(None),
        }
    }

    fn actor(&self) -> Actor {
        Actor::system("deploy")
    }
}

impl DeploymentEffects {
    async fn step(&self, run: Run) -> Result<Option<DeploymentCommand>, Reason> {
        let Some(request) = run.snapshot.state.request.clone() else {
            return Ok(None);
        };
        Ok(match run.effect {
            DeploymentEffect::LeaveLane => lane::leave(&run).await?,
            DeploymentEffect::Revert => self.revert(&run, &request).await,
            DeploymentEffect::ObserveRevert => self.observe_revert(&run).await,
            _ => self.on_cluster(&run, &request).await,
        })
    }

    async fn on_cluster(&self, run: &Run, request: &DeploymentRequest) -> Option<DeploymentCommand> {
        let key = run.key.clone();
        match self.clusters.get(&request.target.cluster) {
            Ok(cluster) => self.on(cluster, run, request).await,
            // The configuration can be fixed within the deadline, but it is better to know now.
            Err(unknown) => {
                let reason = Reason::new("UNKNOWN_CLUSTER", unknown.to_string());
                Some(match run.effect {
                    DeploymentEffect::Stop => DeploymentCommand::Stopped { key },
                    DeploymentEffect::Promote | DeploymentEffect::Abort => DeploymentCommand::Told {
                        key,
                        declined: Some(reason.message),
                    },
                    _ => DeploymentCommand::Refused { key, reason },
                })
            }
        }
    }

    async fn on(
        &self,
        cluster: &Kubernetes,
        run: &Run,
        request: &DeploymentRequest,
    ) -> Option<DeploymentCommand> {
        let key = run.key.clone();
        let syncs = matches!(request.action, Action::Sync { .. });
        let begins = matches!(run.effect, DeploymentEffect::Before | DeploymentEffect::Apply);
        if request.create_namespace
            && begins
            && let Err(fault) = namespace::create(cluster, &request.target.namespace).await
        {
            return Some(outcome_of(run, of_step(cluster, "APPLY_REFUSED", fault)));
        }
        let outcome = match run.effect {
            DeploymentEffect::Before | DeploymentEffect::After => jobs::run(cluster, run, request).await,
            DeploymentEffect::Stop => {
                match &run.snapshot.state.stray {
                    Some(Stray::Job { name }) => jobs::stop(cluster, run, request, name).await,
                    Some(Stray::Sync) => argo_cd::stop(cluster, run, request).await,
                    None => {}
                }
                Ok(DeploymentCommand::Stopped { key })
            }
            DeploymentEffect::Apply if syncs => {
                self.steps_of_application(cluster, run, request).await;
                return argo_cd::apply(&self.clusters, cluster, run, request).await;
            }
            DeploymentEffect::Apply => {
                let applied = self.apply(cluster, run, request).await;
                applied.map(|applied| DeploymentCommand::Applied { key, applied })
            }
            DeploymentEffect::Rollout if syncs => {
                return argo_cd::follow(&self.clusters, cluster, run, request).await;
            }
            DeploymentEffect::Rollout => return rollout::follow(cluster, run, request).await,
            DeploymentEffect::Promote | DeploymentEffect::Abort => {
                let declined = promotion::tell(&self.clusters, cluster, run, request).await;
                Ok(DeploymentCommand::Told { key, declined })
            }
            DeploymentEffect::Checks => {
                let namespace = home(cluster, request).await;
                let results = self.checker.run(cluster, &namespace, &request.checks).await;
                results
                    .map(|results| DeploymentCommand::Checked { key, results })
                    .map_err(|fault| away(cluster, fault))
            }
            DeploymentEffect::Bake => self.measure(cluster, run, request).await,
            DeploymentEffect::Evidence => match evidence(&self.clusters, cluster, run, request).await {
                Ok(evidence) => Ok(DeploymentCommand::Evidence { key, evidence }),
                Err(fault @ Fault::Transient { .. }) => Err(away(cluster, fault)),
                Err(Fault::Permanent(error)) => {
                    tracing::warn!(deployment = %run.id, code = error.code, %error, "no evidence");
                    let evidence = Vec::new();
                    Ok(DeploymentCommand::Evidence { key, evidence })
                }
            },
            DeploymentEffect::Revert | DeploymentEffect::ObserveRevert | DeploymentEffect::LeaveLane => {
                return None;
            }
        };
        Some(outcome.unwrap_or_else(|fault| outcome_of(run, fault)))
    }

    /// Measures the bake's metrics once, and checks the workload.
    async fn measure(
        &self,
        cluster: &Kubernetes,
        run: &Run,
        request: &DeploymentRequest,
    ) -> Result<DeploymentCommand, Fault<Reason>> {
        let (state, expected) = (
            &run.snapshot.state,
            rollout::expected(&run.snapshot.state, request),
        );
        let Some(bake) = &request.bake else {
            let reason = Reason::new("INTERNAL", "there are no metrics to bake with; this is a defect");
            return Err(Fault::Permanent(reason));
        };
        let since = state.since.unwrap_or_else(Timestamp::now);
        let (measurements, verdict) = tokio::join!(
            bake::measure(&self.prometheus, request, bake, since),
            bake::still(&self.clusters, cluster, &request.target, &expected),
        );
        let verdict = verdict.map_err(|fault| away(cluster, fault))?;
        Ok(DeploymentCommand::Measured {
            key: run.key.clone(),
            measurements,
            verdict,
        })
    }
}

/// What a fault of the effect comes to.
fn outcome_of(run: &Run, fault: Fault<Reason>) -> DeploymentCommand {
    let key = run.key.clone();
    match fault {
        Fault::Permanent(reason) => DeploymentCommand::Refused { key, reason },
        Fault::Transient { error: reason, .. } => DeploymentCommand::Stumbled { key, reason },
    }
}

/// The API server's own trouble says nothing about the deployment: it is asked again.
fn away(cluster: &Kubernetes, fault: Fault<Reason>) -> Fault<Reason> {
    let Reason { code, message } = fault.into_error();
    Fault::unavailable(code, format!("cluster {}: {message}", cluster.name()))
}

/// A rejection by the API server has the step's own code.
fn of_step(cluster: &Kubernetes, code: &str, fault: Fault<Reason>) -> Fault<Reason> {
    match fault {
        Fault::Permanent(reason) if reason.code == fault::REFUSED => Fault::refused(code, reason.message),
        Fault::Permanent(reason) => Fault::Permanent(reason),
        transient => away(cluster, transient),
    }
}

/// Evidence of the Job that failed, as long as its pods exist; otherwise of the target.
async fn evidence(
    clusters: &Clusters,
    cluster: &Kubernetes,
    run: &Run,
    request: &DeploymentRequest,
) -> Result<Vec<PodEvidence>, Fault<Reason>> {
    let since = run.snapshot.state.requested_at.unwrap_or(run.snapshot.created_at);
    if let Some(result) = run.snapshot.state.jobs.last().filter(|job| !job.succeeded) {
        let evidence = jobs::evidence(cluster, request, result, since).await?;
        if !evidence.is_empty() {
            return Ok(evidence);
        }
    }
    if request.target.kind == WorkloadKind::Application {
        match argo_cd::evidence(clusters, cluster, run, request, since).await {
            Ok(evidence) if !evidence.is_empty() => return Ok(evidence),
            Ok(_) => {}
            Err(fault) => {
                tracing::debug!(deployment = %run.id, %fault, "no evidence of the workloads that carry the image");
            }
        }
    }
    evidence::collect(cluster, &request.target, since).await
}

/// The namespace in which the target's pods are: an Application's are where it puts them.
async fn home(cluster: &Kubernetes, request: &DeploymentRequest) -> Name {
    let target = &request.target;
    if target.kind == WorkloadKind::Application
        && let Ok(Some(Workload::Application(live))) = cluster.read(target).await
        && let Ok(namespace) = live.spec.destination.namespace.parse()
    {
        return namespace;
    }
    target.namespace.clone()
}

/// For a deployment that came without a trace.
fn own_trace(run: &Run) -> TraceContext {
    let parts = ["deployment", run.id.as_str()];
    TraceContext {
        trace_id: TraceId::derived(&parts),
        span_id: SpanId::derived(&parts),
        sampled: true,
    }
}
