//! Reading aggregates and their histories.

use slipway_model::Id;

use crate::{
    Decider, Ledger, Recorded, Snapshot,
    chain::{self, ChainError},
    decision::Decision,
    load::{Read, actor, decode, traceparent},
    store::{Append, Result},
    types::Key,
};

/// Aggregates of an older state version that are fetched at a time.
const REFOLD_PAGE: u32 = 1000;

impl Ledger {
    /// The aggregate as the database has it now.
    ///
    /// # Errors
    /// When the database cannot be read or this binary does not understand what is there.
    pub async fn get<D: Decider>(&self, id: &Id) -> Result<Option<Snapshot<D>>> {
        let key = Key::of::<D>(id);
        Ok(self
            .shared
            .load::<D>(&key, Read::Fresh)
            .await?
            .0
            .map(|loaded| loaded.snapshot(&key)))
    }

    /// The events after `after_seq`, oldest first. Empty for an unknown id.
    ///
    /// # Errors
    /// When the database cannot be read or an event is not known to this binary.
    pub async fn history<D: Decider>(&self, id: &Id, after_seq: u64) -> Result<Vec<Recorded<D::Event>>> {
        let key = Key::of::<D>(id);
        let rows = self.shared.rows(&key, after_seq).await?;
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
        let mut rows = self.shared.rows(&key, 0).await?;
        // What was appended between the two reads does not matter here.
        rows.retain(|event| event.seq <= row.seq);
        Ok(Some(
            chain::verify(kind, id.as_str(), &rows, &row.head).map(|()| row.seq),
        ))
    }

    /// Rebuilds the state of aggregates that were written with an older state version, and writes it. Done for every
    /// registered kind when an executor starts; what is not reached yet is rebuilt when it is loaded.
    ///
    /// # Errors
    /// When the database fails or an event cannot be read.
    pub async fn refold<D: Decider>(&self) -> Result<u64> {
        let (mut after, mut rewritten) = (None, 0);
        loop {
            let ids = self
                .shared
                .store
                .outdated(D::KIND, D::STATE_VERSION, after.as_ref(), REFOLD_PAGE)
                .await?;
            let Some(last) = ids.last().cloned() else {
                return Ok(rewritten);
            };
            for id in ids {
                let key = Key::of::<D>(&id);
                if let (Some(loaded), _) = self.shared.load::<D>(&key, Read::Fresh).await? {
                    let append: Append = Decision::<D>::on(key, Some(loaded)).append(None)?;
                    rewritten += u64::from(self.shared.store.rewrite(&append).await?);
                }
            }
            after = Some(last);
        }
    }
}
