//! Trees of the mirror as edits need them: read once, looked up by path, and written with replaced files.
//!
//! A tree is a list of names, each followed by the id of what it names. Replacing a file's content means overwriting
//! one id in each tree on its path; trees are not parsed into entries and reassembled, which for folders with thousands
//! of entries would take most of the time of a change.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use gix::{
    ObjectId, Repository,
    objs::{Kind, TreeRefIter, tree::EntryMode},
};
use slipway_edit::{At, Listing, MAX_FILE_BYTES, Read, Source};

use super::{
    error::{MirrorError, broken},
    pack::Pack,
};

/// The maximum size of trees that are kept in memory, in bytes: a part of a repository with tens of thousands of files.
const MAX_CACHED: usize = 16 * 1024 * 1024;

/// The other files of a folder with no more entries than this are fetched together with the one that is read: an edit
/// may go from one to the next.
const SMALL_FOLDER: usize = 32;

/// The trees of one piece of work.
pub(super) struct Trees<'repo> {
    repository: &'repo Repository,
    /// What was made, and is not in the mirror yet.
    made: RefCell<Pack>,
    cache: RefCell<HashMap<ObjectId, Rc<Vec<u8>>>>,
    cached: Cell<usize>,
}

/// A name in a tree: what it is, and where in the tree's bytes its id is.
struct Entry {
    mode: EntryMode,
    id: ObjectId,
    offset: usize,
}

/// An entry, and the tree that contains it.
struct Located {
    entry: Entry,
    folder: Rc<Vec<u8>>,
}

impl<'repo> Trees<'repo> {
    pub(super) fn new(repository: &'repo Repository) -> Self {
        Self {
            repository,
            made: RefCell::default(),
            cache: RefCell::default(),
            cached: Cell::new(0),
        }
    }

    fn tree(&self, id: ObjectId) -> Result<Rc<Vec<u8>>, MirrorError> {
        if let Some(data) = self.cache.borrow().get(&id) {
            return Ok(Rc::clone(data));
        }
        if let Some(data) = self.made.borrow().get(&id) {
            return Ok(Rc::clone(data));
        }
        let object = self.repository.try_find_object(id).map_err(broken)?;
        let tree = object.ok_or_else(|| MirrorError::Missing(vec![id]))?;
        let data = tree.try_into_tree().map_err(broken)?.detach().data;
        Ok(self.keep(id, data))
    }

    /// Makes an object; `like` is a similar one.
    pub(super) fn make(
        &self,
        kind: Kind,
        data: Vec<u8>,
        like: Option<ObjectId>,
    ) -> Result<ObjectId, MirrorError> {
        let hash = self.repository.object_hash();
        self.made.borrow_mut().add(hash, kind, Rc::new(data), like)
    }

    /// Writes what was made to the mirror.
    pub(super) fn flush(&self) -> Result<(), MirrorError> {
        let folder = self.repository.objects.store_ref().path().join("pack");
        self.made.borrow().write(self.repository.object_hash(), &folder)
    }

    fn keep(&self, id: ObjectId, data: Vec<u8>) -> Rc<Vec<u8>> {
        let mut cache = self.cache.borrow_mut();
        let mut cached = self.cached.get() + data.len();
        if cached > MAX_CACHED {
            cache.clear();
            cached = data.len();
        }
        self.cached.set(cached);
        let data = Rc::new(data);
        cache.insert(id, Rc::clone(&data));
        data
    }

    fn entry(&self, tree: &[u8], name: &str) -> Result<Option<Entry>, MirrorError> {
        let mut entries = TreeRefIter::from_bytes(tree, self.repository.object_hash());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(broken)?;
            if entry.filename == name {
                // The id is the last part of an entry.
                let offset = entries.offset_to_next_entry(tree) - entry.oid.as_bytes().len();
                return Ok(Some(Entry {
                    mode: entry.mode,
                    id: entry.oid.to_owned(),
                    offset,
                }));
            }
        }
        Ok(None)
    }

    /// What is at a path, and the tree that contains it.
    fn look_up(&self, root: ObjectId, path: &str) -> Result<Option<Located>, MirrorError> {
        let mut tree = self.tree(root)?;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let Some(entry) = self.entry(&tree, name)? else {
                return Ok(None);
            };
            if names.peek().is_none() {
                return Ok(Some(Located { entry, folder: tree }));
            }
            if !entry.mode.is_tree() {
                return Ok(None);
            }
            tree = self.tree(entry.id)?;
        }
        Ok(None)
    }

    /// A missing file, and missing ones next to it.
    fn missing(&self, id: ObjectId, folder: &[u8]) -> Result<MirrorError, MirrorError> {
        let hash = self.repository.object_hash();
        let mut ids = vec![id];
        // One search for new packs is enough.
        let mut quick = self.repository.clone();
        quick.objects.refresh_never();
        if TreeRefIter::from_bytes(folder, hash).count() <= SMALL_FOLDER {
            for entry in TreeRefIter::from_bytes(folder, hash) {
                let entry = entry.map_err(broken)?;
                if entry.mode.is_blob() && !quick.has_object(entry.oid) {
                    ids.push(entry.oid.to_owned());
                }
            }
        }
        Ok(MirrorError::Missing(ids))
    }

    /// The tree with different contents in some files; each keeps its kind.
    pub(super) fn write(
        &self,
        root: ObjectId,
        files: &BTreeMap<String, String>,
    ) -> Result<ObjectId, MirrorError> {
        let mut blobs = Vec::with_capacity(files.len());
        for (path, text) in files {
            let old = self.look_up(root, path)?.map(|found| found.entry.id);
            let blob = self.make(Kind::Blob, text.clone().into_bytes(), old)?;
            blobs.push((path.as_str(), blob));
        }
        self.replace(root, &blobs)
    }

    /// `blobs` are by path from this tree, and sorted.
    fn replace(&self, id: ObjectId, blobs: &[(&str, ObjectId)]) -> Result<ObjectId, MirrorError> {
        let mut within: BTreeMap<&str, Vec<(&str, ObjectId)>> = BTreeMap::new();
        let mut replaced: Vec<(&str, ObjectId)> = Vec::new();
        for (path, blob) in blobs {
            match path.split_once('/') {
                Some((name, rest)) => within.entry(name).or_default().push((rest, *blob)),
                None => replaced.push((path, *blob)),
            }
        }
        let old = self.tree(id)?;
        let mut data = Vec::clone(&old);
        let place = |name: &str| {
            self.entry(&old, name)?
                .ok_or_else(|| MirrorError::Broken(format!("{name}: an edited file is in no tree")))
        };
        for (name, blobs) in within {
            let entry = place(name)?;
            let tree = self.replace(entry.id, &blobs)?;
            data[entry.offset..entry.offset + tree.as_bytes().len()].copy_from_slice(tree.as_bytes());
        }
        for (name, blob) in replaced {
            let entry = place(name)?;
            data[entry.offset..entry.offset + blob.as_bytes().len()].copy_from_slice(blob.as_bytes());
        }
        self.make(Kind::Tree, data, Some(id))
    }
}

/// The files of a tree, for edits.
pub(super) struct TreeSource<'a, 'repo> {
    pub(super) trees: &'a Trees<'repo>,
    pub(super) tree: ObjectId,
}

impl Source for TreeSource<'_, '_> {
    type Error = MirrorError;

    fn read(&self, path: &str) -> Result<Read, MirrorError> {
        let Some(Located { entry, folder }) = self.trees.look_up(self.tree, path)? else {
            return Ok(Read::Absent);
        };
        if entry.mode.is_tree() {
            return Ok(Read::Folder);
        }
        if entry.mode.is_link() {
            return Ok(Read::Unfit("is a symbolic link".to_owned()));
        }
        if !entry.mode.is_blob() {
            return Ok(Read::Unfit("is a submodule".to_owned()));
        }
        let text = |data| match String::from_utf8(data) {
            Ok(text) => Read::Text(text),
            Err(_) => Read::Unfit("is not UTF-8".to_owned()),
        };
        if let Some(data) = self.trees.made.borrow().get(&entry.id) {
            return Ok(text(data.to_vec()));
        }
        let repository = self.trees.repository;
        let Some(header) = repository.try_find_header(entry.id).map_err(broken)? else {
            return Err(self.trees.missing(entry.id, &folder)?);
        };
        if header.size() > MAX_FILE_BYTES as u64 {
            return Ok(Read::Unfit(format!("is larger than {MAX_FILE_BYTES} bytes")));
        }
        let data = repository.find_object(entry.id).map_err(broken)?.detach().data;
        Ok(text(data))
    }
}

impl Listing for TreeSource<'_, '_> {
    fn at(&self, path: &str) -> Result<At, MirrorError> {
        let mut above = path;
        loop {
            let found = self.trees.look_up(self.tree, above)?;
            let own = above.len() == path.len();
            if let Some(Located { entry, .. }) = found {
                return Ok(match entry.mode {
                    mode if mode.is_link() && own => At::Elsewhere("is a symbolic link".to_owned()),
                    mode if mode.is_link() => At::Elsewhere("is behind a symbolic link".to_owned()),
                    mode if mode.is_commit() => At::Elsewhere("is in a submodule".to_owned()),
                    mode if own && mode.is_tree() => At::Folder,
                    mode if own && mode.is_blob() => At::File(entry.id.to_string()),
                    _ => At::Absent,
                });
            }
            let Some((folder, _)) = above.rsplit_once('/') else {
                return Ok(At::Absent);
            };
            above = folder;
        }
    }

    fn within(&self, folder: &str) -> Result<Vec<(String, At)>, MirrorError> {
        let tree = match folder {
            "" => self.tree,
            folder => match self.trees.look_up(self.tree, folder)? {
                Some(Located { entry, .. }) if entry.mode.is_tree() => entry.id,
                _ => return Ok(Vec::new()),
            },
        };
        let tree = self.trees.tree(tree)?;
        let mut found = Vec::new();
        for entry in TreeRefIter::from_bytes(&tree, self.trees.repository.object_hash()) {
            let entry = entry.map_err(broken)?;
            let at = match entry.mode {
                mode if mode.is_tree() => At::Folder,
                mode if mode.is_blob() => At::File(entry.oid.to_string()),
                mode if mode.is_link() => At::Elsewhere("is a symbolic link".to_owned()),
                _ => At::Elsewhere("is a submodule".to_owned()),
            };
            let Ok(name) = std::str::from_utf8(entry.filename) else {
                let name = String::from_utf8_lossy(entry.filename).into_owned();
                found.push((name, At::Elsewhere("has a name that is not UTF-8".to_owned())));
                continue;
            };
            found.push((name.to_owned(), at));
        }
        Ok(found)
    }
}

impl TreeSource<'_, '_> {
    /// The bytes of files. What is no file is left out.
    ///
    /// # Errors
    /// [`MirrorError::Missing`] names all that are to be fetched.
    pub(super) fn contents(&self, paths: &[String]) -> Result<Vec<(String, Vec<u8>)>, MirrorError> {
        let mut contents = Vec::with_capacity(paths.len());
        let mut missing = Vec::new();
        for path in paths {
            let Some(Located { entry, .. }) = self.trees.look_up(self.tree, path)? else {
                continue;
            };
            match self.trees.repository.try_find_object(entry.id).map_err(broken)? {
                Some(object) if entry.mode.is_blob() => contents.push((path.clone(), object.detach().data)),
                Some(_) => {}
                None => missing.push(entry.id),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        match missing.is_empty() {
            true => Ok(contents),
            false => Err(MirrorError::Missing(missing)),
        }
    }
}
