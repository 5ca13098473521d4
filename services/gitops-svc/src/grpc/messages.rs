//! Messages of the wire, checked into the words of the domain and made from them.

use slipway_ledger::Snapshot;
use slipway_model::{BranchName, CommitSha};
use slipway_proto::{common::v1::waiting_on::Kind, gitops::v1 as proto};
use slipway_server::{ApiError, convert};

use crate::{
    change::{self, Change, Image, Refusal, State},
    edit::{Edit, Entry, Folder, InvalidEdit, KustomizeImage},
    message::MAX_SUBJECT,
    render::RenderError,
    repository::{Problem, Repository},
};

/// Edits of one change at most: all overlays of a large service.
const MAX_EDITS: usize = 100;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::precondition("NO_SUCH_CHANGE", refusal),
            Refusal::Exists => Self::precondition("CHANGE_EXISTS", refusal),
        }
    }
}

impl From<RenderError> for ApiError {
    fn from(error: RenderError) -> Self {
        match &error {
            RenderError::CommitNotFound(commit) => commit_not_found(commit),
            RenderError::Refused(reason) => Self::precondition(reason.code.as_str(), reason),
            RenderError::Outside(_) => Self::precondition("OUTSIDE_REPOSITORY", error),
            RenderError::Failed(_) => Self::precondition("RENDER_FAILED", error),
            RenderError::NoKustomize(_) => Self::precondition("KUSTOMIZE_MISSING", error),
            RenderError::Unavailable(reason) => unavailable(reason),
        }
    }
}

pub(super) fn commit_not_found(commit: &CommitSha) -> ApiError {
    ApiError::precondition(
        "COMMIT_NOT_FOUND",
        format!("commit {commit} is on no branch of the repository"),
    )
}

pub(super) fn problem(problem: Problem) -> ApiError {
    match problem {
        Problem::Final(reason) => ApiError::precondition(reason.code.as_str(), reason),
        problem => unavailable(&problem.reason()),
    }
}

pub(super) fn unavailable(reason: &change::Reason) -> ApiError {
    match reason.code {
        change::Code::Internal => ApiError::internal(reason.message.clone()),
        _ => ApiError::unavailable(reason),
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

pub(super) fn edits(edits: Vec<proto::Edit>) -> Result<Vec<Edit>, ApiError> {
    if edits.is_empty() || edits.len() > MAX_EDITS {
        return Err(ApiError::invalid("edits", format!("give 1 to {MAX_EDITS}")));
    }
    edits
        .into_iter()
        .enumerate()
        .map(|(index, edit)| match edit.edit {
            Some(proto::edit::Edit::KustomizeImage(edit)) => KustomizeImage::new(
                &edit.path,
                &edit.name,
                &edit.new_name,
                &edit.new_tag,
                &edit.digest,
            )
            .map(Edit::KustomizeImage)
            .map_err(|error| {
                let field = format!("edits[{index}].kustomize_image.{}", error.field);
                ApiError::invalid(field, error)
            }),
            None => Err(ApiError::invalid(format!("edits[{index}].edit"), "is required")),
        })
        .collect()
}

pub(super) fn image(image: &slipway_proto::common::v1::Image) -> Result<Image, ApiError> {
    let tags = image
        .tags
        .iter()
        .take(32)
        .map(|tag| convert::field("image.tags", tag));
    Ok(Image {
        name: convert::field("image.name", &image.name)?,
        digest: convert::optional("image.digest", &image.digest)?,
        tags: tags.collect::<Result<_, _>>()?,
    })
}

pub(super) fn status_filter(status: i32) -> Result<Option<&'static str>, ApiError> {
    use proto::change::Status as Wire;
    match Wire::try_from(status) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Pending) => Ok(Some(change::Status::Pending.as_str())),
        Ok(Wire::Pushed) => Ok(Some(change::Status::Pushed.as_str())),
        Ok(Wire::Failed) => Ok(Some(change::Status::Failed.as_str())),
        Ok(Wire::Errored) => Ok(Some(change::Status::Errored.as_str())),
        Ok(Wire::Cancelled) => Ok(Some(change::Status::Cancelled.as_str())),
        Err(_) => Err(ApiError::invalid("status", "is not a status of a change")),
    }
}

pub(super) fn scope(state: &State) -> (&str, &str) {
    state.request.as_ref().map_or(("", ""), |request| {
        (request.service.as_str(), request.environment.as_str())
    })
}

pub(super) fn entry_to_proto(folder: &Folder, entry: &Entry) -> proto::KustomizeImage {
    let value = |scalar: &Option<crate::edit::Scalar>| {
        scalar
            .as_ref()
            .map(|scalar| scalar.value.clone())
            .unwrap_or_default()
    };
    proto::KustomizeImage {
        path: folder.as_str().to_owned(),
        name: entry.name.clone(),
        new_name: value(&entry.new_name),
        new_tag: value(&entry.new_tag),
        digest: value(&entry.digest),
    }
}

pub(super) fn edit_to_proto(edit: &Edit) -> proto::Edit {
    let image = match edit {
        Edit::KustomizeImage(edit) => proto::KustomizeImage {
            path: edit.path.as_str().to_owned(),
            name: edit.name.clone(),
            new_name: edit
                .new_name
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            new_tag: edit.new_tag.as_ref().map(ToString::to_string).unwrap_or_default(),
            digest: edit.digest.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
        Edit::RestoreImage(edit) => entry_to_proto(&edit.path, &edit.entry),
    };
    proto::Edit {
        edit: Some(proto::edit::Edit::KustomizeImage(image)),
    }
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
    let mut resource = proto::Change {
        id: change.id.to_string(),
        etag: change.etag(),
        status: status.into(),
        reason: state
            .reason
            .as_ref()
            .map(|reason| convert::reason(reason.code.as_str(), &reason.message)),
        commit: state.commit.as_ref().map(ToString::to_string).unwrap_or_default(),
        no_op: state.no_op,
        previous: state
            .differences
            .iter()
            .map(|difference| proto::Edit {
                edit: Some(proto::edit::Edit::KustomizeImage(entry_to_proto(
                    &difference.path,
                    &difference.before,
                ))),
            })
            .collect(),
        create_time: Some(convert::timestamp(since)),
        end_time: state.ended_at.map(convert::timestamp),
        attempt: state.attempts,
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
    resource.reverts = request
        .reverts
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    resource.source_commit = request
        .source_commit
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    resource.image = request
        .image
        .as_ref()
        .map(|image| slipway_proto::common::v1::Image {
            name: image.name.to_string(),
            digest: image.digest.as_ref().map(ToString::to_string).unwrap_or_default(),
            tags: image.tags.iter().map(ToString::to_string).collect(),
        });
    resource.requested_by = Some(convert::actor(&request.requested_by));
    if state.status == change::Status::Pending {
        let message = if state.cancel.is_some() {
            "the push that may be under way, to be cancelled"
        } else {
            "the push"
        };
        let reference = format!("{}/{}", request.repository, request.branch);
        resource.waiting_on = Some(convert::waiting_on(Kind::Machine, reference, since, message));
    }
    resource
}
