//! Conversion between protobuf messages and the types of the domain.

use gitops_domain::{
    change::{self, Change, State},
    history::{self, Commit, ImageChange, Part},
    images::Mismatch,
    message::{self, MAX_SUBJECT},
    pull_request::{Mode, ModeRefusal, PullState},
    reason::Code,
};
use slipway_edit::{Folder, InvalidEdit, Reference};
use slipway_ledger::Snapshot;
use slipway_model::{BranchName, Principal};
use slipway_proto::{
    common::v1::{Actor, Image as WireImage, actor, waiting_on::Kind},
    gitops::v1 as proto,
};
use slipway_server::{ApiError, convert};

use super::edits::{change_to_proto, edit_to_proto, previous};
use crate::backends::repository::Repository;

pub(super) fn mode_refusal(refusal: ModeRefusal) -> ApiError {
    match refusal {
        ModeRefusal::Required(_) => ApiError::precondition(ModeRefusal::REQUIRED, refusal),
        ModeRefusal::NotConfigured => ApiError::invalid("mode", refusal),
    }
}

pub(super) fn mismatch(mismatch: Mismatch) -> ApiError {
    match mismatch {
        Mismatch::NotFound(_) => ApiError::precondition(Code::ImageNotFound.as_str(), mismatch),
        Mismatch::Invalid(_) => ApiError::precondition("IMAGE_INVALID", mismatch),
    }
}

pub(super) fn branch(repository: &Repository, text: &str) -> Result<BranchName, ApiError> {
    Ok(convert::optional("branch", text)?.unwrap_or_else(|| repository.branch().clone()))
}

pub(super) fn folder(field: &str, text: &str) -> Result<Folder, ApiError> {
    text.parse()
        .map_err(|error: InvalidEdit| ApiError::invalid(field, error))
}

pub(super) fn subject(text: &str) -> Result<String, ApiError> {
    if text.len() > MAX_SUBJECT || text.contains(char::is_control) {
        return Err(ApiError::invalid(
            "message",
            format!("give one line of up to {MAX_SUBJECT} bytes"),
        ));
    }
    Ok(text.trim().to_owned())
}

/// `None` if it is left to the configuration.
pub(super) fn mode(mode: i32) -> Result<Option<Mode>, ApiError> {
    match proto::Mode::try_from(mode) {
        Ok(proto::Mode::Unspecified) => Ok(None),
        Ok(proto::Mode::Push) => Ok(Some(Mode::Push)),
        Ok(proto::Mode::PullRequest) => Ok(Some(Mode::PullRequest)),
        Err(_) => Err(ApiError::invalid("mode", "is not a mode of a change")),
    }
}

pub(super) fn scope(state: &State) -> (&str, &str) {
    state.request.as_ref().map_or(("", ""), |request| {
        (request.service.as_str(), request.environment.as_str())
    })
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn pull_request(state: &State) -> Option<proto::PullRequest> {
    use proto::pull_request::State as Wire;
    let pull = state.pull_request.as_ref()?;
    let status = match pull.status {
        PullState::Open => Wire::Open,
        PullState::Merged => Wire::Merged,
        PullState::Closed => Wire::Closed,
    };
    Some(proto::PullRequest {
        number: i64::try_from(pull.number).unwrap_or(i64::MAX),
        url: pull.url.clone(),
        state: status.into(),
        branch: pull.branch.to_string(),
        commit: pull.commit.to_string(),
        message: pull.message.clone(),
    })
}

pub(super) fn to_proto(change: &Snapshot<Change>) -> proto::Change {
    use proto::change::Status as Wire;
    let state = &change.state;
    let status = match state.status {
        change::Status::Pending => Wire::Pending,
        change::Status::Pushed => Wire::Pushed,
        change::Status::Failed => Wire::Failed,
        change::Status::Errored => Wire::Errored,
        change::Status::Cancelled => Wire::Cancelled,
    };
    let since = state.requested_at.unwrap_or(change.created_at);
    let pull_request = pull_request(state);
    let links = pull_request
        .iter()
        .map(|pull| convert::link("pull-request", &pull.url));
    let mut resource = proto::Change {
        id: change.id.to_string(),
        etag: change.etag(),
        status: status.into(),
        reason: state.reason.as_ref().map(convert::reason),
        commit: text(state.commit.as_ref()),
        no_op: state.no_op,
        source: proto::change::Source::Ledger.into(),
        create_time: Some(convert::timestamp(since)),
        end_time: state.ended_at.map(convert::timestamp),
        attempt: state.attempts,
        not_rendered: state.not_rendered.clone(),
        retry: change.retrying().as_ref().map(convert::retry),
        links: links.collect(),
        ..proto::Change::default()
    };
    let Some(request) = &state.request else {
        return resource;
    };
    resource.labels = request.labels.clone().into_iter().collect();
    resource.correlation_id.clone_from(&request.correlation_id);
    resource.repository.clone_from(&request.repository);
    resource.branch = request.branch.to_string();
    resource.service = request.service.to_string();
    resource.environment = request.environment.to_string();
    resource.edits = request.edits.iter().map(edit_to_proto).collect();
    resource.previous = request
        .edits
        .iter()
        .zip(&state.differences)
        .map(|(edit, difference)| previous(edit, difference))
        .collect();
    resource.reverts = text(request.reverts.as_ref());
    resource.source_commit = text(request.source_commit.as_ref());
    resource.images = request.images.as_ref().map(convert::images).unwrap_or_default();
    resource.requested_by = Some(convert::actor(&request.requested_by));
    resource.subject = message::subject(request);
    resource.mode = match request.mode {
        Mode::Push => proto::Mode::Push,
        Mode::PullRequest => proto::Mode::PullRequest,
    }
    .into();
    if let Some(from) = &request.promoted_from {
        resource.promoted_from = from.environment.to_string();
        resource.promoted_from_commit = from.commit.to_string();
    }
    if state.status == change::Status::Pending {
        resource.waiting_on = Some(waiting_on(state, request, pull_request.as_ref(), since));
    }
    resource.pull_request = pull_request;
    resource
}

fn waiting_on(
    state: &State,
    request: &change::Request,
    pull_request: Option<&proto::PullRequest>,
    since: slipway_model::Timestamp,
) -> slipway_proto::common::v1::WaitingOn {
    let branch = format!("{}/{}", request.repository, request.branch);
    match pull_request {
        _ if state.cancel.is_some() => convert::waiting_on(
            Kind::Machine,
            branch,
            since,
            "the push that may be under way, to be cancelled",
        ),
        Some(pull) => {
            let message = if pull.message.is_empty() {
                "the pull request to be merged"
            } else {
                &pull.message
            };
            convert::waiting_on(Kind::Human, &pull.url, since, message)
        }
        None => convert::waiting_on(Kind::Machine, branch, since, "the push"),
    }
}

/// The part of a change's id that comes from a commit.
pub(super) const COMMIT_PREFIX: &str = "commit-";

/// A commit by others, shown as a change with the parts that the caller may see.
pub(super) fn commit_to_proto(
    repository: &str,
    branch: &BranchName,
    commit: &Commit,
    parts: &[Part],
) -> proto::Change {
    use proto::change::Source;
    let (service, environment) = history::scope(parts);
    let images: Vec<&ImageChange> = parts.iter().flat_map(|part| &part.images).collect();
    let said = commit.trailer(|trailers| trailers.image.clone());
    let image = match (said, images.as_slice()) {
        (Some(said), _) => Some(WireImage {
            name: service.to_owned(),
            repository: said.name.to_string(),
            digest: text(said.digest.as_ref()),
            tags: said.tag.iter().map(ToString::to_string).collect(),
        }),
        (None, [only]) => only.after.as_ref().map(|after| WireImage {
            name: service.to_owned(),
            repository: if after.name.is_empty() {
                only.name.clone()
            } else {
                after.name.clone()
            },
            digest: after.digest.clone(),
            tags: Some(after.tag.clone())
                .filter(|tag| !tag.is_empty())
                .into_iter()
                .collect(),
        }),
        (None, _) => None,
    };
    let from = commit.trailer(|trailers| trailers.promoted_from.clone());
    let source = if commit.has_trailers() {
        Source::Trailers
    } else {
        Source::Commit
    };
    let edits = |image: fn(&ImageChange) -> Option<&Reference>| {
        let edits = images.iter().map(|change| change_to_proto(change, image(change)));
        edits.collect()
    };
    let time = Some(convert::timestamp(commit.time));
    proto::Change {
        id: format!("{COMMIT_PREFIX}{}", commit.id),
        correlation_id: commit
            .trailer(|trailers| trailers.release.clone())
            .unwrap_or_default(),
        repository: repository.to_owned(),
        branch: branch.to_string(),
        service: service.to_owned(),
        environment: environment.to_owned(),
        edits: edits(|change| change.after.as_ref()),
        previous: edits(|change| change.before.as_ref()),
        status: proto::change::Status::Pushed.into(),
        commit: commit.id.to_string(),
        reverts: text(commit.trailer(|trailers| trailers.reverts.clone()).as_ref()),
        source_commit: text(commit.trailer(|trailers| trailers.source_commit.clone()).as_ref()),
        images: image.into_iter().collect(),
        requested_by: Some(claimed(
            &Principal::new("git", commit.author.as_str()),
            commit.trailer(|trailers| trailers.triggered_by.clone()),
        )),
        create_time: time,
        end_time: time,
        promoted_from: text(from.as_ref().map(|(environment, _)| environment)),
        promoted_from_commit: text(from.as_ref().and_then(|(_, commit)| commit.as_ref())),
        source: source.into(),
        subject: commit.subject.clone(),
        ..proto::Change::default()
    }
}

/// Who made a commit according to the commit itself, and on whose behalf according to a trailer: neither is verified.
fn claimed(author: &Principal, for_whom: Option<Principal>) -> Actor {
    let link = |principal: &Principal, authentication: actor::Authentication| actor::Link {
        principal: principal.to_string(),
        authentication: authentication.into(),
    };
    let mut links = vec![link(author, actor::Authentication::Unspecified)];
    links.extend(for_whom.map(|person| link(&person, actor::Authentication::Delegated)));
    Actor { links }
}
