//! A registered kind: where the types of its decider meet an executor that does not know them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Core, Effects, Held, supervisor::Supervisor};
use crate::{Decider, Ledger, LedgerError, types::Key};

/// A registered kind, whatever its type.
#[async_trait]
pub(super) trait Kind: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn version(&self) -> u32;
    async fn refold(&self, ledger: &Ledger) -> Result<u64, LedgerError>;
    /// Runs until the aggregate is not held any more.
    async fn supervise(&self, core: &Arc<Core>, key: &Key, held: &Held);
}

pub(super) struct Runner<D: Decider> {
    pub(super) handler: Arc<dyn Effects<D>>,
}

impl<D: Decider> fmt::Debug for Runner<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("kind", &D::KIND)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<D: Decider> Kind for Runner<D> {
    fn name(&self) -> &'static str {
        D::KIND
    }

    fn version(&self) -> u32 {
        D::STATE_VERSION
    }

    async fn refold(&self, ledger: &Ledger) -> Result<u64, LedgerError> {
        ledger.refold::<D>().await
    }

    async fn supervise(&self, core: &Arc<Core>, key: &Key, held: &Held) {
        let mut supervisor = Supervisor::<D>::new(core, key, held, &self.handler);
        loop {
            if let Err(error) = supervisor.run().await {
                supervisor.give_up(&error).await;
            }
            // Under the lock, so that news meets either this supervisor or none.
            let mut all = core.held();
            if held.may_end() || core.stop.is_cancelled() {
                all.remove(key);
                break;
            }
        }
        // Stored for the next holder.
        if (supervisor.hinted || held.leftover_hint())
            && let Err(error) = core.ledger.hint(&key.kind, &key.id).await
        {
            tracing::warn!(kind = %key.kind, id = %key.id, %error, "a hint was lost");
        }
    }
}
