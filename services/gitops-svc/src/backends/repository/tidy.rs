//! Keeps a mirror in order, away from pushes.
//!
//! Each push and each fetch leaves a pack, and every look-up asks all of them. Once they are many, and the repository
//! has been quiet for a moment, git makes one of them. It is killed with the service, and what it had not finished is done
//! the next time; what is open meanwhile stays readable.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::git;

/// After so many packs git is asked. It looks for itself whether there is enough to do.
const ENOUGH: usize = 40;
/// Nothing was written for so long.
const QUIET: Duration = Duration::from_secs(2);
/// A repository that is never quiet is tidied all the same.
const LONGEST: Duration = Duration::from_secs(30);

/// The order of one mirror.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    written: Arc<Written>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Written {
    packs: AtomicUsize,
    more: Notify,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            // Who knows what those before us left.
            packs: AtomicUsize::new(ENOUGH),
            more: Notify::new(),
        }
    }
}

impl Tidy {
    /// A pack was written. Does not wait.
    pub(super) fn wrote(&self, mirror: &Path) {
        self.written.packs.fetch_add(1, Ordering::Relaxed);
        self.written.more.notify_one();
        self.task.get_or_init(|| {
            let (mirror, written) = (mirror.to_owned(), Arc::clone(&self.written));
            AbortOnDropHandle::new(tokio::spawn(keep(mirror, written)))
        });
    }
}

async fn keep(mirror: PathBuf, written: Arc<Written>) {
    loop {
        written.more.notified().await;
        if written.packs.load(Ordering::Relaxed) < ENOUGH {
            continue;
        }
        let since = Instant::now();
        while since.elapsed() < LONGEST && tokio::time::timeout(QUIET, written.more.notified()).await.is_ok()
        {
        }
        written.packs.store(0, Ordering::Relaxed);
        if let Err(fault) = git::tidy(&mirror).await {
            let code = &fault.error().code;
            tracing::warn!(mirror = %mirror.display(), code, error = %fault, "the mirror could not be tidied");
        }
    }
}
