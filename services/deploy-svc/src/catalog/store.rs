//! The catalog that is in force, read again when its file changes.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{Catalog, CatalogError, Configured, MAX_BYTES};

/// How often the file's time and size are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a catalog file gives no catalog.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{}: cannot read it: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: larger than {MAX_BYTES} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: {error}", path.display())]
    Catalog { path: PathBuf, error: CatalogError },
}

pub(super) fn read(path: &Path) -> Result<Catalog, Problem> {
    let io = |error| Problem::Io {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(io)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Problem::TooLarge {
            path: path.to_owned(),
        });
    }
    Catalog::parse(&text).map_err(|error| Problem::Catalog {
        path: path.to_owned(),
        error,
    })
}

/// Gives everyone the catalog in force. Cheap to clone.
///
/// What a release or deployment needs of it is copied into its first event, so a later catalog changes nothing that
/// is under way.
#[derive(Debug, Clone)]
pub struct CatalogStore {
    current: Arc<RwLock<Arc<Catalog>>>,
    path: Arc<Path>,
    /// What it may name; none where nobody said.
    configured: Option<Arc<Configured>>,
}

impl CatalogStore {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When there is no valid catalog to begin with.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Problem> {
        let path = path.into();
        let catalog = read(&path)?;
        Ok(Self {
            current: Arc::new(RwLock::new(Arc::new(catalog))),
            path: path.into(),
            configured: None,
        })
    }

    /// Asks of this catalog, and of each that is read later, that it names only what the configuration has.
    ///
    /// # Errors
    /// Each place that names something else.
    pub fn within(self, configured: Configured) -> Result<Self, Problem> {
        let store = Self {
            configured: Some(Arc::new(configured)),
            ..self
        };
        store.check(&store.current())?;
        Ok(store)
    }

    fn check(&self, catalog: &Catalog) -> Result<(), Problem> {
        let Some(configured) = &self.configured else {
            return Ok(());
        };
        configured.check(catalog).map_err(|error| Problem::Catalog {
            path: self.path.to_path_buf(),
            error,
        })
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

    /// Reads the file again, and puts it in force when it is valid. Tells whether its content is another one.
    ///
    /// # Errors
    /// When the file is no valid catalog, or names what the configuration does not have; the one in force stays.
    pub fn reload(&self) -> Result<bool, Problem> {
        let catalog = read(&self.path)?;
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
        // What changed between opening and now is found by the first look.
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
                Err(error) => tracing::error!(%error, "catalog not reloaded: the one before stays in force"),
            }
        }
    }

    fn stamp(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}
