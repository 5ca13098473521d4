//! gitops-svc, as the backend of the change and revert steps.

use async_trait::async_trait;
use deploy_domain::{
    catalog::{self, GitOps, Strategy},
    plan::{Plan, PlannedEnvironment},
    release::{ChangeMade, Facts, Observation, StepKind, Stop, Waiting, WaitingKind},
};
use slipway_model::{Digest, Fault, Id, Image, ImageName, ImageRef, Images, Reason, ServiceImage, Tag};
use slipway_proto::{
    common::v1::{WaitingOn, waiting_on},
    gitops::v1::{
        ApplyChangeRequest, CancelChangeRequest, Change, Edit, GetChangeRequest, HelmImage, KustomizeImage,
        ManifestImage, Marker, Mode, RevertChangeRequest, change::Status, edit,
        git_ops_service_client::GitOpsServiceClient,
    },
};
use slipway_server::{Channel, convert};

use super::{Order, StepBackend, Taken, calls};

pub(super) const SERVICE: calls::Service = calls::Service("gitops-svc");
/// gitops-svc's code for an image that somebody has changed since.
pub(super) const CHANGED_SINCE: &str = "CHANGED_SINCE";
/// The longest subject that gitops-svc accepts.
const MAX_SUBJECT: usize = 200;
/// A rendered folder may be larger than the answers to other calls.
const MAX_MANIFESTS: usize = 32 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Changes {
    pub(super) client: GitOpsServiceClient<Channel>,
}

impl Changes {
    pub fn new(channel: Channel) -> Self {
        Self {
            client: GitOpsServiceClient::new(channel).max_decoding_message_size(MAX_MANIFESTS),
        }
    }

    async fn apply(&self, order: Order<'_>) -> Result<Change, Fault<Reason>> {
        let (plan, planned) = (order.plan, order.planned()?);
        let gitops = order.gitops()?;
        // What is pinned was not built from this commit.
        let pinned = match order.step.kind {
            StepKind::Pin => Some(order.pinned()?),
            _ => None,
        };
        let others: Vec<&PlannedEnvironment> = match &pinned {
            Some(_) => Vec::new(),
            None => plan.written_by(&planned.name).map(|(_, other)| other).collect(),
        };
        let places = others.iter().filter_map(|other| other.gitops.as_ref());
        let places = std::iter::once(gitops).chain(places);
        let (image, name, tag, source_commit) = match &pinned {
            Some(image) => {
                let written = order.change()?.previous_tag.as_ref();
                let named = written.is_some_and(|written| written.name == image.repository);
                let name = if named { "" } else { image.repository.as_str() };
                let tag = image.tags.first().map(Tag::as_str).unwrap_or_default();
                (image, name, tag, String::new())
            }
            None => {
                let image = order.image()?;
                let name = image.repository.as_str();
                (image, name, plan.commit.short(), plan.commit.to_string())
            }
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
            edits: places
                .map(|place| Edit {
                    edit: Some(edit(place, name, tag, &image.digest)),
                })
                .collect(),
            source_commit,
            images: vec![convert::image(image)],
            message: match &pinned {
                Some(image) => pin_subject(plan, planned, image),
                None => subject(order, &others),
            },
            correlation_id: order.release.to_string(),
            labels: Default::default(),
            on_behalf_of: order.requester(),
            mode: match gitops.mode {
                // As the repository is configured.
                catalog::Mode::Push => Mode::Unspecified.into(),
                catalog::Mode::PullRequest => Mode::PullRequest.into(),
            },
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let call = client.apply_change(request);
        SERVICE.resource("change", call, |answer| answer.change).await
    }

    async fn revert(&self, order: Order<'_>) -> Result<Change, Fault<Reason>> {
        let why = order
            .state
            .failure
            .as_ref()
            .map(|failure| failure.reason.message.clone());
        let request = RevertChangeRequest {
            request_id: order.request_id(),
            id: order.change()?.change.to_string(),
            force: false,
            reason: why
                .unwrap_or_else(|| order.stop_message())
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            correlation_id: order.release.to_string(),
            on_behalf_of: order.requester(),
            paths: paths_to_revert(order)?,
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let call = client.revert_change(request);
        SERVICE.resource("change", call, |answer| answer.change).await
    }
}

#[async_trait]
impl StepBackend for Changes {
    async fn start(&self, order: Order<'_>) -> Result<Taken, Fault<Reason>> {
        let change = match order.step.kind {
            StepKind::Revert => self.revert(order).await?,
            _ => self.apply(order).await?,
        };
        Ok(Taken {
            reference: SERVICE.parse(&change.id)?,
            observation: unless_newer(order, observation(change, order.plan.images.only())?),
        })
    }

    async fn observe(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = GetChangeRequest {
            id: reference.to_string(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let change = SERVICE.resource("change", client.get_change(request), |answer| answer.change);
        Ok(unless_newer(
            order,
            observation(change.await?, order.plan.images.only())?,
        ))
    }

    async fn stop(&self, order: Order<'_>, reference: &Id) -> Result<Observation, Fault<Reason>> {
        let request = CancelChangeRequest {
            id: reference.to_string(),
            reason: order.stop_message(),
        };
        let request = calls::request(request, order.trace());
        let mut client = self.client.clone();
        let change = SERVICE.resource("change", client.cancel_change(request), |answer| answer.change);
        observation(change.await?, order.plan.images.only())
    }
}

/// The subject of the commit that names by its digest what ran before.
fn pin_subject(plan: &Plan, planned: &PlannedEnvironment, image: &Image) -> String {
    format!(
        "fix({}): pin {} in {} to {}, which ran before",
        plan.service,
        image.repository,
        planned.name,
        image.digest.short()
    )
}

/// The commit's subject where it is about several environments; empty for the default one.
fn subject(order: Order<'_>, others: &[&PlannedEnvironment]) -> String {
    let (Ok(planned), false) = (order.planned(), others.is_empty()) else {
        return String::new();
    };
    let names: Vec<&str> = std::iter::once(planned)
        .chain(others.iter().copied())
        .map(|planned| planned.name.as_str())
        .collect();
    let (plan, names) = (order.plan, names.join(", "));
    let subject = format!(
        "chore({}): deploy {} to {names}",
        plan.service,
        plan.commit.short()
    );
    if subject.len() <= MAX_SUBJECT {
        subject
    } else {
        String::new()
    }
}

/// What a revert takes back, where that is not the whole change: the environments that have had their turn keep theirs.
fn paths_to_revert(order: Order<'_>) -> Result<Vec<String>, Fault<Reason>> {
    let planned = order.planned()?;
    let leader = planned.written_with.as_ref().unwrap_or(&planned.name);
    let back = order.state.to_take_back();
    if back.len() == 1 + order.plan.written_by(leader).count() {
        return Ok(Vec::new());
    }
    let places = back.iter().filter_map(|planned| planned.gitops.as_ref());
    Ok(places
        .filter_map(|gitops| match &gitops.strategy {
            Strategy::Kustomize => Some(gitops.path.clone()),
            Strategy::Helm { file, .. } | Strategy::Manifest { file } => Some(file.clone()),
            Strategy::Marker => None,
        })
        .collect())
}

/// A superseded release has nothing to take back where the newer one has written already.
fn unless_newer(order: Order<'_>, observation: Observation) -> Observation {
    let superseded = matches!(order.state.stop, Some(Stop::Superseded { .. }));
    match observation {
        Observation::Failed(reason)
            if superseded && order.step.kind == StepKind::Revert && reason.code == CHANGED_SINCE =>
        {
            Observation::Skipped(reason)
        }
        observation => observation,
    }
}

/// The edit that writes the image where the catalog says that it is.
fn edit(gitops: &GitOps, name: &str, tag: &str, digest: &Digest) -> edit::Edit {
    let (new_name, digest) = (name.to_owned(), digest.to_string());
    match &gitops.strategy {
        Strategy::Kustomize => edit::Edit::KustomizeImage(KustomizeImage {
            path: gitops.path.clone(),
            name: gitops.image.clone(),
            new_name,
            new_tag: tag.to_owned(),
            digest,
            ..KustomizeImage::default()
        }),
        Strategy::Helm { file, value } => edit::Edit::HelmImage(HelmImage {
            file: file.clone(),
            path: value.clone(),
            new_name,
            new_tag: tag.to_owned(),
            digest,
            ..HelmImage::default()
        }),
        // The containers are found by that name, also the next time.
        Strategy::Manifest { file } => edit::Edit::ManifestImage(ManifestImage {
            file: file.clone(),
            image: gitops.image.clone(),
            new_tag: tag.to_owned(),
            digest,
            ..ManifestImage::default()
        }),
        Strategy::Marker => edit::Edit::Marker(Marker {}),
    }
}

pub(super) fn observation(change: Change, own: &ServiceImage) -> Result<Observation, Fault<Reason>> {
    Ok(match change.status() {
        Status::Unspecified | Status::Pending => {
            let waiting = change.waiting_on.filter(|waiting| !waiting.message.is_empty());
            // A person merges the pull request.
            let kind = match waiting.as_ref().map(WaitingOn::kind) {
                Some(waiting_on::Kind::Human) => WaitingKind::Human,
                _ => WaitingKind::Machine,
            };
            let pull_request = change.pull_request.map(|pull| pull.url);
            let message = match (waiting.map(|waiting| waiting.message), pull_request) {
                (Some(message), Some(url)) if !url.is_empty() => format!("{message} ({url})"),
                (Some(message), _) => message,
                (None, _) => "waits to be pushed".to_owned(),
            };
            Observation::Pending(Waiting::new(kind, message).retrying(calls::retry(change.retry)))
        }
        Status::Pushed => {
            let before = change.previous.first();
            let by_digest = before.and_then(|edit| previous(edit, own));
            let by_tag = before.filter(|_| by_digest.is_none());
            let made = ChangeMade {
                change: SERVICE.parse(&change.id)?,
                commit: SERVICE.parse(&change.commit)?,
                no_op: change.no_op,
                previous_tag: by_tag.and_then(|edit| previous_tag(edit, own)),
                previous: by_digest.map(Images::one),
                previous_of_others: change
                    .previous
                    .iter()
                    .skip(1)
                    .map(|edit| previous(edit, own).map(Images::one))
                    .collect(),
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

/// The image that the files named before, if they named it by digest. `own` is the service's image: its repository is
/// assumed if the files leave that to others: the chart's default name, the manifests that a kustomization changes.
pub(super) fn previous(edit: &Edit, own: &ServiceImage) -> Option<Image> {
    let (repository, tag, digest) = written(edit, own)?;
    Some(Image {
        name: own.name.clone(),
        repository,
        digest: digest.parse().ok()?,
        tags: tag.parse().ok().into_iter().collect(),
    })
}

/// The image that the files named before, whatever its digest.
fn previous_tag(edit: &Edit, own: &ServiceImage) -> Option<ImageRef> {
    let (name, tag, _) = written(edit, own)?;
    Some(ImageRef {
        name,
        tag: tag.parse().ok(),
        digest: None,
    })
}

/// Name, tag and digest.
fn written<'a>(edit: &'a Edit, own: &ServiceImage) -> Option<(ImageName, &'a str, &'a str)> {
    let (names, tag, digest) = match edit.edit.as_ref()? {
        edit::Edit::KustomizeImage(image) => ([&image.new_name, &image.name], &image.new_tag, &image.digest),
        edit::Edit::HelmImage(image) => ([&image.new_name, &image.new_name], &image.new_tag, &image.digest),
        edit::Edit::ManifestImage(image) => ([&image.new_name, &image.image], &image.new_tag, &image.digest),
        edit::Edit::Marker(_) => return None,
    };
    let name = match names.into_iter().find(|name| !name.is_empty()) {
        Some(name) => name.parse().ok()?,
        None => own.repository.clone(),
    };
    Some((name, tag, digest))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const DIGEST: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn gitops(strategy: Strategy) -> GitOps {
        GitOps {
            repository: "platform".parse().unwrap(),
            branch: None,
            path: "apps/shop".to_owned(),
            image: "shop".to_owned(),
            strategy,
            mode: catalog::Mode::Push,
        }
    }

    fn image() -> Image {
        Image {
            name: "shop".parse().unwrap(),
            repository: "registry.example/shop".parse().unwrap(),
            digest: DIGEST.parse().unwrap(),
            tags: vec!["1a2b3c4".parse().unwrap()],
        }
    }

    fn edit_of(strategy: Strategy) -> edit::Edit {
        let image = image();
        edit(
            &gitops(strategy),
            image.repository.as_str(),
            "1a2b3c4",
            &image.digest,
        )
    }

    fn own() -> ServiceImage {
        ServiceImage {
            name: "shop".parse().unwrap(),
            repository: "registry.example/shop".parse().unwrap(),
        }
    }

    fn wrap(edit: edit::Edit) -> Edit {
        Edit { edit: Some(edit) }
    }

    #[test]
    fn each_strategy_writes_where_the_image_stands() {
        let (name, tag, digest) = (
            "registry.example/shop".to_owned(),
            "1a2b3c4".to_owned(),
            DIGEST.to_owned(),
        );
        for (strategy, wanted) in [
            (
                Strategy::Kustomize,
                edit::Edit::KustomizeImage(KustomizeImage {
                    path: "apps/shop".to_owned(),
                    name: "shop".to_owned(),
                    new_name: name.clone(),
                    new_tag: tag.clone(),
                    digest: digest.clone(),
                    ..KustomizeImage::default()
                }),
            ),
            (
                Strategy::Helm {
                    file: "charts/shop/values.yaml".to_owned(),
                    value: "web.image".to_owned(),
                },
                edit::Edit::HelmImage(HelmImage {
                    file: "charts/shop/values.yaml".to_owned(),
                    path: "web.image".to_owned(),
                    new_name: name,
                    new_tag: tag.clone(),
                    digest: digest.clone(),
                    ..HelmImage::default()
                }),
            ),
            (
                Strategy::Manifest {
                    file: "apps/shop/web.yaml".to_owned(),
                },
                edit::Edit::ManifestImage(ManifestImage {
                    file: "apps/shop/web.yaml".to_owned(),
                    image: "shop".to_owned(),
                    new_tag: tag,
                    digest,
                    ..ManifestImage::default()
                }),
            ),
            (Strategy::Marker, edit::Edit::Marker(Marker {})),
        ] {
            assert_eq!(edit_of(strategy), wanted);
        }
    }

    /// What the catalog asks to be written is what gitops-svc reports as the previous value when the next release
    /// replaces it.
    #[test]
    fn what_stood_there_before_is_an_image_when_it_was_named_by_digest() {
        let own = own();
        for strategy in [
            Strategy::Kustomize,
            Strategy::Helm {
                file: "values.yaml".to_owned(),
                value: "image".to_owned(),
            },
        ] {
            let edit = wrap(edit_of(strategy));
            assert_eq!(previous(&edit, &own), Some(image()));
        }
        let unnamed = HelmImage {
            digest: DIGEST.to_owned(),
            ..HelmImage::default()
        };
        let manifest = ManifestImage {
            image: "registry.example/shop".to_owned(),
            digest: DIGEST.to_owned(),
            ..ManifestImage::default()
        };
        let by_digest = Some(Image {
            tags: Vec::new(),
            ..image()
        });
        assert_eq!(
            previous(&wrap(edit::Edit::HelmImage(unnamed)), &own),
            by_digest,
            "the chart's own name"
        );
        assert_eq!(
            previous(&wrap(edit::Edit::ManifestImage(manifest)), &own),
            by_digest
        );
        let tag = KustomizeImage {
            name: "shop".to_owned(),
            new_tag: "latest".to_owned(),
            ..KustomizeImage::default()
        };
        let tag = wrap(edit::Edit::KustomizeImage(tag));
        assert_eq!(previous(&tag, &own), None);
        assert_eq!(previous_tag(&tag, &own), Some("shop:latest".parse().unwrap()));
        assert_eq!(previous(&wrap(edit::Edit::Marker(Marker {})), &own), None);
    }

    #[test]
    fn a_change_that_waits_for_a_merge_waits_for_people() {
        let waiting = |kind: waiting_on::Kind, message: &str| WaitingOn {
            kind: kind.into(),
            message: message.to_owned(),
            ..WaitingOn::default()
        };
        let own = own();
        let observed = |waiting_on| {
            let change = Change {
                status: Status::Pending.into(),
                waiting_on,
                ..Change::default()
            };
            match observation(change, &own) {
                Ok(Observation::Pending(waiting)) => (waiting.kind, waiting.message),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            observed(Some(waiting(
                waiting_on::Kind::Human,
                "the pull request to be merged"
            ))),
            (WaitingKind::Human, "the pull request to be merged".to_owned())
        );
        assert_eq!(
            observed(Some(waiting(waiting_on::Kind::Machine, "the push"))),
            (WaitingKind::Machine, "the push".to_owned())
        );
        assert_eq!(
            observed(None),
            (WaitingKind::Machine, "waits to be pushed".to_owned())
        );
    }
}
