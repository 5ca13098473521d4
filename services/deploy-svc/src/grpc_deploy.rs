//! DeployService: proto ⇄ domain, nothing else.

mod live;
mod rollback;
mod shown;
mod start;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use slipway_kubernetes::Clusters;
use slipway_ledger::{Decider, Ledger, ListFilter, Meta, Snapshot};
use slipway_model::{Actor, Id, TraceContext};
use slipway_proto::deploy::v1::{self as proto, deploy_service_server::DeployService};
use slipway_server::{Action, ApiError, Caller, convert, ledger::list_page, stream_events_to};
use tonic::{Request, Response, Status};

use crate::{
    catalog::CatalogStore,
    deployment::{Deployment, DeploymentCommand, DeploymentRefusal, DeploymentState},
    deployment_effects::Reverts,
};

pub use shown::{deployment_proto, evidence_proto, target_proto};

#[derive(Clone)]
pub struct DeployApi {
    pub ledger: Ledger,
    pub catalog: Arc<CatalogStore>,
    /// For what the cluster shows now.
    pub clusters: Clusters,
    /// For what a rollback goes back to.
    pub reverts: Arc<dyn Reverts>,
}

impl std::fmt::Debug for DeployApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeployApi").finish_non_exhaustive()
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DeployService for DeployApi {
    async fn deploy(
        &self,
        request: Request<proto::DeployRequest>,
    ) -> Result<Response<proto::DeployResponse>, Status> {
        let caller = Caller::of(&request)?;
        let meta = meta_of(&caller, convert::trace_context(&request));
        let snapshot = self.start(&caller, &meta, request.into_inner()).await?;
        Ok(Response::new(proto::DeployResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn get_deployment(
        &self,
        request: Request<proto::GetDeploymentRequest>,
    ) -> Result<Response<proto::GetDeploymentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let snapshot = self.read(&caller, &request.into_inner().id).await?;
        Ok(Response::new(proto::GetDeploymentResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn list_deployments(
        &self,
        request: Request<proto::ListDeploymentsRequest>,
    ) -> Result<Response<proto::ListDeploymentsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        caller.require_somewhere(Action::Read)?;
        let status = match message.status() {
            proto::deployment::Status::Unspecified => Vec::new(),
            status => vec![
                status
                    .as_str_name()
                    .trim_start_matches("STATUS_")
                    .to_ascii_lowercase(),
            ],
        };
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let page = list_page(message.page_size, &message.page_token)?;
        let filter = ListFilter {
            status,
            service: given(message.service),
            environment: given(message.environment),
            correlation: given(message.correlation_id),
            labels: convert::labels(message.labels)?,
            not_final: false,
        };
        let listed = self
            .ledger
            .list_of::<Deployment>(&filter, &page)
            .await
            .map_err(ApiError::from)?;
        let seen = listed
            .items
            .iter()
            .filter(|one| may_read(&caller, &one.state).is_ok());
        let deployments = seen.map(deployment_proto).collect();
        Ok(Response::new(proto::ListDeploymentsResponse {
            deployments,
            next_page_token: listed.next_page_token,
        }))
    }

    type WatchDeploymentStream = Streamed<proto::WatchDeploymentResponse>;

    async fn watch_deployment(
        &self,
        request: Request<proto::WatchDeploymentRequest>,
    ) -> Result<Response<Self::WatchDeploymentStream>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let after = convert::optional::<u64>("etag", &message.etag)?;
        let id = self.read(&caller, &message.id).await?.id;
        let stream = self.ledger.watch::<Deployment>(&id, after).map(|item| {
            let snapshot = item.map_err(ApiError::from)?;
            Ok(proto::WatchDeploymentResponse {
                deployment: Some(deployment_proto(&snapshot)),
            })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_deployment(
        &self,
        request: Request<proto::CancelDeploymentRequest>,
    ) -> Result<Response<proto::CancelDeploymentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let meta = meta_of(&caller, convert::trace_context(&request));
        let message = request.into_inner();
        let text = because("cancelled", &meta.actor, &message.reason)?;
        let snapshot = self
            .ask(
                &caller,
                &meta,
                &message.id,
                Action::Cancel,
                DeploymentCommand::Cancel { message: text },
            )
            .await?;
        Ok(Response::new(proto::CancelDeploymentResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn rollback(
        &self,
        request: Request<proto::RollbackRequest>,
    ) -> Result<Response<proto::RollbackResponse>, Status> {
        let caller = Caller::of(&request)?;
        let trace = convert::trace_context(&request);
        let snapshot = self.roll_back(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::RollbackResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn promote_deployment(
        &self,
        request: Request<proto::PromoteDeploymentRequest>,
    ) -> Result<Response<proto::PromoteDeploymentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let meta = meta_of(&caller, convert::trace_context(&request));
        let message = request.into_inner();
        let full = message.full;
        let snapshot = self
            .ask(
                &caller,
                &meta,
                &message.id,
                Action::Start,
                DeploymentCommand::Promote { full },
            )
            .await?;
        Ok(Response::new(proto::PromoteDeploymentResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn abort_deployment(
        &self,
        request: Request<proto::AbortDeploymentRequest>,
    ) -> Result<Response<proto::AbortDeploymentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let meta = meta_of(&caller, convert::trace_context(&request));
        let message = request.into_inner();
        let text = because("aborted", &meta.actor, &message.reason)?;
        let snapshot = self
            .ask(
                &caller,
                &meta,
                &message.id,
                Action::Cancel,
                DeploymentCommand::Abort { message: text },
            )
            .await?;
        Ok(Response::new(proto::AbortDeploymentResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn get_live_state(
        &self,
        request: Request<proto::GetLiveStateRequest>,
    ) -> Result<Response<proto::GetLiveStateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let state = self.live_state(&caller, request.into_inner()).await?;
        Ok(Response::new(proto::GetLiveStateResponse { state: Some(state) }))
    }

    type StreamEventsStream = Streamed<proto::StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let kinds = [Deployment::KIND];
        let events = stream_events_to(
            caller,
            &self.ledger,
            &message.cursor,
            &message.correlation_id,
            &kinds,
        )?;
        let stream = events.map(|event| Ok(proto::StreamEventsResponse { event: event? }));
        Ok(Response::new(Box::pin(stream)))
    }
}

impl DeployApi {
    /// Tells one deployment what somebody wants of it.
    async fn ask(
        &self,
        caller: &Caller,
        meta: &Meta,
        id: &str,
        action: Action,
        command: DeploymentCommand,
    ) -> Result<Snapshot<Deployment>, ApiError> {
        let snapshot = self.read(caller, id).await?;
        let (service, environment) = scope(&snapshot.state);
        caller.require(action, service, environment)?;
        let told = self
            .ledger
            .execute::<Deployment>(&snapshot.id, || command.clone(), meta)
            .await;
        told.map_err(ApiError::from)
    }

    async fn read(&self, caller: &Caller, id: &str) -> Result<Snapshot<Deployment>, ApiError> {
        let id = convert::field::<Id>("id", id)?;
        let snapshot = self.ledger.get::<Deployment>(&id).await?;
        let snapshot = snapshot.ok_or_else(|| ApiError::not_found("deployment", &id))?;
        may_read(caller, &snapshot.state)?;
        Ok(snapshot)
    }
}

fn scope(state: &DeploymentState) -> (&str, &str) {
    state.request.as_ref().map_or(("", ""), |request| {
        (request.service.as_str(), request.environment.as_str())
    })
}

fn may_read(caller: &Caller, state: &DeploymentState) -> Result<(), ApiError> {
    let (service, environment) = scope(state);
    caller.require(Action::Read, service, environment)
}

fn meta_of(caller: &Caller, trace: Option<TraceContext>) -> Meta {
    Meta::new(Actor::direct(caller.principal().clone()), trace)
}

/// Who did it, and why if that was said.
fn because(what: &str, by: &Actor, reason: &str) -> Result<String, ApiError> {
    Ok(match convert::text("reason", reason)? {
        reason if reason.is_empty() => format!("{what} by {by}"),
        reason => format!("{what} by {by}: {reason}"),
    })
}

impl From<DeploymentRefusal> for ApiError {
    fn from(refusal: DeploymentRefusal) -> Self {
        match refusal {
            DeploymentRefusal::Unknown(id) => ApiError::not_found("deployment", id),
            DeploymentRefusal::NoSteps(_) => ApiError::precondition("NO_STEPS", refusal),
            DeploymentRefusal::NotRollingOut(_) => ApiError::precondition("NOT_ROLLING_OUT", refusal),
        }
    }
}
