//! The local files that `slipway gitops edit` reads and writes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Component, Path, PathBuf},
};

use slipway_edit::{MAX_FILE_BYTES, Read, Source};

use crate::failure::Failure;

/// A folder, and everything below it that is not reached through a symbolic link.
#[derive(Debug)]
pub(crate) struct WorkingCopy {
    root: PathBuf,
    /// What was read, by path from the root.
    seen: RefCell<BTreeMap<String, String>>,
}

impl WorkingCopy {
    /// The root of `files`: `root` if given; the git working copy that contains them; the current folder if they are in
    /// it; otherwise their deepest common folder.
    pub(crate) fn open(files: &[PathBuf], root: Option<&Path>) -> Result<Self, Failure> {
        let root = match root {
            Some(root) => fs::canonicalize(root).map_err(|error| unreadable(root, &error))?,
            None => common_root(files)?,
        };
        Ok(Self {
            root,
            seen: RefCell::default(),
        })
    }

    /// The path of a file from the root, with `/`; empty for the root itself.
    pub(crate) fn relative(&self, file: &Path) -> Result<String, Failure> {
        let outside = || {
            Failure::new(format!("{} is not in {}", file.display(), self.root.display()))
                .next("give files of one repository at a time, or their common folder with --root")
        };
        let cleaned = cleaned(file)?;
        // The root as written in the given path: the path to it may go through a symbolic link, the path below it may
        // not.
        let named_root = cleaned
            .ancestors()
            .find(|folder| fs::canonicalize(folder).is_ok_and(|folder| folder == self.root));
        let below = named_root.and_then(|root| cleaned.strip_prefix(root).ok());
        let parts = below.ok_or_else(outside)?.iter().map(|part| part.to_str());
        let parts: Option<Vec<&str>> = parts.collect();
        let parts = parts.ok_or_else(|| Failure::new(format!("{} is not UTF-8", file.display())))?;
        Ok(parts.join("/"))
    }

    /// A file as it was when it was read.
    pub(crate) fn before(&self, path: &str) -> String {
        self.seen.borrow().get(path).cloned().unwrap_or_default()
    }

    /// Replaces the old texts with new ones, each file completely or not at all. Nothing is written if any of them
    /// cannot be prepared, or was changed since it was read.
    pub(crate) fn write(&self, files: &BTreeMap<String, String>) -> Result<(), Failure> {
        let mut prepared = Vec::with_capacity(files.len());
        for (path, text) in files {
            let target = self.root.join(path);
            if fs::read(&target)? != self.before(path).as_bytes() {
                let message =
                    format!("{path}: was changed by another program meanwhile; nothing was written");
                return Err(Failure::new(message).next("run it again"));
            }
            let file = prepare(&target, text).map_err(|error| {
                Failure::new(format!("{path}: cannot be written: {error}; nothing was written"))
                    .next("check the permissions of the file's folder, and the free space on its disk")
            })?;
            prepared.push((path, target, file));
        }
        for (done, (path, target, file)) in prepared.into_iter().enumerate() {
            file.persist(&target).map_err(|error| {
                let all = files.len();
                Failure::new(format!(
                    "{path}: {}; {done} of {all} files were written",
                    error.error
                ))
                .next("run it again: files that are already written stay unchanged")
            })?;
        }
        Ok(())
    }
}

/// The new text in a temporary file next to the old one, with its owner and permissions.
fn prepare(target: &Path, text: &str) -> io::Result<tempfile::NamedTempFile> {
    let metadata = fs::symlink_metadata(target)?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".slipway-edit-")
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    let made = file.as_file().metadata()?;
    if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
        // Only root may give files away; a file edited by another user then belongs to that user, as with every editor.
        let _ = fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()));
    }
    // After the owner, since changing that clears special bits.
    file.as_file().set_permissions(metadata.permissions())?;
    file.as_file().sync_all()?;
    Ok(file)
}

impl Source for WorkingCopy {
    type Error = Failure;

    fn read(&self, path: &str) -> Result<Read, Failure> {
        if let Some(text) = self.seen.borrow().get(path) {
            return Ok(Read::Text(text.clone()));
        }
        let mut at = self.root.clone();
        let mut found = fs::symlink_metadata(&at).map_err(|error| unreadable(&at, &error))?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if matches!(part, "." | "..") {
                return Ok(Read::Unfit("is outside the root folder".to_owned()));
            }
            at.push(part);
            found = match fs::symlink_metadata(&at) {
                Ok(found) => found,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(Read::Absent);
                }
                Err(error) => return Err(unreadable(&at, &error)),
            };
            if found.is_symlink() {
                let whole = self.root.join(path) == at;
                return Ok(Read::Unfit(if whole {
                    "is a symbolic link".to_owned()
                } else {
                    format!("is behind the symbolic link {}", at.display())
                }));
            }
        }
        if found.is_dir() {
            return Ok(Read::Folder);
        }
        if !found.is_file() {
            return Ok(Read::Unfit("is not a text file".to_owned()));
        }
        if found.len() > MAX_FILE_BYTES as u64 {
            return Ok(Read::Unfit(format!("is larger than {MAX_FILE_BYTES} bytes")));
        }
        let bytes = fs::read(&at).map_err(|error| unreadable(&at, &error))?;
        let Ok(text) = String::from_utf8(bytes) else {
            return Ok(Read::Unfit("is not UTF-8".to_owned()));
        };
        self.seen.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(Read::Text(text))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be read: {error}", path.display()))
        .next("check the path, and the permissions of the file and its folders")
}

/// Absolute, without `.` and `..`.
fn cleaned(path: &Path) -> Result<PathBuf, Failure> {
    let mut clean = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    Ok(clean)
}

/// The folder itself, or that of a file. A link to a file belongs to the folder that contains the link.
fn folder_of(file: &Path) -> Result<PathBuf, Failure> {
    let cleaned = cleaned(file)?;
    let folder = match fs::symlink_metadata(&cleaned) {
        Ok(found) if found.is_dir() => cleaned.as_path(),
        Ok(_) => cleaned.parent().unwrap_or(&cleaned),
        Err(error) => return Err(unreadable(file, &error)),
    };
    fs::canonicalize(folder).map_err(|error| unreadable(file, &error))
}

fn common_root(files: &[PathBuf]) -> Result<PathBuf, Failure> {
    let folders = files
        .iter()
        .map(|file| folder_of(file))
        .collect::<Result<Vec<_>, _>>()?;
    let mut repositories: Vec<Option<&Path>> = folders
        .iter()
        .map(|folder| folder.ancestors().find(|folder| folder.join(".git").exists()))
        .collect();
    repositories.dedup();
    match repositories.as_slice() {
        [Some(root)] => return Ok((*root).to_owned()),
        [] | [None] => {}
        _ => {
            return Err(Failure::new("the files belong to several repositories")
                .next("give files of one repository at a time, or their common folder with --root"));
        }
    }
    let within = |root: &Path| folders.iter().all(|folder| folder.starts_with(root));
    let here = fs::canonicalize(".")?;
    if within(&here) {
        return Ok(here);
    }
    let shared = folders
        .first()
        .and_then(|folder| folder.ancestors().find(|root| within(root)));
    Ok(shared.unwrap_or(Path::new("/")).to_owned())
}
