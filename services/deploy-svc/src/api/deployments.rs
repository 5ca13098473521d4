//! DeployService.

mod live;
mod rollback;
mod start;

use std::sync::Arc;

use deploy_domain::deployment::{Deployment, DeploymentCommand, DeploymentState};
use futures::{StreamExt, TryStreamExt};
use slipway_kubernetes::Clusters;
use slipway_ledger::{Decider, Ledger, Snapshot};
use slipway_model::Actor;
use slipway_proto::deploy::v1::{self as proto, deploy_service_server::DeployService};
use slipway_server::{Action, ApiError, Call, Listed, Resource, Resources, Scope, convert, stream_events_to};
use tonic::{Request, Response};

use super::{Answer, Answers, convert::deployment_proto};
use crate::backends::{catalog::CatalogStore, gitops::Reverts};

/// How the API shows deployments.
pub(super) struct Deployments;

#[derive(Clone)]
pub struct DeployApi {
    ledger: Ledger,
    deployments: Resources<Deployments>,
    catalog: Arc<CatalogStore>,
    /// For what the cluster shows now.
    clusters: Clusters,
    /// For what a rollback goes back to.
    reverts: Arc<dyn Reverts>,
}

impl std::fmt::Debug for DeployApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeployApi").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl DeployService for DeployApi {
    type WatchDeploymentStream = Answers<proto::WatchDeploymentResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn deploy(&self, request: Request<proto::DeployRequest>) -> Answer<proto::DeployResponse> {
        let deployment = Some(self.start(Call::of(request)?).await?);
        Ok(Response::new(proto::DeployResponse { deployment }))
    }

    async fn get_deployment(
        &self,
        request: Request<proto::GetDeploymentRequest>,
    ) -> Answer<proto::GetDeploymentResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let deployment = Some(self.deployments.get(&caller, &message.id).await?);
        Ok(Response::new(proto::GetDeploymentResponse { deployment }))
    }

    async fn list_deployments(
        &self,
        request: Request<proto::ListDeploymentsRequest>,
    ) -> Answer<proto::ListDeploymentsResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let Listed {
            items,
            next_page_token,
        } = self.deployments.list(&caller, &message.into()).await?;
        Ok(Response::new(proto::ListDeploymentsResponse {
            deployments: items,
            next_page_token,
        }))
    }

    async fn watch_deployment(
        &self,
        request: Request<proto::WatchDeploymentRequest>,
    ) -> Answer<Self::WatchDeploymentStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let deployments = self
            .deployments
            .watch(&caller, &message.id, &message.etag)
            .await?;
        let deployments = deployments.map_ok(|deployment| proto::WatchDeploymentResponse {
            deployment: Some(deployment),
        });
        Ok(Response::new(deployments.boxed()))
    }

    async fn cancel_deployment(
        &self,
        request: Request<proto::CancelDeploymentRequest>,
    ) -> Answer<proto::CancelDeploymentResponse> {
        let call = Call::of(request)?;
        let (id, reason) = (call.message.id.clone(), call.message.reason.clone());
        let command = |by: &Actor| {
            let message = because("cancelled", by, &reason)?;
            Ok(DeploymentCommand::Cancel { message })
        };
        let deployment = Some(self.command(&call, &id, Action::Cancel, command).await?);
        Ok(Response::new(proto::CancelDeploymentResponse { deployment }))
    }

    async fn rollback(&self, request: Request<proto::RollbackRequest>) -> Answer<proto::RollbackResponse> {
        let deployment = Some(self.roll_back(Call::of(request)?).await?);
        Ok(Response::new(proto::RollbackResponse { deployment }))
    }

    async fn promote_deployment(
        &self,
        request: Request<proto::PromoteDeploymentRequest>,
    ) -> Answer<proto::PromoteDeploymentResponse> {
        let call = Call::of(request)?;
        let (id, full) = (call.message.id.clone(), call.message.full);
        let command = |_: &Actor| Ok(DeploymentCommand::Promote { full });
        let deployment = Some(self.command(&call, &id, Action::Start, command).await?);
        Ok(Response::new(proto::PromoteDeploymentResponse { deployment }))
    }

    async fn abort_deployment(
        &self,
        request: Request<proto::AbortDeploymentRequest>,
    ) -> Answer<proto::AbortDeploymentResponse> {
        let call = Call::of(request)?;
        let (id, reason) = (call.message.id.clone(), call.message.reason.clone());
        let command = |by: &Actor| {
            let message = because("aborted", by, &reason)?;
            Ok(DeploymentCommand::Abort { message })
        };
        let deployment = Some(self.command(&call, &id, Action::Cancel, command).await?);
        Ok(Response::new(proto::AbortDeploymentResponse { deployment }))
    }

    async fn get_live_state(
        &self,
        request: Request<proto::GetLiveStateRequest>,
    ) -> Answer<proto::GetLiveStateResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let state = Some(self.live_state(&caller, message).await?);
        Ok(Response::new(proto::GetLiveStateResponse { state }))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Answer<Self::StreamEventsStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let kinds = [Deployment::KIND];
        let events = stream_events_to(
            caller,
            &self.ledger,
            &message.cursor,
            &message.correlation_id,
            &kinds,
        )?;
        let events = events.map_ok(|event| proto::StreamEventsResponse { event });
        Ok(Response::new(events.boxed()))
    }
}

impl DeployApi {
    pub fn new(
        ledger: Ledger,
        catalog: Arc<CatalogStore>,
        clusters: Clusters,
        reverts: Arc<dyn Reverts>,
    ) -> Self {
        Self {
            deployments: Resources::new(ledger.clone()),
            ledger,
            catalog,
            clusters,
            reverts,
        }
    }

    /// Gives one deployment a command of the caller.
    async fn command<T>(
        &self,
        call: &Call<T>,
        id: &str,
        action: Action,
        command: impl FnOnce(&Actor) -> Result<DeploymentCommand, ApiError>,
    ) -> Result<proto::Deployment, ApiError> {
        let meta = call.meta();
        let command = command(&meta.actor)?;
        let deployment = self.deployments.find(&call.caller, action, id).await?;
        self.deployments.execute(&deployment.id, command, &meta).await
    }
}

impl Resource for Deployments {
    type Decider = Deployment;
    type Message = proto::Deployment;

    fn message(snapshot: &Snapshot<Deployment>) -> proto::Deployment {
        deployment_proto(snapshot)
    }

    fn status_name(value: i32) -> Option<&'static str> {
        let status = proto::deployment::Status::try_from(value).ok()?;
        Some(status.as_str_name())
    }

    fn scope(state: &DeploymentState) -> Scope<'_> {
        match &state.request {
            Some(request) => Scope::new(request.service.as_str(), [request.environment.as_str()]),
            None => Scope::unknown(),
        }
    }
}

/// Who did it, and why if a reason was given.
fn because(what: &str, by: &Actor, reason: &str) -> Result<String, ApiError> {
    Ok(match convert::text("reason", reason)? {
        reason if reason.is_empty() => format!("{what} by {by}"),
        reason => format!("{what} by {by}: {reason}"),
    })
}
