//! Between the wire and the domain: checks requests, asks the ledger, converts. The only file that knows tonic and
//! prost.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use slipway_ledger::{Ledger, ListFilter, Meta, Page, Request as Once, Snapshot};
use slipway_model::{Actor, BranchName, CommitSha, Id, TraceContext};
use slipway_proto::{
    common::v1::waiting_on::Kind,
    gitops::v1::{
        self as proto,
        git_ops_service_server::{GitOpsService, GitOpsServiceServer},
    },
};
use slipway_server::{Action, ApiError, Caller, convert, page};
use tonic::{Request, Response, Status};

use crate::{
    change::{self, Change, Command, Image, Refusal, State},
    edit::{Edit, Entry, Folder, InvalidEdit, KustomizeImage},
    effects::nudge,
    message::MAX_SUBJECT,
    render::{RenderError, Renderer},
    repository::{Problem, Repository},
};

/// Edits of one change at most: all overlays of a large service.
const MAX_EDITS: usize = 100;

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
            ApiError::invalid("repository", format!("{name:?} is not configured; there are {}", known.join(", ")))
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
        let command = || Command::Request { request: Box::new(request.clone()), timeout: self.push_deadline };
        let executed = self.ledger.execute_once::<Change>(&once, &Id::generate("chg"), command, &meta).await?;
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
        let asked = change::Request {
            repository: repository.name().to_owned(),
            branch: branch(repository, &request.branch)?,
            service,
            environment,
            edits: edits(request.edits)?,
            source_commit: convert::optional("source_commit", &request.source_commit)?,
            image: request.image.map(image).transpose()?,
            subject: subject(&request.message)?,
            reverts: None,
            why: String::new(),
            correlation_id: convert::key("correlation_id", &request.correlation_id)?,
            labels: convert::labels(request.labels)?,
            requested_by: Actor::direct(caller.principal().clone()),
            traceparent: None,
        };
        let fingerprint = asked.clone();
        let asked = change::Request { traceparent: trace, ..asked };
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
        let fingerprint = (change.id.clone(), request.force, why.clone(), correlation_id.clone());
        let Some(original) = change.state.request.clone() else {
            return Err(ApiError::not_found("change", &change.id));
        };
        if change.state.status != change::Status::Pushed {
            let message = format!("change {} is {}, so there is nothing to put back", change.id, change.state.status.as_str());
            return Err(ApiError::precondition("NOT_PUSHED", message));
        }
        let asked = change::Request {
            edits: change.state.undo(request.force),
            subject: String::new(),
            reverts: Some(change.id.clone()),
            why,
            correlation_id,
            requested_by: Actor::direct(caller.principal().clone()),
            traceparent: trace,
            ..original
        };
        self.repository(&asked.repository)?;
        self.start("RevertChange", request_id, asked, &fingerprint).await
    }

    /// A change that the caller may see, and may do `action` with.
    async fn found(&self, caller: &Caller, action: Action, id: &str) -> Result<Snapshot<Change>, ApiError> {
        let id: Id = convert::field("id", id)?;
        let change = self.ledger.get::<Change>(&id).await?.ok_or_else(|| ApiError::not_found("change", &id))?;
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
        let command = || Command::Cancel { reason: reason.clone() };
        Ok(self.ledger.execute::<Change>(&change.id, command, &meta).await?)
    }

    async fn list(&self, caller: &Caller, request: proto::ListChangesRequest) -> Result<proto::ListChangesResponse, ApiError> {
        caller.require_somewhere(Action::Read)?;
        let service = convert::name_filter("service", &request.service)?;
        let environment = convert::name_filter("environment", &request.environment)?;
        let correlation = convert::key("correlation_id", &request.correlation_id)?;
        let filter = ListFilter {
            status: status_filter(request.status)?.into_iter().map(str::to_owned).collect(),
            service: service.map(String::from),
            environment: environment.map(String::from),
            correlation: Some(correlation).filter(|text| !text.is_empty()),
            labels: convert::labels(request.labels)?,
            not_final: false,
        };
        let page = Page { size: page::size(request.page_size)?, token: request.page_token };
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

    async fn desired(&self, request: proto::GetDesiredStateRequest) -> Result<proto::GetDesiredStateResponse, ApiError> {
        let repository = self.repository(&request.repository)?;
        let folder = folder("path", &request.path)?;
        let commit = match convert::optional::<CommitSha>("commit", &request.commit)? {
            Some(commit) => {
                if !repository.ensure(&commit).await.map_err(problem)? {
                    return Err(commit_not_found(&commit));
                }
                commit
            }
            None => repository.fetch(&branch(repository, &request.branch)?).await.map_err(problem)?,
        };
        let entries = repository
            .images(&commit, &folder)
            .await
            .map_err(problem)?
            .map_err(|reason| ApiError::precondition(reason.code.as_str(), reason))?;
        Ok(proto::GetDesiredStateResponse {
            commit: commit.to_string(),
            images: entries.iter().map(|entry| entry_to_proto(&folder, entry)).collect(),
        })
    }

    async fn render(&self, request: proto::RenderManifestsRequest) -> Result<proto::RenderManifestsResponse, ApiError> {
        let repository = self.repository(&request.repository)?;
        let commit: CommitSha = convert::field("commit", &request.commit)?;
        let folder = folder("path", &request.path)?;
        let manifests = if repository.pretends() {
            String::new()
        } else {
            self.renderer.render(repository, &commit, &folder).await?.to_string()
        };
        Ok(proto::RenderManifestsResponse { commit: commit.to_string(), manifests })
    }
}

#[tonic::async_trait]
impl GitOpsService for GitOpsGrpc {
    type WatchChangeStream = Answers<proto::WatchChangeResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn apply_change(&self, request: Request<proto::ApplyChangeRequest>) -> Answer<proto::ApplyChangeResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.apply(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::ApplyChangeResponse { change: Some(to_proto(&change)) }))
    }

    async fn revert_change(&self, request: Request<proto::RevertChangeRequest>) -> Answer<proto::RevertChangeResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.revert(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::RevertChangeResponse { change: Some(to_proto(&change)) }))
    }

    async fn cancel_change(&self, request: Request<proto::CancelChangeRequest>) -> Answer<proto::CancelChangeResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let change = self.cancel(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::CancelChangeResponse { change: Some(to_proto(&change)) }))
    }

    async fn get_change(&self, request: Request<proto::GetChangeRequest>) -> Answer<proto::GetChangeResponse> {
        let change = self.found(&Caller::of(&request)?, Action::Read, &request.get_ref().id).await?;
        Ok(Response::new(proto::GetChangeResponse { change: Some(to_proto(&change)) }))
    }

    async fn list_changes(&self, request: Request<proto::ListChangesRequest>) -> Answer<proto::ListChangesResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.list(&caller, request.into_inner()).await?))
    }

    async fn watch_change(&self, request: Request<proto::WatchChangeRequest>) -> Answer<Self::WatchChangeStream> {
        let change = self.found(&Caller::of(&request)?, Action::Read, &request.get_ref().id).await?;
        let after = convert::optional::<u64>("etag", &request.get_ref().etag)?;
        let states = self.ledger.watch::<Change>(&change.id, after).map(|next| match next {
            Ok(change) => Ok(proto::WatchChangeResponse { change: Some(to_proto(&change)) }),
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

    async fn render_manifests(
        &self,
        request: Request<proto::RenderManifestsRequest>,
    ) -> Answer<proto::RenderManifestsResponse> {
        Caller::of(&request)?.require_somewhere(Action::Read)?;
        Ok(Response::new(self.render(request.into_inner()).await?))
    }

    async fn stream_events(&self, request: Request<proto::StreamEventsRequest>) -> Answer<Self::StreamEventsStream> {
        let caller = Caller::of(&request)?;
        let proto::StreamEventsRequest { cursor, correlation_id } = request.into_inner();
        let correlation_id = convert::key("correlation_id", &correlation_id)?;
        let events = slipway_server::stream_events_to(caller, &self.ledger, &cursor, &correlation_id, &[])?;
        Ok(Response::new(Box::pin(events.map(|next| next.map(|event| proto::StreamEventsResponse { event })))))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::precondition("NO_SUCH_CHANGE", refusal),
            Refusal::Exists => Self::precondition("CHANGE_EXISTS", refusal),
        }
    }
}

impl From<RenderError> for ApiError {
    fn from(error: RenderError) -> Self {
        match &error {
            RenderError::CommitNotFound(commit) => commit_not_found(commit),
            RenderError::Refused(reason) => Self::precondition(reason.code.as_str(), reason),
            RenderError::Outside(_) => Self::precondition("OUTSIDE_REPOSITORY", error),
            RenderError::Failed(_) => Self::precondition("RENDER_FAILED", error),
            RenderError::NoKustomize(_) => Self::precondition("KUSTOMIZE_MISSING", error),
            RenderError::Unavailable(reason) => unavailable(reason),
        }
    }
}

fn commit_not_found(commit: &CommitSha) -> ApiError {
    ApiError::precondition("COMMIT_NOT_FOUND", format!("commit {commit} is on no branch of the repository"))
}

fn problem(problem: Problem) -> ApiError {
    match problem {
        Problem::Final(reason) => ApiError::precondition(reason.code.as_str(), reason),
        problem => unavailable(&problem.reason()),
    }
}

fn unavailable(reason: &change::Reason) -> ApiError {
    match reason.code {
        change::Code::Internal => ApiError::internal(reason.message.clone()),
        _ => ApiError::unavailable(reason),
    }
}

fn branch(repository: &Repository, text: &str) -> Result<BranchName, ApiError> {
    Ok(convert::optional("branch", text)?.unwrap_or_else(|| repository.branch().clone()))
}

fn folder(field: &str, text: &str) -> Result<Folder, ApiError> {
    text.parse().map_err(|error: InvalidEdit| ApiError::invalid(field, error))
}

fn subject(text: &str) -> Result<String, ApiError> {
    if text.len() > MAX_SUBJECT || text.contains(char::is_control) {
        return Err(ApiError::invalid("message", format!("give one line of up to {MAX_SUBJECT} bytes")));
    }
    Ok(text.trim().to_owned())
}

fn edits(edits: Vec<proto::Edit>) -> Result<Vec<Edit>, ApiError> {
    if edits.is_empty() || edits.len() > MAX_EDITS {
        return Err(ApiError::invalid("edits", format!("give 1 to {MAX_EDITS}")));
    }
    edits
        .into_iter()
        .enumerate()
        .map(|(index, edit)| match edit.edit {
            Some(proto::edit::Edit::KustomizeImage(edit)) => {
                KustomizeImage::new(&edit.path, &edit.name, &edit.new_name, &edit.new_tag, &edit.digest)
                    .map(Edit::KustomizeImage)
                    .map_err(|error| {
                        let field = format!("edits[{index}].kustomize_image.{}", error.field);
                        ApiError::invalid(field, error)
                    })
            }
            None => Err(ApiError::invalid(format!("edits[{index}].edit"), "is required")),
        })
        .collect()
}

fn image(image: slipway_proto::common::v1::Image) -> Result<Image, ApiError> {
    let tags = image.tags.iter().take(32).map(|tag| convert::field("image.tags", tag));
    Ok(Image {
        name: convert::field("image.name", &image.name)?,
        digest: convert::optional("image.digest", &image.digest)?,
        tags: tags.collect::<Result<_, _>>()?,
    })
}

fn status_filter(status: i32) -> Result<Option<&'static str>, ApiError> {
    use proto::change::Status as Wire;
    match Wire::try_from(status) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Pending) => Ok(Some(change::Status::Pending.as_str())),
        Ok(Wire::Pushed) => Ok(Some(change::Status::Pushed.as_str())),
        Ok(Wire::Failed) => Ok(Some(change::Status::Failed.as_str())),
        Ok(Wire::Errored) => Ok(Some(change::Status::Errored.as_str())),
        Ok(Wire::Cancelled) => Ok(Some(change::Status::Cancelled.as_str())),
        Err(_) => Err(ApiError::invalid("status", "is not a status of a change")),
    }
}

fn scope(state: &State) -> (&str, &str) {
    state
        .request
        .as_ref()
        .map_or(("", ""), |request| (request.service.as_str(), request.environment.as_str()))
}

fn entry_to_proto(folder: &Folder, entry: &Entry) -> proto::KustomizeImage {
    let value = |scalar: &Option<crate::edit::Scalar>| scalar.as_ref().map(|scalar| scalar.value.clone()).unwrap_or_default();
    proto::KustomizeImage {
        path: folder.as_str().to_owned(),
        name: entry.name.clone(),
        new_name: value(&entry.new_name),
        new_tag: value(&entry.new_tag),
        digest: value(&entry.digest),
    }
}

fn edit_to_proto(edit: &Edit) -> proto::Edit {
    let image = match edit {
        Edit::KustomizeImage(edit) => proto::KustomizeImage {
            path: edit.path.as_str().to_owned(),
            name: edit.name.clone(),
            new_name: edit.new_name.as_ref().map(ToString::to_string).unwrap_or_default(),
            new_tag: edit.new_tag.as_ref().map(ToString::to_string).unwrap_or_default(),
            digest: edit.digest.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
        Edit::RestoreImage(edit) => entry_to_proto(&edit.path, &edit.entry),
    };
    proto::Edit { edit: Some(proto::edit::Edit::KustomizeImage(image)) }
}

fn to_proto(change: &Snapshot<Change>) -> proto::Change {
    use proto::change::Status as Wire;
    let state = &change.state;
    let status = match state.status {
        change::Status::Pending => Wire::Pending,
        change::Status::Pushed => Wire::Pushed,
        change::Status::Failed => Wire::Failed,
        change::Status::Errored => Wire::Errored,
        change::Status::Cancelled => Wire::Cancelled,
    };
    let since = state.requested_at.unwrap_or(change.created_at);
    let mut resource = proto::Change {
        id: change.id.to_string(),
        etag: change.etag(),
        status: status.into(),
        reason: state.reason.as_ref().map(|reason| convert::reason(reason.code.as_str(), &reason.message)),
        commit: state.commit.as_ref().map(ToString::to_string).unwrap_or_default(),
        no_op: state.no_op,
        previous: state
            .differences
            .iter()
            .map(|difference| proto::Edit {
                edit: Some(proto::edit::Edit::KustomizeImage(entry_to_proto(&difference.path, &difference.before))),
            })
            .collect(),
        create_time: Some(convert::timestamp(since)),
        end_time: state.ended_at.map(convert::timestamp),
        attempt: state.attempts,
        ..proto::Change::default()
    };
    let Some(request) = &state.request else {
        return resource;
    };
    resource.labels = request.labels.clone().into_iter().collect();
    resource.correlation_id.clone_from(&request.correlation_id);
    resource.repository.clone_from(&request.repository);
    resource.branch = request.branch.to_string();
    resource.service = request.service.to_string();
    resource.environment = request.environment.to_string();
    resource.edits = request.edits.iter().map(edit_to_proto).collect();
    resource.reverts = request.reverts.as_ref().map(ToString::to_string).unwrap_or_default();
    resource.source_commit = request.source_commit.as_ref().map(ToString::to_string).unwrap_or_default();
    resource.image = request.image.as_ref().map(|image| slipway_proto::common::v1::Image {
        name: image.name.to_string(),
        digest: image.digest.as_ref().map(ToString::to_string).unwrap_or_default(),
        tags: image.tags.iter().map(ToString::to_string).collect(),
    });
    resource.requested_by = Some(convert::actor(&request.requested_by));
    if state.status == change::Status::Pending {
        let message = if state.cancel.is_some() { "the push that may be under way, to be cancelled" } else { "the push" };
        let reference = format!("{}/{}", request.repository, request.branch);
        resource.waiting_on = Some(convert::waiting_on(Kind::Machine, reference, since, message));
    }
    resource
}
