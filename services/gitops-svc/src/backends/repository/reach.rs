//! Histories in the mirror, which may end before their beginning.

use std::collections::{HashMap, HashSet};

use gitops_domain::message;
use gix::{ObjectId, Repository, revision::walk::Sorting, traverse::commit::simple::CommitTimeOrder};
use slipway_model::{CommitSha, Id};

use super::{
    error::{MirrorError, broken},
    objects::{self, object_id, sha},
};

/// The maximum number of commits that are searched for our own.
pub(super) const MAX_SEARCHED: usize = 10_000;

/// Commits of ours.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub(super) found: HashMap<Id, CommitSha>,
    /// More history would not show more.
    pub(super) complete: bool,
}

/// The commits beyond which the mirror has nothing, although there is more.
pub(super) fn boundary(repository: &Repository) -> Result<HashSet<ObjectId>, MirrorError> {
    let commits = repository.shallow_commits().map_err(broken)?;
    Ok(commits
        .map(|commits| commits.iter().copied().collect())
        .unwrap_or_default())
}

/// Our commits between `base` (exclusive) and `head`, by the change that their trailer names. Without a base, or if the
/// mirror does not have it, the latest commits are searched.
pub(super) fn find_changes(
    repository: &Repository,
    base: Option<&CommitSha>,
    head: &CommitSha,
    wanted: &HashSet<Id>,
) -> Result<Search, MirrorError> {
    let mut search = Search::default();
    let boundary = boundary(repository)?;
    let mut walk = repository.rev_walk([object_id(head)?]);
    if let Some(base) = base.filter(|base| objects::has_commit(repository, base)) {
        walk = walk.with_hidden([object_id(base)?]);
    }
    let mut more = false;
    let mut seen = 0;
    for info in walk.all().map_err(broken)?.take(MAX_SEARCHED) {
        let commit = repository.find_commit(info.map_err(broken)?.id).map_err(broken)?;
        seen += 1;
        more |= boundary.contains(&commit.id);
        let text = commit.message_raw_sloppy().to_string();
        if let Some(id) = message::change_of(&text).and_then(|id| id.parse::<Id>().ok())
            && wanted.contains(&id)
        {
            search.found.insert(id, sha(commit.id)?);
            if search.found.len() == wanted.len() {
                break;
            }
        }
    }
    search.complete = !more || seen == MAX_SEARCHED || search.found.len() == wanted.len();
    Ok(search)
}

/// Whether a commit is on a branch of the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    OnBranch,
    /// On none, as far as the branches were fetched.
    Outside,
    /// It may be beyond the part of the history that the mirror has.
    Unknown,
}

/// Searches for a commit on the remote's branches as they were last fetched, from the newest on.
pub(super) fn reach(repository: &Repository, commit: &CommitSha) -> Result<Reach, MirrorError> {
    let commit = object_id(commit)?;
    if !objects::is_of(repository, commit) {
        return Ok(Reach::Outside);
    }
    let tips: Vec<ObjectId> = objects::branches(repository)?
        .into_iter()
        .map(|(_, id)| id)
        .collect();
    if tips.contains(&commit) {
        return Ok(Reach::OnBranch);
    }
    let boundary = boundary(repository)?;
    if !repository.has_object(commit) {
        return Ok(if boundary.is_empty() {
            Reach::Outside
        } else {
            Reach::Unknown
        });
    }
    let walk = repository
        .rev_walk(tips)
        .sorting(Sorting::ByCommitTime(CommitTimeOrder::NewestFirst));
    let mut more = false;
    for info in walk.all().map_err(broken)? {
        let id = info.map_err(broken)?.id;
        if id == commit {
            return Ok(Reach::OnBranch);
        }
        more |= boundary.contains(&id);
    }
    Ok(if more { Reach::Unknown } else { Reach::Outside })
}
