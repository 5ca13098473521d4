//! gitops-svc, which renders manifests for deployments and reverts their changes in git.

use std::time::Duration;

use async_trait::async_trait;
use deploy_domain::catalog::{GitOps, Strategy};
use slipway_model::{CommitSha, Fault, Id, Name, Reason, ServiceImage, TraceContext};
use slipway_proto::gitops::v1::{
    Change, DesiredImage, Edit, GetChangeRequest, GetDesiredStateRequest, ListChangesRequest, Place,
    RenderManifestsRequest, RevertChangeRequest, change::Status, edit, place,
};

use super::{
    Changes, calls,
    changes::{CHANGED_SINCE, SERVICE, previous},
};
use crate::backends::gitops::{Manifests, RevertOrder, RevertTarget, Revertible, Reverting, Reverts};

/// kustomize takes a while for a large folder.
const RENDER_TIMEOUT: Duration = Duration::from_secs(60);
/// A repository that was not fetched for a while takes longer than an answer from the ledger.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// How many pages of changes are searched: the change to revert is among the last ones.
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
        let request = RenderManifestsRequest {
            repository: repository.to_string(),
            commit: commit.to_string(),
            path: path.to_owned(),
        };
        let mut request = calls::request(request, trace);
        request.set_timeout(RENDER_TIMEOUT);
        let mut client = self.client.clone();
        let answer = SERVICE.answer(client.render_manifests(request)).await?;
        Ok(answer.manifests)
    }
}

#[async_trait]
impl Reverts for Changes {
    async fn find(&self, target: &RevertTarget<'_>) -> Result<Revertible, Fault<Reason>> {
        let refuse = |words: String| Err(Fault::refused("NOTHING_TO_ROLL_BACK_TO", words));
        let commit = target.source.commit.short();
        let Some(change) = self.change_behind(target).await? else {
            return refuse(format!(
                "no change of gitops-svc brought {} to {} with commit {commit}: what was there before is not known; \
                 revert the commit in git and release, or deploy the commit before it",
                target.service, target.environment
            ));
        };
        let id = change.id.clone();
        if change.no_op {
            return refuse(format!(
                "change {id} of commit {commit} changed nothing: the image was there before; there is nothing to go \
                 back to"
            ));
        }
        if change.edits.iter().any(is_marker) {
            return refuse(format!(
                "change {id} is a marker commit: the manifests name a moving tag, so a revert would bring nothing back: \
                 release the commit before"
            ));
        }
        if change.edits.len() > 1 {
            return refuse(format!(
                "change {id} wrote several environments in one commit, and others may run it: take back this one's part \
                 with `slipway gitops revert {id} --path {}`, then release or deploy that commit",
                target.source.path
            ));
        }
        let own = ServiceImage {
            name: target.image.name.clone(),
            repository: target.image.repository.clone(),
        };
        let Some(image) = change.previous.first().and_then(|edit| previous(edit, &own)) else {
            return refuse(format!(
                "before change {id} the files named no image by digest, so what would run again cannot be verified: \
                 release a commit that works"
            ));
        };
        Ok(Revertible {
            change: SERVICE.parse(&id)?,
            image,
        })
    }

    async fn moved_on(
        &self,
        target: &RevertTarget<'_>,
        place: &GitOps,
        change: &Id,
    ) -> Result<Option<Reason>, Fault<Reason>> {
        let there = self.images_at(target, place).await?;
        let digest = target.image.digest.as_str();
        if !there.iter().any(|image| image.digest == digest) {
            let words = match there.first() {
                Some(image) => format!("it names {}", written(image)),
                None => "it names no such image any more".to_owned(),
            };
            return Ok(Some(Reason::new(
                CHANGED_SINCE,
                format!(
                    "{} of {} does not name {} any more: {words}",
                    place.path,
                    place.repository,
                    target.image.digest.short()
                ),
            )));
        }
        let newest = self.newest_change(target).await?;
        let other = newest.filter(|newest| newest.id != change.as_str());
        Ok(other.map(|newer| {
            let words = format!(
                "{} was written to {} after {change}",
                newer.id, target.environment
            );
            Reason::new(CHANGED_SINCE, words)
        }))
    }

    async fn revert(&self, order: &RevertOrder<'_>) -> Result<Reverting, Fault<Reason>> {
        let request = RevertChangeRequest {
            request_id: order.request_id.clone(),
            id: order.revert.change.to_string(),
            force: false,
            reason: order.revert.reason.clone(),
            correlation_id: order.correlation_id.to_owned(),
            on_behalf_of: order.on_behalf_of.to_string(),
            paths: Vec::new(),
        };
        let request = calls::request(request, order.trace);
        let mut client = self.client.clone();
        let call = client.revert_change(request);
        standing(&SERVICE.resource("change", call, |answer| answer.change).await?)
    }

    async fn observe(&self, change: &Id, trace: TraceContext) -> Result<Reverting, Fault<Reason>> {
        let request = GetChangeRequest {
            id: change.to_string(),
        };
        let request = calls::request(request, trace);
        let mut client = self.client.clone();
        let call = client.get_change(request);
        standing(&SERVICE.resource("change", call, |answer| answer.change).await?)
    }
}

impl Changes {
    /// The change with the deployment's commit; or else the newest one that brought its image, since a deployment may
    /// name a later commit of the branch.
    async fn change_behind(&self, target: &RevertTarget<'_>) -> Result<Option<Change>, Fault<Reason>> {
        let mut request = changes_of(target);
        let mut with_image = None;
        for _ in 0..MAX_PAGES {
            let page = calls::request(request.clone(), target.trace);
            let mut client = self.client.clone();
            let answer = SERVICE.answer(client.list_changes(page)).await?;
            for change in answer.changes {
                if change.commit == target.source.commit.as_str() && !change.no_op {
                    return Ok(Some(change));
                }
                let brought = change
                    .images
                    .iter()
                    .any(|image| image.digest == target.image.digest.as_str());
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

impl Changes {
    /// The images of the service's name that the head of the branch has at a place.
    async fn images_at(
        &self,
        target: &RevertTarget<'_>,
        place: &GitOps,
    ) -> Result<Vec<DesiredImage>, Fault<Reason>> {
        let at = match &place.strategy {
            Strategy::Kustomize => place::Place::Kustomization(place.path.clone()),
            Strategy::Helm { file, value } => place::Place::Helm(place::Helm {
                file: file.clone(),
                path: value.clone(),
                ..place::Helm::default()
            }),
            Strategy::Manifest { file } => place::Place::Manifest(place::Manifest {
                file: file.clone(),
                ..place::Manifest::default()
            }),
            // Such a change cannot be reverted, so nobody asks where it is.
            Strategy::Marker => return Ok(Vec::new()),
        };
        let request = GetDesiredStateRequest {
            repository: place.repository.to_string(),
            branch: place.branch.as_ref().map(ToString::to_string).unwrap_or_default(),
            place: Some(Place { place: Some(at) }),
            ..GetDesiredStateRequest::default()
        };
        let mut request = calls::request(request, target.trace);
        request.set_timeout(FETCH_TIMEOUT);
        let mut client = self.client.clone();
        let answer = SERVICE.answer(client.get_desired_state(request)).await?;
        let one_value = matches!(place.strategy, Strategy::Helm { .. });
        let mut images = answer.desired_images;
        images.retain(|image| one_value || image.name == place.image);
        Ok(images)
    }

    /// The newest change of the environment that wrote something, or is about to.
    async fn newest_change(&self, target: &RevertTarget<'_>) -> Result<Option<Change>, Fault<Reason>> {
        let mut request = changes_of(target);
        request.status = Status::Unspecified.into();
        for _ in 0..MAX_PAGES {
            let page = calls::request(request.clone(), target.trace);
            let mut client = self.client.clone();
            let answer = SERVICE.answer(client.list_changes(page)).await?;
            let writes = |change: &Change| {
                matches!(change.status(), Status::Pushed | Status::Pending) && !change.no_op
            };
            if let Some(newest) = answer.changes.into_iter().find(writes) {
                return Ok(Some(newest));
            }
            if answer.next_page_token.is_empty() {
                break;
            }
            request.page_token = answer.next_page_token;
        }
        Ok(None)
    }
}

/// The changes that were pushed for the target's environment, newest first.
fn changes_of(target: &RevertTarget<'_>) -> ListChangesRequest {
    ListChangesRequest {
        page_size: PAGE,
        service: target.service.to_string(),
        environment: target.environment.to_string(),
        status: Status::Pushed.into(),
        repository: target.source.repository.to_string(),
        ..ListChangesRequest::default()
    }
}

/// An image as a file has it.
fn written(image: &DesiredImage) -> String {
    let name = if image.image.is_empty() {
        &image.name
    } else {
        &image.image
    };
    let mut text = name.clone();
    for (before, part) in [(':', &image.tag), ('@', &image.digest)] {
        if !part.is_empty() {
            text.push(before);
            text.push_str(part);
        }
    }
    text
}

fn is_marker(edit: &Edit) -> bool {
    matches!(edit.edit, Some(edit::Edit::Marker(_)))
}

/// The state of a change that reverts another.
fn standing(change: &Change) -> Result<Reverting, Fault<Reason>> {
    let refused = |code| Err(Fault::Permanent(calls::reason(change.reason.clone(), code)));
    let id = || SERVICE.parse::<Id>(&change.id);
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
            commit: SERVICE.parse(&change.commit)?,
        }),
        Status::Failed => refused("REVERT_FAILED"),
        Status::Errored => refused("REVERT_ERRORED"),
        Status::Cancelled => refused("REVERT_CANCELLED"),
    }
}
