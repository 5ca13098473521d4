//! The feed: all events of the database in one order, for the relay and for event streams.
//!
//! A reader must never see an event and later find another one slipped in before it. Positions are drawn when a row is
//! inserted, but rows become visible when their transaction commits, which may be in a different order. So on
//! PostgreSQL every event keeps the id of its transaction, the feed is ordered by (transaction, position), and shows
//! only transactions below the oldest one still running (`pg_snapshot_xmin`): a transaction that commits late is waited
//! for, not skipped. On SQLite there is one writer, and positions alone are in commit order.
//!
//! This replaces a `published_seq` on each aggregate: publishing does not need an update per event, and any number of
//! readers keep their own cursor. The price: one long-running writer anywhere in the same PostgreSQL cluster holds the
//! feed back. It delays publication but does not lose any; and since facts are only hints, timers go on meanwhile.

use std::{collections::VecDeque, time::Duration};

use futures::{Stream, stream};
use tokio::sync::watch;

use crate::{
    FeedFilter, FeedItem, Ledger, LedgerError, StoredEvent,
    load::{actor, traceparent},
    rows::{FeedRow, Position, Start},
    store::Result,
    types::Key,
};

/// Events read at a time.
const PAGE: u32 = 256;
/// Anything that notifications miss, or that a late transaction held back, is noticed after this time.
const POLL: Duration = Duration::from_secs(1);

/// The text form of a position: `<transaction>.<position>`.
pub(crate) fn cursor(position: Position) -> String {
    format!("{}.{}", position.tx, position.position)
}

fn parse(text: &str) -> Result<From> {
    let invalid = || LedgerError::Cursor(text.chars().take(60).collect());
    match text {
        "" => Ok(From::Position(Position::default())),
        "now" => Ok(From::Now),
        _ => {
            let (tx, position) = text.split_once('.').ok_or_else(invalid)?;
            let position = Position {
                tx: tx.parse().map_err(|_| invalid())?,
                position: position.parse().map_err(|_| invalid())?,
            };
            Ok(From::Position(position))
        }
    }
}

#[derive(Clone, Copy)]
enum From {
    Now,
    Position(Position),
}

struct Reading {
    ledger: Ledger,
    filter: FeedFilter,
    from: From,
    /// Known once the first read succeeded.
    position: Option<Position>,
    buffer: VecDeque<FeedItem>,
    ticks: watch::Receiver<u64>,
    ended: bool,
}

impl Ledger {
    /// The events in commit order from `cursor` on, then each new one as it comes. `""` is the beginning, `"now"` the
    /// moment at which the stream is first polled. Ends by itself only after an error.
    ///
    /// # Errors
    /// [`LedgerError::Cursor`] when the cursor does not belong to this feed.
    pub fn feed(
        &self,
        cursor: &str,
        filter: FeedFilter,
    ) -> Result<impl Stream<Item = Result<FeedItem>> + Send + use<> + 'static> {
        let start = Reading {
            from: parse(cursor)?,
            ledger: self.clone(),
            filter,
            position: None,
            buffer: VecDeque::new(),
            ticks: self.shared.hub.ticks(),
            ended: false,
        };
        Ok(stream::unfold(start, |mut reading| async move {
            let item = reading.next().await?;
            Some((item, reading))
        }))
    }
}

impl Reading {
    async fn next(&mut self) -> Option<Result<FeedItem>> {
        while !self.ended {
            if let Some(item) = self.buffer.pop_front() {
                return Some(Ok(item));
            }
            self.ticks.mark_unchanged();
            match self.read().await {
                Ok(0) => {
                    // Whether woken by a tick or by time, the next read shows.
                    let _ = tokio::time::timeout(POLL, self.ticks.changed()).await;
                }
                Ok(_) => {}
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "a feed waits for the database");
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    async fn read(&mut self) -> Result<usize> {
        let store = &self.ledger.shared.store;
        let position = match (self.position, self.from) {
            (Some(position), _) => position,
            (None, From::Now) => store.feed_start(Start::Now).await?,
            (None, From::Position(position)) => store.feed_resume(position).await?,
        };
        self.position = Some(position);
        let rows = store.feed(position, PAGE).await?;
        let count = rows.len();
        for row in rows {
            self.position = Some(row.position);
            let cursor = cursor(row.position);
            let event = stored(row)?;
            if self.filter.takes(&event) {
                self.buffer.push_back(FeedItem { cursor, event });
            }
        }
        Ok(count)
    }
}

/// A row as it is published.
pub(crate) fn stored(row: FeedRow) -> Result<StoredEvent> {
    let key = Key::new(&row.kind, &row.id);
    Ok(StoredEvent {
        actor: actor(&key, &row.event)?,
        traceparent: traceparent(&row.event),
        kind: row.kind,
        id: row.id,
        seq: row.event.seq,
        event_type: row.event.event_type,
        data: row.event.data,
        correlation: row.correlation,
        service: row.service,
        environment: row.environment,
        at: row.event.at,
    })
}

#[cfg(test)]
mod tests {
    use super::{From, cursor, parse};
    use crate::rows::Position;

    #[test]
    fn cursors_read_back() {
        let position = Position {
            tx: 771,
            position: 42,
        };
        assert_eq!(cursor(position), "771.42");
        assert!(matches!(parse("771.42").unwrap(), From::Position(found) if found == position));
        assert!(matches!(parse("now").unwrap(), From::Now));
        for bad in ["x", "1", "1.", ".1", "1.2.3", "-1.2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
