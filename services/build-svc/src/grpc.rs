//! Between the wire and the domain: checks requests, asks the ledger, converts. The only file that knows tonic and prost.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use serde::Serialize;
use slipway_ledger::{IdempotencyKey, Ledger, Meta, Snapshot};
use slipway_model::{Id, Image, Name};
use slipway_proto::{
    build::v1::{self as proto, build_service_server::BuildService},
    common::v1::waiting_on::Kind,
};
use slipway_server::{Action, ApiError, Call, Listed, Resource, Resources, Scope, convert, stream_events_to};
use tonic::{Request, Response, Status};

use crate::{
    backends::Backends,
    build::{self, Build, Command},
    config::{LimitsConfig, MAX_TIMEOUT, Settings},
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
    builds: Resources<Build>,
    backends: Backends,
    logs: Logs,
    repositories: Vec<RepositoryPattern>,
    default_builder: String,
    limits: LimitsConfig,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl BuildGrpc {
    pub(crate) fn new(ledger: Ledger, settings: &Settings, backends: Backends, logs: Logs) -> Self {
        Self {
            builds: Resources::new(ledger.clone()),
            ledger,
            backends,
            logs,
            repositories: settings.repositories.clone(),
            default_builder: settings.default_builder().to_owned(),
            limits: settings.limits.clone(),
        }
    }

    async fn start(&self, call: Call<proto::StartBuildRequest>) -> Result<proto::Build, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
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
        let key = IdempotencyKey::new(caller.principal(), "StartBuild", request_id, &asked);
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
                &key,
                &id,
                || Command::Request(wanted.clone()),
                &Meta::new(actor, trace),
            )
            .await?;
        self.builds.show(&executed.snapshot).await
    }

    /// Checks a request against the configuration, and gives the builder's name.
    fn allowed<'a>(&'a self, asked: &'a Asked) -> Result<&'a str, ApiError> {
        let name = if asked.builder.is_empty() {
            &self.default_builder
        } else {
            &asked.builder
        };
        if !self.backends.builders.contains_key(name) {
            let known: Vec<&str> = self.backends.builders.keys().map(String::as_str).collect();
            let name: String = name.chars().take(100).collect();
            return Err(ApiError::invalid(
                "spec.builder",
                format!("{name:?} is not configured; there are {}", known.join(", ")),
            ));
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

    async fn cancel(&self, call: Call<proto::CancelBuildRequest>) -> Result<proto::Build, ApiError> {
        let build = self
            .builds
            .find(&call.caller, Action::Cancel, &call.message.id)
            .await?;
        let mut reason = convert::text("reason", &call.message.reason)?;
        let meta = call.meta();
        if reason.is_empty() {
            reason = format!("cancelled by {}", meta.actor);
        }
        self.builds
            .execute(&build.id, Command::Cancel { reason }, &meta)
            .await
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
        let build = Some(self.start(Call::of(request)?).await?);
        Ok(Response::new(proto::StartBuildResponse { build }))
    }

    async fn get_build(&self, request: Request<proto::GetBuildRequest>) -> Answer<proto::GetBuildResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let build = Some(self.builds.get(&caller, &message.id).await?);
        Ok(Response::new(proto::GetBuildResponse { build }))
    }

    async fn list_builds(
        &self,
        request: Request<proto::ListBuildsRequest>,
    ) -> Answer<proto::ListBuildsResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let Listed {
            items,
            next_page_token,
        } = self.builds.list(&caller, &message.into()).await?;
        Ok(Response::new(proto::ListBuildsResponse {
            builds: items,
            next_page_token,
        }))
    }

    async fn watch_build(
        &self,
        request: Request<proto::WatchBuildRequest>,
    ) -> Answer<Self::WatchBuildStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let builds = self.builds.watch(&caller, &message.id, &message.etag).await?;
        let builds = builds.map_ok(|build| proto::WatchBuildResponse { build: Some(build) });
        Ok(Response::new(builds.boxed()))
    }

    async fn tail_log(&self, request: Request<proto::TailLogRequest>) -> Answer<Self::TailLogStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let build = self.builds.find(&caller, Action::Read, &message.id).await?;
        let tail = Tail {
            ledger: self.ledger.clone(),
            logs: self.logs.clone(),
            id: build.id,
            offset: message.offset,
            follow: message.follow,
        };
        Ok(Response::new(stream::try_unfold(Some(tail), Tail::next).boxed()))
    }

    async fn cancel_build(
        &self,
        request: Request<proto::CancelBuildRequest>,
    ) -> Answer<proto::CancelBuildResponse> {
        let build = Some(self.cancel(Call::of(request)?).await?);
        Ok(Response::new(proto::CancelBuildResponse { build }))
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

impl Resource for Build {
    type Decider = Self;
    type Message = proto::Build;

    fn message(build: &Snapshot<Self>) -> proto::Build {
        to_proto(build)
    }

    fn status_name(value: i32) -> Option<&'static str> {
        let status = proto::build::Status::try_from(value).ok()?;
        Some(status.as_str_name())
    }

    fn scope(state: &build::State) -> Scope<'_> {
        match &state.request {
            Some(request) => Scope::new(request.service.as_str(), []),
            None => Scope::unknown(),
        }
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
        reason: state.reason.as_ref().map(convert::reason),
        phase: phase(state).into(),
        log_tail: state.log_tail.clone(),
        create_time: Some(convert::timestamp(state.requested_at.unwrap_or(build.created_at))),
        start_time: state.started_at.map(convert::timestamp),
        end_time: state.ended_at.map(convert::timestamp),
        attempt: state.attempt,
        retry: build.retrying().as_ref().map(convert::retry),
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
    resource.image = state.digest.as_ref().map(|digest| {
        convert::image(&Image {
            name: request.service.clone(),
            repository: request.recipe.image.clone(),
            digest: digest.clone(),
            tags: state.tags.clone(),
        })
    });
    if !state.status.is_final() {
        let (since, message) = match (state.started_at, state.retry_at) {
            (None, _) => (
                state.requested_at.unwrap_or(build.created_at),
                "a free builder".to_owned(),
            ),
            (Some(_), Some(_)) => (build.updated_at, "the next try".to_owned()),
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

fn phase(state: &build::State) -> proto::build::Phase {
    use proto::build::Phase as Wire;
    match state.phase {
        _ if state.status != build::Status::Running => Wire::Unspecified,
        build::Phase::Fetching => Wire::Fetching,
        build::Phase::Building => Wire::Building,
        build::Phase::Pushing => Wire::Pushing,
        build::Phase::Tagging => Wire::Tagging,
    }
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
        timeout: Some(convert::duration(Duration::from_secs(request.limits.timeout_s))),
        target: recipe.target.clone(),
    }
}
