//! Contents: bodies that are too large for events, kept separately and named by their SHA-256.
//!
//! A content is written before the event that names it. A crash between the two leaves an unreferenced content, which
//! only costs space; an event never names a content that does not exist. This write does not wait for the disk by
//! itself: both databases write one log in order, and the append of the event waits until the log is on disk up to that
//! point.
//!
//! What is read is compared with its name, so that a reader never gets another body than the one the event names.

use slipway_model::ContentHash;

use crate::{Ledger, LedgerError, store::Result};

/// The longest content, in bytes: 1 MiB.
pub const MAX_CONTENT_BYTES: usize = 1 << 20;

impl Ledger {
    /// Stores a body, and returns its name. One that is there already is not written again.
    ///
    /// # Errors
    /// [`LedgerError::ContentTooLarge`] above [`MAX_CONTENT_BYTES`], and when the database cannot be written.
    pub async fn put_content(&self, body: &[u8]) -> Result<ContentHash> {
        if body.len() > MAX_CONTENT_BYTES {
            return Err(LedgerError::ContentTooLarge {
                size: body.len(),
                limit: MAX_CONTENT_BYTES,
            });
        }
        let hash = ContentHash::of(body);
        self.shared.store.put_content(&hash, body).await?;
        slipway_faults::point("ledger.content.after");
        Ok(hash)
    }

    /// The body of this name; `None` when it is not kept here.
    ///
    /// # Errors
    /// [`LedgerError::ContentChanged`] when what is stored is not the original body, and when the database cannot be
    /// read.
    pub async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>> {
        let body = self.shared.store.content(hash).await?;
        match body {
            Some(body) if ContentHash::of(&body) != *hash => {
                Err(LedgerError::ContentChanged { hash: hash.clone() })
            }
            body => Ok(body),
        }
    }
}
