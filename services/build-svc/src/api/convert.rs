//! Between protobuf and the domain.

use std::time::Duration;

use build_domain::{
    build::{self, Build, MAX_TIMEOUT},
    repository::RepositoryUrl,
    spec::{InvalidField, Recipe},
};
use slipway_ledger::Snapshot;
use slipway_model::Image;
use slipway_proto::{build::v1 as proto, common::v1::waiting_on::Kind};
use slipway_server::{ApiError, convert as wire};

/// Reads and checks what is to be built.
pub(super) fn recipe(spec: proto::BuildSpec) -> Result<Recipe, ApiError> {
    let recipe = Recipe {
        repository: wire::field::<RepositoryUrl>("spec.repository_url", &spec.repository_url)?,
        commit: wire::field("spec.commit", &spec.commit)?,
        branch: wire::optional("spec.branch", &spec.branch)?,
        image: wire::field("spec.image_name", &spec.image_name)?,
        context: spec.context,
        dockerfile: spec.dockerfile,
        arguments: spec.build_args.into_iter().collect(),
        version: spec.version,
        latest: spec.tag_latest,
        git_tag: wire::optional("spec.git_tag", &spec.git_tag)?,
        target: spec.target,
    };
    recipe.check().map_err(invalid_field)?;
    Ok(recipe)
}

/// Reads the timeout of a build, if the request has one.
pub(super) fn timeout(timeout: Option<&prost_types::Duration>) -> Result<Option<Duration>, ApiError> {
    let Some(timeout) = timeout else {
        return Ok(None);
    };
    Duration::try_from(*timeout)
        .ok()
        .filter(|timeout| timeout.as_secs() >= 1 && *timeout <= MAX_TIMEOUT)
        .map(Some)
        .ok_or_else(|| {
            ApiError::invalid(
                "spec.timeout",
                "must be from 1 s to 6 h; leave it out for the service's default",
            )
        })
}

fn invalid_field(error: InvalidField) -> ApiError {
    ApiError::invalid(error.field, error.message)
}

/// A build as the API shows it.
pub(super) fn build(build: &Snapshot<Build>) -> proto::Build {
    use proto::build::Status as Wire;
    let state = &build.state;
    let status = match state.status {
        build::Status::Queued => Wire::Queued,
        build::Status::Running => Wire::Running,
        build::Status::Succeeded => Wire::Succeeded,
        build::Status::Failed => Wire::Failed,
        build::Status::Errored => Wire::Errored,
        build::Status::Cancelled => Wire::Cancelled,
    };
    let mut resource = proto::Build {
        id: build.id.to_string(),
        etag: build.etag(),
        status: status.into(),
        reason: state.reason.as_ref().map(wire::reason),
        phase: phase(state).into(),
        log_tail: state.log_tail.clone(),
        create_time: Some(wire::timestamp(state.requested_at.unwrap_or(build.created_at))),
        start_time: state.started_at.map(wire::timestamp),
        end_time: state.ended_at.map(wire::timestamp),
        attempt: state.attempt,
        retry: build.retrying().as_ref().map(wire::retry),
        authors: state.authors.clone(),
        made_by: state
            .made_by
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        ..proto::Build::default()
    };
    let Some(request) = &state.request else {
        return resource;
    };
    resource.labels = request.labels.clone().into_iter().collect();
    resource.correlation_id.clone_from(&request.correlation_id);
    resource.service = request.service.to_string();
    resource.requested_by = Some(wire::actor(&request.requested_by));
    resource.spec = Some(spec(request));
    resource.image = state.digest.as_ref().map(|digest| {
        wire::image(&Image {
            name: request.service.clone(),
            repository: request.recipe.image.clone(),
            digest: digest.clone(),
            tags: state.tags.clone(),
        })
    });
    if !state.status.is_final() {
        let (since, message) = match (state.started_at, state.retry_at) {
            (None, _) => (
                state.requested_at.unwrap_or(build.created_at),
                "a free builder".to_owned(),
            ),
            (Some(_), Some(_)) => (build.updated_at, "the next try".to_owned()),
            (Some(started), None) => (started, state.phase.as_str().to_owned()),
        };
        resource.waiting_on = Some(wire::waiting_on(Kind::Machine, &request.builder, since, message));
    }
    resource
}

fn phase(state: &build::State) -> proto::build::Phase {
    use proto::build::Phase as Wire;
    match state.phase {
        _ if state.status != build::Status::Running => Wire::Unspecified,
        build::Phase::Fetching => Wire::Fetching,
        build::Phase::Building => Wire::Building,
        build::Phase::Pushing => Wire::Pushing,
        build::Phase::Tagging => Wire::Tagging,
    }
}

fn spec(request: &build::Request) -> proto::BuildSpec {
    let recipe = &request.recipe;
    proto::BuildSpec {
        repository_url: recipe.repository.to_string(),
        commit: recipe.commit.to_string(),
        branch: recipe
            .branch
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        image_name: recipe.image.to_string(),
        context: recipe.context.clone(),
        dockerfile: recipe.dockerfile.clone(),
        build_args: recipe.arguments.clone().into_iter().collect(),
        version: recipe.version.clone(),
        tag_latest: recipe.latest,
        builder: request.builder.clone(),
        timeout: Some(wire::duration(Duration::from_secs(request.limits.timeout_s))),
        target: recipe.target.clone(),
        git_tag: recipe
            .git_tag
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}
