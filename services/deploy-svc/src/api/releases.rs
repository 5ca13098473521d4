//! ReleaseService.

use std::sync::Arc;

use deploy_domain::{
    canary_watch::{CanaryWatch, Watched},
    deployment::Deployment,
    lane::Lane,
    plan::{Plan, PlanRequest},
    release::{self, Release, ReleaseCommand, ReleaseState, ReleaseStatus, StepKind, StepStatus},
};
use futures::{StreamExt, TryStreamExt};
use slipway_ledger::{Decider, IdempotencyKey, Ledger, Meta, Snapshot};
use slipway_model::{Actor, BranchName, CommitSha, Digest, GitTag, Id, Images, TraceContext};
use slipway_proto::release::v1 as proto;
use slipway_server::{
    Action, ApiError, Call, Caller, Listed, Resource, Resources, Scope, convert, stream_events_to,
};
use tonic::{Request, Response};

use super::{
    Answer, Answers,
    convert::{canary_watch_proto, evidence_proto, known_images, plan_error, plan_proto, release_proto},
};
use crate::{
    backends::catalog::CatalogStore,
    effects::lanes::{self, LanesError},
};

/// How the API shows releases.
#[derive(Debug)]
pub struct Releases;

#[derive(Debug, Clone)]
pub struct ReleaseApi {
    ledger: Ledger,
    releases: Resources<Releases>,
    catalog: Arc<CatalogStore>,
}

#[tonic::async_trait]
impl proto::release_service_server::ReleaseService for ReleaseApi {
    type WatchReleaseStream = Answers<proto::WatchReleaseResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn plan_release(
        &self,
        request: Request<proto::PlanReleaseRequest>,
    ) -> Answer<proto::PlanReleaseResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let plan = self.plan(PlanFields {
            service: &message.service,
            commit: &message.commit,
            branch: &message.branch,
            git_tag: &message.git_tag,
            environments: &message.environments,
        })?;
        scope(&plan).require(&caller, Action::Read)?;
        let warnings = self.catalog.warnings(&plan);
        let plan = Some(plan_proto(&plan));
        Ok(Response::new(proto::PlanReleaseResponse { plan, warnings }))
    }

    async fn start_release(
        &self,
        request: Request<proto::StartReleaseRequest>,
    ) -> Answer<proto::StartReleaseResponse> {
        let release = Some(self.start(Call::of(request)?).await?);
        Ok(Response::new(proto::StartReleaseResponse { release }))
    }

    async fn get_release(
        &self,
        request: Request<proto::GetReleaseRequest>,
    ) -> Answer<proto::GetReleaseResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let release = Some(self.releases.get(&caller, &message.id).await?);
        Ok(Response::new(proto::GetReleaseResponse { release }))
    }

    async fn list_releases(
        &self,
        request: Request<proto::ListReleasesRequest>,
    ) -> Answer<proto::ListReleasesResponse> {
        let Call { caller, message, .. } = Call::of(request)?;
        let Listed {
            items,
            next_page_token,
        } = self.releases.list(&caller, &message.into()).await?;
        Ok(Response::new(proto::ListReleasesResponse {
            releases: items,
            next_page_token,
        }))
    }

    async fn watch_release(
        &self,
        request: Request<proto::WatchReleaseRequest>,
    ) -> Answer<Self::WatchReleaseStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let releases = self.releases.watch(&caller, &message.id, &message.etag).await?;
        let releases = releases.map_ok(|release| proto::WatchReleaseResponse {
            release: Some(release),
        });
        Ok(Response::new(releases.boxed()))
    }

    async fn cancel_release(
        &self,
        request: Request<proto::CancelReleaseRequest>,
    ) -> Answer<proto::CancelReleaseResponse> {
        let release = Some(self.cancel(Call::of(request)?).await?);
        Ok(Response::new(proto::CancelReleaseResponse { release }))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Answer<Self::StreamEventsStream> {
        let Call { caller, message, .. } = Call::of(request)?;
        let kinds = [Release::KIND, Lane::KIND, Deployment::KIND, CanaryWatch::KIND];
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

#[tonic::async_trait]
impl Resource for Releases {
    type Decider = Release;
    type Message = proto::Release;

    fn message(snapshot: &Snapshot<Release>) -> proto::Release {
        release_proto(snapshot)
    }

    fn status_name(value: i32) -> Option<&'static str> {
        let status = proto::release::Status::try_from(value).ok()?;
        Some(status.as_str_name())
    }

    fn scope(state: &ReleaseState) -> Scope<'_> {
        state.plan.as_ref().map_or_else(Scope::unknown, scope)
    }

    /// The evidence of the deployment that failed it, and what became of its canaries since.
    async fn complete(
        ledger: &Ledger,
        snapshot: &Snapshot<Release>,
        release: &mut proto::Release,
    ) -> Result<(), ApiError> {
        // One that was followed by a better one says nothing about the failure.
        let rolled_back = snapshot.state.status == ReleaseStatus::RolledBack;
        let failed = snapshot.state.steps.iter().rev().find(|step| {
            let counts = match step.kind {
                StepKind::Prepare | StepKind::Deploy => true,
                StepKind::Redeploy => !rolled_back,
                _ => false,
            };
            counts && step.status.is_final() && step.status != StepStatus::Succeeded
        });
        if let Some(id) = failed.and_then(|step| step.reference.as_ref())
            && let Some(deployment) = ledger.get::<Deployment>(id).await?
        {
            release.evidence = evidence_proto(&deployment.state);
        }
        if snapshot.state.status.is_final() {
            release.canary_watches = canary_watches(ledger, snapshot).await?;
        }
        Ok(())
    }
}

async fn canary_watches(
    ledger: &Ledger,
    snapshot: &Snapshot<Release>,
) -> Result<Vec<proto::CanaryWatch>, ApiError> {
    let plan = snapshot.state.plan.iter();
    let mut watches = Vec::new();
    for planned in plan.flat_map(|plan| &plan.environments) {
        let id = Watched::id_of(&snapshot.id, &planned.name);
        let watch = ledger.get::<CanaryWatch>(&id).await?;
        watches.extend(watch.as_ref().map(canary_watch_proto));
    }
    Ok(watches)
}

fn scope(plan: &Plan) -> Scope<'_> {
    let environments = plan.environments.iter().map(|planned| planned.name.as_str());
    Scope::new(plan.service.as_str(), environments)
}

/// What a request says of the plan.
#[derive(Clone, Copy)]
struct PlanFields<'a> {
    service: &'a str,
    commit: &'a str,
    branch: &'a str,
    git_tag: &'a str,
    environments: &'a [String],
}

impl ReleaseApi {
    pub fn new(ledger: Ledger, catalog: Arc<CatalogStore>) -> Self {
        Self {
            releases: Resources::new(ledger.clone()),
            ledger,
            catalog,
        }
    }

    fn plan(&self, fields: PlanFields<'_>) -> Result<Plan, ApiError> {
        let request = PlanRequest {
            service: fields.service.to_owned(),
            commit: convert::field::<CommitSha>("commit", fields.commit)?,
            branch: convert::optional::<BranchName>("branch", fields.branch)?,
            git_tag: convert::optional::<GitTag>("git_tag", fields.git_tag)?,
            environments: fields.environments.to_vec(),
        };
        self.catalog
            .find(|catalog| Plan::make(catalog, &request))
            .map_err(|miss| plan_error(&miss))
    }

    async fn start(&self, call: Call<proto::StartReleaseRequest>) -> Result<proto::Release, ApiError> {
        let Call {
            caller,
            trace,
            message,
        } = call;
        convert::key("request_id", &message.request_id)?;
        // As plans print it: SHA-256, written as a digest is.
        convert::optional::<Digest>("plan_hash", &message.plan_hash)?;
        // A repeated request returns the release that it started, whatever the catalog says by now: its fingerprint
        // covers what was requested, and it is planned only when it is new.
        let fingerprint = (
            (
                &message.service,
                &message.commit,
                branch_and_tag(&message),
                &message.environments,
            ),
            (&message.plan_hash, &message.on_behalf_of),
            message
                .labels
                .iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
            message
                .images
                .iter()
                .map(|image| (&image.name, &image.repository, &image.digest, &image.tags))
                .collect::<Vec<_>>(),
        );
        let (principal, id) = (caller.principal(), &message.request_id);
        // Without `rebuild` it is the fingerprint of callers that know nothing of it.
        let key = if message.rebuild {
            IdempotencyKey::new(principal, "StartRelease", id, &(&fingerprint, "rebuild"))
        } else {
            IdempotencyKey::new(principal, "StartRelease", id, &fingerprint)
        };
        caller.require_somewhere(Action::Start)?;
        let environment = message.environments.first().map_or("", String::as_str);
        let requested_by = caller.actor(&message.on_behalf_of, &message.service, environment)?;
        let id = Id::generate("rel");
        let own_trace = TraceContext {
            trace_id: release::release_trace(&id),
            span_id: release::root_span(&id),
            sampled: true,
        };
        let meta = Meta::new(requested_by.clone(), Some(own_trace));
        let started = self.ledger.transact_once::<Release, _, _, _>(&key, &meta, |tx| {
            let request = self.request(&caller, &message, requested_by.clone(), trace);
            let id = id.clone();
            async move {
                let command = ReleaseCommand::Request(Box::new(request.map_err(StartError::Request)?));
                lanes::decide(tx, id, command).await.map_err(StartError::Lanes)
            }
        });
        self.releases.show(&started.await?.snapshot).await
    }

    async fn cancel(&self, call: Call<proto::CancelReleaseRequest>) -> Result<proto::Release, ApiError> {
        let before = self
            .releases
            .find(&call.caller, Action::Cancel, &call.message.id)
            .await?;
        let meta = call.meta();
        let command = ReleaseCommand::Cancel {
            by: meta.actor.clone(),
            reason: convert::text("reason", &call.message.reason)?,
        };
        let after = lanes::execute(&self.ledger, &before.id, command, &meta).await?;
        self.releases.show(&after).await
    }

    fn request(
        &self,
        caller: &Caller,
        message: &proto::StartReleaseRequest,
        requested_by: Actor,
        trace: Option<TraceContext>,
    ) -> Result<release::Request, ApiError> {
        let plan = self.plan(PlanFields {
            service: &message.service,
            commit: &message.commit,
            branch: &message.branch,
            git_tag: &message.git_tag,
            environments: &message.environments,
        })?;
        scope(&plan).require(caller, Action::Start)?;
        if !message.plan_hash.is_empty() && message.plan_hash != plan.hash {
            return Err(ApiError::precondition(
                "PLAN_CHANGED",
                "plan_hash: the plan made now differs from the one given: plan again and look at it before starting",
            ));
        }
        Ok(release::Request {
            labels: convert::labels(message.labels.clone())?,
            images: built_images(&plan, message)?,
            rebuild: message.rebuild,
            plan,
            requested_by,
            caller: trace,
        })
    }
}

/// What a fingerprint has of branch and Git tag: of a release without a tag the branch alone, as it was before there
/// were tags. No branch's name has a space.
fn branch_and_tag(message: &proto::StartReleaseRequest) -> String {
    match message.git_tag.as_str() {
        "" => message.branch.clone(),
        tag => format!("{} tag {tag}", message.branch),
    }
}

/// The images in a request, which must be the plan's; an empty list means that they are built.
fn built_images(plan: &Plan, message: &proto::StartReleaseRequest) -> Result<Option<Images>, ApiError> {
    let images = &message.images;
    if images.is_empty() {
        return Ok(None);
    }
    if message.rebuild {
        return Err(ApiError::invalid(
            "rebuild",
            "cannot be combined with images, which are not built: leave out one of them",
        ));
    }
    let built = convert::from_images(&plan.images.only().name, images, convert::field::<Digest>)?;
    known_images(&built, &plan.images)?;
    Ok(Some(built))
}

/// Why a release was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Request(ApiError),
    #[error(transparent)]
    Lanes(LanesError),
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Request(error) => error,
            StartError::Lanes(error) => error.into(),
        }
    }
}
