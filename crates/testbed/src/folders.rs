//! Folders of this test process, and the removal of those left by dead processes.
//!
//! `$TMPDIR/slipway-testbed-<uid>/<run>` holds what one process writes; `<run>.lock` next to it is locked for as long
//! as that process lives, so a lock that can be taken marks a folder to remove. Process ids would be reused; locks are
//! not.

use std::{
    env,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{Error, Result};

/// Others may traverse it, since PostgreSQL runs as another user when the tests run as root; they cannot list it.
const PASSABLE: u32 = 0o711;

/// A folder of its own, removed when dropped.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// A new, empty folder whose name starts with `name`.
    ///
    /// # Errors
    /// When the system's folder for temporary files cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let path = run_folder()?.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        make(&path, 0o700)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

struct Run {
    folder: PathBuf,
    /// Held, never read: it tells other processes that this one lives.
    _lock: File,
}

fn run_folder() -> Result<PathBuf> {
    static RUN: Mutex<Option<Run>> = Mutex::new(None);
    let mut run = RUN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(run) = &*run {
        return Ok(run.folder.clone());
    }
    let base = base()?;
    scrub(&base)?;
    Ok(run.insert(begin(&base)?).folder.clone())
}

/// The folder that all runs of this user share; also holds what outlives a run.
pub(crate) fn base() -> Result<PathBuf> {
    let uid = nix::unistd::geteuid();
    let base = env::temp_dir().join(format!("slipway-testbed-{uid}"));
    match make(&base, PASSABLE) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    // In a world-writable folder, the name alone says nothing about who created it.
    let found = base
        .symlink_metadata()
        .map_err(Error::io(format!("cannot look at {}", base.display())))?;
    if !found.is_dir() || found.uid() != uid.as_raw() {
        return Err(Error::NotOurs(base));
    }
    Ok(base)
}

fn begin(base: &Path) -> Result<Run> {
    loop {
        let name = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = base.join(format!("{name}.lock"));
        let lock = File::create_new(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
        lock.lock()
            .map_err(Error::io(format!("cannot lock {}", path.display())))?;
        // Another process may have removed it between its creation and the lock.
        if path.exists() {
            let folder = base.join(name);
            make(&folder, PASSABLE)?;
            return Ok(Run { folder, _lock: lock });
        }
    }
}

fn scrub(base: &Path) -> Result<()> {
    let entries = fs::read_dir(base).map_err(Error::io(format!("cannot list {}", base.display())))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(lock) = File::open(&path) else { continue };
        match lock.try_lock() {
            Ok(()) => {
                // A server of the dead run may still be writing; then the next run removes the rest.
                let folder = path.with_extension("");
                if !folder.exists() || fs::remove_dir_all(&folder).is_ok() {
                    let _ = fs::remove_file(&path);
                }
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

fn make(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(Error::io(format!("cannot create {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrub_takes_the_dead_and_leaves_the_living() {
        let base = TestDir::new("scrub").unwrap();
        let living = begin(base.path()).unwrap();
        let dead = begin(base.path()).unwrap();
        let remains = dead.folder.clone();
        fs::write(remains.join("file"), "x").unwrap();
        drop(dead);

        scrub(base.path()).unwrap();

        assert!(living.folder.exists());
        assert!(!remains.exists());
        assert!(!remains.with_extension("lock").exists());
    }

    #[test]
    fn a_folder_goes_when_it_is_dropped() {
        let folder = TestDir::new("gone").unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
