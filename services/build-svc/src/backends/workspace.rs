//! Scratch space on this machine: a folder for each attempt, and the images that are built but not yet pushed.
//!
//! ```text
//! ROOT/run-<random>/lock            held as long as the process lives
//! ROOT/run-<random>/attempt-<id>/   one attempt: git, tree, the builder's storage; `group` holds its process group
//! ROOT/images/<build id>/           an OCI image layout with the built image; complete, since it is renamed to here
//! ```
//! After a crash the next process on the machine finds the runs whose lock is free, kills the rest of their process
//! groups and removes them. Images stay: a build that was interrupted before its push was recorded resumes without
//! building again.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use slipway_model::Id;
use tempfile::TempDir;

const LOCK: &str = "lock";
/// The file in an attempt's folder that holds the id of its process group.
const GROUP: &str = "group";

/// The scratch space of this process. Cheap to clone; removed when the last clone goes.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    images: PathBuf,
    run: Arc<Run>,
}

#[derive(Debug)]
struct Run {
    folder: TempDir,
    _lock: File,
}

impl Workspace {
    /// Opens the space under `root` and removes the runs of dead processes.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let images = root.join("images");
        fs::create_dir_all(&images)?;
        let root = root.canonicalize()?;
        reap(&root)?;
        loop {
            let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&root)?;
            let path = folder.path().join(LOCK);
            let lock = File::create(&path)?;
            lock.lock()?;
            // Between its creation and the lock, another process may have removed it as a dead one's.
            if path.exists() {
                return Ok(Self {
                    images: root.join("images"),
                    run: Arc::new(Run { folder, _lock: lock }),
                });
            }
        }
    }

    /// A new folder for one attempt; removed when dropped.
    pub(crate) fn attempt(&self, id: &Id) -> io::Result<Attempt> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("attempt-{}-", encoded(id)))
            .tempdir_in(self.run.folder.path())?;
        Ok(Attempt { folder })
    }

    /// Where the finished image of a build is, or is to be.
    pub(crate) fn image(&self, id: &Id) -> PathBuf {
        self.images.join(encoded(id))
    }

    /// Moves a finished image to its place. One that is there already stays: both are complete.
    pub(crate) fn keep_image(&self, id: &Id, from: &Path) -> io::Result<PathBuf> {
        let to = self.image(id);
        match fs::rename(from, &to) {
            Ok(()) => Ok(to),
            Err(_) if to.join("index.json").is_file() => Ok(to),
            Err(error) => Err(error),
        }
    }

    /// Removes the image of an ended build.
    pub(crate) fn forget_image(&self, id: &Id) {
        if let Err(error) = fs::remove_dir_all(self.image(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, build = %id, "image of an ended build not removed");
        }
    }

    /// The builds whose images are still here.
    pub(crate) fn images(&self) -> io::Result<Vec<Id>> {
        let entries = fs::read_dir(&self.images)?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries
            .iter()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }
}

/// The folder of one attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    folder: TempDir,
}

impl Attempt {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Creates a folder in it.
    pub(crate) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Creates a file in it that only this service's user can read.
    pub(crate) fn private_file(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.as_bytes())?;
        Ok(path)
    }

    /// Where the process group's id is to be written.
    pub(crate) fn group_file(&self) -> PathBuf {
        self.folder.path().join(GROUP)
    }
}

/// Ids are printable ASCII; slashes and dots could lead out of the folder.
fn encoded(id: &Id) -> String {
    id.as_str().replace(['/', '.'], "_")
}

fn reap(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let run = entry?.path();
        let is_run = run
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("run-"));
        if !is_run || !run.is_dir() {
            continue;
        }
        let lock = match File::open(run.join(LOCK)) {
            Ok(lock) => lock,
            // Another process is creating it, or died while doing so; an empty folder costs nothing.
            Err(_) => continue,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        for attempt in fs::read_dir(&run)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
        {
            kill_group(&attempt);
        }
        tracing::info!(folder = %run.display(), "removing the leftovers of a dead process");
        remove(&run);
    }
    Ok(())
}

/// Kills the process group of an attempt if a member still works in the attempt's folder: group ids are reused.
fn kill_group(attempt: &Path) {
    let Some(group) = fs::read_to_string(attempt.join(GROUP))
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
    else {
        return;
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    let ours = processes
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .any(|process| {
            group_of(&process) == Some(group)
                && ["cwd", "root"]
                    .iter()
                    .any(|link| fs::read_link(process.join(link)).is_ok_and(|to| to.starts_with(attempt)))
        });
    if ours && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL) {
        tracing::warn!(%error, group, "process group of a dead attempt not killed");
    }
}

/// The process group in `/proc/<pid>/stat`: the third field after the name, which is in parentheses.
fn group_of(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// Removes a folder, with retries: a process that was just killed may still be writing to it.
fn remove(folder: &Path) {
    for _ in 0..20 {
        match fs::remove_dir_all(folder) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(25)),
        }
    }
    tracing::warn!(folder = %folder.display(), "leftovers of a dead process not removed");
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn a_dead_run_is_reaped_and_a_living_one_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let living = Workspace::open(root.path()).unwrap();
        let mine = living.attempt(&"bld-1".parse().unwrap()).unwrap();
        // A run whose process died: its lock is free, its child goes on.
        let dead = root.path().canonicalize().unwrap().join("run-dead");
        let attempt = dead.join("attempt-x");
        fs::create_dir_all(&attempt).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        let mut child = Command::new("sleep")
            .arg("1000")
            .current_dir(&attempt)
            .process_group(0)
            .spawn()
            .unwrap();
        fs::write(attempt.join(GROUP), format!("{}\n", child.id())).unwrap();
        let _second = Workspace::open(root.path()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!dead.exists());
        assert!(mine.path().exists());
    }

    #[test]
    fn a_group_that_is_not_ours_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let attempt = root.path().join("run-dead/attempt-x");
        fs::create_dir_all(&attempt).unwrap();
        File::create(root.path().join("run-dead").join(LOCK)).unwrap();
        let mut child = Command::new("sleep")
            .arg("1000")
            .current_dir("/")
            .process_group(0)
            .spawn()
            .unwrap();
        fs::write(attempt.join(GROUP), format!("{}\n", child.id())).unwrap();
        drop(Workspace::open(root.path()).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            fs::read_dir(root.path()).unwrap().count(),
            1,
            "only the images folder stays"
        );
    }

    #[test]
    fn images_are_kept_until_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let id: Id = "bld-1".parse().unwrap();
        let space = Workspace::open(root.path()).unwrap();
        for _ in 0..2 {
            let attempt = space.attempt(&id).unwrap();
            let image = attempt.folder("image").unwrap();
            fs::write(image.join("index.json"), "{}").unwrap();
            assert_eq!(space.keep_image(&id, &image).unwrap(), space.image(&id));
        }
        assert_eq!(space.images().unwrap(), std::slice::from_ref(&id));
        space.forget_image(&id);
        assert!(space.images().unwrap().is_empty());
    }
}
