//! What can go wrong in the ledger, apart from a decider's refusal.

use slipway_model::{ContentHash, Id};

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why the ledger could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The database refused or could not be reached. Whether asking again may help: [`LedgerError::is_transient`].
    #[error("the ledger's database failed while {doing}: {source}")]
    Database {
        doing: &'static str,
        transient: bool,
        source: Source,
    },
    /// The aggregate was written by a newer binary than this one: read it there, or upgrade.
    #[error(
        "{kind} {id} was written by a newer version (state version {found}, this binary knows {known}): upgrade this replica"
    )]
    NewerVersion {
        kind: String,
        id: Id,
        found: u32,
        known: u32,
    },
    /// A stored event or state is not what this binary expects.
    #[error("{kind} {id} at seq {seq} cannot be read by this binary: {source}")]
    Decode {
        kind: String,
        id: Id,
        seq: u64,
        source: serde_json::Error,
    },
    /// An event or a state could not be turned into JSON: a bug in the decider's types.
    #[error("{kind} {id} cannot be written as json: {why}")]
    Encode { kind: String, id: Id, why: String },
    /// The page token belongs to another list or another filter.
    #[error("page_token does not belong to this list and filter: request the first page again")]
    PageToken,
    /// The feed cursor was not issued by this ledger.
    #[error("cursor {0:?} is not valid: use one that the feed returned, \"\" for the beginning or \"now\"")]
    Cursor(String),
    /// A content is larger than the ledger accepts.
    #[error("a content has {size} bytes, at most {limit} are kept: send less")]
    ContentTooLarge { size: usize, limit: usize },
    /// A stored content is not the original body.
    #[error("the content {hash} was changed since it was kept: restore table contents from a backup")]
    ContentChanged { hash: ContentHash },
    /// The configuration cannot work.
    #[error("ledger configuration: {0}")]
    Config(String),
    /// The ledger was closed.
    #[error("the ledger is closed: the service is shutting down")]
    Closed,
}

impl LedgerError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database { transient: true, .. } | Self::Closed)
    }

    /// For `map_err`: wraps a database error with what was being done.
    pub(crate) fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |error| Self::Database {
            doing,
            transient: is_transient(&error),
            source: Box::new(error),
        }
    }
}

/// Lost connections, timeouts, and the SQLSTATE classes 08, 40, 53, 57 and 58: the same statement may succeed later.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // SQLite: 5 busy, 6 locked, and their extended codes.
            ["08", "40", "53", "57", "58"]
                .iter()
                .any(|class| code.len() == 5 && code.starts_with(class))
                || code
                    .parse::<u32>()
                    .is_ok_and(|code| code.to_string().len() < 5 && matches!(code & 0xff, 5 | 6))
        }),
        _ => false,
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<R: std::error::Error + 'static> {
    /// The decider refused; nothing was written.
    #[error(transparent)]
    Refused(R),
    /// The same request id was used with another command before.
    #[error("request_id {request_id:?} was used for another request: use a new one")]
    RequestIdReused { request_id: String },
    /// Too many others wrote the same aggregate at the same time.
    #[error("{kind} {id} is being changed by too many callers at once: try again")]
    Conflict { kind: String, id: Id },
    /// An event is larger than the ledger accepts.
    #[error("an event of {kind} {id} has {size} bytes, at most {limit} are allowed: send less")]
    TooLarge {
        kind: String,
        id: Id,
        size: usize,
        limit: usize,
    },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why the result of an idempotency key is not known.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The same request id was used with another command before.
    #[error("request_id {request_id:?} was used for another request: use a new one")]
    RequestIdReused { request_id: String },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl<R: std::error::Error> From<ReplayError> for ExecuteError<R> {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::RequestIdReused { request_id } => Self::RequestIdReused { request_id },
            ReplayError::Ledger(error) => Self::Ledger(error),
        }
    }
}

impl<E> From<ReplayError> for TransactError<E> {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::RequestIdReused { request_id } => Self::RequestIdReused { request_id },
            ReplayError::Ledger(error) => Self::Ledger(error),
        }
    }
}

/// Why a transaction over several aggregates was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The closure returned this error; nothing was written.
    #[error("{0}")]
    Aborted(E),
    /// The same request id was used with another command before.
    #[error("request_id {request_id:?} was used for another request: use a new one")]
    RequestIdReused { request_id: String },
    /// Too many others wrote the same aggregates at the same time.
    #[error("what this request changes is being changed by too many callers at once: try again")]
    Conflict,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
