//! What is read to render folders at commits of the mirror.

use slipway_edit::{Edit, Inputs, NotHere};
use slipway_model::CommitSha;

use super::{
    error::MirrorError,
    objects::{object_id, tree_of},
    trees::{TreeSource, Trees},
};

/// A commit, and the edits whose folders are to be rendered at it.
pub(crate) type Edited = (CommitSha, Vec<Edit>);

/// For each commit, what is read to render the folders of its edits.
///
/// # Errors
/// [`MirrorError::Missing`] names what all of them lack, so that it is fetched together.
pub(super) fn inputs(
    repository: &gix::Repository,
    commits: &[Edited],
) -> Result<Vec<Vec<Result<Inputs, NotHere>>>, MirrorError> {
    // Most of the trees are the same in all of the commits.
    let trees = Trees::new(repository);
    let mut found = Vec::with_capacity(commits.len());
    let mut missing = Vec::new();
    for (commit, edits) in commits {
        let tree = tree_of(repository, object_id(commit)?)?;
        let source = TreeSource { trees: &trees, tree };
        match slipway_edit::rendered(edits, &source) {
            Ok(inputs) => found.push(inputs),
            Err(MirrorError::Missing(ids)) => missing.extend(ids),
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    missing.sort_unstable();
    missing.dedup();
    Err(MirrorError::Missing(missing))
}

/// The files of a commit at these paths.
pub(super) fn contents(
    repository: &gix::Repository,
    commit: &CommitSha,
    paths: &[String],
) -> Result<Vec<(String, Vec<u8>)>, MirrorError> {
    let tree = tree_of(repository, object_id(commit)?)?;
    let trees = Trees::new(repository);
    TreeSource { trees: &trees, tree }.contents(paths)
}
