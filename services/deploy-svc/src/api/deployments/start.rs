//! Starting a deployment: what a request becomes according to the catalog, in the target's lane.

use std::collections::BTreeMap;

use deploy_domain::{
    catalog::time_of,
    deployment::{Action as DeployAction, Deployment, DeploymentRequest, Source},
    plan::NO_POLICY,
};
use slipway_ledger::{ExecuteError, IdempotencyKey, Meta};
use slipway_model::{CommitSha, Digest, Id};
use slipway_proto::deploy::v1 as proto;
use slipway_server::{Action, ApiError, Call, Caller, convert};

use super::DeployApi;
use crate::{
    api::convert::{known_images, service_and_environment},
    effects::deployments::{LaneError, request_alone},
};

impl DeployApi {
    /// Starts a deployment of its own, or finds the one that the same request started.
    pub(super) async fn start(
        &self,
        call: Call<proto::DeployRequest>,
    ) -> Result<proto::Deployment, ApiError> {
        let meta = call.meta();
        let Call { caller, message, .. } = call;
        convert::key("request_id", &message.request_id)?;
        caller.require(Action::Start, &message.service, &message.environment)?;
        // Of the request, not of what the catalog makes of it by now: a repetition is recognized anyway.
        let fingerprint = (
            (
                &message.service,
                &message.environment,
                &message.commit,
                &message.correlation_id,
            ),
            message
                .images
                .iter()
                .map(|image| (&image.name, &image.repository, &image.digest, &image.tags))
                .collect::<Vec<_>>(),
            message.labels.iter().collect::<BTreeMap<_, _>>(),
        );
        let key = IdempotencyKey::new(caller.principal(), "Deploy", &message.request_id, &fingerprint);
        let id = Id::generate("dep");
        let started = self
            .ledger
            .transact_once::<Deployment, _, _, _>(&key, &meta, |tx| {
                let request = self.request(&caller, &meta, &message);
                let id = id.clone();
                async move {
                    let request = request.map_err(StartError::Request)?;
                    request_alone(&tx, &id, request).await.map_err(StartError::Lane)
                }
            })
            .await?;
        self.deployments.show(&started.snapshot).await
    }

    /// What a request becomes according to the catalog; the epoch is the lane's.
    fn request(
        &self,
        caller: &Caller,
        meta: &Meta,
        message: &proto::DeployRequest,
    ) -> Result<DeploymentRequest, ApiError> {
        let (service, environment) =
            service_and_environment(&self.catalog, &message.service, &message.environment)?;
        if environment.policy.as_str() != NO_POLICY {
            // A release asks the approvers of the policy; this does not.
            let allowed = caller.require(Action::Override, &message.service, &message.environment);
            allowed.map_err(|error| match error {
                ApiError::Denied { message: words } => ApiError::Denied {
                    message: format!(
                        "{words}; {} of {} has the policy {}, which a deployment alone does not ask: release it \
                         (slipway release start), or have an administrator add `override` to your role",
                        message.environment, message.service, environment.policy
                    ),
                },
                error => error,
            })?;
        }
        let images = convert::from_images(
            &service.images.only().name,
            &message.images,
            convert::field::<Digest>,
        )?;
        known_images(&images, &service.images)?;
        let source = match &environment.gitops {
            Some(gitops) => Some(Source {
                repository: gitops.repository.clone(),
                path: gitops.path.clone(),
                commit: convert::field::<CommitSha>("commit", &message.commit)?,
            }),
            None if message.commit.is_empty() => None,
            None => {
                let words = format!(
                    "must be empty: the catalog has no GitOps repository for {}/{}",
                    service.name, environment.name
                );
                return Err(ApiError::invalid("commit", words));
            }
        };
        Ok(DeploymentRequest {
            service: service.name,
            environment: environment.name.clone(),
            target: environment.target.clone(),
            shared: environment.shared.clone(),
            images,
            source,
            action: DeployAction::of(
                environment.target.kind,
                environment.action,
                environment.gitops.is_some(),
                &environment.argo_cd,
            ),
            jobs: environment.jobs.clone(),
            bake: environment.bake.clone(),
            pauses: environment.pauses,
            create_namespace: environment.create_namespace,
            restores: None,
            rolls_back: None,
            reverts: None,
            epoch: 0,
            checks: environment.checks.clone(),
            verify: environment.verify,
            timeout: environment.timeout.deploy
                + time_of(&environment.jobs.before)
                + time_of(&environment.jobs.after),
            follows_steps: environment.timeout.follows_steps,
            correlation_id: convert::key("correlation_id", &message.correlation_id)?,
            labels: convert::labels(message.labels.clone())?,
            requested_by: meta.actor.clone(),
            holds_lane: true,
        })
    }
}

/// Why a deployment was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
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
