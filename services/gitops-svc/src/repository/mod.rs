//! One configured repository: a bare mirror in the data folder, its remote, and what can be done with both.

mod git;
mod objects;
mod remote;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use slipway_edit::{Difference, Edit, Found, Place};
use slipway_model::{BranchName, CommitSha, Id};
use slipway_server::ConfigError;

pub(crate) use objects::{Applied, Leaf, Plan};
pub(crate) use remote::{Problem, words};

use self::git::Git;
use crate::{
    change::{Code, Reason},
    config::{PullRequestsConfig, RepositoryConfig},
    credentials::Access,
    signing::Committer,
};

/// How often, and how long apart, a fetch is tried when another git process holds a lock of the mirror.
const LOCK_TRIES: u32 = 50;
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_millis(20);

/// A repository by its configured name.
#[derive(Debug)]
pub(crate) struct Repository {
    name: String,
    config: RepositoryConfig,
    committer: Committer,
    access: Access,
    mirror: PathBuf,
    /// Opened once; handles for each use are cheap.
    objects: Mutex<Option<gix::ThreadSafeRepository>>,
    /// Fetches of one mirror take turns, since they lock the same refs.
    turn: tokio::sync::Mutex<()>,
}

impl Repository {
    /// # Errors
    /// When a key that it is configured with cannot be used.
    pub(crate) fn new(
        name: &str,
        config: RepositoryConfig,
        committer: &Committer,
        data_dir: &std::path::Path,
    ) -> Result<Self, ConfigError> {
        let access = Access::new(&config);
        access.check(name)?;
        Ok(Self {
            name: name.to_owned(),
            committer: Committer::of(name, &config, committer)?,
            access,
            mirror: data_dir.join("mirrors").join(format!("{name}.git")),
            config,
            objects: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The branch that is meant when none is given.
    pub(crate) fn branch(&self) -> &BranchName {
        &self.config.branch
    }

    /// Nothing is read or written: changes are answered at once.
    pub(crate) fn pretends(&self) -> bool {
        self.config.pretend
    }

    fn git(&self) -> Git<'_> {
        Git {
            mirror: &self.mirror,
            config: &self.config,
            access: &self.access,
        }
    }

    /// How the remote, and the forge around it, know us.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Where the remote is, without credentials; empty for one that pretends.
    pub(crate) fn url(&self) -> &str {
        self.config.url.as_deref().unwrap_or_default()
    }

    /// How changes go by pull request, if they may.
    pub(crate) fn pull_requests(&self) -> Option<&PullRequestsConfig> {
        self.config.pull_requests.as_ref()
    }

    /// Brings the branch and gives its head.
    pub(crate) async fn fetch(self: &Arc<Self>, branch: &BranchName) -> Result<CommitSha, Problem> {
        self.bring(Some(branch)).await?;
        self.tracked(branch).await?.ok_or_else(|| {
            Problem::Final(Reason::new(
                Code::BranchNotFound,
                format!("the repository has no branch {branch}"),
            ))
        })
    }

    async fn bring(&self, branch: Option<&BranchName>) -> Result<(), Problem> {
        let _turn = self.turn.lock().await;
        if !self.mirror.join("HEAD").is_file() {
            std::fs::create_dir_all(&self.mirror)
                .map_err(|error| internal(format!("cannot make {}: {error}", self.mirror.display())))?;
            self.git().init().await?;
        }
        let mut tries = 0;
        loop {
            match self.git().fetch(branch).await {
                // Our own push records where the remote's branch is at the same time.
                Err(Problem::LostRace) if tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_WAIT).await;
                }
                Err(Problem::LostRace) => return Err(internal("the mirror's refs are locked".to_owned())),
                result => return result,
            }
        }
    }

    /// Takes away the locks that git leaves behind when it is killed. Called before anything uses the mirror.
    pub(crate) fn recover(&self) {
        let mut folders = vec![self.mirror.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() && path.file_name().is_some_and(|name| name != "objects") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "lock") {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }

    /// Where the branch was when this process last heard of it; a push from there shows whether it still is.
    pub(crate) async fn tracked(self: &Arc<Self>, branch: &BranchName) -> Result<Option<CommitSha>, Problem> {
        if !self.mirror.join("HEAD").is_file() {
            return Ok(None);
        }
        let branch = branch.to_string();
        self.objects(move |objects, _| objects::tracked(objects, &branch))
            .await
    }

    /// Whether the mirror has the commit.
    pub(crate) async fn has_commit(self: &Arc<Self>, commit: &CommitSha) -> Result<bool, Problem> {
        if !self.mirror.join("HEAD").is_file() {
            return Ok(false);
        }
        let commit = commit.clone();
        self.objects(move |objects, _| Ok(objects::has_commit(objects, &commit)))
            .await
    }

    /// Makes sure that the commit is on a branch of the remote, and here.
    ///
    /// # Errors
    /// `Ok(false)` when the remote does not have it.
    pub(crate) async fn ensure(self: &Arc<Self>, commit: &CommitSha) -> Result<bool, Problem> {
        if self.has_commit(commit).await? && self.git().on_some_branch(commit).await? {
            return Ok(true);
        }
        self.bring(None).await?;
        Ok(self.has_commit(commit).await? && self.git().on_some_branch(commit).await?)
    }

    /// See [`objects::apply`].
    pub(crate) async fn apply(
        self: &Arc<Self>,
        head: &CommitSha,
        plans: Vec<Plan>,
    ) -> Result<(CommitSha, Vec<Applied>), Problem> {
        let head = head.clone();
        self.objects(move |objects, committer| objects::apply(objects, &head, &plans, committer))
            .await
    }

    /// Moves the remote's branch from `old` to `new`.
    pub(crate) async fn push(
        &self,
        branch: &BranchName,
        old: &CommitSha,
        new: &CommitSha,
    ) -> Result<(), Problem> {
        self.git().push(branch, old, new).await
    }

    /// See [`objects::find_changes`].
    pub(crate) async fn find_changes(
        self: &Arc<Self>,
        base: Option<&CommitSha>,
        head: &CommitSha,
        wanted: HashSet<Id>,
    ) -> Result<HashMap<Id, CommitSha>, Problem> {
        let (base, head) = (base.cloned(), head.clone());
        self.objects(move |objects, _| objects::find_changes(objects, base.as_ref(), &head, &wanted))
            .await
    }

    /// What a commit of ours changed.
    pub(crate) async fn differences(
        self: &Arc<Self>,
        commit: &CommitSha,
        edits: Vec<Edit>,
    ) -> Result<Vec<Difference>, Problem> {
        let commit = commit.clone();
        self.objects(move |objects, _| objects::differences(objects, &commit, &edits))
            .await
    }

    /// The images at a place of a commit that is here.
    pub(crate) async fn images(
        self: &Arc<Self>,
        commit: &CommitSha,
        place: &Place,
    ) -> Result<Result<Vec<Found>, Reason>, Problem> {
        let (commit, place) = (commit.clone(), place.clone());
        self.objects(move |objects, _| objects::images(objects, &commit, &place))
            .await
    }

    /// Hands every file of a commit that is here to `each`.
    pub(crate) async fn export(
        self: &Arc<Self>,
        commit: &CommitSha,
        max_bytes: u64,
        max_files: usize,
        mut each: impl FnMut(&str, Leaf) -> Result<(), Reason> + Send + 'static,
    ) -> Result<Result<(), Reason>, Problem> {
        let commit = commit.clone();
        self.objects(move |objects, _| {
            objects::for_each_leaf(objects, &commit, max_bytes, max_files, &mut each)
        })
        .await
    }

    /// Works on the mirror's objects, away from the runtime's threads.
    async fn objects<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&gix::Repository, &Committer) -> Result<T, objects::MirrorError> + Send + 'static,
    ) -> Result<T, Problem> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let shared = {
                let mut opened = this.objects.lock().unwrap_or_else(PoisonError::into_inner);
                match &*opened {
                    Some(objects) => objects.clone(),
                    None => opened.insert(objects::open(&this.mirror)?.into_sync()).clone(),
                }
            };
            work(&shared.to_thread_local(), &this.committer)
        })
        .await
        .map_err(|error| internal(error.to_string()))?
        .map_err(|error| internal(error.to_string()))
    }
}

/// Something here is at fault, perhaps not for long.
fn internal(message: String) -> Problem {
    Problem::Transient(Reason::new(Code::Internal, message))
}
