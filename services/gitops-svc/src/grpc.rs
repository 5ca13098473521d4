//! Between the wire and the domain: checks requests, asks the ledger, converts. The only file that knows tonic and
//! prost.

mod messages;

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use slipway_edit::Place;
use slipway_ledger::{Ledger, ListFilter, Meta, Page, Request as Once, Snapshot};
use slipway_model::{Actor, CommitSha, Id, TraceContext};
use slipway_proto::gitops::v1::{
    self as proto,
    git_ops_service_server::{GitOpsService, GitOpsServiceServer},
};
use slipway_server::{Action, ApiError, Caller, convert, page};
use tonic::{Request, Response, Status};

use self::messages::{
    branch, commit_not_found, edits, folder, found_to_proto, image, problem, scope, status_filter, subject,
    to_proto,
};
use crate::{
    change::{self, Change, Command},
    effects::nudge,
    render::Renderer,
    repository::Repository,
};

/// The service as gRPC knows it.
#[derive(Debug)]
pub(crate) struct GitOpsGrpc {
    pub(crate) ledger: Ledger,
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

    /// Records a change and wakes the owner of its branch.
    async fn start(
        &self,
        method: &str,
        request_id: String,
        request: change::Request,
        fingerprint: &impl serde::Serialize,
    ) -> Result<Snapshot<Change>, ApiError> {
        let principal = &request.requested_by.principal;
        let once = Once::new(principal, method, request_id, fingerprint);
        let meta = Meta::new(request.requested_by.clone(), request.traceparent);
        let command = || Command::Request {
            request: Box::new(request.clone()),
            timeout: self.push_deadline,
        };
        let executed = self
            .ledger
            .execute_once::<Change>(&once, &Id::generate("chg"), command, &meta)
            .await?;
        if executed.snapshot.state.status == change::Status::Pending
            && let Err(error) = nudge(&self.ledger, &request.repository, &request.branch, &meta).await
        {
            // The change is recorded, and looks after its branch itself.
            tracing::warn!(id = %executed.snapshot.id, %error, "a branch could not be woken");
        }
        Ok(executed.snapshot)
    }

    async fn apply(
        &self,
        caller: &Caller,
        trace: Option<TraceContext>,
        request: proto::ApplyChangeRequest,
    ) -> Result<Snapshot<Change>, ApiError> {
        let request_id = convert::key("request_id", &request.request_id)?;
        let repository = self.repository(&request.repository)?;
        let service: slipway_model::Name = convert::field("service", &request.service)?;
        let environment: slipway_model::Name = convert::field("environment", &request.environment)?;
        caller.require(Action::Start, service.as_str(), environment.as_str())?;
        let requested_by = caller.actor(&request.on_behalf_of, service.as_str(), environment.as_str())?;
        let asked = change::Request {
            repository: repository.name().to_owned(),
            branch: branch(repository, &request.branch)?,
            service,
            environment,
            edits: edits(request.edits)?,
            source_commit: convert::optional("source_commit", &request.source_commit)?,
            image: request.image.as_ref().map(image).transpose()?,
            subject: subject(&request.message)?,
            reverts: None,
            promoted_from: None,
            mode: change::Mode::Push,
            why: String::new(),
            correlation_id: convert::key("correlation_id", &request.correlation_id)?,
            labels: convert::labels(request.labels)?,
            requested_by,
            traceparent: None,
        };
        let fingerprint = asked.clone();
        let asked = change::Request {
            traceparent: trace,
            ..asked
        };
        self.start("ApplyChange", request_id, asked, &fingerprint).await
    }

    async fn revert(
        &self,
        caller: &Caller,
        trace: Option<TraceContext>,
        request: proto::RevertChangeRequest,
    ) -> Result<Snapshot<Change>, ApiError> {
        let request_id = convert::key("request_id", &request.request_id)?;
        let why = convert::text("reason", &request.reason)?;
        let correlation_id = convert::key("correlation_id", &request.correlation_id)?;
        let change = self.found(caller, Action::Rollback, &request.id).await?;
        let (service, environment) = scope(&change.state);
        let requested_by = caller.actor(&request.on_behalf_of, service, environment)?;
        let fingerprint = (
            change.id.clone(),
            request.force,
            why.clone(),
            correlation_id.clone(),
            requested_by.clone(),
        );
        let Some(original) = change.state.request.clone() else {
            return Err(ApiError::not_found("change", &change.id));
        };
        if change.state.status != change::Status::Pushed {
            let message = format!(
                "change {} is {}, so there is nothing to put back",
                change.id,
                change.state.status.as_str()
            );
            return Err(ApiError::precondition("NOT_PUSHED", message));
        }
        let asked = change::Request {
            edits: change.state.undo(request.force),
            subject: String::new(),
            reverts: Some(change.id.clone()),
            why,
            correlation_id,
            requested_by,
            traceparent: trace,
            ..original
        };
        self.repository(&asked.repository)?;
        self.start("RevertChange", request_id, asked, &fingerprint).await
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

    async fn cancel(
        &self,
        caller: &Caller,
        trace: Option<TraceContext>,
        request: proto::CancelChangeRequest,
    ) -> Result<Snapshot<Change>, ApiError> {
        let change = self.found(caller, Action::Cancel, &request.id).await?;
        let reason = convert::text("reason", &request.reason)?;
        let meta = Meta::new(Actor::direct(caller.principal().clone()), trace);
        let command = || Command::Cancel {
            reason: reason.clone(),
        };
        Ok(self.ledger.execute::<Change>(&change.id, command, &meta).await?)
    }

    async fn list(
        &self,
        caller: &Caller,
        request: proto::ListChangesRequest,
    ) -> Result<proto::ListChangesResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let service = convert::name_filter("service", &request.service)?;
        let environment = convert::name_filter("environment", &request.environment)?;
        let correlation = convert::key("correlation_id", &request.correlation_id)?;
        let filter = ListFilter {
            status: status_filter(request.status)?
                .into_iter()
                .map(str::to_owned)
                .collect(),
            service: service.map(String::from),
            environment: environment.map(String::from),
            correlation: Some(correlation).filter(|text| !text.is_empty()),
            labels: convert::labels(request.labels)?,
            not_final: false,
        };
        let page = Page {
            size: page::size(request.page_size)?,
            token: request.page_token,
        };
        let found = self.ledger.list_of::<Change>(&filter, &page).await?;
        // A page can be shorter than asked for where the caller may not see everything.
        let visible = found.items.iter().filter(|change| {
            let (service, environment) = scope(&change.state);
            caller.may(Action::Read, service, environment)
        });
        Ok(proto::ListChangesResponse {
            changes: visible.map(to_proto).collect(),
            next_page_token: found.next_page_token,
        })
    }

    async fn desired(
        &self,
        request: proto::GetDesiredStateRequest,
    ) -> Result<proto::GetDesiredStateResponse, ApiError> {
        let repository = self.repository(&request.repository)?;
        let folder = folder("path", &request.path)?;
        let commit = match convert::optional::<CommitSha>("commit", &request.commit)? {
            Some(commit) => {
                if !repository.ensure(&commit).await.map_err(problem)? {
                    return Err(commit_not_found(&commit));
                }
                commit
            }
            None => repository
                .fetch(&branch(repository, &request.branch)?)
                .await
                .map_err(problem)?,
        };
        let found = repository
            .images(&commit, &Place::Kustomization(folder.clone()))
            .await
            .map_err(problem)?
            .map_err(|reason| ApiError::precondition(reason.code.as_str(), reason))?;
        Ok(proto::GetDesiredStateResponse {
            commit: commit.to_string(),
            images: found
                .iter()
                .map(|image| proto::KustomizeImage {
                    path: folder.as_str().to_owned(),
                    name: image.name.clone(),
                    new_name: image.image.name.clone(),
                    new_tag: image.image.tag.clone(),
                    digest: image.image.digest.clone(),
                })
                .collect(),
            desired_images: found.iter().map(found_to_proto).collect(),
        })
    }

    async fn render(
        &self,
        request: proto::RenderManifestsRequest,
    ) -> Result<proto::RenderManifestsResponse, ApiError> {
        let repository = self.repository(&request.repository)?;
        let commit: CommitSha = convert::field("commit", &request.commit)?;
        let folder = folder("path", &request.path)?;
        let manifests = if repository.pretends() {
            String::new()
        } else {
            self.renderer
                .render(repository, &commit, &folder)
                .await?
                .to_string()
        };
        Ok(proto::RenderManifestsResponse {
            commit: commit.to_string(),
            manifests,
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
        Caller::of(&request)?.require_somewhere(Action::Read)?;
        Ok(Response::new(self.desired(request.into_inner()).await?))
    }

    async fn promote(&self, _: Request<proto::PromoteRequest>) -> Answer<proto::PromoteResponse> {
        Err(Status::unimplemented("not there yet"))
    }

    async fn diff_environments(
        &self,
        _: Request<proto::DiffEnvironmentsRequest>,
    ) -> Answer<proto::DiffEnvironmentsResponse> {
        Err(Status::unimplemented("not there yet"))
    }

    async fn render_manifests(
        &self,
        request: Request<proto::RenderManifestsRequest>,
    ) -> Answer<proto::RenderManifestsResponse> {
        Caller::of(&request)?.require_somewhere(Action::Read)?;
        Ok(Response::new(self.render(request.into_inner()).await?))
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
