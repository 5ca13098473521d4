//! Unpacks layers into a directory: tar, gzip, whiteouts; nothing can leave the directory or grow without limit.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

use crate::kubelet::layout::{Descriptor, checked_blob};

/// If the layers of an image have more bytes than this in total, it is refused.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// More files than this are refused.
const MAX_ENTRIES: u32 = 200_000;

/// Unpacks the layers, lowest first, so that `dir` exists completely or not at all.
///
/// # Errors
/// When a layer does not match its digest, has an unsupported format, or tries to leave the directory.
pub(crate) fn unpack(layout: &Path, layers: &[Descriptor], dir: &Path) -> Result<(), String> {
    let parent = dir.parent().ok_or("the image cache has no parent directory")?;
    fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    let temporary = tempfile::Builder::new()
        .prefix("unpacking-")
        .tempdir_in(parent)
        .map_err(|error| format!("the image cache cannot be written: {error}"))?;
    let root = temporary
        .path()
        .canonicalize()
        .map_err(|error| error.to_string())?;
    let (mut bytes, mut entries) = (MAX_BYTES, MAX_ENTRIES);
    for layer in layers {
        let path = checked_blob(layout, &layer.digest)?;
        let file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
        let kind = layer.media_type.as_str();
        let content: Box<dyn Read> = if kind.ends_with("tar+gzip") || kind.ends_with("tar.gzip") {
            Box::new(MultiGzDecoder::new(file))
        } else if kind.ends_with(".tar") || kind.is_empty() {
            Box::new(file)
        } else {
            return Err(format!(
                "layer {}: media type {kind} is not supported, use tar or tar+gzip",
                layer.digest
            ));
        };
        let mut content = content.take(bytes);
        apply(&root, &mut content, &mut entries)
            .map_err(|error| format!("layer {}: {error}", layer.digest))?;
        bytes = content.limit();
        if bytes == 0 {
            return Err(format!("the image is larger than {MAX_BYTES} bytes"));
        }
    }
    let done = temporary.keep();
    fs::set_permissions(&done, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    fs::rename(&done, dir).map_err(|error| error.to_string())
}

/// The path within the root, of plain names only.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            _ => {
                return Err(io::Error::other(format!(
                    "entry {} leaves the image's root",
                    path.display()
                )));
            }
        }
    }
    Ok(plain)
}

/// The location of an entry, whose parent must be within the root once links are followed. `None` if there is no such
/// parent, and so nothing to remove.
fn confined(root: &Path, relative: &Path) -> io::Result<Option<PathBuf>> {
    let target = root.join(relative);
    let Some(parent) = target.parent() else {
        return Ok(None);
    };
    match parent.canonicalize() {
        Ok(parent) if parent.starts_with(root) => Ok(Some(target)),
        Ok(_) => Err(io::Error::other(format!(
            "entry {} leaves the image's root by a link",
            relative.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn apply(root: &Path, content: &mut dyn Read, entries: &mut u32) -> io::Result<()> {
    let mut archive = Archive::new(content);
    for entry in archive.entries()? {
        let mut entry = entry?;
        *entries = entries
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("too many files"))?;
        let path = plain(&entry.path()?)?;
        let Some(name) = path.file_name() else { continue };
        if let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix(".wh.")) {
            if hidden == ".wh..opq" {
                let Some(marker) = confined(root, &path)? else {
                    continue;
                };
                for child in marker.parent().into_iter().flat_map(fs::read_dir).flatten() {
                    remove(&child?.path())?;
                }
            } else {
                let hidden = plain(&path.with_file_name(hidden))?;
                if let Some(target) = confined(root, &hidden)? {
                    remove(&target)?;
                }
            }
            continue;
        }
        let kind = entry.header().entry_type();
        // Devices and pipes are of no use to a plain process.
        if matches!(kind, EntryType::Block | EntryType::Char | EntryType::Fifo) {
            continue;
        }
        if let Some(target) = confined(root, &path)? {
            let is_dir = fs::symlink_metadata(&target).is_ok_and(|found| found.is_dir());
            if is_dir != kind.is_dir() {
                remove(&target)?;
            }
        }
        if !entry.unpack_in(root)? {
            return Err(io::Error::other(format!(
                "entry {} leaves the image's root",
                path.display()
            )));
        }
        if kind.is_dir() {
            // So that the user running this can write what follows and remove the cache.
            let target = root.join(&path);
            let mode = fs::metadata(&target)?.permissions().mode();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o700))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    enum Entry<'a> {
        File(&'a str, &'a str),
        Dir(&'a str),
        Link(&'a str, &'a str),
    }

    fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for entry in entries {
            let mut header = Header::new_gnu();
            header.set_mode(0o755);
            let (path, content) = match entry {
                Entry::File(path, content) => (path, *content),
                Entry::Dir(path) => {
                    header.set_entry_type(EntryType::Directory);
                    (path, "")
                }
                Entry::Link(path, target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_link_name(target).unwrap();
                    (path, "")
                }
            };
            // Written raw, since the builder itself rejects the paths that are tested here.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn run(layers: &[Vec<u8>]) -> io::Result<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let root = root.canonicalize().unwrap();
        let mut entries = 100;
        for layer in layers {
            apply(&root, &mut layer.as_slice(), &mut entries)?;
        }
        Ok(dir)
    }

    #[test]
    fn whiteouts_remove_what_lower_layers_have() {
        let dir = run(&[
            layer(&[
                Entry::Dir("a"),
                Entry::File("a/one", "1"),
                Entry::File("a/two", "2"),
                Entry::File("b", "3"),
            ]),
            layer(&[Entry::File(".wh.b", ""), Entry::File("a/.wh.one", "")]),
            layer(&[Entry::Dir("c"), Entry::File("c/x", "4")]),
            layer(&[Entry::File("c/.wh..wh..opq", ""), Entry::File("c/y", "5")]),
        ])
        .unwrap();
        let there = |path: &str| dir.path().join("root").join(path).exists();
        let table = [
            ("a/one", false),
            ("a/two", true),
            ("b", false),
            ("c/x", false),
            ("c/y", true),
        ];
        for (path, expected) in table {
            assert_eq!(there(path), expected, "{path}");
        }
    }

    #[test]
    fn nothing_leaves_the_root() {
        let table = [
            layer(&[Entry::File("../out", "x")]),
            layer(&[Entry::File("/out", "x")]),
            layer(&[Entry::Link("l", "/tmp"), Entry::File("l/out-of-image", "x")]),
            layer(&[Entry::Link("l", ".."), Entry::File("l/out", "x")]),
            layer(&[Entry::Link("l", ".."), Entry::File("l/.wh.root", "x")]),
            layer(&[Entry::Dir("a"), Entry::File("a/.wh...", "x")]),
        ];
        for (index, bytes) in table.iter().enumerate() {
            assert!(run(std::slice::from_ref(bytes)).is_err(), "case {index}");
        }
        assert!(!Path::new("/tmp/out-of-image").exists());
    }

    #[test]
    fn a_bomb_is_refused() {
        let many: Vec<Entry<'_>> = (0..101).map(|_| Entry::File("x", "")).collect();
        assert!(run(&[layer(&many)]).is_err());
    }
}
