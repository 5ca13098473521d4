//! Loading one aggregate: from memory, from its stored state, or from its events.

use std::sync::Arc;

use slipway_model::{Actor, TraceContext};

use crate::{Decider, LedgerError, cache::Cached, rows::EventRow, shared::Shared, store::Result, types::Key};

/// Events read at once when a history is read.
const HISTORY_PAGE: u32 = 1000;

/// Whether the state in memory may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// When it is at least at this seq.
    Cached(u64),
    Fresh,
}

impl Shared {
    /// The aggregate with its typed state, and whether it came from memory.
    pub(crate) async fn load<D: Decider>(
        &self,
        key: &Key,
        read: Read,
    ) -> Result<(Option<Arc<Cached>>, bool)> {
        let known = self.cache.get(key);
        if let (Some(known), Read::Cached(seq)) = (&known, read)
            && known.seq >= seq
        {
            return Ok((Some(Arc::clone(known)), true));
        }
        let known_seq = known
            .as_ref()
            .filter(|known| known.newer.is_none())
            .map_or(0, |known| known.seq);
        let Some(row) = self.store.load(key, known_seq).await? else {
            return Ok((None, false));
        };
        let (state, newer): (Arc<dyn std::any::Any + Send + Sync>, Option<u32>) = match (&row.state, known) {
            (None, Some(known)) if known.seq == row.seq => (Arc::clone(&known.state), None),
            (Some(text), _) if row.state_version == D::STATE_VERSION => {
                let state: D::State =
                    serde_json::from_str(text).map_err(|source| decode(key, row.seq, source))?;
                (Arc::new(state), None)
            }
            _ => {
                let newer = (row.state_version > D::STATE_VERSION).then_some(row.state_version);
                let state = self
                    .fold::<D>(key, row.seq)
                    .await
                    .map_err(|error| match (error, newer) {
                        // Events that only a newer binary can read.
                        (LedgerError::Decode { kind, id, .. }, Some(found)) => LedgerError::NewerVersion {
                            kind,
                            id,
                            found,
                            known: D::STATE_VERSION,
                        },
                        (error, _) => error,
                    })?;
                (Arc::new(state), newer)
            }
        };
        let loaded = Arc::new(Cached {
            seq: row.seq,
            head: row.head,
            created_at: row.created_at,
            updated_at: row.updated_at,
            parked: row.failing.parked(),
            retry: row.failing.retry(),
            traceparent: row.traceparent.and_then(|text| text.parse().ok()),
            newer,
            state,
        });
        self.cache.put(key, &loaded);
        Ok((Some(loaded), false))
    }

    /// The state at `seq`, rebuilt from the events.
    async fn fold<D: Decider>(&self, key: &Key, seq: u64) -> Result<D::State> {
        let mut state = D::State::default();
        for row in self.rows(key, 0).await?.iter().take_while(|row| row.seq <= seq) {
            let event: D::Event =
                serde_json::from_str(&row.data).map_err(|source| decode(key, row.seq, source))?;
            D::evolve(&mut state, &event, row.at);
        }
        Ok(state)
    }

    pub(crate) async fn rows(&self, key: &Key, after_seq: u64) -> Result<Vec<EventRow>> {
        let mut rows: Vec<EventRow> = Vec::new();
        loop {
            let after = rows.last().map_or(after_seq, |row| row.seq);
            let page = self.store.events(key, after, HISTORY_PAGE).await?;
            let last = page.len() < HISTORY_PAGE as usize;
            rows.extend(page);
            if last {
                return Ok(rows);
            }
        }
    }
}

pub(crate) fn decode(key: &Key, seq: u64, source: serde_json::Error) -> LedgerError {
    LedgerError::Decode {
        kind: key.kind.clone().into_owned(),
        id: key.id.clone(),
        seq,
        source,
    }
}

pub(crate) fn actor(key: &Key, row: &EventRow) -> Result<Actor> {
    serde_json::from_str(&row.actor).map_err(|source| decode(key, row.seq, source))
}

pub(crate) fn traceparent(row: &EventRow) -> Option<TraceContext> {
    row.traceparent.as_deref().and_then(|text| text.parse().ok())
}
