//! Claiming what is due and keeping the leases on it.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use slipway_model::Timestamp;

use super::Core;

/// Anything that notifications miss is noticed after this time.
const GRID: Duration = Duration::from_secs(1);
/// Aggregates claimed at once.
const BATCH: usize = 32;

/// The executor's main task.
pub(super) async fn run(core: Arc<Core>) {
    for kind in core.kinds.values() {
        let (kind, ledger, stop) = (Arc::clone(kind), core.ledger.clone(), core.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                result = kind.refold(&ledger) => match result {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(kind = kind.name(), count, "states were folded again"),
                    Err(error) => tracing::warn!(kind = kind.name(), %error, "cannot fold all states again yet"),
                },
            }
        });
    }
    let renewal = tokio::spawn(renew(Arc::clone(&core)));
    loop {
        let pause = claim(&core).await;
        tokio::select! {
            () = core.stop.cancelled() => break,
            () = core.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    core.supervisors.close();
    core.supervisors.wait().await;
    renewal.abort();
}

/// Claims while there is room and something is due. Returns how long to wait before the next look.
async fn claim(core: &Arc<Core>) -> Duration {
    while !core.stop.is_cancelled() {
        let room = core.room.available_permits().min(BATCH);
        let Ok(mut permits) =
            Arc::clone(&core.room).try_acquire_many_owned(u32::try_from(room.max(1)).unwrap_or(1))
        else {
            // A supervisor that ends reports that there is room again.
            return GRID;
        };
        set_next(core, None);
        let claims = match core
            .ledger
            .shared
            .store
            .claim(&core.claimant, u32::try_from(permits.num_permits()).unwrap_or(1))
            .await
        {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(%error, "cannot claim what is due");
                return GRID;
            }
        };
        core.ledger.shared.clock.told(claims.now);
        let full = claims.claims.len() >= permits.num_permits();
        for claim in claims.claims {
            core.hold(claim.key, claim.attempts, true, permits.split(1));
        }
        drop(permits);
        if full {
            continue;
        }
        let next = set_next(core, claims.next_due);
        return next
            .map_or(GRID, |at| core.ledger.shared.clock.until(at).min(GRID))
            .max(Duration::from_millis(1));
    }
    GRID
}

/// Forgets or brings forward the next due time.
fn set_next(core: &Core, found: Option<Timestamp>) -> Option<Timestamp> {
    let mut next = core.next_due.lock().unwrap_or_else(PoisonError::into_inner);
    *next = match (found, *next) {
        (None, _) => None,
        (Some(found), Some(known)) => Some(found.min(known)),
        (found, None) => found,
    };
    *next
}

/// Renews all leases in one statement, three times per lease duration. What cannot be renewed is stopped: at once if
/// the database says so, or when the database has not answered for a whole lease.
async fn renew(core: Arc<Core>) {
    let lease = core.claimant.lease;
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(lease / 3).await;
        let held: Vec<_> = core
            .held()
            .iter()
            .filter_map(|(key, held)| Some((key.clone(), Arc::clone(held), held.renewable()?)))
            .collect();
        let asked = Instant::now();
        if held.is_empty() {
            renewed = asked;
            continue;
        }
        let keys: Vec<_> = held.iter().map(|(key, ..)| key.clone()).collect();
        let kept = match core.ledger.shared.store.renew(&keys, lease).await {
            Ok(kept) => {
                renewed = asked;
                kept
            }
            Err(error) => {
                tracing::warn!(%error, leases = keys.len(), "cannot renew leases");
                if renewed.elapsed() < lease {
                    continue;
                }
                Vec::new()
            }
        };
        let kept: std::collections::HashSet<_> = kept.into_iter().collect();
        for (key, held, version) in held {
            if !kept.contains(&key) {
                tracing::warn!(kind = %key.kind, id = %key.id, "lost the lease");
                held.lose(version);
            }
        }
    }
}
