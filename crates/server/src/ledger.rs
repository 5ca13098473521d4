//! Conversion of the ledger's errors to the API's, and of a service's configuration to its ledger.

use secrecy::ExposeSecret;
use slipway_ledger::{
    ExecuteError, Ledger, LedgerConfig, LedgerError, Page, Refusal, ReplayError, TransactError,
};

use crate::{ApiError, ConfigError, DatabaseConfig, page, wiring::RunError};

/// Opens a service's database. `origin` is the service's name in events, such as `build`; `replica` is this process's
/// name among its replicas.
///
/// # Errors
/// A configuration without a URL, and a database that cannot be opened or migrated.
pub async fn open(database: &DatabaseConfig, origin: &str, replica: &str) -> Result<Ledger, RunError> {
    let config = ledger_config(database)?.origin(origin).replica(replica);
    // The compiler cannot prove that a future in which migrations run is Send, and services are spawned. So this one is
    // driven where it need not be.
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(Ledger::open(config)))
        .await
        .map_err(RunError::other("ledger"))?
        .map_err(RunError::other("ledger"))
}

fn ledger_config(database: &DatabaseConfig) -> Result<LedgerConfig, ConfigError> {
    let config = LedgerConfig::new(database.url()?.expose_secret());
    Ok(match database.max_connections {
        Some(connections) => config.max_connections(connections),
        None => config,
    })
}

/// Checks that a service's database can be reached and written. Changes nothing in it.
///
/// # Errors
/// Names `database.url`.
pub(crate) async fn check(database: &DatabaseConfig) -> Result<(), ConfigError> {
    Ledger::check(&ledger_config(database)?)
        .await
        .map_err(|error| ConfigError::invalid("database.url", error))
}

/// The requested page of a list.
///
/// # Errors
/// A negative `page_size`. A token that does not fit is detected by the ledger.
pub fn list_page(page_size: i32, page_token: &str) -> Result<Page, ApiError> {
    Ok(Page {
        size: page::size(page_size)?,
        token: page_token.to_owned(),
    })
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::PageToken => ApiError::invalid(
                "page_token",
                "does not belong to this list and filter; request the first page again",
            ),
            LedgerError::Cursor(_) => ApiError::invalid(
                "cursor",
                "is not a cursor of this service; use one that an event carried, empty for the beginning, or now",
            ),
            error @ LedgerError::ContentTooLarge { .. } => ApiError::Exhausted {
                message: error.to_string(),
            },
            error if error.is_transient() => {
                tracing::warn!(%error, "a request failed on the database");
                ApiError::unavailable("the database cannot be reached; try again")
            }
            error => ApiError::internal(error),
        }
    }
}

impl<R: Refusal> From<ExecuteError<R>> for ApiError {
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Refused(refusal) => ApiError::refused(refusal),
            ExecuteError::RequestIdReused { request_id } => ApiError::AlreadyUsed { request_id },
            ExecuteError::Conflict { .. } => ApiError::Conflict {
                message: error.to_string(),
            },
            ExecuteError::TooLarge { .. } => ApiError::Exhausted {
                message: error.to_string(),
            },
            ExecuteError::Ledger(error) => error.into(),
        }
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::RequestIdReused { request_id } => ApiError::AlreadyUsed { request_id },
            ReplayError::Ledger(error) => error.into(),
        }
    }
}

impl<E: std::fmt::Display + Into<ApiError>> From<TransactError<E>> for ApiError {
    fn from(error: TransactError<E>) -> Self {
        match error {
            TransactError::Aborted(error) => error.into(),
            TransactError::RequestIdReused { request_id } => ApiError::AlreadyUsed { request_id },
            TransactError::Conflict => ApiError::Conflict {
                message: error.to_string(),
            },
            TransactError::Ledger(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use slipway_ledger::RefusalKind;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    impl Refusal for No {
        fn kind(&self) -> RefusalKind {
            RefusalKind::FailedPrecondition("NO")
        }
    }

    fn database(transient: bool) -> LedgerError {
        LedgerError::Database {
            doing: "reading",
            transient,
            source: "password=hunter2".into(),
        }
    }

    #[test]
    fn the_ledgers_errors_have_their_codes() {
        let request_id = || "r".to_owned();
        for (error, reason) in [
            (ApiError::from(ExecuteError::Refused(No)), "NO"),
            (
                ExecuteError::<No>::RequestIdReused {
                    request_id: request_id(),
                }
                .into(),
                "REQUEST_ID_REUSED",
            ),
            (
                ExecuteError::<No>::Conflict {
                    kind: "k".into(),
                    id: "i".parse().unwrap(),
                }
                .into(),
                "CONFLICT",
            ),
            (
                ExecuteError::<No>::TooLarge {
                    kind: "k".into(),
                    id: "i".parse().unwrap(),
                    size: 2,
                    limit: 1,
                }
                .into(),
                "LIMIT_EXCEEDED",
            ),
            (
                ExecuteError::<No>::Ledger(LedgerError::PageToken).into(),
                "INVALID_FIELD",
            ),
            (TransactError::Aborted(ApiError::refused(No)).into(), "NO"),
            (
                TransactError::<ApiError>::RequestIdReused {
                    request_id: request_id(),
                }
                .into(),
                "REQUEST_ID_REUSED",
            ),
            (TransactError::<ApiError>::Conflict.into(), "CONFLICT"),
            (LedgerError::Cursor("x".into()).into(), "INVALID_FIELD"),
            (
                LedgerError::ContentTooLarge { size: 2, limit: 1 }.into(),
                "LIMIT_EXCEEDED",
            ),
            (
                LedgerError::ContentChanged {
                    hash: slipway_model::ContentHash::of(""),
                }
                .into(),
                "INTERNAL",
            ),
            (LedgerError::Closed.into(), "UNAVAILABLE"),
            (database(true).into(), "UNAVAILABLE"),
            (database(false).into(), "INTERNAL"),
        ] {
            assert_eq!(error.reason(), reason, "{error}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
