//! Keeps a mirror tidy, without delaying pushes.
//!
//! Each push and each fetch leaves a pack, and every lookup searches all of them. When there are many, and the
//! repository has been quiet for a moment, git merges them into one. git is killed with the service, and unfinished
//! work is done the next time; open files stay readable meanwhile.

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

/// After this many packs git is run. It checks by itself whether there is enough to do.
const ENOUGH: usize = 40;
/// How long there must have been no writes.
const QUIET: Duration = Duration::from_secs(2);
/// After this time even a repository that is never quiet is tidied.
const LONGEST: Duration = Duration::from_secs(30);

/// The maintenance of one mirror.
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
            // It is not known what earlier processes left.
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
