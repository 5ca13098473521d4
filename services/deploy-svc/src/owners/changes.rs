//! gitops-svc, as the owner of the change and revert steps, and as the one who renders manifests.

use async_trait::async_trait;
use slipway_model::Id;
use slipway_proto::{
    common::v1::Image,
    gitops::v1::{
        ApplyChangeRequest, CancelChangeRequest, Change, Edit, GetChangeRequest, KustomizeImage, Mode,
        RenderManifestsRequest, RevertChangeRequest, change::Status, edit,
        git_ops_service_client::GitOpsServiceClient,
    },
};
use slipway_server::Channel;

use super::{CallError, Order, Owner, Taken, calls};
use crate::release::{BuiltImage, ChangeMade, Facts, Observation, StepKind, Waiting, WaitingKind};

const OWNER: &str = "gitops-svc";
/// A rendered folder may be larger than what other calls answer.
const MAX_MANIFESTS: usize = 32 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Changes {
    client: GitOpsServiceClient<Channel>,
}

impl Changes {
    pub fn new(channel: Channel) -> Self {
        Self {
            client: GitOpsServiceClient::new(channel).max_decoding_message_size(MAX_MANIFESTS),
        }
    }

    /// The manifests of a folder at exactly one commit, as kustomize prints them.
    ///
    /// # Errors
    /// Refused when commit or folder do not exist or do not render; passing when gitops-svc cannot be asked.
    pub async fn render(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        trace: slipway_model::TraceContext,
    ) -> Result<String, CallError> {
        let request = RenderManifestsRequest {
            repository: repository.to_owned(),
            commit: commit.to_owned(),
            path: path.to_owned(),
        };
        let mut request = calls::request(request, trace);
        request.set_timeout(std::time::Duration::from_secs(60));
        let answer = self.client.clone().render_manifests(request).await;
        Ok(answer.map_err(calls::failed(OWNER))?.into_inner().manifests)
    }

    async fn apply(&self, order: Order<'_>) -> Result<Change, CallError> {
        let (plan, planned, image) = (order.plan, order.planned()?, order.image()?);
        let gitops = order.gitops()?;
        let edit = KustomizeImage {
            path: gitops.path.clone(),
            name: gitops.image.clone(),
            new_name: image.name.to_string(),
            new_tag: plan.commit.short().to_owned(),
            digest: image.digest.to_string(),
        };
        let request = ApplyChangeRequest {
            request_id: order.request_id(),
            repository: gitops.repository.to_string(),
            branch: gitops
                .branch
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            service: plan.service.to_string(),
            environment: planned.name.to_string(),
            edits: vec![Edit {
                edit: Some(edit::Edit::KustomizeImage(edit)),
            }],
            source_commit: plan.commit.to_string(),
            image: Some(Image {
                name: image.name.to_string(),
                digest: image.digest.to_string(),
                tags: image.tags.iter().map(ToString::to_string).collect(),
            }),
            message: String::new(),
            correlation_id: order.release.to_string(),
            labels: Default::default(),
            on_behalf_of: order.requester(),
            // As the repository is configured.
            mode: Mode::Unspecified.into(),
        };
        let answer = self
            .client
            .clone()
            .apply_change(calls::request(request, order.trace()))
            .await;
        let change = answer.map_err(calls::failed(OWNER))?.into_inner().change;
        change.ok_or_else(|| calls::malformed(OWNER, "no change"))
    }

    async fn revert(&self, order: Order<'_>) -> Result<Change, CallError> {
        let why = order
            .state
            .failure
            .as_ref()
            .map(|failure| failure.reason.message.clone());
        let why = why.or_else(|| order.state.stop_ending().map(|(_, reason)| reason.message));
        let request = RevertChangeRequest {
            request_id: order.request_id(),
            id: order.change()?.change.to_string(),
            force: false,
            reason: why
                .unwrap_or_default()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            correlation_id: order.release.to_string(),
            on_behalf_of: order.requester(),
        };
        let answer = self
            .client
            .clone()
            .revert_change(calls::request(request, order.trace()))
            .await;
        let change = answer.map_err(calls::failed(OWNER))?.into_inner().change;
        change.ok_or_else(|| calls::malformed(OWNER, "no change"))
    }
}

#[async_trait]
impl Owner for Changes {
    async fn start(&self, order: Order<'_>) -> Result<Taken, CallError> {
        let change = match order.step.kind {
            StepKind::Revert => self.revert(order).await?,
            _ => self.apply(order).await?,
        };
        let reference = change
            .id
            .parse::<Id>()
            .map_err(|error| calls::malformed(OWNER, error))?;
        Ok(Taken {
            reference,
            observation: observation(change)?,
        })
    }

    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, CallError> {
        let request = GetChangeRequest {
            id: reference.to_string(),
        };
        let answer = self
            .client
            .clone()
            .get_change(calls::request(request, order.trace()))
            .await;
        let change = answer.map_err(calls::failed(OWNER))?.into_inner().change;
        observation(change.ok_or_else(|| calls::malformed(OWNER, "no change"))?)
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, CallError> {
        let reason = order
            .state
            .stop_ending()
            .map(|(_, reason)| reason.message)
            .unwrap_or_default();
        let request = CancelChangeRequest {
            id: reference.to_string(),
            reason,
        };
        let answer = self
            .client
            .clone()
            .cancel_change(calls::request(request, order.trace()))
            .await;
        let change = answer.map_err(calls::failed(OWNER))?.into_inner().change;
        observation(change.ok_or_else(|| calls::malformed(OWNER, "no change"))?)
    }
}

fn observation(change: Change) -> Result<Observation, CallError> {
    Ok(match change.status() {
        Status::Unspecified | Status::Pending => {
            let message = change
                .waiting_on
                .map(|waiting| waiting.message)
                .filter(|message| !message.is_empty());
            let message = message.unwrap_or_else(|| "waits to be pushed".to_owned());
            Observation::Pending(Waiting {
                kind: WaitingKind::Machine,
                message,
            })
        }
        Status::Pushed => {
            let made = ChangeMade {
                change: change
                    .id
                    .parse()
                    .map_err(|error| calls::malformed(OWNER, error))?,
                commit: change
                    .commit
                    .parse()
                    .map_err(|error| calls::malformed(OWNER, error))?,
                no_op: change.no_op,
                previous: change.previous.first().and_then(previous),
            };
            let commit = made.commit.short();
            let result = if made.no_op {
                format!("{commit} already had it")
            } else {
                format!("commit {commit}")
            };
            Observation::Succeeded {
                result,
                facts: Facts::Changed(made),
            }
        }
        Status::Failed => Observation::Failed(calls::reason(change.reason, "CHANGE_FAILED")),
        Status::Errored => Observation::Errored(calls::reason(change.reason, "CHANGE_ERRORED")),
        Status::Cancelled => Observation::Cancelled(calls::reason(change.reason, "CHANGE_CANCELLED")),
    })
}

/// The image that the files named before, where they named it by digest.
fn previous(edit: &Edit) -> Option<BuiltImage> {
    let Some(edit::Edit::KustomizeImage(image)) = &edit.edit else {
        return None;
    };
    let name = if image.new_name.is_empty() {
        &image.name
    } else {
        &image.new_name
    };
    Some(BuiltImage {
        name: name.parse().ok()?,
        digest: image.digest.parse().ok()?,
        tags: image.new_tag.parse().ok().into_iter().collect(),
    })
}
