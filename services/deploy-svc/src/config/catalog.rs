//! The catalog file that the configuration names.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use deploy_domain::catalog::{Catalog, CatalogError, Configured, MAX_BYTES};

/// Why a file does not contain a catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogReadError {
    #[error("{}: cannot read it: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Catalog { path: PathBuf, error: CatalogError },
}

impl CatalogReadError {
    fn of(path: &Path) -> impl FnOnce(CatalogError) -> Self {
        |error| Self::Catalog {
            path: path.to_owned(),
            error,
        }
    }
}

/// Reads and checks a catalog file of at most [`MAX_BYTES`].
///
/// # Errors
/// When the file cannot be read or is not a catalog; the path is named.
pub(crate) fn read(path: &Path) -> Result<Catalog, CatalogReadError> {
    let io = |error| CatalogReadError::Io {
        path: path.to_owned(),
        error,
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(io)?;
    // One byte more than is accepted, so that a larger file is detected.
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() > MAX_BYTES {
        return Err(CatalogReadError::of(path)(CatalogError::TooLarge));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| io(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
    Catalog::parse(&text).map_err(CatalogReadError::of(path))
}

/// Checks that the catalog of this file names only what is configured.
///
/// # Errors
/// Each place that names something else.
pub(crate) fn check(path: &Path, catalog: &Catalog, configured: &Configured) -> Result<(), CatalogReadError> {
    configured.check(catalog).map_err(CatalogReadError::of(path))
}
