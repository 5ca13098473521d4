//! Why the mirror cannot be read or written.

use gix::ObjectId;

/// Why the mirror cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// The mirror itself is faulty: damaged, or not readable.
    #[error("mirror: {0}")]
    Broken(String),
    /// Its disk is full.
    #[error("the service's data_dir is full: free some space, or give it a larger volume: {0}")]
    Full(String),
    /// Objects that a partial mirror omits until they are needed.
    #[error("mirror: {} objects are missing, {} among them", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Missing(Vec<ObjectId>),
    /// A commit that is beyond the part of the history that a shallow mirror has.
    #[error("mirror: commit {0} is missing")]
    Beyond(ObjectId),
}

pub(super) fn broken(error: impl std::fmt::Display) -> MirrorError {
    MirrorError::Broken(error.to_string())
}

/// Why something could not be written, down to its cause.
pub(super) fn unwritten<E: std::error::Error + 'static>(error: E) -> MirrorError {
    let mut text = error.to_string();
    let mut full = is_full(&error);
    let mut source = error.source();
    while let Some(cause) = source {
        full |= is_full(cause);
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if full {
        MirrorError::Full(text)
    } else {
        MirrorError::Broken(text)
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
        // If the cause was not passed on unchanged.
        || error.to_string().contains("No space left on device")
}
