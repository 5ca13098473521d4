//! Carries out what branches and changes require.

mod pace;
mod pull_request;
mod rendering;
mod round;
mod single_flight;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use gitops_domain::{
    branch::{self, Branch},
    change::{self, Change, Outcome, branch_id},
};
use slipway_ledger::{EffectRun, Effects, ExecuteError, Ledger, Meta, executor::codes};
use slipway_model::{Actor, BranchName, Id, Reason};
use slipway_telemetry::Service;

use self::{
    pull_request::Flow,
    round::{Round, RoundError},
};
use crate::backends::{render::Renderer, repository::Repository};

pub(crate) use self::{pace::Paces, pull_request::Forge, single_flight::SingleFlight};

/// The principal that ends changes.
pub(crate) fn actor() -> Actor {
    Actor::system("gitops")
}

/// The handler of both kinds.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) repositories: BTreeMap<String, Arc<Repository>>,
    /// Those of the repositories whose changes may be made by pull request.
    pub(crate) forges: BTreeMap<String, Forge>,
    /// Renders what is to be committed.
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) max_batch: usize,
    pub(crate) paces: Paces,
    pub(crate) wakes: Arc<SingleFlight>,
    pub(crate) telemetry: Service,
    /// Replaces git, for measurements of everything else.
    pub(crate) pusher: Option<Arc<dyn Pusher>>,
}

/// Replaces a branch's remote.
#[async_trait]
pub trait Pusher: std::fmt::Debug + Send + Sync {
    /// The result of each change.
    async fn push(&self, changes: Vec<Id>) -> Vec<(Id, Outcome)>;
}

/// Wakes a branch, whose holder then reads the waiting changes itself. Call it when the change is recorded.
pub(crate) async fn nudge(
    wakes: &SingleFlight,
    ledger: &Ledger,
    repository: &str,
    branch: &BranchName,
    meta: &Meta,
) -> Result<(), ExecuteError<branch::Refusal>> {
    let wake = || branch::Command::ChangeWaits {
        repository: repository.to_owned(),
        branch: branch.clone(),
    };
    let id = branch_id(repository, branch);
    wakes
        .once(&id, async || {
            ledger.execute::<Branch>(&id, wake, meta).await?;
            Ok(())
        })
        .await
}

#[async_trait]
impl Effects<Change> for Worker {
    async fn perform(&self, run: EffectRun<Change>) -> Result<Option<change::Command>, Reason> {
        let change::Effect::Nudge { repository, branch } = &run.effect else {
            let flow = Flow {
                forges: &self.forges,
                renderer: &self.renderer,
                run: &run,
            };
            return Box::pin(flow.perform()).await;
        };
        let away = |error: &dyn std::error::Error| Reason::new(codes::LEDGER, error.to_string());
        nudge(&self.wakes, &run.ledger, repository, branch, &Meta::from(actor()))
            .await
            .map_err(|error| away(&error))?;
        // Whatever keeps the branch's holder from pushing keeps this change waiting.
        let branch = run.ledger.get::<Branch>(&branch_id(repository, branch)).await;
        match branch
            .map_err(|error| away(&error))?
            .and_then(|branch| branch.retrying())
        {
            Some(retry) => Err(retry.error),
            None => Ok(None),
        }
    }

    fn actor(&self) -> Actor {
        actor()
    }
}

#[async_trait]
impl Effects<Branch> for Worker {
    async fn perform(&self, run: EffectRun<Branch>) -> Result<Option<branch::Command>, Reason> {
        let branch::Effect::Push {
            round,
            repository,
            branch,
            head,
        } = &run.effect;
        let round = Round {
            worker: self,
            ledger: &run.ledger,
            id: &run.id,
            number: *round,
            repository,
            branch,
            recorded: head.clone(),
            cancelled: &run.cancelled,
        };
        // Boxed: the future of a whole round is large.
        match Box::pin(round.run()).await {
            Ok(()) => {}
            // The branch's holder now finds by its trailers what was pushed.
            Err(RoundError::Stale) => {
                tracing::info!(id = %run.id, "the round was superseded by another holder of the branch");
            }
            Err(RoundError::Cancelled) => {}
            Err(RoundError::Ledger(error)) => {
                let message = format!("the round could not be recorded: {error}");
                return Err(Reason::new(codes::LEDGER, message));
            }
        }
        // The outcome was recorded together with the changes'.
        Ok(None)
    }

    fn actor(&self) -> Actor {
        actor()
    }
}
