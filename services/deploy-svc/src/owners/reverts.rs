//! gitops-svc, as the one who renders manifests for deployments and takes changes of theirs out of git.

use async_trait::async_trait;
use slipway_model::{CommitSha, Fault, Id, Name, Reason, ServiceImage, TraceContext};
use slipway_proto::gitops::v1::{
    Change, Edit, GetChangeRequest, ListChangesRequest, RevertChangeRequest, change::Status, edit,
};

use super::{
    Changes, calls,
    changes::{OWNER, previous},
};
use crate::deployment_effects::{Found, Lost, Manifests, RevertOrder, Reverting, Reverts};

/// Pages of changes that are looked through: what is put back is among the last ones.
const MAX_PAGES: usize = 10;
const PAGE: i32 = 100;

#[async_trait]
impl Manifests for Changes {
    async fn render(
        &self,
        repository: &Name,
        commit: &CommitSha,
        path: &str,
        trace: TraceContext,
    ) -> Result<String, Fault<Reason>> {
        Changes::render(self, repository.as_str(), commit.as_str(), path, trace).await
    }
}

#[async_trait]
impl Reverts for Changes {
    async fn find(&self, lost: &Lost<'_>) -> Result<Found, Fault<Reason>> {
        let refuse = |words: String| Err(Fault::refused("NOTHING_TO_ROLL_BACK_TO", words));
        let commit = lost.source.commit.short();
        let Some(change) = self.change_behind(lost).await? else {
            return refuse(format!(
                "no change of gitops-svc brought {} to {} with commit {commit}: what stood there before is not known; \
                 revert the commit in git and release, or deploy the commit before it",
                lost.service, lost.environment
            ));
        };
        let id = change.id.clone();
        if change.no_op {
            return refuse(format!(
                "change {id} of commit {commit} changed nothing: the image stood there before; there is nothing to go \
                 back to"
            ));
        }
        if change.edits.iter().any(is_marker) {
            return refuse(format!(
                "change {id} is a marker commit: the manifests name a moving tag, so a revert would bring nothing back: \
                 release the commit before"
            ));
        }
        let own = ServiceImage {
            name: lost.image.name.clone(),
            repository: lost.image.repository.clone(),
        };
        let Some(image) = change.previous.first().and_then(|edit| previous(edit, &own)) else {
            return refuse(format!(
                "before change {id} the files named no image by digest, so what would run again cannot be verified: \
                 release a commit that works"
            ));
        };
        Ok(Found {
            change: id.parse().map_err(|error| calls::malformed(OWNER, error))?,
            image,
        })
    }

    async fn revert(&self, order: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>> {
        let request = RevertChangeRequest {
            request_id: order.request_id.clone(),
            id: order.revert.change.to_string(),
            force: false,
            reason: order.revert.reason.clone(),
            correlation_id: order.correlation_id.to_owned(),
            on_behalf_of: order.on_behalf_of.to_string(),
        };
        let answer = self
            .client
            .clone()
            .revert_change(calls::request(request, order.trace))
            .await;
        let change = answer.map_err(calls::failed(OWNER))?.into_inner().change;
        standing(change)
    }

    async fn observe(&self, change: &Id, trace: TraceContext) -> Result<Reverting, Fault<Reason>> {
        let request = GetChangeRequest {
            id: change.to_string(),
        };
        let answer = self
            .client
            .clone()
            .get_change(calls::request(request, trace))
            .await;
        let change = answer.map_err(calls::failed(OWNER))?.into_inner().change;
        standing(change)
    }
}

impl Changes {
    /// The change with the deployment's commit; or else the newest one that brought its image, since a deployment may
    /// name a later commit of the branch.
    async fn change_behind(&self, lost: &Lost<'_>) -> Result<Option<Change>, Fault<Reason>> {
        let mut request = ListChangesRequest {
            page_size: PAGE,
            service: lost.service.to_string(),
            environment: lost.environment.to_string(),
            status: Status::Pushed.into(),
            repository: lost.source.repository.to_string(),
            ..ListChangesRequest::default()
        };
        let mut with_image = None;
        for _ in 0..MAX_PAGES {
            let answer = self
                .client
                .clone()
                .list_changes(calls::request(request.clone(), lost.trace))
                .await;
            let answer = answer.map_err(calls::failed(OWNER))?.into_inner();
            for change in answer.changes {
                if change.commit == lost.source.commit.as_str() && !change.no_op {
                    return Ok(Some(change));
                }
                let brought = change
                    .images
                    .iter()
                    .any(|image| image.digest == lost.image.digest.as_str());
                if brought && !change.no_op && with_image.is_none() {
                    with_image = Some(change);
                }
            }
            if answer.next_page_token.is_empty() {
                break;
            }
            request.page_token = answer.next_page_token;
        }
        Ok(with_image)
    }
}

fn is_marker(edit: &Edit) -> bool {
    matches!(edit.edit, Some(edit::Edit::Marker(_)))
}

/// How a change stands that puts another back.
fn standing(change: Option<Change>) -> Result<Reverting, Fault<Reason>> {
    let change = change.ok_or_else(|| calls::malformed(OWNER, "no change"))?;
    let refused = |code| Err(Fault::Permanent(calls::reason(change.reason.clone(), code)));
    let id = || {
        let id = change.id.parse::<Id>();
        id.map_err(|error| calls::malformed(OWNER, error))
    };
    match change.status() {
        Status::Unspecified | Status::Pending => {
            let waiting = change.waiting_on.as_ref().map(|waiting| waiting.message.clone());
            let words = waiting.filter(|words| !words.is_empty());
            let pull_request = change.pull_request.as_ref().map(|pull| pull.url.clone());
            let words = words.unwrap_or_else(|| "the revert waits to be pushed".to_owned());
            Ok(Reverting::Pending {
                change: id()?,
                message: match pull_request.filter(|url| !url.is_empty()) {
                    Some(url) => format!("{words} ({url})"),
                    None => words,
                },
            })
        }
        Status::Pushed => Ok(Reverting::Pushed {
            change: id()?,
            commit: change
                .commit
                .parse()
                .map_err(|error| calls::malformed(OWNER, error))?,
        }),
        Status::Failed => refused("REVERT_FAILED"),
        Status::Errored => refused("REVERT_ERRORED"),
        Status::Cancelled => refused("REVERT_CANCELLED"),
    }
}
