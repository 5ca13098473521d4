//! Objects of the mirror: reads files, and builds trees and commits, without a checkout.

use std::path::Path;

use gitops_domain::reason::Code;
use gix::{
    ObjectId, Repository,
    objs::{Kind, WriteTo as _},
};
use slipway_edit::{Difference, Edit, Edited, ImageAtPlace, Place, Refusal, Refused};
use slipway_model::{CommitSha, Reason, Timestamp};

use super::{
    error::{MirrorError, broken},
    trees::{TreeSource, Trees},
};
use crate::backends::signing::Committer;

/// Where the mirror keeps the remote's branches.
const ORIGIN: &str = "refs/remotes/origin/";

/// One commit to be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) edits: Vec<Edit>,
    pub(crate) message: String,
    /// Author's and committer's; from the ledger, so that a second run makes the same commit.
    pub(crate) time: Timestamp,
}

/// The result of a plan on one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    Commit {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    /// The commit before it contains everything already.
    Unchanged {
        commit: CommitSha,
        differences: Vec<Difference>,
    },
    Refused(Reason),
}

/// More packs than a mirror ever has: each push and fetch creates one, and they are packed together now and then.
const MAX_PACKS: u16 = 2000;

/// Opens a mirror, or reports that there is none.
pub(super) fn open(path: &Path) -> Result<Repository, MirrorError> {
    let options =
        gix::open::Options::isolated().object_store_slots(gix::odb::store::init::Slots::Given(MAX_PACKS));
    gix::open_opts(path, options).map_err(broken)
}

pub(super) fn object_id(commit: &CommitSha) -> Result<ObjectId, MirrorError> {
    ObjectId::from_hex(commit.as_str().as_bytes()).map_err(broken)
}

pub(super) fn sha(id: ObjectId) -> Result<CommitSha, MirrorError> {
    id.to_hex().to_string().parse().map_err(broken)
}

/// Whether the mirror has the commit.
pub(super) fn has_commit(repository: &Repository, commit: &CommitSha) -> bool {
    object_id(commit).is_ok_and(|id| is_of(repository, id) && repository.find_commit(id).is_ok())
}

/// Whether an id is of the kind that the mirror's objects have.
pub(super) fn is_of(repository: &Repository, id: ObjectId) -> bool {
    id.kind() == repository.object_hash()
}

/// Where a branch of the remote was when it was last fetched or pushed.
pub(super) fn tracked(repository: &Repository, branch: &str) -> Result<Option<CommitSha>, MirrorError> {
    let name = format!("{ORIGIN}{branch}");
    // One that cannot be read is damaged: the next fetch puts it right.
    let Ok(Some(reference)) = repository.try_find_reference(&name) else {
        return Ok(None);
    };
    reference
        .target()
        .try_id()
        .map(|id| sha(id.to_owned()))
        .transpose()
}

/// The names of the remote's branches that are in the mirror.
pub(super) fn branches(repository: &Repository) -> Result<Vec<(String, ObjectId)>, MirrorError> {
    let platform = repository.references().map_err(broken)?;
    let mut branches = Vec::new();
    for reference in platform.prefixed(ORIGIN).map_err(broken)? {
        // One that cannot be read is damaged: the next fetch puts it right.
        let Ok(reference) = reference else { continue };
        let name = reference.name().as_bstr().to_string();
        if let (Some(name), Some(id)) = (name.strip_prefix(ORIGIN), reference.target().try_id()) {
            branches.push((name.to_owned(), id.to_owned()));
        }
    }
    Ok(branches)
}

/// Makes one commit for each plan on top of `head`, in order. Plans that cannot be applied are skipped.
///
/// # Errors
/// [`MirrorError::Missing`] names what all plans lack, so that it is fetched together.
pub(super) fn apply(
    repository: &Repository,
    head: &CommitSha,
    plans: &[Plan],
    committer: &Committer,
) -> Result<(CommitSha, Vec<Applied>), MirrorError> {
    let trees = Trees::new(repository);
    let mut tip = object_id(head)?;
    let mut tree = tree_of(repository, tip)?;
    let mut results = Vec::with_capacity(plans.len());
    for (index, plan) in plans.iter().enumerate() {
        let edited = match edit(&trees, tree, &plan.edits) {
            Err(MirrorError::Missing(ids)) => {
                let edits = plans[index..].iter().flat_map(|plan| &plan.edits);
                let looks = edits.map(|one| edit(&trees, tree, std::slice::from_ref(one)));
                return Err(together(ids, looks));
            }
            edited => edited?,
        };
        results.push(match edited {
            Err(reason) => Applied::Refused(reason),
            Ok(Edited { files, differences }) if files.is_empty() && !marks(&plan.edits) => {
                Applied::Unchanged {
                    commit: sha(tip)?,
                    differences,
                }
            }
            Ok(Edited { files, differences }) => {
                tree = trees.write(tree, &files)?;
                tip = write_commit(&trees, tip, tree, plan, committer)?;
                Applied::Commit {
                    commit: sha(tip)?,
                    differences,
                }
            }
        });
    }
    trees.flush()?;
    Ok((sha(tip)?, results))
}

/// The objects that several lookups lack, together.
fn together<T>(mut ids: Vec<ObjectId>, looks: impl Iterator<Item = Result<T, MirrorError>>) -> MirrorError {
    for look in looks {
        if let Err(MirrorError::Missing(more)) = look {
            ids.extend(more);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    MirrorError::Missing(ids)
}

/// Whether a commit is wanted even if no file changes.
fn marks(edits: &[Edit]) -> bool {
    edits.contains(&Edit::Marker)
}

pub(super) fn tree_of(repository: &Repository, commit: ObjectId) -> Result<ObjectId, MirrorError> {
    let object = repository.try_find_object(commit).map_err(broken)?;
    let commit = object.ok_or(MirrorError::Beyond(commit))?;
    let commit = commit.try_into_commit().map_err(broken)?;
    Ok(commit.tree_id().map_err(broken)?.detach())
}

fn edit(trees: &Trees<'_>, tree: ObjectId, edits: &[Edit]) -> Result<Result<Edited, Reason>, MirrorError> {
    let source = TreeSource { trees, tree };
    Ok(slipway_edit::apply(edits, &source)?.map_err(|refused| reason(&refused)))
}

fn reason(refused: &Refused) -> Reason {
    let code = match &refused.refusal {
        Refusal::FileNotFound(_) => Code::FileNotFound,
        Refusal::NotAFile(_) | Refusal::NotYaml { .. } => Code::FileInvalid,
        Refusal::ImageNotFound(_) => Code::ImageNotFound,
        Refusal::Unsafe { .. } | Refusal::Shared { .. } => Code::EditUnsafe,
        Refusal::ChangedSince { .. } => Code::ChangedSince,
    };
    Reason::new(code, refused.to_string())
}

fn write_commit(
    trees: &Trees<'_>,
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
        commit
            .extra_headers
            .push((signature_header(tree).into(), signature.into()));
    }
    let mut text = Vec::new();
    commit.write_to(&mut text).map_err(broken)?;
    trees.make(Kind::Commit, text, None)
}

/// The header of a commit's signature (gitformat-signature(5)). In a repository of SHA-256 ids, `gpgsig` is the
/// signature of the same commit in one of SHA-1 ids.
fn signature_header(tree: ObjectId) -> &'static str {
    match tree.kind() {
        gix::hash::Kind::Sha1 => "gpgsig",
        _ => "gpgsig-sha256",
    }
}

/// What a commit of ours changed: its edits are repeated on its parent.
pub(super) fn differences(
    repository: &Repository,
    commit: &CommitSha,
    edits: &[Edit],
) -> Result<Vec<Difference>, MirrorError> {
    let id = object_id(commit)?;
    let object = repository.try_find_object(id).map_err(broken)?;
    let commit = object.ok_or(MirrorError::Beyond(id))?;
    let commit = commit.try_into_commit().map_err(broken)?;
    let Some(parent) = commit.parent_ids().next().map(gix::Id::detach) else {
        return Ok(Vec::new());
    };
    let trees = Trees::new(repository);
    let tree = tree_of(repository, parent)?;
    let edited = match edit(&trees, tree, edits) {
        Err(MirrorError::Missing(ids)) => {
            let all = edits
                .iter()
                .map(|one| edit(&trees, tree, std::slice::from_ref(one)));
            return Err(together(ids, all));
        }
        edited => edited?,
    };
    Ok(edited.map(|edited| edited.differences).unwrap_or_default())
}

/// The images at a place of a commit.
pub(super) fn images(
    repository: &Repository,
    commit: &CommitSha,
    place: &Place,
) -> Result<Result<Vec<ImageAtPlace>, Reason>, MirrorError> {
    let tree = tree_of(repository, object_id(commit)?)?;
    let trees = Trees::new(repository);
    let source = TreeSource { trees: &trees, tree };
    Ok(slipway_edit::read(place, &source)?.map_err(|refused| reason(&refused)))
}

/// A file or link of a tree, as it is written into a folder.
#[derive(Debug)]
pub(crate) enum Leaf {
    File(Vec<u8>),
    /// The target of a symbolic link.
    Link(Vec<u8>),
}

/// Looks up all files of a commit before passing on any of them: missing ones are fetched in one exchange. More than
/// `max_files` are not looked up; [`for_each_leaf`] refuses them.
pub(super) fn has_leaves(
    repository: &Repository,
    commit: &CommitSha,
    max_files: usize,
) -> Result<(), MirrorError> {
    let mut pending = vec![tree_of(repository, object_id(commit)?)?];
    let mut missing = Vec::new();
    let mut seen = 0_usize;
    let mut quick = repository.clone();
    while let Some(tree) = pending.pop() {
        for entry in repository.find_tree(tree).map_err(broken)?.iter() {
            let entry = entry.map_err(broken)?;
            if entry.mode().is_tree() {
                pending.push(entry.object_id());
            } else if !entry.mode().is_commit() {
                seen += 1;
                if !quick.has_object(entry.object_id()) {
                    missing.push(entry.object_id());
                    // The first missing one has triggered a search for new packs; one for each would take long.
                    quick.objects.refresh_never();
                }
            }
        }
        if seen > max_files {
            return Ok(());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(together(missing, std::iter::empty::<Result<(), _>>()))
}

/// Everything in a commit's tree, by path. Submodules are left out.
///
/// # Errors
/// `Err(reason)` if there is more than the limits allow.
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
            let id = entry.object_id();
            let header = repository.try_find_header(id).map_err(broken)?;
            let size = header.ok_or_else(|| MirrorError::Missing(vec![id]))?.size();
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
