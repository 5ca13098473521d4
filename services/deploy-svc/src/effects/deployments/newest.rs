//! The last deployments to an environment, and whether one of them came after another.

use deploy_domain::deployment::{Deployment, DeploymentRequest, DeploymentState, DeploymentStatus};
use slipway_ledger::{Ledger, LedgerError, ListFilter, Page, Snapshot};
use slipway_model::Id;

/// How many of an environment's last deployments are looked at.
const LOOKED_AT: u32 = 50;

/// The last ones of a service to an environment, newest first.
///
/// # Errors
/// When the ledger cannot be read.
pub(crate) async fn last(
    ledger: &Ledger,
    service: &str,
    environment: &str,
) -> Result<Vec<Snapshot<Deployment>>, LedgerError> {
    let filter = ListFilter {
        service: Some(service.to_owned()),
        environment: Some(environment.to_owned()),
        ..ListFilter::default()
    };
    let page = Page {
        size: LOOKED_AT,
        token: String::new(),
    };
    Ok(ledger.list_of::<Deployment>(&filter, &page).await?.items)
}

/// What was deployed to the target of `lost`, a deployment, after it. Attempts to roll it back that did not succeed do
/// not count.
///
/// # Errors
/// When the ledger cannot be read.
pub(crate) async fn deployed_since(
    ledger: &Ledger,
    lost: &Id,
    request: &DeploymentRequest,
) -> Result<Option<Id>, LedgerError> {
    let last = last(ledger, request.service.as_str(), request.environment.as_str()).await?;
    let same_target = |one: &&Snapshot<Deployment>| {
        one.state.request.as_ref().is_some_and(|other| {
            let tries =
                other.rolls_back.as_ref() == Some(lost) && one.state.status != DeploymentStatus::Succeeded;
            other.target == request.target && !tries
        })
    };
    let newest = last.iter().filter(|one| changes(&one.state)).find(same_target);
    Ok(newest
        .map(|newest| newest.id.clone())
        .filter(|newest| newest != lost))
}

/// Whether it was to change the target, and not only to run Jobs.
pub(crate) fn changes(state: &DeploymentState) -> bool {
    state.request.as_ref().is_some_and(DeploymentRequest::changes)
}
