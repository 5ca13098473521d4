//! The parameters of lists and watches, checked in one place.

use std::collections::BTreeMap;

use slipway_ledger::{Decider, ListFilter, Page};
use slipway_proto::{approval, build, deploy, gitops, release};

use super::Resource;
use crate::{ApiError, convert, ledger::list_page};

/// The parameters of a list or a watch, as in the API's requests. Empty texts mean all.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub page_size: i32,
    pub page_token: String,
    pub service: String,
    pub environment: String,
    /// A value of the resource's status enum; 0 means all.
    pub status: i32,
    pub correlation_id: String,
    /// All of these must match.
    pub labels: BTreeMap<String, String>,
}

impl ListQuery {
    /// # Errors
    /// [`ApiError::Invalid`] naming the field: an unknown status, a name or key that is not well-formed.
    pub fn filter<R: Resource>(&self) -> Result<ListFilter, ApiError> {
        let name =
            |field, text: &str| Ok::<_, ApiError>(convert::name_filter(field, text)?.map(String::from));
        Ok(ListFilter {
            status: status_filter::<R>(self.status)?.into_iter().collect(),
            service: name("service", &self.service)?,
            environment: name("environment", &self.environment)?,
            correlation: Some(convert::key("correlation_id", &self.correlation_id)?)
                .filter(|id| !id.is_empty()),
            labels: convert::labels(self.labels.clone())?,
            not_final: false,
        })
    }

    /// # Errors
    /// [`ApiError::Invalid`] naming `page_size`. A token that does not fit is found by the ledger.
    pub fn page(&self) -> Result<Page, ApiError> {
        list_page(self.page_size, &self.page_token)
    }
}

/// The status as in the ledger's index; `None` for 0.
fn status_filter<R: Resource>(value: i32) -> Result<Option<String>, ApiError> {
    let name = R::status_name(value).ok_or_else(|| {
        let known: Vec<&str> = (1..).map_while(R::status_name).collect();
        ApiError::invalid(
            "status",
            format!(
                "{value} is not a status of a {}; use one of {}",
                R::Decider::KIND,
                known.join(", ")
            ),
        )
    })?;
    let status = name.trim_start_matches("STATUS_").to_ascii_lowercase();
    Ok(Some(status).filter(|_| value != 0))
}

/// Reads a query from a request message: all have the first five fields; the others mean all if a message lacks them.
macro_rules! query_from {
    ($($request:ty: $($field:ident)*;)*) => {$(
        #[allow(clippy::needless_update)] // some have every field
        impl From<$request> for ListQuery {
            fn from(request: $request) -> Self {
                Self {
                    page_size: request.page_size,
                    page_token: request.page_token,
                    status: request.status,
                    service: request.service,
                    labels: request.labels.into_iter().collect(),
                    $($field: request.$field,)*
                    ..Self::default()
                }
            }
        }
    )*};
}

query_from! {
    build::v1::ListBuildsRequest: correlation_id;
    gitops::v1::ListChangesRequest: environment correlation_id;
    approval::v1::ListApprovalsRequest: environment correlation_id;
    deploy::v1::ListDeploymentsRequest: environment correlation_id;
    release::v1::ListReleasesRequest:;
}

impl From<approval::v1::WatchApprovalsRequest> for ListQuery {
    fn from(request: approval::v1::WatchApprovalsRequest) -> Self {
        Self {
            service: request.service,
            environment: request.environment,
            status: request.status,
            correlation_id: request.correlation_id,
            ..Self::default()
        }
    }
}
