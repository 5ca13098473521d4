//! Carries out the effects of releases: has the step backends start, observe and stop the steps.

mod before;
mod manual_sync;
mod moving_tag;

use std::sync::Arc;

use async_trait::async_trait;
use deploy_domain::release::{Observation, Release, ReleaseCommand, ReleaseEffect, StepKind};
use slipway_kubernetes::Clusters;
use slipway_ledger::{
    Decider as _, EffectRun, Effects, ExecuteError, Ledger, Meta, TransactError,
    executor::{codes, log_retry},
};
use slipway_model::{Actor, Fault, Reason};

use crate::{
    backends::steps::{Order, StepBackend, Tags},
    effects::lanes::{self, LanesError},
};

/// The principal on whose behalf releases progress.
fn actor() -> Actor {
    Actor::system("deploy")
}

/// The step backends of all kinds of steps.
#[derive(Clone)]
pub struct ReleaseEffects {
    pub ledger: Ledger,
    pub builds: Arc<dyn StepBackend>,
    /// Asked before a restart what it would run.
    pub tags: Arc<dyn Tags>,
    pub approvals: Arc<dyn StepBackend>,
    pub changes: Arc<dyn StepBackend>,
    pub deployments: Arc<dyn StepBackend>,
    /// Read if a gate before the sync, or a restart, depends on the state of the cluster.
    pub clusters: Clusters,
}

impl std::fmt::Debug for ReleaseEffects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReleaseEffects").finish_non_exhaustive()
    }
}

impl ReleaseEffects {
    fn backend(&self, kind: StepKind) -> &dyn StepBackend {
        match kind {
            StepKind::Build => &*self.builds,
            StepKind::Gate => &*self.approvals,
            StepKind::Change | StepKind::Revert | StepKind::Pin => &*self.changes,
            // A step of a lane is never called: it has no effects.
            StepKind::Lane | StepKind::Prepare | StepKind::Deploy | StepKind::Redeploy => &*self.deployments,
        }
    }

    async fn call(&self, run: &EffectRun<Release>) -> Result<Option<ReleaseCommand>, Fault<Reason>> {
        let Some(order) = Order::of(&run.id, &run.snapshot.state) else {
            return Ok(None);
        };
        let backend = self.backend(order.step.kind);
        let key = run.key.clone();
        Ok(Some(match &run.effect {
            ReleaseEffect::Start => {
                manual_sync::check(&self.clusters, order).await?;
                moving_tag::check(&self.clusters, &*self.tags, order).await?;
                if writes_first(order) && !self.may_change(run).await? {
                    // A newer release has the lane now, and this one has changed nothing.
                    let reason = Reason::new("SUPERSEDED", "the deploy target was given to a newer release");
                    return Ok(Some(ReleaseCommand::Observed {
                        key,
                        observation: Observation::Cancelled(reason),
                    }));
                }
                if order.step.kind == StepKind::Change {
                    before::record(&self.clusters, run, order).await?;
                }
                let taken = backend.start(order).await?;
                ReleaseCommand::Started {
                    key,
                    reference: taken.reference,
                    observation: taken.observation,
                }
            }
            ReleaseEffect::Observe { reference } => ReleaseCommand::Observed {
                key,
                observation: backend.observe(order, reference).await?,
            },
            ReleaseEffect::Stop { reference } => ReleaseCommand::Observed {
                key,
                observation: backend.stop(order, reference).await?,
            },
            ReleaseEffect::GiveUp => ReleaseCommand::GiveUp { key },
        }))
    }

    /// Marks the lane before the first write of a turn; from then on no newer release can take it away.
    async fn may_change(&self, run: &EffectRun<Release>) -> Result<bool, Fault<Reason>> {
        let meta = Meta::new(actor(), run.traceparent);
        lanes::mark_changed(&self.ledger, &run.id, &run.snapshot.state, &meta)
            .await
            .map_err(passing)
    }
}

/// Whether this step may be the first of its turn that changes something: a migration counts as much as a commit.
fn writes_first(order: Order<'_>) -> bool {
    match order.step.kind {
        StepKind::Prepare | StepKind::Change => true,
        // Otherwise the change before it has marked the lane.
        StepKind::Deploy => order
            .environment
            .is_some_and(|(_, planned)| planned.gitops.is_none() || planned.written_with.is_some()),
        _ => false,
    }
}

fn passing(error: impl std::fmt::Display) -> Fault<Reason> {
    Fault::unavailable(codes::LEDGER, error.to_string())
}

#[async_trait]
impl Effects<Release> for ReleaseEffects {
    async fn perform(&self, run: EffectRun<Release>) -> Result<Option<ReleaseCommand>, Reason> {
        let called = tokio::select! {
            called = self.call(&run) => called,
            () = run.cancelled.cancelled() => return Ok(None),
        };
        let command = match called {
            Ok(Some(command)) => command,
            Ok(None) => return Ok(None),
            Err(Fault::Permanent(reason)) => ReleaseCommand::Observed {
                key: run.key.clone(),
                observation: Observation::Failed(reason),
            },
            // A poll is repeated by itself.
            Err(Fault::Transient { error: reason, .. })
                if matches!(run.effect, ReleaseEffect::Observe { .. }) =>
            {
                return Err(reason);
            }
            Err(Fault::Transient { error: reason, .. }) => ReleaseCommand::Stumbled {
                key: run.key.clone(),
                reason,
            },
        };
        let stumbled = matches!(command, ReleaseCommand::Stumbled { .. });
        let meta = Meta::new(actor(), run.traceparent);
        match lanes::execute(&self.ledger, &run.id, command.clone(), &meta).await {
            Ok(release) => {
                if let Some(retry) = Release::retry(&release.state).filter(|_| stumbled) {
                    log_retry(Release::KIND, &run.id, &retry);
                }
            }
            Err(TransactError::Aborted(LanesError::Release(ExecuteError::Refused(refusal)))) => {
                run.refused(&command, &refusal).await;
            }
            Err(error) => {
                let message = format!("the outcome of {} could not be recorded: {error}", run.key);
                return Err(Reason::new(codes::LEDGER, message));
            }
        }
        Ok(None)
    }

    fn actor(&self) -> Actor {
        actor()
    }
}
