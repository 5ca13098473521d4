//! DeployService: proto ⇄ domain, nothing else.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use slipway_ledger::{
    Decider, ExecuteError, Ledger, ListFilter, Meta, Page, Request as Once, Snapshot, TransactError,
};
use slipway_model::{Actor, CommitSha, Digest, Id, ImageName};
use slipway_proto::{
    common::v1::waiting_on::Kind,
    deploy::v1::{self as proto, deploy_service_server::DeployService},
};
use slipway_server::{Action, ApiError, Caller, convert, page, stream_events_to};
use tonic::{Request, Response, Status};

use crate::{
    catalog::{CatalogStore, Target},
    deployment::{
        Action as DeployAction, Deployment, DeploymentCommand, DeploymentRefusal, DeploymentRequest,
        DeploymentState, DeploymentStatus, Source,
    },
    deployment_effects::{LaneError, request_alone},
};

/// The policy that asks nobody.
const NO_POLICY: &str = "none";

#[derive(Clone)]
pub struct DeployApi {
    pub ledger: Ledger,
    pub catalog: Arc<CatalogStore>,
}

impl std::fmt::Debug for DeployApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeployApi").finish_non_exhaustive()
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DeployService for DeployApi {
    async fn deploy(
        &self,
        request: Request<proto::DeployRequest>,
    ) -> Result<Response<proto::DeployResponse>, Status> {
        let caller = Caller::of(&request)?;
        let trace = convert::trace_context(&request);
        let meta = Meta::new(Actor::direct(caller.principal().clone()), trace);
        let snapshot = self.start(&caller, &meta, request.into_inner()).await?;
        Ok(Response::new(proto::DeployResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn get_deployment(
        &self,
        request: Request<proto::GetDeploymentRequest>,
    ) -> Result<Response<proto::GetDeploymentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let snapshot = self.read(&caller, &request.into_inner().id).await?;
        Ok(Response::new(proto::GetDeploymentResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn list_deployments(
        &self,
        request: Request<proto::ListDeploymentsRequest>,
    ) -> Result<Response<proto::ListDeploymentsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        caller.require_somewhere(Action::Read)?;
        let status = match message.status() {
            proto::deployment::Status::Unspecified => Vec::new(),
            status => vec![
                status
                    .as_str_name()
                    .trim_start_matches("STATUS_")
                    .to_ascii_lowercase(),
            ],
        };
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let page = Page {
            size: page::size(message.page_size)?,
            token: message.page_token,
        };
        let filter = ListFilter {
            status,
            service: given(message.service),
            environment: given(message.environment),
            correlation: given(message.correlation_id),
            labels: convert::labels(message.labels)?,
            not_final: false,
        };
        let listed = self
            .ledger
            .list_of::<Deployment>(&filter, &page)
            .await
            .map_err(ApiError::from)?;
        let seen = listed
            .items
            .iter()
            .filter(|one| may_read(&caller, &one.state).is_ok());
        let deployments = seen.map(deployment_proto).collect();
        Ok(Response::new(proto::ListDeploymentsResponse {
            deployments,
            next_page_token: listed.next_page_token,
        }))
    }

    type WatchDeploymentStream = Streamed<proto::WatchDeploymentResponse>;

    async fn watch_deployment(
        &self,
        request: Request<proto::WatchDeploymentRequest>,
    ) -> Result<Response<Self::WatchDeploymentStream>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let after = convert::optional::<u64>("etag", &message.etag)?;
        let id = self.read(&caller, &message.id).await?.id;
        let stream = self.ledger.watch::<Deployment>(&id, after).map(|item| {
            let snapshot = item.map_err(ApiError::from)?;
            Ok(proto::WatchDeploymentResponse {
                deployment: Some(deployment_proto(&snapshot)),
            })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_deployment(
        &self,
        request: Request<proto::CancelDeploymentRequest>,
    ) -> Result<Response<proto::CancelDeploymentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let trace = convert::trace_context(&request);
        let message = request.into_inner();
        let snapshot = self.read(&caller, &message.id).await?;
        let (service, environment) = scope(&snapshot.state);
        caller.require(Action::Cancel, service, environment)?;
        let by = Actor::direct(caller.principal().clone());
        let reason = match convert::text("reason", &message.reason)? {
            reason if reason.is_empty() => format!("cancelled by {by}"),
            reason => format!("cancelled by {by}: {reason}"),
        };
        let command = || DeploymentCommand::Cancel {
            message: reason.clone(),
        };
        let meta = Meta::new(by, trace);
        let snapshot = self
            .ledger
            .execute::<Deployment>(&snapshot.id, command, &meta)
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(proto::CancelDeploymentResponse {
            deployment: Some(deployment_proto(&snapshot)),
        }))
    }

    async fn rollback(
        &self,
        _request: Request<proto::RollbackRequest>,
    ) -> Result<Response<proto::RollbackResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn promote_deployment(
        &self,
        _request: Request<proto::PromoteDeploymentRequest>,
    ) -> Result<Response<proto::PromoteDeploymentResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn abort_deployment(
        &self,
        _request: Request<proto::AbortDeploymentRequest>,
    ) -> Result<Response<proto::AbortDeploymentResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_live_state(
        &self,
        _request: Request<proto::GetLiveStateRequest>,
    ) -> Result<Response<proto::GetLiveStateResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type StreamEventsStream = Streamed<proto::StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let kinds = [Deployment::KIND];
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

impl DeployApi {
    async fn start(
        &self,
        caller: &Caller,
        meta: &Meta,
        message: proto::DeployRequest,
    ) -> Result<Snapshot<Deployment>, ApiError> {
        convert::key("request_id", &message.request_id)?;
        caller.require(Action::Start, &message.service, &message.environment)?;
        // What was asked for, not what the catalog makes of it by now: a repetition is one all the same.
        let asked = (
            (
                &message.service,
                &message.environment,
                &message.commit,
                &message.correlation_id,
            ),
            message.image.as_ref().map(|image| (&image.name, &image.digest)),
            message.labels.iter().collect::<BTreeMap<_, _>>(),
        );
        let once = Once::new(caller.principal(), "Deploy", &message.request_id, &asked);
        let id = Id::generate("dep");
        let started = self
            .ledger
            .transact(meta, Some(&once), |tx| {
                let request = self.request(caller, meta, &message);
                let id = id.clone();
                async move {
                    let request = request.map_err(StartError::Request)?;
                    request_alone(&tx, &id, request).await.map_err(StartError::Lane)
                }
            })
            .await;
        match started {
            Ok(snapshot) => Ok(snapshot),
            Err(TransactError::Replayed { id, .. }) => {
                let snapshot = self.ledger.get::<Deployment>(&id).await?;
                snapshot.ok_or_else(|| ApiError::not_found("deployment", id))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the catalog makes of a request; the epoch is the lane's.
    fn request(
        &self,
        caller: &Caller,
        meta: &Meta,
        message: &proto::DeployRequest,
    ) -> Result<DeploymentRequest, ApiError> {
        let catalog = self.catalog.current();
        let service = catalog
            .service(&message.service)
            .map_err(|error| ApiError::invalid("service", error))?;
        let environment = service
            .environment(&message.environment)
            .map_err(|error| ApiError::invalid("environment", error))?;
        if environment.policy.as_str() != NO_POLICY {
            // A release asks the policy's people; this does not.
            caller.require(Action::Override, &message.service, &message.environment)?;
        }
        let image = convert::message("image", message.image.as_ref())?;
        let name = convert::field::<ImageName>("image.name", &image.name)?;
        if name != service.image {
            let words = format!(
                "is {name}, but the catalog's image of this service is {}",
                service.image
            );
            return Err(ApiError::invalid("image.name", words));
        }
        Ok(DeploymentRequest {
            service: service.name.clone(),
            environment: environment.name.clone(),
            target: environment.target.clone(),
            image: name,
            digest: convert::field::<Digest>("image.digest", &image.digest)?,
            source: match &environment.gitops {
                Some(gitops) => Some(Source {
                    repository: gitops.repository.clone(),
                    path: gitops.path.clone(),
                    commit: convert::field::<CommitSha>("commit", &message.commit)?,
                }),
                None => None,
            },
            action: DeployAction::Apply,
            jobs: environment.jobs.clone(),
            bake: environment.bake.clone(),
            pauses: environment.pauses,
            rolls_back: None,
            reverts: None,
            epoch: 0,
            checks: environment.checks.clone(),
            verify: environment.verify,
            timeout: environment.timeout.deploy,
            correlation_id: convert::key("correlation_id", &message.correlation_id)?,
            labels: convert::labels(message.labels.clone())?,
            requested_by: meta.actor.clone(),
            holds_lane: true,
        })
    }

    async fn read(&self, caller: &Caller, id: &str) -> Result<Snapshot<Deployment>, ApiError> {
        let id = convert::field::<Id>("id", id)?;
        let snapshot = self.ledger.get::<Deployment>(&id).await?;
        let snapshot = snapshot.ok_or_else(|| ApiError::not_found("deployment", &id))?;
        may_read(caller, &snapshot.state)?;
        Ok(snapshot)
    }
}

fn scope(state: &DeploymentState) -> (&str, &str) {
    state.request.as_ref().map_or(("", ""), |request| {
        (request.service.as_str(), request.environment.as_str())
    })
}

fn may_read(caller: &Caller, state: &DeploymentState) -> Result<(), ApiError> {
    let (service, environment) = scope(state);
    caller.require(Action::Read, service, environment)
}

/// Why a deployment was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Request(ApiError),
    #[error(transparent)]
    Lane(LaneError),
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Request(error) => error,
            StartError::Lane(LaneError::Busy { .. }) => ApiError::precondition("TARGET_BUSY", error),
            StartError::Lane(LaneError::Ledger(error)) => error.into(),
            StartError::Lane(LaneError::Deployment(error)) => error.into(),
            StartError::Lane(LaneError::Lane(ExecuteError::Ledger(error))) => error.into(),
            StartError::Lane(error) => ApiError::internal(error),
        }
    }
}

impl From<DeploymentRefusal> for ApiError {
    fn from(refusal: DeploymentRefusal) -> Self {
        match refusal {
            DeploymentRefusal::Unknown(id) => ApiError::not_found("deployment", id),
            DeploymentRefusal::NoSteps(_) => ApiError::precondition("NO_STEPS", refusal),
            DeploymentRefusal::NotRollingOut(_) => ApiError::precondition("NOT_ROLLING_OUT", refusal),
        }
    }
}

/// A target as the API shows it.
pub fn target_proto(target: &Target) -> proto::Target {
    proto::Target {
        cluster: target.cluster.to_string(),
        namespace: target.namespace.to_string(),
        kind: target.kind.to_string(),
        name: target.name.clone(),
    }
}

/// The pods at fault of a failed deployment as the API shows them.
pub fn evidence_proto(state: &DeploymentState) -> Vec<proto::PodEvidence> {
    let one = |evidence: &slipway_verdict::evidence::PodEvidence| proto::PodEvidence {
        pod: evidence.pod.clone(),
        container: evidence.container.clone(),
        state: evidence.state.clone(),
        exit_code: evidence.exit_code,
        log_tail: evidence.log_tail.clone(),
        previous_log_tail: evidence.previous_log_tail.clone(),
        events: evidence.events.clone(),
    };
    state.evidence.iter().map(one).collect()
}

/// A deployment as the API shows it.
pub fn deployment_proto(snapshot: &Snapshot<Deployment>) -> proto::Deployment {
    let state = &snapshot.state;
    let request = state.request.as_ref();
    let text = |of: fn(&DeploymentRequest) -> String| request.map(of).unwrap_or_default();
    let check = |result: &crate::result::CheckResult| proto::CheckResult {
        name: result.name.to_string(),
        passed: result.passed,
        attempts: result.attempts,
        last_answer: result.last_answer.clone(),
    };
    let reason = state.reason.as_ref().or(state.failing.as_ref());
    let waiting_on = (!state.status.is_final()).then(|| {
        let target = text(|request| request.target.key());
        let words = state.fault.as_ref().unwrap_or(&state.progress);
        convert::waiting_on(
            Kind::Machine,
            target,
            state.since.unwrap_or(snapshot.created_at),
            words.as_str(),
        )
    });
    proto::Deployment {
        id: snapshot.id.to_string(),
        etag: snapshot.etag(),
        labels: request
            .map(|request| request.labels.clone().into_iter().collect())
            .unwrap_or_default(),
        correlation_id: text(|request| request.correlation_id.clone()),
        service: text(|request| request.service.to_string()),
        environment: text(|request| request.environment.to_string()),
        target: request.map(|request| target_proto(&request.target)),
        image: request.map(|request| convert::image(&request.image, &request.digest, &[])),
        commit: text(|request| {
            let source = request.source.as_ref();
            source.map(|source| source.commit.to_string()).unwrap_or_default()
        }),
        epoch: request.map(|request| request.epoch).unwrap_or_default(),
        status: status_proto(state.status).into(),
        reason: reason.map(|reason| convert::reason(&reason.code, &reason.message)),
        progress: state.progress.clone(),
        checks: state.checks.iter().map(check).collect(),
        evidence: evidence_proto(state),
        waiting_on,
        requested_by: request.map(|request| convert::actor(&request.requested_by)),
        create_time: Some(convert::timestamp(
            state.requested_at.unwrap_or(snapshot.created_at),
        )),
        apply_time: state.applied_at.map(convert::timestamp),
        end_time: state.ended_at.map(convert::timestamp),
        deadline: state.deadline.map(convert::timestamp),
        links: Vec::new(),
        step: state.step.to_string(),
        rolls_back: text(|request| {
            request
                .rolls_back
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        }),
        ..Default::default()
    }
}

fn status_proto(status: DeploymentStatus) -> proto::deployment::Status {
    use proto::deployment::Status as Proto;
    match status {
        DeploymentStatus::Pending => Proto::Pending,
        DeploymentStatus::Applying => Proto::Applying,
        DeploymentStatus::Verifying => Proto::Verifying,
        DeploymentStatus::Succeeded => Proto::Succeeded,
        DeploymentStatus::Failed => Proto::Failed,
        DeploymentStatus::Errored => Proto::Errored,
        DeploymentStatus::Cancelled => Proto::Cancelled,
        DeploymentStatus::RollbackFailed => Proto::RollbackFailed,
    }
}
