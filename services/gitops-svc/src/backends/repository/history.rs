//! The history of a branch, and what its commits changed, read from the mirror's objects.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use gitops_domain::{
    history::{Commit, Part, image_changes},
    layout::Layout,
    message::Trailers,
};
use gix::{
    ObjectId,
    diff::tree::{Recorder, Visit, visit},
    objs::{TreeRefIter, commit::MessageRef},
};
use slipway_edit::{ImageAtPlace, KUSTOMIZATION_NAMES, Place};
use slipway_model::{CommitSha, Fault, Name, Reason, Timestamp};

use super::{
    Repository,
    error::{MirrorError, broken},
    objects,
};

/// The number of commits by which a shallow mirror is deepened when its history is read.
const FURTHER: u32 = 200;
/// The number of commits of a merge that are read.
const MAX_MERGED: usize = 100;
/// The number of changed files of a commit that are examined. Imports of whole trees have more, and are not
/// deployments.
const MAX_FILES: usize = 2000;
/// The number of changed places of a commit that are read.
const MAX_PLACES: usize = 200;
/// The number of files of a tree that are searched for services.
const MAX_TREE_FILES: usize = 200_000;
/// The maximum length of a name, address or subject by others that is kept.
const MAX_TEXT: usize = 300;

/// Some commits of a branch, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Walked {
    pub(crate) commits: Vec<Commit>,
    /// How many were examined, including those that were skipped.
    pub(crate) looked: usize,
    /// Where to continue; absent if the branch's beginning was reached.
    pub(crate) next: Option<CommitSha>,
    /// Nothing was read, since the mirror does not have the first commit's parents.
    cut: bool,
}

impl Repository {
    /// Where images are, according to the configuration.
    pub(crate) fn layout(&self) -> &Layout {
        &self.config.environments
    }

    /// The commits of a branch from `from` on, along the first parents: up to `most` that changed something at `path`
    /// (empty for all), from among the next `looked` ones.
    pub(crate) async fn walk(
        self: &Arc<Self>,
        from: &CommitSha,
        path: &str,
        most: usize,
        looked: usize,
    ) -> Result<Walked, Fault<Reason>> {
        let mut more = true;
        loop {
            let (from, path) = (from.clone(), path.to_owned());
            let walked = self
                .objects(move |objects, _| walk(objects, &from, &path, most, looked))
                .await?;
            if !walked.cut {
                return Ok(walked);
            }
            // A remote that is itself shallow does not have more.
            if !more {
                return Ok(Walked::default());
            }
            more = self.deepen(FURTHER).await?;
        }
    }

    /// What a commit changed, by the configured places; kustomizations that belong to none are reported without service
    /// and environment.
    pub(crate) async fn changed(self: &Arc<Self>, commit: &CommitSha) -> Result<Vec<Part>, Fault<Reason>> {
        let (commit, this) = (commit.clone(), Arc::clone(self));
        self.objects(move |objects, _| changed(objects, &commit, this.layout()))
            .await
    }

    /// The services that the configured places find in a commit's tree.
    pub(crate) async fn services(
        self: &Arc<Self>,
        commit: &CommitSha,
    ) -> Result<BTreeSet<Name>, Fault<Reason>> {
        let (commit, this) = (commit.clone(), Arc::clone(self));
        self.objects(move |objects, _| {
            let files = files(objects, objects::tree_of(objects, objects::object_id(&commit)?)?)?;
            Ok(this.layout().services(files.iter().map(String::as_str)))
        })
        .await
    }
}

fn walk(
    repository: &gix::Repository,
    from: &CommitSha,
    path: &str,
    most: usize,
    look: usize,
) -> Result<Walked, MirrorError> {
    let shallow = repository.shallow_commits().map_err(broken)?;
    let is_shallow = |id: &ObjectId| {
        shallow
            .as_ref()
            .is_some_and(|commits| commits.binary_search(id).is_ok())
    };
    let mut walked = Walked::default();
    let mut at = Some(objects::object_id(from)?);
    // At that path, in the commit that comes next.
    let mut stood: Option<Option<ObjectId>> = None;
    while let Some(id) = at {
        // What it changed cannot be determined without its parent.
        if is_shallow(&id) {
            walked.cut = walked.looked == 0;
            walked.next = Some(objects::sha(id)?);
            return Ok(walked);
        }
        if walked.commits.len() >= most || walked.looked >= look {
            walked.next = Some(objects::sha(id)?);
            return Ok(walked);
        }
        walked.looked += 1;
        let commit = repository.find_commit(id).map_err(broken)?;
        let parents: Vec<ObjectId> = commit.parent_ids().map(gix::Id::detach).collect();
        at = parents.first().copied();
        let touched = path.is_empty() || {
            let now = match stood.take() {
                Some(now) => now,
                None => entry_at(repository, id, path)?,
            };
            let before = match at {
                Some(parent) => entry_at(repository, parent, path)?,
                None => None,
            };
            stood = Some(before);
            now != before
        };
        if touched {
            let mut read = read(repository, id)?;
            if let [first, others @ ..] = parents.as_slice()
                && !others.is_empty()
            {
                read.merged = merged(repository, *first, others)?;
            }
            walked.commits.push(read);
        }
    }
    Ok(walked)
}

/// What is at a path in a commit.
fn entry_at(
    repository: &gix::Repository,
    commit: ObjectId,
    path: &str,
) -> Result<Option<ObjectId>, MirrorError> {
    let tree = repository
        .find_tree(objects::tree_of(repository, commit)?)
        .map_err(broken)?;
    let entry = tree.lookup_entry(path.split('/')).map_err(broken)?;
    Ok(entry.map(|entry| entry.object_id()))
}

fn read(repository: &gix::Repository, id: ObjectId) -> Result<Commit, MirrorError> {
    let commit = repository.find_commit(id).map_err(broken)?;
    let message = commit.message_raw_sloppy().to_string();
    let author = commit.author().map_err(broken)?.trim();
    // An invalid time becomes the epoch: shown, but not relied on.
    let seconds = commit.time().map_or(0, |time| time.seconds);
    let parent = commit.parent_ids().next().map(gix::Id::detach);
    Ok(Commit {
        id: objects::sha(id)?,
        parent: parent.map(objects::sha).transpose()?,
        author: text(&format!("{} <{}>", author.name, author.email)),
        time: Timestamp::from_micros(seconds.saturating_mul(1_000_000)),
        subject: text(&MessageRef::from_bytes(message.as_bytes()).summary().to_string()),
        trailers: Trailers::read(&message),
        merged: Vec::new(),
    })
}

/// Printable, and cut.
fn text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// The commits that a merge brought, except for other merges.
fn merged(
    repository: &gix::Repository,
    first: ObjectId,
    others: &[ObjectId],
) -> Result<Vec<Commit>, MirrorError> {
    let walk = repository
        .rev_walk(others.iter().copied())
        .with_hidden([first])
        .all()
        .map_err(broken)?;
    let mut commits = Vec::new();
    for info in walk.take(MAX_MERGED) {
        let info = info.map_err(broken)?;
        if info.parent_ids.len() < 2 {
            commits.push(read(repository, info.id)?);
        }
    }
    Ok(commits)
}

/// The files that differ between two trees.
#[derive(Default)]
struct Files {
    recorder: Recorder,
    files: Vec<String>,
}

impl Visit for Files {
    fn pop_front_tracked_path_and_set_current(&mut self) {
        self.recorder.pop_front_tracked_path_and_set_current();
    }

    fn push_back_tracked_path_component(&mut self, component: &gix::bstr::BStr) {
        self.recorder.push_back_tracked_path_component(component);
    }

    fn push_path_component(&mut self, component: &gix::bstr::BStr) {
        self.recorder.push_path_component(component);
    }

    fn pop_path_component(&mut self) {
        self.recorder.pop_path_component();
    }

    fn visit(&mut self, change: visit::Change) -> visit::Action {
        if !change.entry_mode().is_tree() {
            self.files.push(self.recorder.path().to_string());
        }
        if self.files.len() < MAX_FILES {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// The files that a commit changed.
fn changed_files(repository: &gix::Repository, commit: ObjectId) -> Result<Vec<String>, MirrorError> {
    let commit = repository.find_commit(commit).map_err(broken)?;
    let after = repository
        .find_tree(commit.tree_id().map_err(broken)?)
        .map_err(broken)?;
    let before = match commit.parent_ids().next() {
        Some(parent) => {
            let tree = objects::tree_of(repository, parent.detach())?;
            repository.find_tree(tree).map_err(broken)?.detach().data
        }
        None => Vec::new(),
    };
    let mut files = Files::default();
    let hash = repository.object_hash();
    match gix::diff::tree(
        TreeRefIter::from_bytes(&before, hash),
        TreeRefIter::from_bytes(&after.data, hash),
        gix::diff::tree::State::default(),
        &repository.objects,
        &mut files,
    ) {
        // Aborted when there were enough.
        Ok(()) | Err(gix::diff::tree::Error::Cancelled) => Ok(files.files),
        Err(error) => Err(broken(error)),
    }
}

fn changed(
    repository: &gix::Repository,
    commit: &CommitSha,
    layout: &Layout,
) -> Result<Vec<Part>, MirrorError> {
    let id = objects::object_id(commit)?;
    let parent = repository
        .find_commit(id)
        .map_err(broken)?
        .parent_ids()
        .next()
        .map(|parent| objects::sha(parent.detach()))
        .transpose()?;
    let found = |commit: &CommitSha, place: &Place| -> Result<Vec<ImageAtPlace>, MirrorError> {
        // A file that cannot be read as what it should be has no images.
        Ok(objects::images(repository, commit, place)?.unwrap_or_default())
    };
    let mut parts: Vec<(Part, Option<Place>)> = Vec::new();
    for file in changed_files(repository, id)? {
        let owners = layout.owners(&file);
        if owners.is_empty() {
            let (folder, name) = file.rsplit_once('/').unwrap_or(("", file.as_str()));
            if KUSTOMIZATION_NAMES.contains(&name)
                && let Ok(folder) = folder.parse()
            {
                parts.push((Part::default(), Some(Place::Kustomization(folder))));
            }
        }
        for owner in owners {
            let part = Part {
                service: owner.service.clone(),
                environment: Some(owner.environment.clone()),
                images: Vec::new(),
            };
            // If the pattern does not contain the service, any name gives the same place.
            let place = match &owner.service {
                Some(service) => layout.place(service, &owner.environment).ok(),
                None => layout.place(&owner.environment, &owner.environment).ok(),
            };
            if !parts.iter().any(|(other, at)| *other == part && *at == place) {
                parts.push((part, place));
            }
        }
        if parts.len() >= MAX_PLACES {
            break;
        }
    }
    let mut told: Vec<Part> = Vec::new();
    // What is not in the mirror is fetched together.
    let mut missing = Vec::new();
    let mut have = |result: Result<Vec<ImageAtPlace>, MirrorError>| match result {
        Err(MirrorError::Missing(ids)) => {
            missing.extend(ids);
            Ok(Vec::new())
        }
        result => result,
    };
    for (mut part, place) in parts {
        if let Some(place) = &place {
            let before = match &parent {
                Some(parent) => have(found(parent, place))?,
                None => Vec::new(),
            };
            part.images = image_changes(place, &before, &have(found(commit, place))?);
        }
        // A kustomization outside the configuration that changed no image is irrelevant.
        match told
            .iter_mut()
            .find(|other| other.service == part.service && other.environment == part.environment)
        {
            Some(other) => other.images.append(&mut part.images),
            None if part.environment.is_none() && part.images.is_empty() => {}
            None => told.push(part),
        }
    }
    if missing.is_empty() {
        Ok(told)
    } else {
        Err(MirrorError::Missing(missing))
    }
}

/// The files of a tree; links and submodules are not included.
fn files(repository: &gix::Repository, tree: ObjectId) -> Result<Vec<String>, MirrorError> {
    let mut files = Vec::new();
    let mut pending = vec![(String::new(), tree)];
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
            if entry.mode().is_tree() {
                pending.push((path, entry.object_id()));
            } else if entry.mode().is_blob() {
                files.push(path);
            }
            if files.len() > MAX_TREE_FILES {
                return Ok(files);
            }
        }
    }
    Ok(files)
}
