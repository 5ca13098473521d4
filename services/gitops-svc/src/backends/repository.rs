//! One configured repository: a bare mirror in the data folder, its remote, and what can be done with both.

mod error;
mod git;
mod history;
mod inputs;
mod mirror;
mod objects;
mod pack;
mod reach;
#[cfg(test)]
mod tests;
mod tidy;
mod trees;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use gitops_domain::{reason::Code, remote::Moved};
use slipway_edit::{Difference, Edit, ImageAtPlace, Inputs, NotHere, Place};
use slipway_model::{BranchName, CommitSha, Fault, Id, Reason};
use slipway_server::ConfigError;

pub(crate) use inputs::Edited;
pub(crate) use objects::{Applied, Leaf, Plan};

use self::{error::MirrorError, git::Git, tidy::Tidy};
use crate::{
    backends::{credentials::Access, signing::Committer},
    config::{PullRequestsConfig, RepositoryConfig},
};

/// A repository by its configured name.
#[derive(Debug)]
pub(crate) struct Repository {
    name: String,
    config: RepositoryConfig,
    committer: Committer,
    access: Arc<Access>,
    mirror: PathBuf,
    /// Opened once; handles for each use are cheap.
    objects: Mutex<Option<gix::ThreadSafeRepository>>,
    /// Fetches of one mirror are serialised, since they lock the same refs.
    turn: tokio::sync::Mutex<()>,
    tidy: Tidy,
}

impl Repository {
    /// # Errors
    /// When a configured key cannot be used.
    pub(crate) fn new(
        name: &str,
        config: RepositoryConfig,
        committer: &Committer,
        data_dir: &std::path::Path,
    ) -> Result<Self, ConfigError> {
        let access = Arc::new(Access::new(&config));
        access.check(name)?;
        Ok(Self {
            name: name.to_owned(),
            committer: Committer::of(name, &config, committer)?,
            access,
            mirror: data_dir.join("mirrors").join(format!("{name}.git")),
            config,
            objects: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            tidy: Tidy::default(),
        })
    }

    /// The name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The branch that is used when none is given.
    pub(crate) fn branch(&self) -> &BranchName {
        &self.config.branch
    }

    fn git(&self) -> Git<'_> {
        Git {
            mirror: &self.mirror,
            config: &self.config,
            access: &self.access,
        }
    }

    /// How we authenticate to the remote, and to the forge around it.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The next use of the mirror opens it afresh.
    fn forget_objects(&self) {
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The remote's address, without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.config.url
    }

    /// The settings for changes by pull request, if they are configured.
    pub(crate) fn pull_requests(&self) -> Option<&PullRequestsConfig> {
        self.config.pull_requests.as_ref()
    }

    /// Fetches the branch and returns its head.
    pub(crate) async fn fetch(self: &Arc<Self>, branch: &BranchName) -> Result<CommitSha, Fault<Reason>> {
        self.bring(Some(branch)).await?;
        self.tracked(branch).await?.ok_or_else(|| {
            Fault::refused(
                Code::BranchNotFound,
                format!("the repository has no branch {branch}"),
            )
        })
    }

    /// Where the branch was when this process last learnt it; a push from there shows whether it still is.
    pub(crate) async fn tracked(
        self: &Arc<Self>,
        branch: &BranchName,
    ) -> Result<Option<CommitSha>, Fault<Reason>> {
        if !self.is_there() {
            return Ok(None);
        }
        let branch = branch.to_string();
        self.objects(move |objects, _| objects::tracked(objects, &branch))
            .await
    }

    /// Whether the mirror has the commit.
    pub(crate) async fn has_commit(self: &Arc<Self>, commit: &CommitSha) -> Result<bool, Fault<Reason>> {
        if !self.is_there() {
            return Ok(false);
        }
        let commit = commit.clone();
        self.objects(move |objects, _| Ok(objects::has_commit(objects, &commit)))
            .await
    }

    /// See [`objects::apply`].
    pub(crate) async fn apply(
        self: &Arc<Self>,
        head: &CommitSha,
        plans: Vec<Plan>,
    ) -> Result<(CommitSha, Vec<Applied>), Fault<Reason>> {
        let head = head.clone();
        self.tidy.wrote(&self.mirror);
        self.objects(move |objects, committer| objects::apply(objects, &head, &plans, committer))
            .await
    }

    /// Moves the remote's branch from `old` to `new`.
    pub(crate) async fn push(
        &self,
        branch: &BranchName,
        old: &CommitSha,
        new: &CommitSha,
    ) -> Result<Moved, Fault<Reason>> {
        self.git().push(branch, old, new).await
    }

    /// See [`reach::find_changes`]. If the mirror's history ends before `base`, more of it is fetched.
    pub(crate) async fn find_changes(
        self: &Arc<Self>,
        base: Option<&CommitSha>,
        head: &CommitSha,
        wanted: HashSet<Id>,
    ) -> Result<HashMap<Id, CommitSha>, Fault<Reason>> {
        let mut steps = mirror::STEPS.iter();
        loop {
            let (base, from, wanted) = (base.cloned(), head.clone(), wanted.clone());
            let search = self
                .objects(move |objects, _| reach::find_changes(objects, base.as_ref(), &from, &wanted))
                .await?;
            match steps.next() {
                Some(step) if !search.complete && self.lengthen(*step).await?.changed => {}
                _ => return Ok(search.found),
            }
        }
    }

    /// What a commit of ours changed.
    pub(crate) async fn differences(
        self: &Arc<Self>,
        commit: &CommitSha,
        edits: Vec<Edit>,
    ) -> Result<Vec<Difference>, Fault<Reason>> {
        let commit = commit.clone();
        self.objects(move |objects, _| objects::differences(objects, &commit, &edits))
            .await
    }

    /// The images at a place in a commit that is in the mirror.
    pub(crate) async fn images(
        self: &Arc<Self>,
        commit: &CommitSha,
        place: &Place,
    ) -> Result<Result<Vec<ImageAtPlace>, Reason>, Fault<Reason>> {
        let (commit, place) = (commit.clone(), place.clone());
        self.objects(move |objects, _| objects::images(objects, &commit, &place))
            .await
    }

    /// For each commit, what is read to render the folders of its edits.
    pub(crate) async fn inputs(
        self: &Arc<Self>,
        commits: Vec<Edited>,
    ) -> Result<Vec<Vec<Result<Inputs, NotHere>>>, Fault<Reason>> {
        self.objects(move |objects, _| inputs::inputs(objects, &commits))
            .await
    }

    /// The files of a commit at these paths.
    pub(crate) async fn contents(
        self: &Arc<Self>,
        commit: &CommitSha,
        paths: Vec<String>,
    ) -> Result<Vec<(String, Vec<u8>)>, Fault<Reason>> {
        let commit = commit.clone();
        self.objects(move |objects, _| inputs::contents(objects, &commit, &paths))
            .await
    }

    /// Whether a folder is rendered before a change of it is committed.
    pub(crate) fn render_before_commit(&self) -> bool {
        self.config.render_before_commit
    }

    /// Passes every file of a commit that is in the mirror to `each`.
    pub(crate) async fn export(
        self: &Arc<Self>,
        commit: &CommitSha,
        max_bytes: u64,
        max_files: usize,
        mut each: impl FnMut(&str, Leaf) -> Result<(), Reason> + Send + 'static,
    ) -> Result<Result<(), Reason>, Fault<Reason>> {
        let wanted = commit.clone();
        self.objects(move |objects, _| objects::has_leaves(objects, &wanted, max_files))
            .await?;
        let commit = commit.clone();
        let this = Arc::clone(self);
        let work = move |objects: &gix::Repository| {
            objects::for_each_leaf(objects, &commit, max_bytes, max_files, &mut each)
        };
        tokio::task::spawn_blocking(move || work_on(&this, work))
            .await
            .map_err(|error| internal(error.to_string()))?
            .map_err(|error| mirror_problem(&error))
    }
}

/// A local fault, perhaps only temporary.
fn internal(message: String) -> Fault<Reason> {
    Fault::unavailable(Code::Internal, message)
}

/// What the mirror's own state means for those who wanted something from it.
fn mirror_problem(error: &MirrorError) -> Fault<Reason> {
    match error {
        MirrorError::Full(_) => Fault::refused(Code::StorageFull, error.to_string()),
        _ => internal(error.to_string()),
    }
}

/// Works on the mirror's objects. Blocking.
fn work_on<T>(
    this: &Repository,
    work: impl FnOnce(&gix::Repository) -> Result<T, MirrorError>,
) -> Result<T, MirrorError> {
    let shared = {
        let mut opened = this.objects.lock().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(objects) => objects.clone(),
            None => opened.insert(objects::open(&this.mirror)?.into_sync()).clone(),
        }
    };
    let result = work(&shared.to_thread_local());
    if matches!(result, Err(MirrorError::Broken(_))) {
        // If this handle has a wrong view of the files, the next one reads them afresh.
        this.forget_objects();
    }
    result
}
