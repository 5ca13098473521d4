//! The catalog in force, read again when its file changes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use deploy_domain::catalog::{Catalog, Configured};
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
    /// What it may name; anything if that is not known.
    configured: Option<Arc<Configured>>,
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
            configured: None,
        }
    }

    /// The catalog in force. Hold it for one decision, not longer.
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
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

    /// Reloads whenever the file's time or size changes, until `shutdown`. A bad file is logged once and the old
    /// catalog stays in force.
    pub async fn follow(self, shutdown: CancellationToken) {
        // A change between opening and now is found by the first check.
        let mut seen = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let now = self.stamp();
            if now == seen {
                continue;
            }
            seen = now;
            match self.reload() {
                Ok(true) => tracing::info!(catalog = self.current().hash(), "catalog reloaded"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the catalog was not reloaded: the previous one stays in force")
                }
            }
        }
    }

    fn stamp(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}
