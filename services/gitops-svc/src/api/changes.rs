//! Requests that start or withdraw a change.

use std::sync::Arc;

use gitops_domain::{
    change::{self, Change, Command, Image},
    images, message,
    pull_request::{self, Mode},
};
use slipway_edit::{Difference, Edit, Folder, ImageAtPlace, Place};
use slipway_ledger::{IdempotencyKey, Meta, Snapshot};
use slipway_model::{CommitSha, Digest, Fault, Id, ImageRef, Images, Name};
use slipway_proto::gitops::v1 as proto;
use slipway_server::{Action, ApiError, Call, Caller, convert};

use super::{
    GitOpsGrpc,
    convert::{branch, mismatch, mode, mode_refusal, scope, subject},
    edits::edits,
};
use crate::{backends::repository::Repository, config::PullRequestsConfig, effects::nudge};

impl GitOpsGrpc {
    /// Records a change and wakes its branch.
    pub(super) async fn start(
        &self,
        key: &IdempotencyKey,
        request: change::Request,
    ) -> Result<Snapshot<Change>, ApiError> {
        let meta = Meta::new(request.requested_by.clone(), request.traceparent);
        let configured = self.repository(&request.repository)?.pull_requests();
        let policy = configured.map(PullRequestsConfig::policy);
        let timeout = pull_request::timeout(policy.as_ref(), request.mode, self.push_deadline);
        let command = || Command::Request {
            request: Box::new(request.clone()),
            timeout,
        };
        let executed = self
            .ledger
            .execute_once::<Change>(key, &Id::generate("chg"), command, &meta)
            .await?;
        if executed.snapshot.state.status == change::Status::Pending
            && request.mode == Mode::Push
            && let Err(error) = nudge(
                &self.wakes,
                &self.ledger,
                &request.repository,
                &request.branch,
                &meta,
            )
            .await
        {
            // The change is recorded, and will wake its branch by itself.
            tracing::warn!(id = %executed.snapshot.id, %error, "the branch could not be woken; the change wakes it later");
        }
        Ok(executed.snapshot)
    }

    pub(super) async fn apply(
        &self,
        call: Call<proto::ApplyChangeRequest>,
    ) -> Result<Snapshot<Change>, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
        let request_id = convert::key("request_id", &request.request_id)?;
        let repository = self.repository(&request.repository)?;
        let service: Name = convert::field("service", &request.service)?;
        let environment: Name = convert::field("environment", &request.environment)?;
        caller.require(Action::Start, service.as_str(), environment.as_str())?;
        let requested_by = caller.actor(&request.on_behalf_of, service.as_str(), environment.as_str())?;
        let asked_mode = mode(request.mode)?;
        let images = match request.images.as_slice() {
            [] => None,
            images => Some(convert::from_images(
                &service,
                images,
                convert::optional::<Digest>,
            )?),
        };
        let asked = change::Request {
            repository: repository.name().to_owned(),
            branch: branch(repository, &request.branch)?,
            service,
            environment,
            edits: edits(request.edits)?,
            source_commit: convert::optional("source_commit", &request.source_commit)?,
            images,
            subject: subject(&request.message)?,
            reverts: None,
            promoted_from: None,
            mode: asked_mode.unwrap_or_default(),
            why: String::new(),
            correlation_id: convert::key("correlation_id", &request.correlation_id)?,
            labels: convert::labels(request.labels)?,
            requested_by,
            traceparent: None,
        };
        let key = IdempotencyKey::new(asked.requested_by.caller(), "ApplyChange", request_id, &asked);
        // From here on, decisions depend on the remote, or on a configuration that may have changed since.
        if (asked.edits.is_empty() || repository.pull_requests().is_some())
            && let Some(known) = self.ledger.replayed::<Change>(&key).await?
        {
            return Ok(known);
        }
        let mut asked = change::Request {
            traceparent: trace,
            ..asked
        };
        if asked.edits.is_empty() {
            asked.edits = self.edits_of(repository, &asked).await?;
        }
        asked.mode = admitted(&caller, Action::Start, repository, &asked, asked_mode)?;
        self.start(&key, asked).await
    }

    /// The edits that write the request's image where the configuration says that it is.
    async fn edits_of(
        &self,
        repository: &Arc<Repository>,
        asked: &change::Request,
    ) -> Result<Vec<Edit>, ApiError> {
        let Some(image) = asked.images.as_ref().map(Images::only) else {
            return Err(ApiError::invalid(
                "edits",
                "give at least one edit, or `images` where the repository's `environments` say where they are",
            ));
        };
        let place = repository
            .layout()
            .place(&asked.service, &asked.environment)
            .map_err(|error| ApiError::invalid("edits", error))?;
        if image.tags.is_empty() && image.digest.is_none() {
            return Err(ApiError::invalid(
                "images[0].tags",
                "give a tag or a digest to write",
            ));
        }
        let head = repository.fetch(&asked.branch).await?;
        let found = found(repository, &head, &place).await?;
        images::write(&place, &found, image).map_err(mismatch)
    }

    pub(super) async fn revert(
        &self,
        call: Call<proto::RevertChangeRequest>,
    ) -> Result<Snapshot<Change>, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
        let request_id = convert::key("request_id", &request.request_id)?;
        let why = convert::text("reason", &request.reason)?;
        let correlation_id = convert::key("correlation_id", &request.correlation_id)?;
        let places = places(&request.paths)?;
        let change = self.changes.find(&caller, Action::Rollback, &request.id).await?;
        let (service, environment) = scope(&change.state);
        let requested_by = caller.actor(&request.on_behalf_of, service, environment)?;
        let fingerprint = (
            what_is_reverted(&change.id, &places),
            request.force,
            why.clone(),
            correlation_id.clone(),
            requested_by.clone(),
        );
        let key = IdempotencyKey::new(requested_by.caller(), "RevertChange", request_id, &fingerprint);
        if let Some(known) = self.ledger.replayed::<Change>(&key).await? {
            return Ok(known);
        }
        let Some(original) = change.state.request.clone() else {
            return Err(ApiError::not_found("change", &change.id));
        };
        if change.state.status != change::Status::Pushed {
            let message = format!(
                "change {} is {}, so there is nothing to put back",
                change.id,
                change.state.status.as_str()
            );
            return Err(ApiError::precondition("NOT_PUSHED", message));
        }
        let mut edits = change.state.undo(request.force, &places);
        let mut subject = String::new();
        if !places.is_empty() {
            if edits.is_empty() {
                let message = format!("change {} wrote nothing at these paths", change.id);
                return Err(ApiError::precondition("NOTHING_TO_REVERT", message));
            }
            subject = message::put_back(&original, &places);
        }
        // A marker changed no file: a second one records that it does not count.
        if places.is_empty() && edits.is_empty() && original.edits.contains(&Edit::Marker) {
            edits.push(Edit::Marker);
            subject = message::not_deployed(&original);
        }
        let repository = self.repository(&original.repository)?;
        let mut asked = change::Request {
            edits,
            // The image that is restored, not the one that is removed.
            images: restored(&change.state.differences_in(&places))
                .map(|image| one(&original.service, image)),
            source_commit: None,
            subject,
            reverts: Some(change.id.clone()),
            promoted_from: None,
            why,
            correlation_id,
            requested_by,
            traceparent: trace,
            ..original
        };
        asked.mode = admitted(&caller, Action::Rollback, repository, &asked, None)?;
        self.start(&key, asked).await
    }

    pub(super) async fn cancel(
        &self,
        call: Call<proto::CancelChangeRequest>,
    ) -> Result<Snapshot<Change>, ApiError> {
        let change = self
            .changes
            .find(&call.caller, Action::Cancel, &call.message.id)
            .await?;
        let reason = convert::text("reason", &call.message.reason)?;
        let command = || Command::Cancel {
            reason: reason.clone(),
        };
        let meta = call.meta();
        Ok(self.ledger.execute::<Change>(&change.id, command, &meta).await?)
    }

    pub(super) async fn promote_images(
        &self,
        call: Call<proto::PromoteRequest>,
    ) -> Result<Snapshot<Change>, ApiError> {
        let Call {
            caller,
            trace,
            message: request,
        } = call;
        let request_id = convert::key("request_id", &request.request_id)?;
        let repository = self.repository(&request.repository)?;
        let branch = branch(repository, &request.branch)?;
        let service: Name = convert::field("service", &request.service)?;
        let from: Name = convert::field("from_environment", &request.from_environment)?;
        let to: Name = convert::field("to_environment", &request.to_environment)?;
        caller.require(Action::Read, service.as_str(), from.as_str())?;
        caller.require(Action::Start, service.as_str(), to.as_str())?;
        let requested_by = caller.actor(&request.on_behalf_of, service.as_str(), to.as_str())?;
        let asked_mode = mode(request.mode)?;
        let given = |field, place: Option<proto::Place>| {
            place.map(|place| super::edits::place(field, place)).transpose()
        };
        let (from_place, to_place) = (given("from", request.from)?, given("to", request.to)?);
        let unlikely = |name: &String| name.len() > 512 || name.contains(char::is_control);
        if request.images.len() > MAX_IMAGES || request.images.iter().any(unlikely) {
            return Err(ApiError::invalid(
                "images",
                format!("give up to {MAX_IMAGES} names of up to 512 bytes without control characters"),
            ));
        }
        let only = request.images;
        let asked = change::Request {
            repository: repository.name().to_owned(),
            branch,
            service,
            environment: to,
            edits: Vec::new(),
            source_commit: None,
            images: None,
            subject: subject(&request.message)?,
            reverts: None,
            promoted_from: None,
            mode: asked_mode.unwrap_or_default(),
            why: String::new(),
            correlation_id: convert::key("correlation_id", &request.correlation_id)?,
            labels: convert::labels(request.labels)?,
            requested_by,
            traceparent: None,
        };
        let fingerprint = (&asked, &from, &from_place, &to_place, &only);
        let key = IdempotencyKey::new(asked.requested_by.caller(), "Promote", request_id, &fingerprint);
        if let Some(known) = self.ledger.replayed::<Change>(&key).await? {
            return Ok(known);
        }
        let configured = |field, place: Option<Place>, environment: &Name| match place {
            Some(place) => Ok(place),
            None => repository
                .layout()
                .place(&asked.service, environment)
                .map_err(|error| ApiError::invalid(field, error)),
        };
        let from_place = configured("from", from_place, &from)?;
        let to_place = configured("to", to_place, &asked.environment)?;
        if from_place == to_place {
            return Err(ApiError::invalid("to", "is the place that the images come from"));
        }
        let commit = repository.fetch(&asked.branch).await?;
        let found_from = found(repository, &commit, &from_place).await?;
        let found_to = found(repository, &commit, &to_place).await?;
        let edits =
            images::copy((&from_place, &found_from), (&to_place, &found_to), &only).map_err(mismatch)?;
        let copied = images::chosen((&from_place, &found_from), &only).map_err(mismatch)?;
        let image = match copied.as_slice() {
            [one] => images::copied(&from_place, one),
            _ => None,
        };
        let subject = match asked.subject {
            empty if empty.is_empty() => format!(
                "chore({}): promote {} from {from} to {}",
                asked.service,
                images::called(&copied),
                asked.environment
            ),
            given => given,
        };
        let mut asked = change::Request {
            edits,
            images: image.map(|image| one(&asked.service, image)),
            subject,
            promoted_from: Some(change::Promotion {
                environment: from,
                commit,
            }),
            traceparent: trace,
            ..asked
        };
        asked.mode = admitted(&caller, Action::Start, repository, &asked, asked_mode)?;
        self.start(&key, asked).await
    }
}

/// How the change may get to its branch, if at all: if the configuration assigns the edited files to other
/// environments, the caller needs its role for them too, and their pull request settings apply, whatever environment
/// the request names.
fn admitted(
    caller: &Caller,
    action: Action,
    repository: &Repository,
    asked: &change::Request,
    mode: Option<Mode>,
) -> Result<Mode, ApiError> {
    let policy = repository.pull_requests().map(PullRequestsConfig::policy);
    let mode_in =
        |environment: &Name| pull_request::mode(policy.as_ref(), environment, mode).map_err(mode_refusal);
    let mut admitted = mode_in(&asked.environment)?;
    for edit in &asked.edits {
        for owner in repository.layout().owners_of(edit, &asked.service) {
            let service = owner.service.as_ref().unwrap_or(&asked.service);
            caller.require(action, service.as_str(), owner.environment.as_str())?;
            if mode_in(&owner.environment)? == Mode::PullRequest {
                admitted = Mode::PullRequest;
            }
        }
    }
    Ok(admitted)
}

/// Files and folders to which a revert is restricted.
fn places(paths: &[String]) -> Result<Vec<Folder>, ApiError> {
    if paths.len() > MAX_PATHS {
        return Err(ApiError::invalid("paths", format!("give at most {MAX_PATHS}")));
    }
    let read = paths.iter().map(|path| path.parse::<Folder>());
    read.collect::<Result<_, _>>()
        .map_err(|error| ApiError::invalid("paths", error))
}

/// For the fingerprint: of a whole change its id alone, as it was before there were paths.
fn what_is_reverted(change: &Id, places: &[Folder]) -> String {
    let places = places.iter().map(|place| format!(" {}", place.as_str()));
    places.fold(change.to_string(), |text, place| text + &place)
}

/// The image that was there before a change, if there was one.
fn restored(differences: &[&Difference]) -> Option<ImageRef> {
    let [difference] = differences else {
        return None;
    };
    let before = difference.before()?;
    Some(ImageRef {
        name: before.name.parse().ok()?,
        tag: before.tag.parse().ok(),
        digest: before.digest.parse().ok(),
    })
}

/// The service's only image.
fn one(service: &Name, image: ImageRef) -> Images<Image> {
    Images::one(Image::named(service.clone(), image))
}

/// Files and folders to which a revert may be restricted.
const MAX_PATHS: usize = 100;
/// Names to which a promotion may be restricted.
const MAX_IMAGES: usize = 100;

/// The images at a place of a commit.
pub(super) async fn found(
    repository: &Arc<Repository>,
    commit: &CommitSha,
    place: &Place,
) -> Result<Vec<ImageAtPlace>, ApiError> {
    repository
        .images(commit, place)
        .await?
        .map_err(|reason| Fault::Permanent(reason).into())
}
