//! Between the wire and the domain: checks requests, asks the ledger, converts. Only this module knows tonic and
//! prost.

mod changes;
mod edits;
mod listing;
mod messages;
mod reading;

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use slipway_ledger::{Ledger, Snapshot};
use slipway_model::Id;
use slipway_proto::gitops::v1::{
    self as proto,
    git_ops_service_server::{GitOpsService, GitOpsServiceServer},
};
use slipway_server::{Action, ApiError, Caller, convert};
use tonic::{Request, Response, Status};

use self::messages::{scope, to_proto};
use crate::{change::Change, pace::Together, render::Renderer, repository::Repository};

/// The service as gRPC knows it.
#[derive(Debug)]
pub(crate) struct GitOpsGrpc {
    pub(crate) ledger: Ledger,
    pub(crate) wakes: Arc<Together>,
    pub(crate) repositories: BTreeMap<String, Arc<Repository>>,
    pub(crate) renderer: Renderer,
    pub(crate) push_deadline: Duration,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl GitOpsGrpc {
    pub(crate) fn into_server(self, max_message_bytes: usize) -> GitOpsServiceServer<Self> {
        GitOpsServiceServer::new(self).max_decoding_message_size(max_message_bytes)
    }

    fn repository(&self, name: &str) -> Result<&Arc<Repository>, ApiError> {
        if name.is_empty() {
            return Err(ApiError::invalid("repository", "is required"));
        }
        self.repositories.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.repositories.keys().map(String::as_str).collect();
            let name: String = name.chars().take(100).collect();
            ApiError::invalid(
                "repository",
                format!("{name:?} is not configured; there are {}", known.join(", ")),
            )
        })
    }

    /// A change that the caller may see, and may do `action` with.
    async fn found(&self, caller: &Caller, action: Action, id: &str) -> Result<Snapshot<Change>, ApiError> {
        let id: Id = convert::field("id", id)?;
        let change = self
            .ledger
            .get::<Change>(&id)
            .await?
            .ok_or_else(|| ApiError::not_found("change", &id))?;
        let (service, environment) = scope(&change.state);
        caller.require(action, service, environment)?;
        Ok(change)
    }
}

#[tonic::async_trait]
impl GitOpsService for GitOpsGrpc {
    type WatchChangeStream = Answers<proto::WatchChangeResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn apply_change(
        &self,
        request: Request<proto::ApplyChangeRequest>,
    ) -> Answer<proto::ApplyChangeResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.apply(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::ApplyChangeResponse {
            change: Some(to_proto(&change)),
        }))
    }

    async fn revert_change(
        &self,
        request: Request<proto::RevertChangeRequest>,
    ) -> Answer<proto::RevertChangeResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.revert(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::RevertChangeResponse {
            change: Some(to_proto(&change)),
        }))
    }

    async fn cancel_change(
        &self,
        request: Request<proto::CancelChangeRequest>,
    ) -> Answer<proto::CancelChangeResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.cancel(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::CancelChangeResponse {
            change: Some(to_proto(&change)),
        }))
    }

    async fn get_change(
        &self,
        request: Request<proto::GetChangeRequest>,
    ) -> Answer<proto::GetChangeResponse> {
        let change = self
            .found(&Caller::of(&request)?, Action::Read, &request.get_ref().id)
            .await?;
        Ok(Response::new(proto::GetChangeResponse {
            change: Some(to_proto(&change)),
        }))
    }

    async fn list_changes(
        &self,
        request: Request<proto::ListChangesRequest>,
    ) -> Answer<proto::ListChangesResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.list(&caller, request.into_inner()).await?))
    }

    async fn watch_change(
        &self,
        request: Request<proto::WatchChangeRequest>,
    ) -> Answer<Self::WatchChangeStream> {
        let change = self
            .found(&Caller::of(&request)?, Action::Read, &request.get_ref().id)
            .await?;
        let after = convert::optional::<u64>("etag", &request.get_ref().etag)?;
        let states = self
            .ledger
            .watch::<Change>(&change.id, after)
            .map(|next| match next {
                Ok(change) => Ok(proto::WatchChangeResponse {
                    change: Some(to_proto(&change)),
                }),
                Err(error) => Err(ApiError::from(error).into()),
            });
        Ok(Response::new(Box::pin(states)))
    }

    async fn get_desired_state(
        &self,
        request: Request<proto::GetDesiredStateRequest>,
    ) -> Answer<proto::GetDesiredStateResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.desired(&caller, request.into_inner()).await?))
    }

    async fn promote(&self, request: Request<proto::PromoteRequest>) -> Answer<proto::PromoteResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.promote_images(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::PromoteResponse {
            change: Some(to_proto(&change)),
        }))
    }

    async fn diff_environments(
        &self,
        request: Request<proto::DiffEnvironmentsRequest>,
    ) -> Answer<proto::DiffEnvironmentsResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.diff(&caller, request.into_inner()).await?))
    }

    async fn render_manifests(
        &self,
        request: Request<proto::RenderManifestsRequest>,
    ) -> Answer<proto::RenderManifestsResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.render(&caller, request.into_inner()).await?))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Answer<Self::StreamEventsStream> {
        let caller = Caller::of(&request)?;
        let proto::StreamEventsRequest {
            cursor,
            correlation_id,
        } = request.into_inner();
        let correlation_id = convert::key("correlation_id", &correlation_id)?;
        let events = slipway_server::stream_events_to(caller, &self.ledger, &cursor, &correlation_id, &[])?;
        Ok(Response::new(Box::pin(events.map(|next| {
            next.map(|event| proto::StreamEventsResponse { event })
        }))))
    }
}
