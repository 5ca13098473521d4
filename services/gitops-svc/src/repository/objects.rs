//! Objects of the mirror: files are read, and trees and commits built, without a checkout.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use gix::{
    ObjectId, Repository,
    objs::{WriteTo as _, tree::EntryKind},
};
use slipway_edit::{Difference, Edit, Edited, Found, MAX_FILE_BYTES, Place, Read, Refusal, Refused, Source};
use slipway_model::{CommitSha, Id, Timestamp};

use crate::{
    change::{Code, Reason},
    message,
    signing::Committer,
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
    committer: &Committer,
) -> Result<(CommitSha, Vec<Applied>), MirrorError> {
    let mut tip = object_id(head)?;
    let mut tree = tree_of(repository, tip)?;
    let mut results = Vec::with_capacity(plans.len());
    for plan in plans {
        results.push(match edit(repository, tree, &plan.edits)? {
            Err(reason) => Applied::Refused(reason),
            Ok(Edited { files, differences }) if files.is_empty() && !marks(&plan.edits) => {
                Applied::Unchanged {
                    commit: sha(tip)?,
                    differences,
                }
            }
            Ok(Edited { files, differences }) => {
                tree = write_tree(repository, tree, &files)?;
                tip = write_commit(repository, tip, tree, plan, committer)?;
                Applied::Commit {
                    commit: sha(tip)?,
                    differences,
                }
            }
        });
    }
    Ok((sha(tip)?, results))
}

/// Whether a commit is wanted even where no file changes.
fn marks(edits: &[Edit]) -> bool {
    edits.contains(&Edit::Marker)
}

fn tree_of(repository: &Repository, commit: ObjectId) -> Result<ObjectId, MirrorError> {
    let commit = repository.find_commit(commit).map_err(broken)?;
    Ok(commit.tree_id().map_err(broken)?.detach())
}

/// The files of a tree, for edits.
struct TreeSource<'repo> {
    repository: &'repo Repository,
    tree: ObjectId,
}

impl Source for TreeSource<'_> {
    type Error = MirrorError;

    fn read(&self, path: &str) -> Result<Read, MirrorError> {
        let tree = self.repository.find_tree(self.tree).map_err(broken)?;
        let Some(entry) = tree.lookup_entry(path.split('/')).map_err(broken)? else {
            return Ok(Read::Absent);
        };
        let mode = entry.mode();
        if mode.is_tree() {
            return Ok(Read::Folder);
        }
        if mode.is_link() {
            return Ok(Read::Unfit("is a symbolic link".to_owned()));
        }
        if !mode.is_blob() {
            return Ok(Read::Unfit("is a submodule".to_owned()));
        }
        let header = self.repository.find_header(entry.object_id()).map_err(broken)?;
        if header.size() > MAX_FILE_BYTES as u64 {
            return Ok(Read::Unfit(format!("is larger than {MAX_FILE_BYTES} bytes")));
        }
        let mut object = entry.object().map_err(broken)?;
        Ok(match String::from_utf8(std::mem::take(&mut object.data)) {
            Ok(text) => Read::Text(text),
            Err(_) => Read::Unfit("is not UTF-8".to_owned()),
        })
    }
}

fn edit(
    repository: &Repository,
    tree: ObjectId,
    edits: &[Edit],
) -> Result<Result<Edited, Reason>, MirrorError> {
    let source = TreeSource { repository, tree };
    Ok(slipway_edit::apply(edits, &source)?.map_err(|refused| reason(&refused)))
}

fn reason(refused: &Refused) -> Reason {
    let code = match &refused.refusal {
        Refusal::FileNotFound(_) => Code::FileNotFound,
        Refusal::NotAFile(_) | Refusal::NotYaml { .. } => Code::FileInvalid,
        Refusal::ImageNotFound(_) => Code::ImageNotFound,
        Refusal::Unsafe { .. } => Code::EditUnsafe,
        Refusal::ChangedSince { .. } => Code::ChangedSince,
    };
    Reason::new(code, refused.to_string())
}

/// The tree with other texts in some files; each stays the kind of file it was.
fn write_tree(
    repository: &Repository,
    tree: ObjectId,
    files: &BTreeMap<String, String>,
) -> Result<ObjectId, MirrorError> {
    let root = repository.find_tree(tree).map_err(broken)?;
    let mut editor = repository.edit_tree(tree).map_err(broken)?;
    for (path, text) in files {
        let kind = match root.lookup_entry(path.split('/')).map_err(broken)? {
            Some(entry) => entry.mode().kind(),
            None => EntryKind::Blob,
        };
        let blob = repository.write_blob(text.as_bytes()).map_err(broken)?;
        editor.upsert(path.as_str(), kind, blob).map_err(broken)?;
    }
    Ok(editor.write().map_err(broken)?.detach())
}

fn write_commit(
    repository: &Repository,
    parent: ObjectId,
    tree: ObjectId,
    plan: &Plan,
    committer: &Committer,
) -> Result<ObjectId, MirrorError> {
    let signature = gix::actor::Signature {
        name: committer.author.name.as_str().into(),
        email: committer.author.email.as_str().into(),
        time: gix::date::Time::new(plan.time.as_micros().div_euclid(1_000_000), 0),
    };
    let mut commit = gix::objs::Commit {
        tree,
        parents: [parent].into_iter().collect(),
        author: signature.clone(),
        committer: signature,
        encoding: None,
        message: plan.message.as_str().into(),
        extra_headers: Vec::new(),
    };
    if let Some(key) = &committer.key {
        let mut unsigned = Vec::new();
        commit.write_to(&mut unsigned).map_err(broken)?;
        let signature = key.sign(&unsigned).map_err(broken)?;
        commit.extra_headers.push(("gpgsig".into(), signature.into()));
    }
    Ok(repository.write_object(commit).map_err(broken)?.detach())
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

/// What a commit of ours changed: its edits are done again on its parent.
pub(super) fn differences(
    repository: &Repository,
    commit: &CommitSha,
    edits: &[Edit],
) -> Result<Vec<Difference>, MirrorError> {
    let commit = repository.find_commit(object_id(commit)?).map_err(broken)?;
    let Some(parent) = commit.parent_ids().next().map(gix::Id::detach) else {
        return Ok(Vec::new());
    };
    let edited = edit(repository, tree_of(repository, parent)?, edits)?;
    Ok(edited.map(|edited| edited.differences).unwrap_or_default())
}

/// The images at a place of a commit.
pub(super) fn images(
    repository: &Repository,
    commit: &CommitSha,
    place: &Place,
) -> Result<Result<Vec<Found>, Reason>, MirrorError> {
    let tree = tree_of(repository, object_id(commit)?)?;
    let source = TreeSource { repository, tree };
    Ok(slipway_edit::read(place, &source)?.map_err(|refused| reason(&refused)))
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
