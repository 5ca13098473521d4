//! How a supervisor gives an aggregate back: done, failed, or because the ledger itself is unreachable.

use std::time::Instant;

use slipway_model::{Reason, Retry};

use super::{
    codes, log_retry,
    supervisor::{GRACE, Supervisor, Work},
};
use crate::{Decider, LedgerError, cache::Cached, decision, hook::Hook, load::Read, store::Failed};

/// The maximum length of a failure message that is kept, in characters.
const MESSAGE: usize = 2000;

impl<D: Decider> Supervisor<'_, D> {
    /// Records that polls are served and, when nothing runs, gives the lease back.
    pub(super) async fn settle(
        &mut self,
        loaded: &Cached,
        state: &D::State,
        release: bool,
    ) -> Result<(), LedgerError> {
        let version = if release {
            self.held.begin_release()
        } else {
            Some(0)
        };
        let Some(version) = version else {
            return Ok(());
        };
        let schedule = decision::schedule::<D>(self.key, state, self.served);
        let settled = self
            .core
            .ledger
            .shared
            .store
            .settle(self.key, loaded.seq, &schedule, self.fault.as_ref(), release)
            .await;
        match settled {
            Ok(Some(settled)) => {
                self.served = None;
                if let Some(error) = self.fault.take() {
                    let retry = Retry {
                        error,
                        attempt: settled.faults,
                        next_time: settled.due_at,
                    };
                    log_retry(&self.key.kind, &self.key.id, &retry);
                }
                if let Some(at) = settled.due_at.filter(|_| release) {
                    Hook::due(&**self.core, at);
                }
                Ok(())
            }
            Ok(None) => {
                if release {
                    self.held.undo_release(version);
                }
                // There is an append that we have not heard of yet; if not, the lease is not ours.
                self.core.ledger.shared.cache.remove(self.key);
                let (now, _) = self.core.ledger.shared.load::<D>(self.key, Read::Fresh).await?;
                if now.is_none_or(|now| now.seq == loaded.seq)
                    && let Some(version) = self.held.renewable()
                {
                    self.held.lose(version);
                }
                Ok(())
            }
            Err(error) => {
                if release {
                    self.held.undo_release(version);
                }
                Err(error)
            }
        }
    }

    /// Gives the aggregate back with what went wrong: it becomes due again after a pause, or is parked.
    pub(super) async fn hand_back_failed(&mut self, attempts: u32) -> Result<(), LedgerError> {
        let error = self.error();
        let Some(version) = self.held.begin_release() else {
            return Ok(());
        };
        let pause = self.core.pause(attempts);
        match self
            .core
            .ledger
            .shared
            .store
            .fail(self.key, &error, pause, self.core.max_claims)
            .await
        {
            Ok(failed) => {
                self.failed.clear();
                self.core.ledger.shared.cache.remove(self.key);
                let (kind, id) = (&self.key.kind, &self.key.id);
                match failed {
                    Some(Failed {
                        parked: true,
                        attempts,
                    }) => {
                        tracing::error!(%kind, %id, code = error.code, %error, attempt = attempts, "parked; resume it when the cause is fixed");
                    }
                    failed => {
                        let next = self.core.ledger.now() + pause;
                        let attempt = failed.map_or(attempts, |failed| failed.attempts);
                        let retry = Retry {
                            error,
                            attempt,
                            next_time: Some(next),
                        };
                        log_retry(kind, id, &retry);
                        Hook::due(&**self.core, next);
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.held.undo_release(version);
                Err(error)
            }
        }
    }

    /// All failures, with the code of the first.
    fn error(&self) -> Reason {
        let code = self.failed.values().next().map(|reason| reason.code.clone());
        let messages: Vec<String> = self
            .failed
            .iter()
            .map(|(work, reason)| format!("{work}: {reason}"))
            .collect();
        let message: String = messages.join("; ").chars().take(MESSAGE).collect();
        Reason::new(code.unwrap_or_default(), message)
    }

    /// The ledger itself failed: stop everything and hand the aggregate back, if that can be written.
    pub(super) async fn give_up(&mut self, error: &LedgerError) {
        tracing::warn!(kind = %self.key.kind, id = %self.key.id, code = codes::LEDGER, %error, "gave up an aggregate for now");
        self.cancel(|_| true);
        let deadline = Instant::now() + GRACE;
        while let Ok(Some(_)) = tokio::time::timeout(
            deadline.saturating_duration_since(Instant::now()),
            self.tasks.join_next(),
        )
        .await
        {}
        self.tasks.shutdown().await;
        self.running.clear();
        self.round = None;
        self.held.set_polls(0);
        let attempts = self.held.take().attempts;
        self.failed
            .insert(Work::Wake, Reason::new(codes::LEDGER, error.to_string()));
        if self.hand_back_failed(attempts).await.is_err()
            && let Some(version) = self.held.renewable()
        {
            // It becomes due again when the lease has lapsed.
            self.held.lose(version);
        }
    }
}
