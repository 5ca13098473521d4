//! Where the repository keeps the files that tests read.

use std::path::{Path, PathBuf};

/// The absolute path of a file or folder of `tests/data`, whose README says what is there.
///
/// # Panics
/// When there is no such file or folder.
pub fn data(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(name);
    path.canonicalize()
        .unwrap_or_else(|error| panic!("test data {}: {error}", path.display()))
}
