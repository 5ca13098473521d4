//! Messages of the wire, checked into the words of the domain and made from them.

use slipway_edit::{
    Difference, Edit, Entry, Folder, Found, HelmImage, InvalidEdit, KustomizeImage, ManifestImage, NewImage,
    Reference,
};
use slipway_ledger::Snapshot;
use slipway_model::{BranchName, CommitSha};
use slipway_proto::{common::v1::waiting_on::Kind, gitops::v1 as proto};
use slipway_server::{ApiError, convert};

use crate::{
    change::{self, Change, Image, Refusal, State},
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
    if edits.len() > MAX_EDITS {
        return Err(ApiError::invalid("edits", format!("give up to {MAX_EDITS}")));
    }
    edits
        .into_iter()
        .enumerate()
        .map(|(index, edit)| {
            let Some(edit) = edit.edit else {
                return Err(ApiError::invalid(format!("edits[{index}].edit"), "is required"));
            };
            let (kind, read) = one(edit);
            read.map_err(|error| {
                let field = format!("edits[{index}].{kind}.{}", error.field);
                ApiError::invalid(field, error)
            })
        })
        .collect()
}

/// The name of the edit's kind, and the edit.
fn one(edit: proto::edit::Edit) -> (&'static str, Result<Edit, InvalidEdit>) {
    use proto::edit::Edit as Wire;
    match edit {
        Wire::KustomizeImage(edit) => (
            "kustomize_image",
            NewImage::new(&edit.new_name, &edit.new_tag, &edit.digest)
                .and_then(|to| KustomizeImage::new(&edit.path, &edit.name, to))
                .map(Edit::KustomizeImage),
        ),
        Wire::HelmImage(edit) => (
            "helm_image",
            NewImage::new(&edit.new_name, &edit.new_tag, &edit.digest)
                .and_then(|to| HelmImage::new(&edit.file, &edit.path, &edit.document, to))
                .map(Edit::HelmImage),
        ),
        Wire::ManifestImage(edit) => (
            "manifest_image",
            NewImage::new(&edit.new_name, &edit.new_tag, &edit.digest)
                .and_then(|to| {
                    ManifestImage::new(
                        &edit.file,
                        &edit.object,
                        &edit.container,
                        &edit.image,
                        &edit.field,
                        to,
                    )
                })
                .map(Edit::ManifestImage),
        ),
        Wire::Marker(_) => ("marker", Ok(Edit::Marker)),
    }
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

fn entry_to_proto(folder: &Folder, entry: &Entry) -> proto::KustomizeImage {
    let value = |scalar: &Option<slipway_edit::Scalar>| {
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

/// The parts of an image, as the wire has them.
fn parts(to: &NewImage) -> Reference {
    fn text(value: Option<&impl ToString>) -> String {
        value.map(ToString::to_string).unwrap_or_default()
    }
    Reference {
        name: text(to.new_name.as_ref()),
        tag: text(to.new_tag.as_ref()),
        digest: text(to.digest.as_ref()),
    }
}

/// The values of a difference or its undoing: containers and fields have their own kind on the wire.
fn values_to_proto(
    file: &slipway_edit::FilePath,
    values: &[slipway_edit::ValueDifference],
    image: &Reference,
) -> proto::edit::Edit {
    let first = values.first();
    let text = |of: fn(&slipway_edit::ValueDifference) -> &String| first.map(of).cloned().unwrap_or_default();
    proto::edit::Edit::HelmImage(proto::HelmImage {
        file: file.to_string(),
        path: text(|value| &value.at),
        document: text(|value| &value.document),
        new_name: image.name.clone(),
        new_tag: image.tag.clone(),
        digest: image.digest.clone(),
    })
}

fn edit_to_proto(edit: &Edit) -> proto::Edit {
    use proto::edit::Edit as Wire;
    let edit = match edit {
        Edit::KustomizeImage(edit) => {
            let to = parts(&edit.to);
            Wire::KustomizeImage(proto::KustomizeImage {
                path: edit.path.as_str().to_owned(),
                name: edit.name.clone(),
                new_name: to.name,
                new_tag: to.tag,
                digest: to.digest,
            })
        }
        Edit::HelmImage(edit) => {
            let to = parts(&edit.to);
            Wire::HelmImage(proto::HelmImage {
                file: edit.file.to_string(),
                path: edit.path.clone(),
                document: edit.document.clone(),
                new_name: to.name,
                new_tag: to.tag,
                digest: to.digest,
            })
        }
        Edit::ManifestImage(edit) => {
            let to = parts(&edit.to);
            Wire::ManifestImage(proto::ManifestImage {
                file: edit.file.to_string(),
                object: edit.object.clone(),
                container: edit.container.clone(),
                image: edit.image.clone(),
                field: edit.field.clone(),
                new_name: to.name,
                new_tag: to.tag,
                digest: to.digest,
            })
        }
        Edit::RestoreImage(edit) => Wire::KustomizeImage(entry_to_proto(&edit.path, &edit.entry)),
        Edit::RestoreValues(edit) => values_to_proto(&edit.file, &edit.values, &edit.image),
        Edit::Marker => Wire::Marker(proto::Marker {}),
    };
    proto::Edit { edit: Some(edit) }
}

/// The edit that would put a difference back.
fn previous(difference: &Difference) -> proto::Edit {
    let edit = match difference {
        Difference::Entry(entry) => {
            proto::edit::Edit::KustomizeImage(entry_to_proto(&entry.path, &entry.before))
        }
        Difference::Values(values) => values_to_proto(&values.file, &values.values, &values.before),
        Difference::Marker { .. } => proto::edit::Edit::Marker(proto::Marker {}),
    };
    proto::Edit { edit: Some(edit) }
}

pub(super) fn found_to_proto(found: &Found) -> proto::DesiredImage {
    proto::DesiredImage {
        name: found.name.clone(),
        image: found.image.name.clone(),
        tag: found.image.tag.clone(),
        digest: found.image.digest.clone(),
        file: found.file.clone(),
        line: u32::try_from(found.line).unwrap_or(u32::MAX),
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
        previous: state.differences.iter().map(previous).collect(),
        source: proto::change::Source::Ledger.into(),
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
