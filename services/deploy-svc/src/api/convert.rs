//! Conversion between the domain and the messages of the API.

mod deployment;
mod release;

use deploy_domain::{
    catalog::{Environment, Service, UnknownName},
    plan::PlanError,
};
use slipway_model::{Images, ServiceImage};
use slipway_server::ApiError;

pub(super) use deployment::{deployment_proto, evidence_proto, target_proto};
pub(super) use release::{canary_watch_proto, plan_proto, release_proto};

use crate::{
    backends::catalog::{CatalogStore, Miss},
    effects::lanes::LanesError,
};

/// Rejects images that are not in the catalog under this name and in this repository.
pub(super) fn known_images(images: &Images, known: &Images<ServiceImage>) -> Result<(), ApiError> {
    let (image, known) = (images.only(), known.only());
    for (part, is, of_catalog) in [
        ("name", image.name.as_str(), known.name.as_str()),
        ("repository", image.repository.as_str(), known.repository.as_str()),
    ] {
        if is != of_catalog {
            let words =
                format!("is {is}, but in the catalog this service's image has the {part} {of_catalog}");
            return Err(ApiError::invalid(format!("images[0].{part}"), words));
        }
    }
    Ok(())
}

/// Why nothing was planned, by the offending field of the request.
pub(super) fn plan_error(miss: &Miss<PlanError>) -> ApiError {
    let field = match &miss.error {
        PlanError::Unknown(unknown) if unknown.what == "service" => "service",
        PlanError::Unknown(_) | PlanError::NoEnvironments(_) | PlanError::LeftOut { .. } => "environments",
        PlanError::BranchReleasesNothing { .. } => "branch",
        PlanError::NoVersion { placeholder, .. } if placeholder.contains("git_tag") => "git_tag",
        PlanError::NoVersion { .. } => "branch",
    };
    ApiError::invalid(field, miss)
}

/// A service of the catalog, and one of its environments.
pub(super) fn service_and_environment(
    catalog: &CatalogStore,
    service: &str,
    environment: &str,
) -> Result<(Service, Environment), ApiError> {
    let found = catalog.find(|catalog| {
        let service = catalog.service(service)?;
        let environment = service.environment(environment)?;
        Ok::<_, UnknownName>((service.clone(), environment.clone()))
    });
    found.map_err(|miss| ApiError::invalid(miss.error.what, &miss))
}

impl From<LanesError> for ApiError {
    fn from(error: LanesError) -> Self {
        match error {
            LanesError::Release(error) => error.into(),
            LanesError::Ledger(error) => error.into(),
            error => Self::internal(error),
        }
    }
}
