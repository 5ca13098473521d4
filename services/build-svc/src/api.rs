//! The gRPC API: checks requests, asks the ledger, and answers with what [`convert`] makes of the domain.

use std::{collections::BTreeMap, time::Duration};

use build_domain::{
    build::{self, Build, Command, codes::REGISTRY_REFUSED},
    repository::RepositoryPattern,
    spec::Recipe,
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use serde::Serialize;
use slipway_ledger::{IdempotencyKey, Ledger, Meta, Snapshot};
use slipway_model::{Fault, Id, ImageName, Name, Tag};
use slipway_proto::build::v1::{self as proto, build_service_server::BuildService};
use slipway_server::{
    Action, ApiError, Call, Listed, Resource, Resources, Scope, convert as wire, stream_events_to,
};
use tonic::{Request, Response, Status};

use self::tail::Tail;
use crate::{
    backends::{Backends, logs::Logs},
    config::{LimitsConfig, Settings},
};

mod convert;
mod tail;

/// The gRPC service.
#[derive(Debug)]
pub(crate) struct BuildApi {
    ledger: Ledger,
    builds: Resources<Builds>,
    backends: Backends,
    logs: Logs,
    repositories: Vec<RepositoryPattern>,
    default_builder: String,
    limits: LimitsConfig,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl BuildApi {
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
        let request_id = wire::key("request_id", &request.request_id)?;
        let service: Name = wire::field("service", &request.service)?;
        caller.require(Action::Start, service.as_str(), "")?;
        let spec = wire::message("spec", request.spec)?;
        let fingerprint = Fingerprint {
            timeout_s: convert::timeout(spec.timeout.as_ref())?.map(|timeout| timeout.as_secs()),
            builder: spec.builder.clone(),
            recipe: convert::recipe(spec)?,
            correlation_id: wire::key("correlation_id", &request.correlation_id)?,
            labels: wire::labels(request.labels)?,
            service,
            rebuild: request.rebuild,
        };
        let builder = self.check_allowed(&fingerprint)?.to_owned();
        let actor = caller.actor("", fingerprint.service.as_str(), "")?;
        let key = IdempotencyKey::new(caller.principal(), "StartBuild", request_id, &fingerprint);
        let request = Box::new(build::Request {
            service: fingerprint.service,
            recipe: fingerprint.recipe,
            builder,
            limits: self
                .limits
                .of_build(fingerprint.timeout_s.map(Duration::from_secs)),
            requested_by: actor.clone(),
            correlation_id: fingerprint.correlation_id,
            labels: fingerprint.labels,
            rebuild: fingerprint.rebuild,
        });
        let id = Id::generate("bld");
        let executed = self
            .ledger
            .execute_once::<Build>(
                &key,
                &id,
                || Command::Request(request.clone()),
                &Meta::new(actor, trace),
            )
            .await?;
        self.builds.show(&executed.snapshot).await
    }

    /// Checks a request against the configuration, and returns the builder's name.
    fn check_allowed<'a>(&'a self, fingerprint: &'a Fingerprint) -> Result<&'a str, ApiError> {
        let name = if fingerprint.builder.is_empty() {
            &self.default_builder
        } else {
            &fingerprint.builder
        };
        if !self.backends.builders.contains_key(name) {
            let known: Vec<&str> = self.backends.builders.keys().map(String::as_str).collect();
            let name: String = name.chars().take(100).collect();
            return Err(ApiError::invalid(
                "spec.builder",
                format!("{name:?} is not configured; use one of {}", known.join(", ")),
            ));
        }
        let recipe = &fingerprint.recipe;
        if !self
            .repositories
            .iter()
            .any(|pattern| pattern.matches(&recipe.repository))
        {
            let message = "is not allowed; add it to `repositories` in the configuration of build-svc";
            return Err(ApiError::invalid("spec.repository_url", message));
        }
        if self.backends.registries.of(&recipe.image).is_none() {
            return Err(ApiError::invalid("spec.image_name", self.no_registry()));
        }
        Ok(name)
    }

    /// Why no registry takes an image of some name.
    fn no_registry(&self) -> String {
        let prefixes = self.backends.registries.prefixes();
        let known = prefixes.iter().map(|prefix| match *prefix {
            "" => "(no host)",
            prefix => prefix,
        });
        match known.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => {
                "matches no registry: none is configured; add one to `registries`".to_owned()
            }
            known => format!("matches no configured registry; they begin with {known}"),
        }
    }

    /// The digest that a tag names now.
    async fn resolve(&self, call: Call<proto::ResolveTagRequest>) -> Result<String, ApiError> {
        let Call { caller, message, .. } = call;
        let service: Name = wire::field("service", &message.service)?;
        let image: ImageName = wire::field("image_name", &message.image_name)?;
        let tag: Tag = wire::field("tag", &message.tag)?;
        caller.require(Action::Read, service.as_str(), "")?;
        let Some(registry) = self.backends.registries.of(&image) else {
            return Err(ApiError::invalid("image_name", self.no_registry()));
        };
        match registry.inspect(&image, &tag).await {
            Ok(Some(found)) => Ok(found.digest.to_string()),
            Ok(None) => Err(ApiError::not_found("tag", format!("{image}:{tag}"))),
            Err(Fault::Permanent(reason)) => Err(ApiError::precondition(REGISTRY_REFUSED, reason.message)),
            Err(transient) => Err(transient.into()),
        }
    }

    async fn cancel(&self, call: Call<proto::CancelBuildRequest>) -> Result<proto::Build, ApiError> {
        let build = self
            .builds
            .find(&call.caller, Action::Cancel, &call.message.id)
            .await?;
        let mut reason = wire::text("reason", &call.message.reason)?;
        let meta = call.meta();
        if reason.is_empty() {
            reason = format!("cancelled by {}", meta.actor);
        }
        self.builds
            .execute(&build.id, Command::Cancel { reason }, &meta)
            .await
    }
}

/// A request before the configuration's defaults: the same idempotency key must come with the same one.
#[derive(Debug, Serialize)]
struct Fingerprint {
    service: Name,
    recipe: Recipe,
    builder: String,
    timeout_s: Option<u64>,
    correlation_id: String,
    labels: BTreeMap<String, String>,
    /// Left out where it says nothing, as requests did that know nothing of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rebuild: bool,
}

#[tonic::async_trait]
impl BuildService for BuildApi {
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

    async fn resolve_tag(
        &self,
        request: Request<proto::ResolveTagRequest>,
    ) -> Answer<proto::ResolveTagResponse> {
        let digest = self.resolve(Call::of(request)?).await?;
        Ok(Response::new(proto::ResolveTagResponse { digest }))
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

/// Builds, as the API shows them.
struct Builds;

impl Resource for Builds {
    type Decider = Build;
    type Message = proto::Build;

    fn message(build: &Snapshot<Build>) -> proto::Build {
        convert::build(build)
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
