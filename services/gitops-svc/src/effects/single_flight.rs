//! Single flight: one run for many calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use slipway_model::Id;

/// Calls that ask for the same thing at about the same time, for which one run is enough: a run that began after a call
/// was made counts for that call.
#[derive(Debug, Default)]
pub(crate) struct SingleFlight(Mutex<HashMap<Id, Arc<Calls>>>);

#[derive(Debug, Default)]
struct Calls {
    /// How many calls there were.
    made: AtomicU64,
    /// How many of them there were when the last run that succeeded began.
    served: AtomicU64,
    turn: tokio::sync::Mutex<()>,
}

impl SingleFlight {
    /// Runs `act`, unless another call starts its own run after this call was made.
    ///
    /// # Errors
    /// Those of `act`; other calls then run their own.
    pub(crate) async fn once<E>(&self, id: &Id, act: impl AsyncFnOnce() -> Result<(), E>) -> Result<(), E> {
        let calls = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(id.clone()).or_default())
        };
        let mine = calls.made.fetch_add(1, Ordering::SeqCst) + 1;
        let _turn = calls.turn.lock().await;
        if calls.served.load(Ordering::SeqCst) >= mine {
            return Ok(());
        }
        let all = calls.made.load(Ordering::SeqCst);
        act().await?;
        calls.served.store(all, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::SingleFlight;

    #[tokio::test]
    async fn a_run_that_began_after_the_call_counts() {
        let (flights, id) = (SingleFlight::default(), "br-1".parse().unwrap());
        let done = AtomicUsize::new(0);
        let act = async || {
            tokio::task::yield_now().await;
            done.fetch_add(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        };
        futures::future::join_all((0..64).map(|_| flights.once(&id, act))).await;
        // Those that came while the first was running share the second.
        assert!(done.load(Ordering::SeqCst) <= 2, "{done:?}");
        flights.once(&id, act).await.unwrap();
        assert!(done.load(Ordering::SeqCst) >= 2);
        let before = done.load(Ordering::SeqCst);
        flights.once(&id, async || Err(())).await.unwrap_err();
        flights.once(&id, act).await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), before + 1);
    }
}
