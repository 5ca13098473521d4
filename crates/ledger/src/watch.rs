//! Watching one aggregate: its state now, then each later one.

use std::time::Duration;

use futures::{Stream, stream};
use slipway_model::Id;

use crate::{Decider, Ledger, Snapshot, hub::Interest, load::Read, store::Result, types::Key};

/// Anything that notifications miss is noticed after this time.
const POLL: Duration = Duration::from_secs(1);

struct Watching {
    ledger: Ledger,
    key: Key,
    interest: Interest,
    /// The last seq that was shown.
    shown: Option<u64>,
    /// The code of what was reported as being retried, or parked.
    told: Option<String>,
    read: Read,
    ended: bool,
}

impl Ledger {
    /// The state now, then each later one; states in between may be left out. The same state is shown again when the
    /// executor starts to retry something, for another reason, or stops retrying. Ends after a final state. With
    /// `after_seq`, the first one is left out when it is not newer and all is well. An id that does not exist yet is
    /// waited for.
    ///
    /// Ends with an error when this binary cannot read the aggregate; a database that is unreachable is waited for.
    pub fn watch<D: Decider>(
        &self,
        id: &Id,
        after_seq: Option<u64>,
    ) -> impl Stream<Item = Result<Snapshot<D>>> + Send + use<D> + 'static {
        let key = Key::of::<D>(id);
        let start = Watching {
            interest: self.shared.hub.watch(key.clone()),
            ledger: self.clone(),
            key,
            shown: after_seq,
            told: None,
            read: Read::Fresh,
            ended: false,
        };
        stream::unfold(start, |mut watching| async move {
            let item = watching.next::<D>().await?;
            Some((item, watching))
        })
    }
}

impl Watching {
    async fn next<D: Decider>(&mut self) -> Option<Result<Snapshot<D>>> {
        if self.ended {
            return None;
        }
        loop {
            match self.ledger.shared.load::<D>(&self.key, self.read).await {
                Ok((Some(loaded), _)) => {
                    self.ended = D::is_final(&loaded.state::<D>());
                    let fault = loaded.fault().map(|reason| &reason.code);
                    if self.shown.is_none_or(|shown| loaded.seq > shown) || fault != self.told.as_ref() {
                        self.shown = Some(loaded.seq);
                        self.told = fault.cloned();
                        return Some(Ok(loaded.snapshot(&self.key)));
                    }
                    if self.ended {
                        return None;
                    }
                }
                Ok((None, _)) => {}
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, kind = %self.key.kind, id = %self.key.id, "a watch waits for the database");
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            self.read = match tokio::time::timeout(POLL, self.interest.changed()).await {
                Ok(()) => Read::Cached(self.interest.latest()),
                Err(_) => Read::Fresh,
            };
        }
    }
}
