//! The gRPC API: checks requests, asks the ledger, converts. The only module that uses protobuf.

mod changes;
mod convert;
mod edits;
mod listing;
mod reading;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use gitops_domain::{
    branch::Branch,
    change::{self, Change, State, branch_id},
    pull_request::Mode,
};
use slipway_ledger::{Ledger, Snapshot};
use slipway_proto::gitops::v1::{self as proto, git_ops_service_server::GitOpsService};
use slipway_server::{ApiError, Call, Resource, Resources, Scope, convert as wire, stream_events_to};
use tonic::{Request, Response, Status};

use crate::{
    backends::{render::Renderer, repository::Repository},
    effects::SingleFlight,
};

/// The service as gRPC knows it.
#[derive(Debug)]
pub(crate) struct GitOpsGrpc {
    ledger: Ledger,
    changes: Resources<Changes>,
    wakes: Arc<SingleFlight>,
    repositories: BTreeMap<String, Arc<Repository>>,
    renderer: Arc<Renderer>,
    push_deadline: Duration,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl GitOpsGrpc {
    pub(crate) fn new(
        ledger: Ledger,
        wakes: Arc<SingleFlight>,
        repositories: BTreeMap<String, Arc<Repository>>,
        renderer: Arc<Renderer>,
        push_deadline: Duration,
    ) -> Self {
        Self {
            changes: Resources::new(ledger.clone()),
            ledger,
            wakes,
            repositories,
            renderer,
            push_deadline,
        }
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
}

#[tonic::async_trait]
impl GitOpsService for GitOpsGrpc {
    type WatchChangeStream = Answers<proto::WatchChangeResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn apply_change(
        &self,
        request: Request<proto::ApplyChangeRequest>,
    ) -> Answer<proto::ApplyChangeResponse> {
        let change = self.apply(Call::of(request)?).await?;
        let change = Some(self.changes.show(&change).await?);
        Ok(Response::new(proto::ApplyChangeResponse { change }))
    }

    async fn revert_change(
        &self,
        request: Request<proto::RevertChangeRequest>,
    ) -> Answer<proto::RevertChangeResponse> {
        let change = self.revert(Call::of(request)?).await?;
        let change = Some(self.changes.show(&change).await?);
        Ok(Response::new(proto::RevertChangeResponse { change }))
    }

    async fn cancel_change(
        &self,
        request: Request<proto::CancelChangeRequest>,
    ) -> Answer<proto::CancelChangeResponse> {
        let change = self.cancel(Call::of(request)?).await?;
        let change = Some(self.changes.show(&change).await?);
        Ok(Response::new(proto::CancelChangeResponse { change }))
    }

    async fn get_change(
        &self,
        request: Request<proto::GetChangeRequest>,
    ) -> Answer<proto::GetChangeResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let change = Some(self.changes.get(&caller, &message.id).await?);
        Ok(Response::new(proto::GetChangeResponse { change }))
    }

    async fn list_changes(
        &self,
        request: Request<proto::ListChangesRequest>,
    ) -> Answer<proto::ListChangesResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        Ok(Response::new(self.list(&caller, message).await?))
    }

    async fn watch_change(
        &self,
        request: Request<proto::WatchChangeRequest>,
    ) -> Answer<Self::WatchChangeStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let changes = self.changes.watch(&caller, &message.id, &message.etag).await?;
        let changes = changes.map_ok(|change| proto::WatchChangeResponse { change: Some(change) });
        Ok(Response::new(changes.boxed()))
    }

    async fn get_desired_state(
        &self,
        request: Request<proto::GetDesiredStateRequest>,
    ) -> Answer<proto::GetDesiredStateResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        Ok(Response::new(self.desired(&caller, message).await?))
    }

    async fn promote(&self, request: Request<proto::PromoteRequest>) -> Answer<proto::PromoteResponse> {
        let change = self.promote_images(Call::of(request)?).await?;
        let change = Some(self.changes.show(&change).await?);
        Ok(Response::new(proto::PromoteResponse { change }))
    }

    async fn diff_environments(
        &self,
        request: Request<proto::DiffEnvironmentsRequest>,
    ) -> Answer<proto::DiffEnvironmentsResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        Ok(Response::new(self.diff(&caller, message).await?))
    }

    async fn render_manifests(
        &self,
        request: Request<proto::RenderManifestsRequest>,
    ) -> Answer<proto::RenderManifestsResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        Ok(Response::new(self.render(&caller, message).await?))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Answer<Self::StreamEventsStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let events = stream_events_to(
            caller,
            &self.ledger,
            &message.cursor,
            &message.correlation_id,
            &[],
        )?;
        let events = events.map_ok(|event| proto::StreamEventsResponse { event });
        Ok(Response::new(events.boxed()))
    }
}

/// Changes, as the API shows them.
#[derive(Debug)]
pub(crate) struct Changes;

#[tonic::async_trait]
impl Resource for Changes {
    type Decider = Change;
    type Message = proto::Change;

    fn message(change: &Snapshot<Change>) -> proto::Change {
        convert::to_proto(change)
    }

    fn status_name(value: i32) -> Option<&'static str> {
        let status = proto::change::Status::try_from(value).ok()?;
        Some(status.as_str_name())
    }

    fn scope(state: &State) -> Scope<'_> {
        match &state.request {
            Some(request) => Scope::new(request.service.as_str(), [request.environment.as_str()]),
            None => Scope::unknown(),
        }
    }

    /// The holder of the branch knows how often a push was tried, and when it will be tried again.
    async fn complete(
        ledger: &Ledger,
        change: &Snapshot<Change>,
        message: &mut proto::Change,
    ) -> Result<(), ApiError> {
        if let Some(request) = &change.state.request
            && request.mode == Mode::Push
            && change.state.status == change::Status::Pending
            && let Some(branch) = ledger
                .get::<Branch>(&branch_id(&request.repository, &request.branch))
                .await?
        {
            message.retry = branch.retrying().as_ref().map(wire::retry);
        }
        Ok(())
    }
}
