//! Reading aggregates: from memory, from the database, from their events.

use std::sync::Arc;

use slipway_model::{Actor, Id, TraceContext};

use crate::{
    Decider, Ledger, LedgerError, Recorded, Snapshot,
    cache::Cached,
    chain::{self, ChainError},
    decision::Decision,
    store::{Append, EventRow, Result},
    types::Key,
};

/// Events read at once when a history is read.
const HISTORY_PAGE: u32 = 1000;

/// Whether what is in memory may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// When it is at least at this seq.
    Cached(u64),
    Fresh,
}

impl Ledger {
    /// The aggregate as the database has it now.
    ///
    /// # Errors
    /// When the database cannot be read or this binary does not understand what is there.
    pub async fn get<D: Decider>(&self, id: &Id) -> Result<Option<Snapshot<D>>> {
        let key = Key::of::<D>(id);
        Ok(self
            .load::<D>(&key, Read::Fresh)
            .await?
            .0
            .map(|loaded| loaded.snapshot(&key)))
    }

    /// The aggregate with its typed state, and whether it came from memory.
    pub(crate) async fn load<D: Decider>(
        &self,
        key: &Key,
        read: Read,
    ) -> Result<(Option<Arc<Cached>>, bool)> {
        let known = self.shared.cache.get(key);
        if let (Some(known), Read::Cached(seq)) = (&known, read)
            && known.seq >= seq
        {
            return Ok((Some(Arc::clone(known)), true));
        }
        let known_seq = known
            .as_ref()
            .filter(|known| known.newer.is_none())
            .map_or(0, |known| known.seq);
        let Some(row) = self.shared.store.load(key, known_seq).await? else {
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
                        // Events that only a newer binary knows.
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
        self.shared.cache.put(key, &loaded);
        Ok((Some(loaded), false))
    }

    /// The state at `seq`, made from the events.
    async fn fold<D: Decider>(&self, key: &Key, seq: u64) -> Result<D::State> {
        let mut state = D::State::default();
        for row in self.rows(key, 0).await?.iter().take_while(|row| row.seq <= seq) {
            let event: D::Event =
                serde_json::from_str(&row.data).map_err(|source| decode(key, row.seq, source))?;
            D::evolve(&mut state, &event, row.at);
        }
        Ok(state)
    }

    async fn rows(&self, key: &Key, after_seq: u64) -> Result<Vec<EventRow>> {
        let mut rows: Vec<EventRow> = Vec::new();
        loop {
            let after = rows.last().map_or(after_seq, |row| row.seq);
            let page = self.shared.store.events(key, after, HISTORY_PAGE).await?;
            let last = page.len() < HISTORY_PAGE as usize;
            rows.extend(page);
            if last {
                return Ok(rows);
            }
        }
    }

    /// The events after `after_seq`, oldest first. Empty for an unknown id.
    ///
    /// # Errors
    /// When the database cannot be read or an event is not known to this binary.
    pub async fn history<D: Decider>(&self, id: &Id, after_seq: u64) -> Result<Vec<Recorded<D::Event>>> {
        let key = Key::of::<D>(id);
        let rows = self.rows(&key, after_seq).await?;
        rows.into_iter()
            .map(|row| {
                Ok(Recorded {
                    event: serde_json::from_str(&row.data).map_err(|source| decode(&key, row.seq, source))?,
                    actor: actor(&key, &row)?,
                    traceparent: traceparent(&row),
                    seq: row.seq,
                    at: row.at,
                })
            })
            .collect()
    }

    /// Checks the hash chain of one aggregate from its first event to its recorded head. `Ok(None)` for an unknown id.
    ///
    /// # Errors
    /// When the database cannot be read; what is wrong with the chain is the inner result.
    pub async fn verify(&self, kind: &str, id: &Id) -> Result<Option<std::result::Result<u64, ChainError>>> {
        let key = Key::new(kind, id);
        let Some(row) = self.shared.store.load(&key, 0).await? else {
            return Ok(None);
        };
        let mut rows = self.rows(&key, 0).await?;
        // What was appended between the two reads is not part of the question.
        rows.retain(|event| event.seq <= row.seq);
        Ok(Some(
            chain::verify(kind, id.as_str(), &rows, &row.head).map(|()| row.seq),
        ))
    }

    /// Folds aggregates that were written with an older state version again, and writes their state. Done for every
    /// registered kind when an executor starts; what is not reached yet is folded when it is loaded.
    ///
    /// # Errors
    /// When the database fails or an event cannot be read.
    pub async fn refold<D: Decider>(&self) -> Result<u64> {
        let (mut after, mut rewritten) = (None, 0);
        loop {
            let ids = self
                .shared
                .store
                .outdated(D::KIND, D::STATE_VERSION, after.as_ref(), HISTORY_PAGE)
                .await?;
            let Some(last) = ids.last().cloned() else {
                return Ok(rewritten);
            };
            for id in ids {
                let key = Key::of::<D>(&id);
                if let (Some(loaded), _) = self.load::<D>(&key, Read::Fresh).await? {
                    let append: Append = Decision::<D>::on(key, Some(loaded)).append(None)?;
                    rewritten += u64::from(self.shared.store.rewrite(&append).await?);
                }
            }
            after = Some(last);
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
