//! The catalog in force, read again when its file changes.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use deploy_domain::{
    catalog::{Catalog, Configured},
    plan::Plan,
};
use tokio_util::sync::CancellationToken;

use crate::config::catalog::{self, CatalogReadError};

/// How often the file's time and size are checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gives everyone the catalog in force. Cheap to clone.
///
/// What a release or deployment needs from it is copied into its first event, so a later catalog does not change
/// anything in progress.
#[derive(Debug, Clone)]
pub struct CatalogStore {
    current: Arc<RwLock<Arc<Catalog>>>,
    path: Arc<Path>,
    /// The file's time and size when it was read last.
    seen: Arc<Mutex<Option<Stamp>>>,
    /// What it may name; anything if that is not known.
    configured: Option<Arc<Configured>>,
}

type Stamp = (SystemTime, u64);

/// What was looked up is not in the catalog.
#[derive(Debug)]
pub struct Miss<E> {
    pub error: E,
    /// Why the file, which may have it, is not in force.
    file: Option<CatalogReadError>,
}

impl<E: fmt::Display> fmt::Display for Miss<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match &self.file {
            Some(error) => write!(
                f,
                "; the catalog file cannot be used, and the one before it stays in force: {error}"
            ),
            None => Ok(()),
        }
    }
}

impl CatalogStore {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When there is no valid catalog at the start.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CatalogReadError> {
        let path = path.into();
        let catalog = catalog::read(&path)?;
        Ok(Self {
            current: Arc::new(RwLock::new(Arc::new(catalog))),
            path: path.into(),
            seen: Arc::default(),
            configured: None,
        })
    }

    /// Requires that this catalog, and each that is read later, names only what is configured.
    ///
    /// # Errors
    /// Each place that names something else.
    pub fn within(self, configured: Configured) -> Result<Self, CatalogReadError> {
        let store = Self {
            configured: Some(Arc::new(configured)),
            ..self
        };
        store.check(&store.current())?;
        Ok(store)
    }

    fn check(&self, catalog: &Catalog) -> Result<(), CatalogReadError> {
        match &self.configured {
            Some(configured) => catalog::check(&self.path, catalog, configured),
            None => Ok(()),
        }
    }

    /// A catalog without a file, which never changes.
    pub fn fixed(catalog: Catalog) -> Self {
        Self {
            current: Arc::new(RwLock::new(Arc::new(catalog))),
            path: Path::new("").into(),
            seen: Arc::default(),
            configured: None,
        }
    }

    /// The catalog in force. Hold it for one decision, not longer.
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What will keep a release of this plan from succeeding.
    pub fn warnings(&self, plan: &Plan) -> Vec<String> {
        let configured = self.configured.as_ref();
        configured.map_or_else(Vec::new, |configured| plan.warnings(configured))
    }

    /// Looks something up, in the file as it was saved last. A file that was saved a moment ago counts, also where its
    /// time and size do not show that it changed.
    ///
    /// # Errors
    /// What the look returns, after the file has been read once more.
    pub fn find<T, E>(&self, look: impl Fn(&Catalog) -> Result<T, E>) -> Result<T, Miss<E>> {
        self.read_if_changed();
        look(&self.current()).or_else(|error| {
            if self.path.as_os_str().is_empty() {
                return Err(Miss { error, file: None });
            }
            match self.reload() {
                Ok(true) => look(&self.current()).map_err(|error| Miss { error, file: None }),
                Ok(false) => Err(Miss { error, file: None }),
                Err(file) => Err(Miss {
                    error,
                    file: Some(file),
                }),
            }
        })
    }

    /// Reads the file again, and puts it into force if it is valid. Returns whether its content has changed.
    ///
    /// # Errors
    /// When the file is not a valid catalog, or names what the configuration does not have; the one in force stays.
    pub fn reload(&self) -> Result<bool, CatalogReadError> {
        let catalog = catalog::read(&self.path)?;
        self.check(&catalog)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.hash() != catalog.hash();
        if changed {
            *current = Arc::new(catalog);
        }
        Ok(changed)
    }

    /// Reads the file whenever its time or size changes, until `shutdown`.
    pub async fn follow(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => self.read_if_changed(),
            }
        }
    }

    /// A file that cannot be used is logged once, and the catalog before it stays in force.
    fn read_if_changed(&self) {
        let now = self.stamp();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if now == *seen {
                return;
            }
            *seen = now;
        }
        match self.reload() {
            Ok(true) => tracing::info!(catalog = self.current().hash(), "catalog reloaded"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the catalog was not reloaded: the previous one stays in force");
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}
