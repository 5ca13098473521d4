//! Rolling a deployment back: what was there before is deployed and verified like anything else.

use std::time::Duration;

use deploy_domain::{
    catalog::Timeouts,
    deployment::{
        Action as DeployAction, Deployment, DeploymentRequest, DeploymentState, DeploymentStatus, Revert,
        put_back,
    },
};
use slipway_ledger::{IdempotencyKey, Snapshot};
use slipway_model::{Actor, Fault, Id, Images, Name, SpanId, TraceContext, TraceId};
use slipway_proto::deploy::v1 as proto;
use slipway_server::{Action, ApiError, Call, Caller, Resource as _, convert};
use slipway_verdict::Previous;

use super::{DeployApi, Deployments, start::StartError};
use crate::{
    backends::gitops::RevertTarget,
    effects::deployments::{newest, request_alone},
};

/// The code of refusals if there is no earlier version.
const NOTHING: &str = "NOTHING_TO_ROLL_BACK_TO";

impl DeployApi {
    /// Starts the deployment that rolls another one back, or finds the one that the same request started.
    pub(super) async fn roll_back(
        &self,
        call: Call<proto::RollbackRequest>,
    ) -> Result<proto::Deployment, ApiError> {
        let meta = call.meta();
        let Call {
            caller,
            trace,
            message,
        } = call;
        convert::key("request_id", &message.request_id)?;
        convert::optional::<Id>("deployment_id", &message.deployment_id)?;
        convert::name_filter("service", &message.service)?;
        convert::name_filter("environment", &message.environment)?;
        let reason = convert::text("reason", &message.reason)?;
        let fingerprint = (
            &message.deployment_id,
            &message.service,
            &message.environment,
            &message.reason,
        );
        let key = IdempotencyKey::new(caller.principal(), "Rollback", &message.request_id, &fingerprint);
        let id = Id::generate("dep");
        let started = self
            .ledger
            .transact_once::<Deployment, _, _, _>(&key, &meta, |tx| {
                let (id, reason, message, caller) = (id.clone(), reason.clone(), &message, &caller);
                let actor = meta.actor.clone();
                async move {
                    let request = self
                        .putting_back(caller, &id, trace, actor, message, reason)
                        .await
                        .map_err(StartError::Request)?;
                    request_alone(&tx, &id, request).await.map_err(StartError::Lane)
                }
            })
            .await?;
        self.deployments.show(&started.snapshot).await
    }

    /// What a rollback needs.
    async fn putting_back(
        &self,
        caller: &Caller,
        id: &Id,
        trace: Option<TraceContext>,
        actor: Actor,
        message: &proto::RollbackRequest,
        reason: String,
    ) -> Result<DeploymentRequest, ApiError> {
        let lost = self.lost(caller, message).await?;
        Deployments::scope(&lost.state).require(caller, Action::Rollback)?;
        let Some(request) = lost.state.request.clone() else {
            return Err(ApiError::not_found("deployment", &lost.id));
        };
        if !lost.state.status.is_final() {
            return Err(ApiError::precondition(
                "NOT_OVER",
                format!("deployment {} is under way: cancel it first", lost.id),
            ));
        }
        self.nothing_since(&lost, &request).await?;
        let to_revert = self.time_to_revert(&request);
        let back = request.rolling_back(&lost.id, to_revert, actor);
        match back.source.clone() {
            Some(source) => {
                let found = self
                    .reverts
                    .find(&RevertTarget {
                        service: &back.service,
                        environment: &back.environment,
                        source: &source,
                        image: back.images.only(),
                        trace: trace.unwrap_or_else(|| own_trace(id)),
                    })
                    .await
                    .map_err(|error| match error {
                        Fault::Permanent(reason) => ApiError::precondition(NOTHING, reason.message),
                        transient => transient.into(),
                    })?;
                let line = reason.lines().next().unwrap_or_default().to_owned();
                Ok(DeploymentRequest {
                    images: Images::one(found.image),
                    reverts: Some(Revert {
                        change: found.change,
                        reason: line,
                    }),
                    ..back
                })
            }
            None => without_git(&lost.id, &lost.state, back),
        }
    }

    /// What a revert in git may take: it may wait for a pull request, as a release's change may.
    fn time_to_revert(&self, lost: &DeploymentRequest) -> Duration {
        let catalog = self.catalog.current();
        let environment = catalog
            .service(lost.service.as_str())
            .ok()
            .and_then(|service| service.environment(lost.environment.as_str()).ok());
        environment.map_or_else(|| Timeouts::default().change, |one| one.timeout.change)
    }

    /// The deployment that is to be rolled back.
    async fn lost(
        &self,
        caller: &Caller,
        message: &proto::RollbackRequest,
    ) -> Result<Snapshot<Deployment>, ApiError> {
        if !message.deployment_id.is_empty() {
            let found = self
                .deployments
                .find(caller, Action::Read, &message.deployment_id)
                .await?;
            let (service, environment) = found.state.request.as_ref().map_or(("", ""), |request| {
                (request.service.as_str(), request.environment.as_str())
            });
            for (field, given, is) in [
                ("service", &message.service, service),
                ("environment", &message.environment, environment),
            ] {
                if !given.is_empty() && given != is {
                    return Err(ApiError::invalid(
                        field,
                        format!("is {given}, but {} is of {is}", found.id),
                    ));
                }
            }
            return Ok(found);
        }
        if message.service.is_empty() || message.environment.is_empty() {
            return Err(ApiError::invalid(
                "deployment_id",
                "is empty: give it, or service and environment",
            ));
        }
        caller.require(Action::Read, &message.service, &message.environment)?;
        let last = newest::last(&self.ledger, &message.service, &message.environment).await?;
        let Some(newest) = last.into_iter().find(|one| newest::changes(&one.state)) else {
            return Err(ApiError::precondition(
                NOTHING,
                format!(
                    "nothing of {} was deployed to {} yet",
                    message.service, message.environment
                ),
            ));
        };
        let request = newest.state.request.as_ref();
        match request.and_then(|request| request.rolls_back.clone()) {
            None => Ok(newest),
            Some(back) if newest.state.status == DeploymentStatus::Succeeded => Err(ApiError::precondition(
                NOTHING,
                format!(
                    "{back} was put back already, by {}: name the deployment to put back",
                    newest.id
                ),
            )),
            // It did not succeed, so what it was to roll back may still be there.
            Some(back) => {
                let found = self.ledger.get::<Deployment>(&back).await?;
                found.ok_or_else(|| ApiError::not_found("deployment", back))
            }
        }
    }

    /// Refuses if something else was deployed to the target afterwards: a rollback would undo that too, which was not
    /// requested.
    async fn nothing_since(
        &self,
        lost: &Snapshot<Deployment>,
        request: &DeploymentRequest,
    ) -> Result<(), ApiError> {
        match newest::deployed_since(&self.ledger, &lost.id, request).await? {
            Some(newest) => Err(ApiError::precondition(
                "NOT_THE_LAST",
                format!(
                    "{newest} was deployed to {} after {}: put that back first, or release the version that is wanted",
                    request.target, lost.id
                ),
            )),
            None => Ok(()),
        }
    }
}

/// `rollout undo`, to the version that ran before according to the cluster.
fn without_git(
    id: &Id,
    state: &DeploymentState,
    back: DeploymentRequest,
) -> Result<DeploymentRequest, ApiError> {
    let Some(applied) = &state.applied else {
        return Err(ApiError::precondition(
            NOTHING,
            format!("{id} changed nothing in the cluster"),
        ));
    };
    if back.action == DeployAction::Restart {
        return Err(ApiError::precondition(
            NOTHING,
            format!(
                "{id} restarted {}, which runs what its tag names (a moving tag): no version before is known; build \
                 the commit before, so that the tag names it, and restart",
                back.target
            ),
        ));
    }
    let Some(to) = applied.previous.clone() else {
        return Err(ApiError::precondition(
            NOTHING,
            format!(
                "before {id} there was no version of {} that could be put back",
                back.target
            ),
        ));
    };
    if let Some(neighbour) = back.shared.neighbours.first() {
        return image_alone(id, &to, back.clone(), &neighbour.service);
    }
    let mut verify = back.verify;
    // Named by tag only: the expected digest is not known, so it is not checked.
    verify.digest &= to.image.digest.is_some();
    Ok(DeploymentRequest {
        images: Images::one(put_back(&to, back.images.only())),
        action: DeployAction::Undo { to },
        verify,
        ..back
    })
}

/// Of a target that several services share, `rollout undo` would restore the images of the others as well: only this
/// service's is set.
fn image_alone(
    id: &Id,
    to: &Previous,
    back: DeploymentRequest,
    neighbour: &Name,
) -> Result<DeploymentRequest, ApiError> {
    if to.image.digest.is_none() {
        return Err(ApiError::precondition(
            NOTHING,
            format!(
                "before {id}, {} ran {}, which names no digest, and an undo would restore the version of {neighbour} as \
                 well, which runs there too: release the version that is wanted",
                back.target, to.image
            ),
        ));
    }
    Ok(DeploymentRequest {
        images: Images::one(put_back(to, back.images.only())),
        action: DeployAction::SetImage,
        ..back
    })
}

fn own_trace(id: &Id) -> TraceContext {
    let parts = ["deployment", id.as_str()];
    TraceContext {
        trace_id: TraceId::derived(&parts),
        span_id: SpanId::derived(&parts),
        sampled: true,
    }
}
