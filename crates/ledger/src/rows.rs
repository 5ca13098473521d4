//! What databases return, as plain rows: no decider, no cache, no connection.

use slipway_model::{Id, Reason, Retry, Timestamp};

/// SHA-256, which links an event to the one before it (module `chain`).
pub(crate) type Hash = [u8; 32];

/// A row of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) seq: u64,
    pub(crate) event_type: String,
    pub(crate) data: String,
    /// JSON text.
    pub(crate) actor: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) at: Timestamp,
    pub(crate) prev_hash: Hash,
    pub(crate) hash: Hash,
}

/// A row of `aggregates`, as far as readers need it.
#[derive(Debug, Clone)]
pub(crate) struct AggregateRow {
    pub(crate) id: Id,
    pub(crate) seq: u64,
    pub(crate) state_version: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) failing: Failing,
    pub(crate) traceparent: Option<String>,
    pub(crate) head: Hash,
    /// `None` when the reader said that it has this seq already.
    pub(crate) state: Option<String>,
}

/// What has failed since the aggregate last made progress.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failing {
    /// JSON of a [`Reason`].
    pub(crate) fault: Option<String>,
    pub(crate) faults: u32,
    /// Why it is parked, as a text for people; the column is called `set_aside`.
    pub(crate) parked: Option<String>,
    pub(crate) due_at: Option<Timestamp>,
}

impl Failing {
    fn reason(&self) -> Option<Reason> {
        serde_json::from_str(self.fault.as_deref()?).ok()
    }

    pub(crate) fn parked(&self) -> Option<Reason> {
        let message = self.parked.as_ref()?;
        // Without a fault it was parked by a version that did not record codes.
        Some(self.reason().unwrap_or_else(|| Reason::new("PARKED", message)))
    }

    pub(crate) fn retry(&self) -> Option<Retry> {
        if self.parked.is_some() {
            return None;
        }
        Some(Retry {
            error: self.reason()?,
            attempt: self.faults,
            next_time: self.due_at,
        })
    }
}

/// As the column `fault` has it.
pub(crate) fn json(error: &Reason) -> String {
    serde_json::to_string(error).unwrap_or_default()
}

/// Where a list continues: after the last item of the previous page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) created_at: Timestamp,
    pub(crate) id: Id,
}

/// Where a list of parked aggregates continues: after this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AfterParked {
    pub(crate) since: Timestamp,
    pub(crate) kind: String,
    pub(crate) id: Id,
}

/// A row of `requests`.
#[derive(Debug, Clone)]
pub(crate) struct RequestRow {
    pub(crate) fingerprint: String,
    pub(crate) kind: String,
    pub(crate) id: Id,
}

/// A position in the feed. `tx` is 0 on SQLite, where positions alone are in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub(crate) tx: u64,
    pub(crate) position: i64,
}

/// Where a reader of the feed begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Now,
    /// Before the first event recorded at or after this time.
    Since(Timestamp),
}

/// An event of the feed.
#[derive(Debug, Clone)]
pub(crate) struct FeedRow {
    pub(crate) position: Position,
    pub(crate) kind: String,
    pub(crate) id: Id,
    pub(crate) event: EventRow,
    pub(crate) correlation: String,
    pub(crate) service: String,
    pub(crate) environment: String,
}
