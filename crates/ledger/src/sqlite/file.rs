//! The database file: whether it can be written, and which process has it exclusively.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

/// Whether the file, or its folder if the file does not exist, can be written. Leaves nothing behind.
pub(super) fn check(path: &Path) -> io::Result<()> {
    if path.exists() {
        return File::options().append(true).open(path).map(drop);
    }
    let mut probe = path.as_os_str().to_owned();
    probe.push(".check");
    File::create(&probe).and_then(|_| fs::remove_file(&probe))
}

/// Opens the lock file and locks it exclusively if that works at once; otherwise waits until the process that is opening
/// the database is done.
pub(super) fn lock(path: &Path) -> io::Result<(File, bool)> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok((file, true)),
        Err(TryLockError::WouldBlock) => {
            file.lock_shared()?;
            Ok((file, false))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}
