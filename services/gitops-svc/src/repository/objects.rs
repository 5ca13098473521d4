//! Objects of the mirror: files are read, and trees and commits built, without a checkout.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use gix::{
    ObjectId, Repository,
    objs::tree::{EntryKind, EntryMode},
};
use slipway_model::{CommitSha, Id, Timestamp};

use crate::{
    change::{Code, Difference, Reason},
    config::Author,
    edit::{Edit, Entry, Folder, KUSTOMIZATION_NAMES, MAX_FILE_BYTES, Refusal, kustomize},
    message,
};

/// How many commits are looked through for our own when the place to start from is unknown.
const MAX_SEARCHED: usize = 10_000;

/// One commit to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) edits: Vec<Edit>,
    pub(crate) message: String,
    /// Author's and committer's; from the ledger, so that a second run makes the same commit.
    pub(crate) time: Timestamp,
}

/// What became of a plan on one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    Commit {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    /// The commit before it has everything already.
    Unchanged {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    Refused(Reason),
}

/// The mirror itself is at fault: damaged, full, or lacking an object that it should have.
#[derive(Debug, thiserror::Error)]
#[error("mirror: {0}")]
pub(crate) struct MirrorError(String);

fn broken(error: impl std::fmt::Display) -> MirrorError {
    MirrorError(error.to_string())
}

/// Opens a mirror, or says that there is none.
pub(super) fn open(path: &Path) -> Result<Repository, MirrorError> {
    gix::open_opts(path, gix::open::Options::isolated()).map_err(broken)
}

fn object_id(commit: &CommitSha) -> Result<ObjectId, MirrorError> {
    ObjectId::from_hex(commit.as_str().as_bytes()).map_err(broken)
}

fn sha(id: ObjectId) -> Result<CommitSha, MirrorError> {
    id.to_hex().to_string().parse().map_err(broken)
}

/// Whether the mirror has the commit.
pub(super) fn has_commit(repository: &Repository, commit: &CommitSha) -> bool {
    object_id(commit).is_ok_and(|id| repository.find_commit(id).is_ok())
}

/// Where a branch of the remote was when it was last fetched or pushed.
pub(super) fn tracked(repository: &Repository, branch: &str) -> Result<Option<CommitSha>, MirrorError> {
    let name = format!("refs/remotes/origin/{branch}");
    let Some(mut reference) = repository.try_find_reference(&name).map_err(broken)? else {
        return Ok(None);
    };
    let id = reference.peel_to_id().map_err(broken)?.detach();
    sha(id).map(Some)
}

/// Makes one commit for each plan on top of `head`, in order. What cannot be applied is left out.
pub(super) fn apply(
    repository: &Repository,
    head: &CommitSha,
    plans: &[Plan],
    author: &Author,
) -> Result<(CommitSha, Vec<Applied>), MirrorError> {
    let mut tip = object_id(head)?;
    let mut tree = tree_of(repository, tip)?;
    let mut results = Vec::with_capacity(plans.len());
    for plan in plans {
        results.push(match edit(repository, tree, &plan.edits)? {
            Err(reason) => Applied::Refused(reason),
            Ok((files, differences)) if files.is_empty() => Applied::Unchanged {
                commit: sha(tip)?,
                differences,
            },
            Ok((files, differences)) => {
                tree = write_tree(repository, tree, &files)?;
                tip = write_commit(repository, tip, tree, plan, author)?;
                Applied::Commit {
                    commit: sha(tip)?,
                    differences,
                }
            }
        });
    }
    Ok((sha(tip)?, results))
}

fn tree_of(repository: &Repository, commit: ObjectId) -> Result<ObjectId, MirrorError> {
    let commit = repository.find_commit(commit).map_err(broken)?;
    Ok(commit.tree_id().map_err(broken)?.detach())
}

/// A file to be written: its kind as it was, and its new bytes.
type Files = BTreeMap<String, (EntryKind, String)>;

/// Applies the edits of one change to the files of a tree; only files that differ are kept.
fn edit(
    repository: &Repository,
    tree: ObjectId,
    edits: &[Edit],
) -> Result<Result<(Files, Vec<Difference>), Reason>, MirrorError> {
    let mut files: BTreeMap<String, (EntryKind, String, String)> = BTreeMap::new();
    let mut differences = Vec::with_capacity(edits.len());
    for edit in edits {
        let path = match find_kustomization(repository, tree, edit.folder())? {
            Ok(path) => path,
            Err(reason) => return Ok(Err(reason)),
        };
        if !files.contains_key(&path) {
            match read_text(repository, tree, &path)? {
                Ok((kind, text)) => files.insert(path.clone(), (kind, text.clone(), text)),
                Err(reason) => return Ok(Err(reason)),
            };
        }
        let Some((_, _, text)) = files.get_mut(&path) else {
            continue;
        };
        match edit.apply(text) {
            Ok(edited) => {
                *text = edited.text;
                differences.push(Difference {
                    path: edit.folder().clone(),
                    before: edited.before,
                    after: edited.after,
                });
            }
            Err(refusal) => return Ok(Err(reason(&path, &refusal))),
        }
    }
    let changed = files
        .into_iter()
        .filter(|(_, (_, before, after))| before != after)
        .map(|(path, (kind, _, after))| (path, (kind, after)))
        .collect();
    Ok(Ok((changed, differences)))
}

fn reason(path: &str, refusal: &Refusal) -> Reason {
    let code = match refusal {
        Refusal::NotYaml { .. } => Code::FileInvalid,
        Refusal::ImageNotFound { .. } => Code::ImageNotFound,
        Refusal::Unsafe { .. } => Code::EditUnsafe,
        Refusal::ChangedSince { .. } => Code::ChangedSince,
    };
    Reason::new(code, format!("{path}: {refusal}"))
}

/// The one kustomization of a folder.
fn find_kustomization(
    repository: &Repository,
    tree: ObjectId,
    folder: &Folder,
) -> Result<Result<String, Reason>, MirrorError> {
    let mut at = tree;
    for part in folder.as_str().split('/').filter(|part| !part.is_empty()) {
        match child(repository, at, part)? {
            Some((mode, id)) if mode.is_tree() => at = id,
            Some((mode, _)) if mode.is_link() => {
                return Ok(Err(not_found(format!("{folder}: {part} is a symbolic link"))));
            }
            _ => {
                return Ok(Err(not_found(format!("the repository has no folder {folder}"))));
            }
        }
    }
    let mut found = Vec::new();
    for name in KUSTOMIZATION_NAMES {
        if child(repository, at, name)?.is_some() {
            found.push(name);
        }
    }
    Ok(match found.as_slice() {
        [name] => Ok(folder.join(name)),
        [] => Err(not_found(format!(
            "{folder} has no kustomization: none of {}",
            KUSTOMIZATION_NAMES.join(", ")
        ))),
        several => Err(Reason::new(
            Code::FileInvalid,
            format!("{folder} has several kustomizations: {}", several.join(", ")),
        )),
    })
}

fn not_found(message: String) -> Reason {
    Reason::new(Code::FileNotFound, message)
}

fn child(
    repository: &Repository,
    tree: ObjectId,
    name: &str,
) -> Result<Option<(EntryMode, ObjectId)>, MirrorError> {
    let tree = repository.find_tree(tree).map_err(broken)?;
    let entry = tree.lookup_entry([name]).map_err(broken)?;
    Ok(entry.map(|entry| (entry.mode(), entry.object_id())))
}

/// A file's kind and its text.
fn read_text(
    repository: &Repository,
    tree: ObjectId,
    path: &str,
) -> Result<Result<(EntryKind, String), Reason>, MirrorError> {
    let tree = repository.find_tree(tree).map_err(broken)?;
    let Some(entry) = tree.lookup_entry(path.split('/')).map_err(broken)? else {
        return Ok(Err(not_found(format!("the repository has no file {path}"))));
    };
    let invalid = |what: &str| Ok(Err(Reason::new(Code::FileInvalid, format!("{path} {what}"))));
    if !entry.mode().is_blob() {
        return invalid("is not a file of its own (a symbolic link, a folder or a submodule)");
    }
    let header = repository.find_header(entry.object_id()).map_err(broken)?;
    if header.size() > MAX_FILE_BYTES as u64 {
        return invalid(&format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    let mut object = entry.object().map_err(broken)?;
    match String::from_utf8(std::mem::take(&mut object.data)) {
        Ok(text) => Ok(Ok((entry.mode().kind(), text))),
        Err(_) => invalid("is not UTF-8"),
    }
}

fn write_tree(repository: &Repository, tree: ObjectId, files: &Files) -> Result<ObjectId, MirrorError> {
    let mut editor = repository.edit_tree(tree).map_err(broken)?;
    for (path, (kind, text)) in files {
        let blob = repository.write_blob(text.as_bytes()).map_err(broken)?;
        editor.upsert(path.as_str(), *kind, blob).map_err(broken)?;
    }
    Ok(editor.write().map_err(broken)?.detach())
}

fn write_commit(
    repository: &Repository,
    parent: ObjectId,
    tree: ObjectId,
    plan: &Plan,
    author: &Author,
) -> Result<ObjectId, MirrorError> {
    let time = format!("{} +0000", plan.time.as_micros().div_euclid(1_000_000));
    let signature = gix::actor::SignatureRef {
        name: author.name.as_str().into(),
        email: author.email.as_str().into(),
        time: &time,
    };
    let commit = repository
        .new_commit_as(signature, signature, &plan.message, tree, [parent])
        .map_err(broken)?;
    Ok(commit.id)
}

/// Our commits between `base` (left out) and `head`, by the change that their trailer names. Without a base, or when
/// it is unknown here, the latest commits are looked through.
pub(super) fn find_changes(
    repository: &Repository,
    base: Option<&CommitSha>,
    head: &CommitSha,
    wanted: &HashSet<Id>,
) -> Result<HashMap<Id, CommitSha>, MirrorError> {
    let mut found = HashMap::new();
    let mut walk = repository.rev_walk([object_id(head)?]);
    if let Some(base) = base.filter(|base| has_commit(repository, base)) {
        walk = walk.with_hidden([object_id(base)?]);
    }
    for info in walk.all().map_err(broken)?.take(MAX_SEARCHED) {
        let commit = repository.find_commit(info.map_err(broken)?.id).map_err(broken)?;
        let text = commit.message_raw_sloppy().to_string();
        if let Some(id) = message::change_of(&text).and_then(|id| id.parse::<Id>().ok())
            && wanted.contains(&id)
        {
            found.insert(id, sha(commit.id)?);
            if found.len() == wanted.len() {
                break;
            }
        }
    }
    Ok(found)
}

/// What a commit of ours changed, read back from itself and its parent.
pub(super) fn differences(
    repository: &Repository,
    commit: &CommitSha,
    edits: &[Edit],
) -> Result<Vec<Difference>, MirrorError> {
    let after = object_id(commit)?;
    let parent = repository.find_commit(after).map_err(broken)?;
    let Some(before) = parent.parent_ids().next().map(gix::Id::detach) else {
        return Ok(Vec::new());
    };
    let (before, after) = (tree_of(repository, before)?, tree_of(repository, after)?);
    let mut differences = Vec::new();
    for edit in edits {
        let entry = |tree| -> Result<Option<Entry>, MirrorError> {
            let entries = read_images(repository, tree, edit.folder())?.unwrap_or_default();
            Ok(entries.into_iter().find(|entry| entry.name == edit.name()))
        };
        if let (Some(before), Some(after)) = (entry(before)?, entry(after)?) {
            differences.push(Difference {
                path: edit.folder().clone(),
                before,
                after,
            });
        }
    }
    Ok(differences)
}

/// The `images` of a folder's kustomization at a commit.
pub(super) fn images(
    repository: &Repository,
    commit: &CommitSha,
    folder: &Folder,
) -> Result<Result<Vec<Entry>, Reason>, MirrorError> {
    let tree = tree_of(repository, object_id(commit)?)?;
    read_images(repository, tree, folder)
}

fn read_images(
    repository: &Repository,
    tree: ObjectId,
    folder: &Folder,
) -> Result<Result<Vec<Entry>, Reason>, MirrorError> {
    let path = match find_kustomization(repository, tree, folder)? {
        Ok(path) => path,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(match read_text(repository, tree, &path)? {
        Ok((_, text)) => kustomize::read(&text).map_err(|refusal| reason(&path, &refusal)),
        Err(reason) => Err(reason),
    })
}

/// A file or link of a tree, as it is written into a folder.
#[derive(Debug)]
pub(crate) enum Leaf {
    File(Vec<u8>),
    /// Where a symbolic link points to.
    Link(Vec<u8>),
}

/// Everything in a commit's tree, by path. Submodules are left out.
///
/// # Errors
/// `Err(reason)` when there is more than the limits allow.
pub(super) fn for_each_leaf(
    repository: &Repository,
    commit: &CommitSha,
    max_bytes: u64,
    max_files: usize,
    each: &mut dyn FnMut(&str, Leaf) -> Result<(), Reason>,
) -> Result<Result<(), Reason>, MirrorError> {
    let mut left = (max_bytes, max_files);
    let mut pending = vec![(String::new(), tree_of(repository, object_id(commit)?)?)];
    while let Some((prefix, tree)) = pending.pop() {
        let tree = repository.find_tree(tree).map_err(broken)?;
        for entry in tree.iter() {
            let entry = entry.map_err(broken)?;
            let Ok(name) = std::str::from_utf8(entry.filename()) else {
                continue;
            };
            let path = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            let mode = entry.mode();
            if mode.is_tree() {
                pending.push((path, entry.object_id()));
                continue;
            }
            if mode.is_commit() {
                continue;
            }
            let size = repository.find_header(entry.object_id()).map_err(broken)?.size();
            match (left.0.checked_sub(size), left.1.checked_sub(1)) {
                (Some(bytes), Some(files)) => left = (bytes, files),
                _ => {
                    return Ok(Err(Reason::new(
                        Code::FileInvalid,
                        format!(
                            "the repository is too large to render: more than {max_bytes} bytes or {max_files} files"
                        ),
                    )));
                }
            }
            let mut object = entry.object().map_err(broken)?;
            let data = std::mem::take(&mut object.data);
            let leaf = if mode.is_link() {
                Leaf::Link(data)
            } else {
                Leaf::File(data)
            };
            if let Err(reason) = each(&path, leaf) {
                return Ok(Err(reason));
            }
        }
    }
    Ok(Ok(()))
}
