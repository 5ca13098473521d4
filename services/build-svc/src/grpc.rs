//! Between the wire and the domain: checks requests, asks the ledger, converts. The only file that knows tonic and prost.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use slipway_ledger::{Ledger, ListFilter, Meta, Request as Once, Snapshot};
use slipway_model::{Id, Name, TraceContext};
use slipway_proto::{
    build::v1::{
        self as proto,
        build_service_server::{BuildService, BuildServiceServer},
    },
    common::v1::waiting_on::Kind,
};
use slipway_server::{Action, ApiError, Caller, convert};
use tonic::{Request, Response, Status};

use crate::{
    backends::{Backends, BuilderEntry},
    build::{self, Build, Command, Refusal, State},
    config::{Config, LimitsConfig, MAX_TIMEOUT},
    logs::{Logs, Read},
    repository::{RepositoryPattern, RepositoryUrl},
    spec::{InvalidField, Recipe},
};

/// How often a follower of a log looks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// The service as gRPC knows it.
#[derive(Debug)]
pub(crate) struct BuildGrpc {
    ledger: Ledger,
    backends: Backends,
    logs: Logs,
    repositories: Vec<RepositoryPattern>,
    default_builder: String,
    limits: LimitsConfig,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl BuildGrpc {
    pub(crate) fn new(ledger: Ledger, config: &Config, backends: Backends, logs: Logs) -> Self {
        Self {
            ledger,
            backends,
            logs,
            repositories: config.repositories.clone(),
            default_builder: config.default_builder().to_owned(),
            limits: config.limits.clone(),
        }
    }

    pub(crate) fn into_server(self, max_message_bytes: usize) -> BuildServiceServer<Self> {
        BuildServiceServer::new(self).max_decoding_message_size(max_message_bytes)
    }

    async fn start(
        &self,
        caller: &Caller,
        trace: Option<TraceContext>,
        request: proto::StartBuildRequest,
    ) -> Result<Snapshot<Build>, ApiError> {
        let request_id = convert::key("request_id", &request.request_id)?;
        let service: Name = convert::field("service", &request.service)?;
        caller.require(Action::Start, service.as_str(), "")?;
        let spec = convert::message("spec", request.spec)?;
        let asked = Asked {
            timeout_s: timeout(spec.timeout.as_ref())?.map(|timeout| timeout.as_secs()),
            builder: spec.builder.clone(),
            recipe: recipe(spec)?,
            correlation_id: convert::key("correlation_id", &request.correlation_id)?,
            labels: convert::labels(request.labels)?,
            service,
        };
        let builder = self.allowed(&asked)?.to_owned();
        let actor = caller.actor("", asked.service.as_str(), "")?;
        let once = Once::new(caller.principal(), "StartBuild", request_id, &asked);
        let wanted = Box::new(build::Request {
            service: asked.service,
            recipe: asked.recipe,
            builder,
            limits: self.limits.of_build(asked.timeout_s.map(Duration::from_secs)),
            requested_by: actor.clone(),
            correlation_id: asked.correlation_id,
            labels: asked.labels,
        });
        let id = Id::generate("bld");
        let executed = self
            .ledger
            .execute_once::<Build>(
                &once,
                &id,
                || Command::Request(wanted.clone()),
                &Meta::new(actor, trace),
            )
            .await?;
        Ok(executed.snapshot)
    }

    /// Checks a request against the configuration, and gives the builder's name.
    fn allowed<'a>(&'a self, asked: &'a Asked) -> Result<&'a str, ApiError> {
        let name = if asked.builder.is_empty() {
            &self.default_builder
        } else {
            &asked.builder
        };
        let Some(builder) = self.backends.builders.get(name) else {
            let known: Vec<&str> = self.backends.builders.keys().map(String::as_str).collect();
            let name: String = name.chars().take(100).collect();
            return Err(ApiError::invalid(
                "spec.builder",
                format!("{name:?} is not configured; there are {}", known.join(", ")),
            ));
        };
        if matches!(builder, BuilderEntry::Pretend) {
            return Ok(name);
        }
        let recipe = &asked.recipe;
        if !self
            .repositories
            .iter()
            .any(|pattern| pattern.matches(&recipe.repository))
        {
            let message = "is not among the repositories that this service may build; see `repositories` in its configuration";
            return Err(ApiError::invalid("spec.repository_url", message));
        }
        if self.backends.registries.of(&recipe.image).is_none() {
            let known: Vec<String> = self
                .backends
                .registries
                .prefixes()
                .iter()
                .map(|prefix| {
                    if prefix.is_empty() {
                        "(no host)".to_owned()
                    } else {
                        (*prefix).to_owned()
                    }
                })
                .collect();
            let message = format!(
                "belongs to no registry of this service's configuration; there are {}",
                known.join(", ")
            );
            return Err(ApiError::invalid("spec.image_name", message));
        }
        Ok(name)
    }

    /// A build that the caller may see, and may do `action` with.
    async fn found(&self, caller: &Caller, action: Action, id: &str) -> Result<Snapshot<Build>, ApiError> {
        let id: Id = convert::field("id", id)?;
        let build = self
            .ledger
            .get::<Build>(&id)
            .await?
            .ok_or_else(|| ApiError::not_found("build", &id))?;
        caller.require(action, service_of(&build.state), "")?;
        Ok(build)
    }

    async fn list(
        &self,
        caller: &Caller,
        request: proto::ListBuildsRequest,
    ) -> Result<proto::ListBuildsResponse, ApiError> {
        let service = convert::name_filter("service", &request.service)?;
        match &service {
            Some(service) => caller.require(Action::Read, service.as_str(), "")?,
            None => caller.require_somewhere(Action::Read)?,
        }
        let status = request.status;
        let correlation = convert::key("correlation_id", &request.correlation_id)?;
        let filter = ListFilter {
            status: status_filter(status)?.into_iter().map(str::to_owned).collect(),
            service: service.map(String::from),
            correlation: Some(correlation).filter(|text| !text.is_empty()),
            labels: convert::labels(request.labels)?,
            ..ListFilter::default()
        };
        let page = slipway_server::ledger::list_page(request.page_size, &request.page_token)?;
        let found = self.ledger.list_of::<Build>(&filter, &page).await?;
        // A page can be shorter than asked for where the caller may not see everything.
        let visible = found
            .items
            .iter()
            .filter(|build| caller.may(Action::Read, service_of(&build.state), ""));
        Ok(proto::ListBuildsResponse {
            builds: visible.map(to_proto).collect(),
            next_page_token: found.next_page_token,
        })
    }

    async fn cancel(
        &self,
        caller: &Caller,
        trace: Option<TraceContext>,
        request: proto::CancelBuildRequest,
    ) -> Result<Snapshot<Build>, ApiError> {
        let build = self.found(caller, Action::Cancel, &request.id).await?;
        let mut reason = convert::text("reason", &request.reason)?;
        let actor = caller.actor("", service_of(&build.state), "")?;
        if reason.is_empty() {
            reason = format!("cancelled by {actor}");
        }
        let command = || Command::Cancel {
            reason: reason.clone(),
        };
        Ok(self
            .ledger
            .execute::<Build>(&build.id, command, &Meta::new(actor, trace))
            .await?)
    }
}

/// What a caller asked for, before the configuration's defaults: what an idempotency key stands for.
#[derive(Debug, Serialize)]
struct Asked {
    service: Name,
    recipe: Recipe,
    builder: String,
    timeout_s: Option<u64>,
    correlation_id: String,
    labels: BTreeMap<String, String>,
}

#[tonic::async_trait]
impl BuildService for BuildGrpc {
    type WatchBuildStream = Answers<proto::WatchBuildResponse>;
    type TailLogStream = Answers<proto::TailLogResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn start_build(
        &self,
        request: Request<proto::StartBuildRequest>,
    ) -> Answer<proto::StartBuildResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let build = self.start(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::StartBuildResponse {
            build: Some(to_proto(&build)),
        }))
    }

    async fn get_build(&self, request: Request<proto::GetBuildRequest>) -> Answer<proto::GetBuildResponse> {
        let build = self
            .found(&Caller::of(&request)?, Action::Read, &request.get_ref().id)
            .await?;
        Ok(Response::new(proto::GetBuildResponse {
            build: Some(to_proto(&build)),
        }))
    }

    async fn list_builds(
        &self,
        request: Request<proto::ListBuildsRequest>,
    ) -> Answer<proto::ListBuildsResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.list(&caller, request.into_inner()).await?))
    }

    async fn watch_build(
        &self,
        request: Request<proto::WatchBuildRequest>,
    ) -> Answer<Self::WatchBuildStream> {
        let build = self
            .found(&Caller::of(&request)?, Action::Read, &request.get_ref().id)
            .await?;
        let after = convert::optional::<u64>("etag", &request.get_ref().etag)?;
        let states = self
            .ledger
            .watch::<Build>(&build.id, after)
            .map(|next| match next {
                Ok(build) => Ok(proto::WatchBuildResponse {
                    build: Some(to_proto(&build)),
                }),
                Err(error) => Err(ApiError::from(error).into()),
            });
        Ok(Response::new(Box::pin(states)))
    }

    async fn tail_log(&self, request: Request<proto::TailLogRequest>) -> Answer<Self::TailLogStream> {
        let build = self
            .found(&Caller::of(&request)?, Action::Read, &request.get_ref().id)
            .await?;
        let proto::TailLogRequest { offset, follow, .. } = request.into_inner();
        let tail = Tail {
            ledger: self.ledger.clone(),
            logs: self.logs.clone(),
            id: build.id,
            offset,
            follow,
        };
        Ok(Response::new(Box::pin(stream::try_unfold(
            Some(tail),
            Tail::next,
        ))))
    }

    async fn cancel_build(
        &self,
        request: Request<proto::CancelBuildRequest>,
    ) -> Answer<proto::CancelBuildResponse> {
        let (caller, trace) = (Caller::of(&request)?, convert::trace_context(&request));
        let build = self.cancel(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::CancelBuildResponse {
            build: Some(to_proto(&build)),
        }))
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

/// A reader of a log.
struct Tail {
    ledger: Ledger,
    logs: Logs,
    id: Id,
    offset: u64,
    follow: bool,
}

impl Tail {
    /// The next part, and the reader behind it; nothing when the log ends here.
    async fn next(tail: Option<Self>) -> Result<Option<(proto::TailLogResponse, Option<Self>)>, Status> {
        let Some(mut tail) = tail else {
            return Ok(None);
        };
        loop {
            // Asked before reading: the log is whole before the build ends, so that what is read after it is all.
            let over = match tail.ledger.get::<Build>(&tail.id).await {
                Ok(build) => build.is_none_or(|build| build.state.status.is_final()),
                Err(error) => return Err(ApiError::from(error).into()),
            };
            match tail.logs.read(&tail.id, tail.offset).await {
                Ok(Read::Chunk(chunk)) => {
                    tail.offset += chunk.len() as u64;
                    let part = proto::TailLogResponse {
                        chunk: chunk.into(),
                        next_offset: tail.offset,
                        truncated: false,
                    };
                    return Ok(Some((part, Some(tail))));
                }
                Ok(Read::Cut) => {
                    let end = proto::TailLogResponse {
                        chunk: Vec::new(),
                        next_offset: tail.offset,
                        truncated: true,
                    };
                    return Ok(Some((end, None)));
                }
                Ok(Read::End) if over || !tail.follow => return Ok(None),
                Ok(Read::End) => tokio::time::sleep(FOLLOW_EVERY).await,
                Err(error) => return Err(ApiError::internal(error).into()),
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(id) => Self::not_found("build", id),
            Refusal::Exists(_) => Self::precondition("BUILD_EXISTS", refusal),
        }
    }
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        Self::invalid(error.field, error.message)
    }
}

fn recipe(spec: proto::BuildSpec) -> Result<Recipe, ApiError> {
    let recipe = Recipe {
        repository: convert::field::<RepositoryUrl>("spec.repository_url", &spec.repository_url)?,
        commit: convert::field("spec.commit", &spec.commit)?,
        branch: convert::optional("spec.branch", &spec.branch)?,
        image: convert::field("spec.image_name", &spec.image_name)?,
        context: spec.context,
        dockerfile: spec.dockerfile,
        arguments: spec.build_args.into_iter().collect(),
        version: spec.version,
        latest: spec.tag_latest,
        target: spec.target,
    };
    recipe.check()?;
    Ok(recipe)
}

fn timeout(timeout: Option<&prost_types::Duration>) -> Result<Option<Duration>, ApiError> {
    let Some(timeout) = timeout else {
        return Ok(None);
    };
    Duration::try_from(*timeout)
        .ok()
        .filter(|timeout| timeout.as_secs() >= 1 && *timeout <= MAX_TIMEOUT)
        .map(Some)
        .ok_or_else(|| {
            ApiError::invalid(
                "spec.timeout",
                "must be from 1 s to 6 h; leave it out for the service's default",
            )
        })
}

fn status_filter(status: i32) -> Result<Option<&'static str>, ApiError> {
    use proto::build::Status as Wire;
    match Wire::try_from(status) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Queued) => Ok(Some(build::Status::Queued.as_str())),
        Ok(Wire::Running) => Ok(Some(build::Status::Running.as_str())),
        Ok(Wire::Succeeded) => Ok(Some(build::Status::Succeeded.as_str())),
        Ok(Wire::Failed) => Ok(Some(build::Status::Failed.as_str())),
        Ok(Wire::Errored) => Ok(Some(build::Status::Errored.as_str())),
        Ok(Wire::Cancelled) => Ok(Some(build::Status::Cancelled.as_str())),
        Err(_) => Err(ApiError::invalid("status", "is not a status of a build")),
    }
}

fn service_of(state: &State) -> &str {
    state
        .request
        .as_ref()
        .map_or("", |request| request.service.as_str())
}

fn to_proto(build: &Snapshot<Build>) -> proto::Build {
    use proto::build::Status as Wire;
    let state = &build.state;
    let status = match state.status {
        build::Status::Queued => Wire::Queued,
        build::Status::Running => Wire::Running,
        build::Status::Succeeded => Wire::Succeeded,
        build::Status::Failed => Wire::Failed,
        build::Status::Errored => Wire::Errored,
        build::Status::Cancelled => Wire::Cancelled,
    };
    let mut resource = proto::Build {
        id: build.id.to_string(),
        etag: build.etag(),
        status: status.into(),
        reason: state
            .reason
            .as_ref()
            .map(|reason| convert::reason(&reason.code, &reason.message)),
        phase: if state.status == build::Status::Running {
            state.phase.as_str().to_owned()
        } else {
            String::new()
        },
        log_tail: state.log_tail.clone(),
        create_time: Some(convert::timestamp(state.requested_at.unwrap_or(build.created_at))),
        start_time: state.started_at.map(convert::timestamp),
        end_time: state.ended_at.map(convert::timestamp),
        attempt: state.attempt,
        authors: state.authors.clone(),
        ..proto::Build::default()
    };
    let Some(request) = &state.request else {
        return resource;
    };
    resource.labels = request.labels.clone().into_iter().collect();
    resource.correlation_id.clone_from(&request.correlation_id);
    resource.service = request.service.to_string();
    resource.requested_by = Some(convert::actor(&request.requested_by));
    resource.spec = Some(spec_to_proto(request));
    resource.image = state
        .digest
        .as_ref()
        .map(|digest| convert::image(&request.recipe.image, digest, &state.tags));
    if !state.status.is_final() {
        let (since, message) = match (state.started_at, state.retry_at) {
            (None, _) => (
                state.requested_at.unwrap_or(build.created_at),
                "a free builder".to_owned(),
            ),
            (Some(_), Some(retry_at)) => {
                let fault = state.fault.as_ref().map_or("", |fault| fault.message.as_str());
                (build.updated_at, format!("the next try, at {retry_at}: {fault}"))
            }
            (Some(started), None) => (started, state.phase.as_str().to_owned()),
        };
        resource.waiting_on = Some(convert::waiting_on(
            Kind::Machine,
            &request.builder,
            since,
            message,
        ));
    }
    resource
}

fn spec_to_proto(request: &build::Request) -> proto::BuildSpec {
    let recipe = &request.recipe;
    proto::BuildSpec {
        repository_url: recipe.repository.to_string(),
        commit: recipe.commit.to_string(),
        branch: recipe
            .branch
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        image_name: recipe.image.to_string(),
        context: recipe.context.clone(),
        dockerfile: recipe.dockerfile.clone(),
        build_args: recipe.arguments.clone().into_iter().collect(),
        version: recipe.version.clone(),
        tag_latest: recipe.latest,
        builder: request.builder.clone(),
        timeout: prost_types::Duration::try_from(Duration::from_secs(request.limits.timeout_s)).ok(),
        target: recipe.target.clone(),
    }
}
