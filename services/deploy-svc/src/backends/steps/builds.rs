//! build-svc, as the backend of the build step.

use async_trait::async_trait;
use deploy_domain::release::{Facts, Observation, Waiting, WaitingKind};
use slipway_model::{Digest, Fault, Id, Image, Images, Reason, ServiceImage, Tag};
use slipway_proto::build::v1::{
    Build, BuildSpec, CancelBuildRequest, GetBuildRequest, ResolveTagRequest, StartBuildRequest,
    build::{Phase, Status},
    build_service_client::BuildServiceClient,
};
use slipway_server::Channel;

use super::{Order, StepBackend, Tags, Taken, calls};

const SERVICE: calls::Service = calls::Service("build-svc");

#[derive(Debug, Clone)]
pub(crate) struct Builds {
    client: BuildServiceClient<Channel>,
}

impl Builds {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            client: BuildServiceClient::new(channel),
        }
    }
}

#[async_trait]
impl StepBackend for Builds {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let plan = order.plan;
        let spec = BuildSpec {
            repository_url: plan.repository_url.clone(),
            commit: plan.commit.to_string(),
            branch: plan.branch.as_ref().map(ToString::to_string).unwrap_or_default(),
            image_name: plan.images.only().repository.to_string(),
            context: if plan.build.context == "." {
                String::new()
            } else {
                plan.build.context.clone()
            },
            dockerfile: plan.build.dockerfile.clone(),
            build_args: plan.build.args.clone().into_iter().collect(),
            version: plan.version.clone(),
            tag_latest: plan.is_latest(),
            builder: plan
                .build
                .builder
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            timeout: prost_types::Duration::try_from(plan.build.timeout).ok(),
            target: plan.build.target.clone().unwrap_or_default(),
            git_tag: plan.git_tag.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let request = StartBuildRequest {
            request_id: order.request_id(),
            service: plan.service.to_string(),
            spec: Some(spec),
            correlation_id: order.release.to_string(),
            labels: Default::default(),
            rebuild: order.state.rebuild,
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let build = SERVICE.resource("build", client.start_build(request), |answer| answer.build);
        let build = build.await?;
        Ok(Taken {
            reference: SERVICE.parse(&build.id)?,
            observation: observation(build, plan.images.only())?,
        })
    }

    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = GetBuildRequest {
            id: reference.to_string(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let build = SERVICE.resource("build", client.get_build(request), |answer| answer.build);
        observation(build.await?, order.plan.images.only())
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = CancelBuildRequest {
            id: reference.to_string(),
            reason: order.stop_message(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let build = SERVICE.resource("build", client.cancel_build(request), |answer| answer.build);
        observation(build.await?, order.plan.images.only())
    }
}

#[async_trait]
impl Tags for Builds {
    async fn resolve(&self, order: Order<'_>, tag: &Tag) -> Result<Digest, Fault<Reason>> {
        let request = ResolveTagRequest {
            service: order.plan.service.to_string(),
            image_name: order.plan.images.only().repository.to_string(),
            tag: tag.to_string(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let answer = SERVICE.answer(client.resolve_tag(request)).await?;
        SERVICE.parse(&answer.digest)
    }
}

/// The state of a build that makes this image of the service.
fn observation(build: Build, wanted: &ServiceImage) -> Result<Observation, Fault<Reason>> {
    let retry = calls::retry(build.retry.clone());
    Ok(match build.status() {
        Status::Unspecified | Status::Queued | Status::Running => {
            let message = match (build.phase(), build.waiting_on) {
                (Phase::Fetching, _) => "fetching".to_owned(),
                (Phase::Building, _) => "building".to_owned(),
                (Phase::Pushing, _) => "pushing".to_owned(),
                (Phase::Tagging, _) => "tagging".to_owned(),
                (Phase::Unspecified, Some(waiting)) if !waiting.message.is_empty() => waiting.message,
                (Phase::Unspecified, _) => "queued".to_owned(),
            };
            Observation::Pending(Waiting::new(WaitingKind::Machine, message).retrying(retry))
        }
        Status::Succeeded => {
            let image = build
                .image
                .ok_or_else(|| SERVICE.malformed("a build without image"))?;
            let image: Image = Image {
                // build-svc does not know what the catalog calls it.
                name: wanted.name.clone(),
                repository: SERVICE.parse(&image.repository)?,
                digest: SERVICE.parse(&image.digest)?,
                tags: image.tags.iter().filter_map(|tag| tag.parse().ok()).collect(),
            };
            let result = match build.made_by.as_str() {
                "" => image.digest.to_string(),
                earlier => format!("{}, which {earlier} built before", image.digest),
            };
            Observation::Succeeded {
                result,
                facts: Facts::Built {
                    images: Images::one(image),
                    authors: build.authors,
                },
            }
        }
        Status::Failed => Observation::Failed(calls::reason(build.reason, "BUILD_FAILED")),
        Status::Errored => Observation::Errored(calls::reason(build.reason, "BUILD_ERRORED")),
        Status::Cancelled => Observation::Cancelled(calls::reason(build.reason, "BUILD_CANCELLED")),
    })
}
