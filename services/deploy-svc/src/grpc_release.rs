//! ReleaseService: proto ⇄ domain, nothing else.

mod shown;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use slipway_ledger::{
    Decider, ExecuteError, Ledger, ListFilter, Meta, Request as Once, Snapshot, TransactError,
};
use slipway_model::{Actor, BranchName, CommitSha, Id, TraceContext};
use slipway_proto::release::v1 as proto;
use slipway_server::{Action, ApiError, Caller, convert, ledger::list_page, stream_events_to};
use tonic::{Request, Response, Status};

use crate::{
    catalog::CatalogStore,
    deployment::Deployment,
    drive::{self, DriveError},
    grpc_deploy,
    lane::Lane,
    owners,
    plan::{Plan, PlanError, Wanted},
    release::{self, BuiltImage, Release, ReleaseCommand, ReleaseRefusal, StepKind, StepStatus},
};
use shown::{plan_proto, release_proto};

#[derive(Clone)]
pub struct ReleaseApi {
    pub ledger: Ledger,
    pub catalog: Arc<CatalogStore>,
}

impl std::fmt::Debug for ReleaseApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReleaseApi").finish_non_exhaustive()
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl proto::release_service_server::ReleaseService for ReleaseApi {
    async fn plan_release(
        &self,
        request: Request<proto::PlanReleaseRequest>,
    ) -> Result<Response<proto::PlanReleaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let plan = self.plan(
            &message.service,
            &message.commit,
            &message.branch,
            message.environments,
        )?;
        somewhere(&caller, Action::Read, Some(&plan))?;
        Ok(Response::new(proto::PlanReleaseResponse {
            plan: Some(plan_proto(&plan)),
        }))
    }

    async fn start_release(
        &self,
        request: Request<proto::StartReleaseRequest>,
    ) -> Result<Response<proto::StartReleaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let trace = convert::trace_context(&request);
        let release = self.start(&caller, trace, request.into_inner()).await?;
        Ok(Response::new(proto::StartReleaseResponse {
            release: Some(release),
        }))
    }

    async fn get_release(
        &self,
        request: Request<proto::GetReleaseRequest>,
    ) -> Result<Response<proto::GetReleaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let snapshot = self.read(&caller, &request.into_inner().id).await?;
        let release = self.whole(&snapshot).await?;
        Ok(Response::new(proto::GetReleaseResponse {
            release: Some(release),
        }))
    }

    async fn list_releases(
        &self,
        request: Request<proto::ListReleasesRequest>,
    ) -> Result<Response<proto::ListReleasesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let status = match message.status() {
            proto::release::Status::Unspecified => Vec::new(),
            status => vec![
                status
                    .as_str_name()
                    .trim_start_matches("STATUS_")
                    .to_ascii_lowercase(),
            ],
        };
        let filter = ListFilter {
            status,
            service: Some(message.service.clone()).filter(|service| !service.is_empty()),
            labels: message.labels.into_iter().collect(),
            ..ListFilter::default()
        };
        let wanted = list_page(message.page_size, &message.page_token)?;
        let listed = self
            .ledger
            .list_of::<Release>(&filter, &wanted)
            .await
            .map_err(ApiError::from)?;
        let seen = listed
            .items
            .iter()
            .filter(|one| somewhere(&caller, Action::Read, one.state.plan.as_ref()).is_ok());
        let releases = seen.map(release_proto).collect();
        Ok(Response::new(proto::ListReleasesResponse {
            releases,
            next_page_token: listed.next_page_token,
        }))
    }

    type WatchReleaseStream = Streamed<proto::WatchReleaseResponse>;

    async fn watch_release(
        &self,
        request: Request<proto::WatchReleaseRequest>,
    ) -> Result<Response<Self::WatchReleaseStream>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let after = convert::optional::<u64>("etag", &message.etag)?;
        let id = self.read(&caller, &message.id).await?.id;
        let api = self.clone();
        let stream = self.ledger.watch::<Release>(&id, after).then(move |item| {
            let api = api.clone();
            async move {
                let release = api.whole(&item.map_err(ApiError::from)?).await?;
                Ok(proto::WatchReleaseResponse {
                    release: Some(release),
                })
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_release(
        &self,
        request: Request<proto::CancelReleaseRequest>,
    ) -> Result<Response<proto::CancelReleaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let trace = convert::trace_context(&request);
        let message = request.into_inner();
        let before = self.read(&caller, &message.id).await?;
        everywhere(&caller, Action::Cancel, before.state.plan.as_ref())?;
        let by = Actor::direct(caller.principal().clone());
        let command = ReleaseCommand::Cancel {
            by: by.clone(),
            reason: convert::text("reason", &message.reason)?,
        };
        let after = drive::execute(&self.ledger, &before.id, command, &Meta::new(by, trace)).await;
        let release = self.whole(&after.map_err(ApiError::from)?).await?;
        Ok(Response::new(proto::CancelReleaseResponse {
            release: Some(release),
        }))
    }

    type StreamEventsStream = Streamed<proto::StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let kinds = [Release::KIND, Lane::KIND, Deployment::KIND];
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

impl ReleaseApi {
    fn plan(
        &self,
        service: &str,
        commit: &str,
        branch: &str,
        environments: Vec<String>,
    ) -> Result<Plan, ApiError> {
        let wanted = Wanted {
            service: service.to_owned(),
            commit: convert::field::<CommitSha>("commit", commit)?,
            branch: convert::optional::<BranchName>("branch", branch)?,
            environments,
        };
        Plan::make(&self.catalog.current(), &wanted).map_err(|error| match &error {
            PlanError::Unknown(unknown) if unknown.what == "service" => ApiError::invalid("service", error),
            PlanError::Unknown(_) | PlanError::NoEnvironments(_) => ApiError::invalid("environments", error),
            PlanError::BranchReleasesNothing { .. } => ApiError::invalid("branch", error),
        })
    }

    async fn start(
        &self,
        caller: &Caller,
        trace: Option<TraceContext>,
        message: proto::StartReleaseRequest,
    ) -> Result<proto::Release, ApiError> {
        convert::key("request_id", &message.request_id)?;
        // A repeated request answers with the release that it started, whatever the catalog says by now: its
        // fingerprint is what was asked for, and it is planned only when it is new.
        let asked = (
            (
                &message.service,
                &message.commit,
                &message.branch,
                &message.environments,
            ),
            (&message.plan_hash, &message.on_behalf_of),
            message
                .labels
                .iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
            message
                .image
                .as_ref()
                .map(|image| (&image.name, &image.digest, &image.tags)),
        );
        let once = Once::new(caller.principal(), "StartRelease", &message.request_id, &asked);
        caller.require_somewhere(Action::Start)?;
        let environment = message.environments.first().map_or("", String::as_str);
        let requested_by = caller.actor(&message.on_behalf_of, &message.service, environment)?;
        let id = Id::generate("rel");
        let own_trace = TraceContext {
            trace_id: owners::release_trace(&id),
            span_id: owners::root_span(&id),
            sampled: true,
        };
        let meta = Meta::new(requested_by.clone(), Some(own_trace));
        let started = self.ledger.transact(&meta, Some(&once), |tx| {
            let request = self.request(caller, &message, requested_by.clone(), trace);
            let id = id.clone();
            async move {
                let command = ReleaseCommand::Request(Box::new(request.map_err(StartError::Request)?));
                drive::decide(tx, id, command).await.map_err(StartError::Drive)
            }
        });
        let snapshot = match started.await {
            Err(TransactError::Replayed { id, .. }) => self.ledger.get::<Release>(&id).await?,
            Err(TransactError::Aborted(StartError::Request(error))) => return Err(error),
            Err(error) => return Err(error.into()),
            Ok(snapshot) => Some(snapshot),
        };
        self.whole(&snapshot.ok_or_else(|| ApiError::not_found("release", &id))?)
            .await
    }

    fn request(
        &self,
        caller: &Caller,
        message: &proto::StartReleaseRequest,
        requested_by: Actor,
        trace: Option<TraceContext>,
    ) -> Result<release::Request, ApiError> {
        let plan = self.plan(
            &message.service,
            &message.commit,
            &message.branch,
            message.environments.clone(),
        )?;
        everywhere(caller, Action::Start, Some(&plan))?;
        if !message.plan_hash.is_empty() && message.plan_hash != plan.hash {
            return Err(ApiError::precondition(
                "PLAN_CHANGED",
                "plan_hash: the plan made now differs from the one given: plan again and look at it before starting",
            ));
        }
        Ok(release::Request {
            labels: convert::labels(message.labels.clone())?,
            image: message
                .image
                .as_ref()
                .map(|image| built_image(&plan, image))
                .transpose()?,
            plan,
            requested_by,
            caller: trace,
        })
    }

    async fn read(&self, caller: &Caller, id: &str) -> Result<Snapshot<Release>, ApiError> {
        let id = convert::field::<Id>("id", id)?;
        let snapshot = self.ledger.get::<Release>(&id).await?;
        let snapshot = snapshot.ok_or_else(|| ApiError::not_found("release", &id))?;
        somewhere(caller, Action::Read, snapshot.state.plan.as_ref())?;
        Ok(snapshot)
    }

    /// A release with the evidence of the deployment that failed it.
    async fn whole(&self, snapshot: &Snapshot<Release>) -> Result<proto::Release, ApiError> {
        let mut release = release_proto(snapshot);
        let failed = snapshot.state.steps.iter().rev().find(|step| {
            matches!(
                step.kind,
                StepKind::Prepare | StepKind::Deploy | StepKind::Redeploy
            ) && step.status.is_final()
                && step.status != StepStatus::Succeeded
        });
        if let Some(id) = failed.and_then(|step| step.reference.as_ref())
            && let Some(deployment) = self.ledger.get::<Deployment>(id).await?
        {
            release.evidence = grpc_deploy::evidence_proto(&deployment.state);
        }
        Ok(release)
    }
}

fn built_image(plan: &Plan, image: &slipway_proto::common::v1::Image) -> Result<BuiltImage, ApiError> {
    let built = BuiltImage {
        name: convert::field("image.name", &image.name)?,
        digest: convert::field("image.digest", &image.digest)?,
        tags: image
            .tags
            .iter()
            .map(|tag| convert::field("image.tags", tag))
            .collect::<Result<_, _>>()?,
    };
    if built.name != plan.image_name {
        let message = format!(
            "is {}, but the catalog's image of this service is {}",
            built.name, plan.image_name
        );
        return Err(ApiError::invalid("image.name", message));
    }
    Ok(built)
}

/// Why a release was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Request(ApiError),
    #[error(transparent)]
    Drive(DriveError),
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Request(error) => error,
            StartError::Drive(error) => error.into(),
        }
    }
}

impl From<DriveError> for ApiError {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Release(ExecuteError::Refused(ReleaseRefusal::Unknown(id))) => {
                Self::not_found("release", id)
            }
            DriveError::Release(ExecuteError::Refused(refusal)) => {
                Self::precondition("RELEASE_EXISTS", refusal)
            }
            DriveError::Ledger(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

/// Requires the role in one of the plan's environments at least.
fn somewhere(caller: &Caller, action: Action, plan: Option<&Plan>) -> Result<(), ApiError> {
    let Some(plan) = plan else {
        return caller.require_somewhere(action);
    };
    let service = plan.service.as_str();
    if plan
        .environments
        .iter()
        .any(|planned| caller.may(action, service, planned.name.as_str()))
    {
        return Ok(());
    }
    caller.require(action, service, "")
}

/// Requires the role in each of the plan's environments.
fn everywhere(caller: &Caller, action: Action, plan: Option<&Plan>) -> Result<(), ApiError> {
    let Some(plan) = plan else {
        return caller.require_somewhere(action);
    };
    let mut names = plan.environments.iter().map(|planned| planned.name.as_str());
    names.try_for_each(|name| caller.require(action, plan.service.as_str(), name))
}
