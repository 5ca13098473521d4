//! Test hooks that kill this very process at a chosen moment, as `kill -9` would.
//!
//! Only in builds with debug assertions or the feature `enabled`; elsewhere they cost nothing and do nothing.
//! - `SLIPWAY_FAULT_KILL_AFTER_APPEND=n`: right after the n-th append that this process committed.
//! - `SLIPWAY_FAULT_KILL_AT=name:n`: when [`point`] is passed for the n-th time with that name.
//!
//! Both are read once, on first use.

/// Marks a moment around a call to a remote system, such as `gitops.push.before`.
pub fn point(name: &str) {
    #[cfg(any(debug_assertions, feature = "enabled"))]
    armed::point(name);
    #[cfg(not(any(debug_assertions, feature = "enabled")))]
    let _ = name;
}

/// Counts `appends` that were just committed.
pub fn appended(appends: u64) {
    #[cfg(any(debug_assertions, feature = "enabled"))]
    armed::appended(appends);
    #[cfg(not(any(debug_assertions, feature = "enabled")))]
    let _ = appends;
}

#[cfg(any(debug_assertions, feature = "enabled"))]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    struct Plan {
        after_append: Option<u64>,
        at: Option<(String, u64)>,
    }

    static PLAN: OnceLock<Plan> = OnceLock::new();
    static APPENDS: AtomicU64 = AtomicU64::new(0);
    static PASSES: AtomicU64 = AtomicU64::new(0);

    fn plan() -> &'static Plan {
        PLAN.get_or_init(|| Plan {
            after_append: std::env::var("SLIPWAY_FAULT_KILL_AFTER_APPEND")
                .ok()
                .and_then(|n| n.parse().ok()),
            at: std::env::var("SLIPWAY_FAULT_KILL_AT").ok().and_then(|text| {
                text.rsplit_once(':')
                    .and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)))
            }),
        })
    }

    /// Destructors do not run and buffers are not flushed.
    fn die(reason: &str) -> ! {
        eprintln!("fault: killing this process {reason}");
        std::process::abort()
    }

    pub(super) fn point(name: &str) {
        if let Some((wanted, count)) = &plan().at
            && wanted == name
            && PASSES.fetch_add(1, Ordering::SeqCst) + 1 == *count
        {
            die(&format!("at {name}"));
        }
    }

    pub(super) fn appended(appends: u64) {
        if let Some(limit) = plan().after_append {
            let before = APPENDS.fetch_add(appends, Ordering::SeqCst);
            if before < limit && before + appends >= limit {
                die(&format!("after append {limit}"));
            }
        }
    }
}
