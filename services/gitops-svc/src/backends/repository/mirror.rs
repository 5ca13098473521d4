//! What the mirror has of the remote, and how it gets more.
//!
//! The first fetch of a branch fetches its latest commit without files; later ones what was added since. A round needs
//! only the files that its edits read, which are fetched in one exchange for all of them. More history is fetched only
//! on demand: for the trailers of pushes that were not recorded, for old commits, for listings. If the remote does not
//! support omitting anything, the mirror is complete; complete mirrors stay so.

use std::{collections::HashSet, sync::Arc, time::Duration};

use gitops_domain::{
    reason::Code,
    remote::{self, Fetched},
};
use gix::ObjectId;
use slipway_model::{BranchName, CommitSha, Fault, Reason};

use super::{
    Repository,
    error::{MirrorError, unwritten},
    git::History,
    internal, mirror_problem, objects,
    reach::{self, Reach},
    work_on,
};
use crate::backends::signing::Committer;

/// How often, and at what interval, a fetch is tried while another git process holds a lock of the mirror.
const LOCK_TRIES: u32 = 50;
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// After this time no git that writes the mirror's refs runs any more, so a lock is what a killed one left behind.
const LOCK_AGE: Duration = Duration::from_secs(130);

/// How often a fetch starts over because the mirror itself had to be put right.
const MAX_REPAIRS: usize = 3;

/// The kind of object ids that a new mirror is made for; the first fetch shows whether the remote has another.
const USUAL_FORMAT: &str = "sha1";

/// How much more history is fetched each time the target of a search is not in it.
pub(super) const STEPS: [History; 4] = [
    History::Further(50),
    History::Further(500),
    History::Further(5000),
    History::Whole,
];

/// How often a piece of work finds other objects missing: an edit that goes from one file to the next continues once it
/// has the first.
const MAX_EXCHANGES: usize = 64;

/// The result of asking for more history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengthened {
    /// The mirror has more than before.
    pub(super) changed: bool,
    /// There may be more at the remote.
    pub(super) more: bool,
}

/// Why nothing was fetched.
enum Unfetched {
    Fault(Fault<Reason>),
    /// The mirror's refs are damaged, and have to be fetched anew.
    Damaged,
    /// The mirror has to be made again for another kind of object ids.
    OtherFormat(String),
}

impl From<Fault<Reason>> for Unfetched {
    fn from(fault: Fault<Reason>) -> Self {
        Self::Fault(fault)
    }
}

impl From<Unfetched> for Fault<Reason> {
    fn from(unfetched: Unfetched) -> Self {
        match unfetched {
            Unfetched::Fault(fault) => fault,
            Unfetched::Damaged => {
                internal("the mirror's refs are damaged; they are fetched again".to_owned())
            }
            Unfetched::OtherFormat(format) => internal(format!(
                "the remote's objects now have ids of {format}; the mirror is made again"
            )),
        }
    }
}

impl Repository {
    /// Fetches a branch, or all of them. Whatever is wrong with the mirror's own refs is put right: it is only a copy.
    pub(super) async fn bring(self: &Arc<Self>, branch: Option<&BranchName>) -> Result<(), Fault<Reason>> {
        let _turn = self.turn.lock().await;
        for _ in 0..MAX_REPAIRS {
            match self.bring_once(branch).await {
                Ok(()) => return Ok(()),
                Err(Unfetched::Fault(fault)) => return Err(fault),
                Err(Unfetched::Damaged) => {
                    tracing::warn!(
                        repository = self.name,
                        "the mirror's refs are damaged; they are fetched again"
                    );
                    self.forget_refs();
                }
                Err(Unfetched::OtherFormat(format)) => {
                    tracing::info!(
                        repository = self.name,
                        format,
                        "the mirror is made for the remote's kind of object ids"
                    );
                    let _ = std::fs::remove_dir_all(&self.mirror);
                    self.forget_objects();
                    self.make(&format).await?;
                }
            }
        }
        Err(internal(
            "the mirror could not be put right: delete it".to_owned(),
        ))
    }

    async fn make(&self, format: &str) -> Result<(), Fault<Reason>> {
        std::fs::create_dir_all(&self.mirror)
            .map_err(unwritten)
            .map_err(|error| mirror_problem(&error))?;
        self.git().init(format).await
    }

    /// Forgets where the remote's branches were; the objects stay.
    fn forget_refs(&self) {
        // What is not there need not be removed.
        let _ = std::fs::remove_dir_all(self.mirror.join("refs/remotes/origin"));
        let _ = std::fs::remove_file(self.mirror.join("packed-refs"));
        self.forget_objects();
    }

    async fn bring_once(self: &Arc<Self>, branch: Option<&BranchName>) -> Result<(), Unfetched> {
        if !self.is_there() {
            self.make(USUAL_FORMAT).await?;
        }
        let here = self.objects(|objects, _| objects::branches(objects)).await?;
        // A complete mirror fetches other branches as they are: they connect to what it has.
        let partly = here.is_empty() || self.is_shallow();
        let wanted = match branch {
            Some(branch) => vec![branch.to_string()],
            None if partly => self.git().branches().await?,
            None => Vec::new(),
        };
        let known: HashSet<&String> = here.iter().map(|(name, _)| name).collect();
        let new: Vec<String> = wanted.into_iter().filter(|name| !known.contains(name)).collect();
        if partly && !new.is_empty() {
            self.bring_latest(&new).await?;
            if branch.is_some() {
                return Ok(());
            }
        }
        let all = branch.map_or_else(|| "*".to_owned(), ToString::to_string);
        self.take(&[all], History::New).await
    }

    /// Branches that were not in the mirror before: their latest commits, or all of them if the remote does not support
    /// shallow fetches.
    async fn bring_latest(self: &Arc<Self>, branches: &[String]) -> Result<(), Unfetched> {
        match self.take(branches, History::Latest).await {
            Err(Unfetched::Fault(fault)) if remote::wants_it_whole(fault.error()) => {
                tracing::info!(repository = self.name, error = %fault, "the remote serves complete histories only");
                self.git().keep_files().await?;
                self.take(branches, History::New).await
            }
            result => result,
        }
    }

    async fn take(&self, branches: &[String], history: History) -> Result<(), Unfetched> {
        let mut tries = 0;
        let mut pruned = false;
        loop {
            match self.git().fetch(branches, history).await? {
                Fetched::Yes => {
                    self.tidy.wrote(&self.mirror);
                    return Ok(());
                }
                // A fetch of one branch does not remove another, which may be in the way of its name.
                Fetched::Stale if !pruned => {
                    pruned = true;
                    self.git().prune().await?;
                }
                Fetched::Stale | Fetched::Damaged => return Err(Unfetched::Damaged),
                Fetched::OtherFormat(format) => return Err(Unfetched::OtherFormat(format)),
                // Our own push records the position of the remote's branch at the same time.
                Fetched::Locked(_) if tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_WAIT).await;
                }
                Fetched::Locked(said) => {
                    self.remove_locks(LOCK_AGE);
                    return Err(internal(format!("the mirror's refs are locked: {said}")).into());
                }
            }
        }
    }

    /// Fetches more of the history of the branches in the mirror, `by` commits. Returns whether there is still more at
    /// the remote.
    ///
    /// # Errors
    /// When the remote cannot be reached.
    pub(crate) async fn deepen(self: &Arc<Self>, by: u32) -> Result<bool, Fault<Reason>> {
        let lengthened = self.lengthen(History::Further(by.max(1))).await?;
        Ok(lengthened.changed && lengthened.more)
    }

    pub(super) async fn lengthen(self: &Arc<Self>, history: History) -> Result<Lengthened, Fault<Reason>> {
        let nothing = Lengthened {
            changed: false,
            more: false,
        };
        let before = self.boundary().await?;
        if before.is_empty() {
            return Ok(nothing);
        }
        let _turn = self.turn.lock().await;
        let now = self.boundary().await?;
        if now != before {
            // Another task was waiting for the same.
            return Ok(Lengthened {
                changed: true,
                more: !now.is_empty(),
            });
        }
        let here = self.objects(|objects, _| objects::branches(objects)).await?;
        let names: Vec<String> = here.into_iter().map(|(name, _)| name).collect();
        match self.take(&names, history).await {
            // One of them is gone: only what still exists counts.
            Err(Unfetched::Fault(Fault::Permanent(reason))) if reason.code == Code::BranchNotFound => {
                let there: HashSet<String> = self.git().branches().await?.into_iter().collect();
                let names: Vec<String> = names.into_iter().filter(|name| there.contains(name)).collect();
                if names.is_empty() {
                    return Ok(nothing);
                }
                self.take(&names, history).await?;
            }
            result => result?,
        }
        let after = self.boundary().await?;
        Ok(Lengthened {
            // A remote that is itself shallow does not have more.
            changed: after != before,
            more: !after.is_empty(),
        })
    }

    async fn boundary(self: &Arc<Self>) -> Result<HashSet<ObjectId>, Fault<Reason>> {
        if !self.is_there() {
            return Ok(HashSet::new());
        }
        self.objects(|objects, _| reach::boundary(objects)).await
    }

    /// Makes sure that the commit is on a branch of the remote, and in the mirror.
    ///
    /// # Errors
    /// `Ok(false)` when the remote does not have it.
    pub(crate) async fn ensure(self: &Arc<Self>, commit: &CommitSha) -> Result<bool, Fault<Reason>> {
        if self.is_there() && self.reach(commit).await? == Reach::OnBranch {
            return Ok(true);
        }
        self.bring(None).await?;
        let mut steps = STEPS.iter();
        loop {
            match self.reach(commit).await? {
                Reach::OnBranch => return Ok(true),
                Reach::Outside => return Ok(false),
                Reach::Unknown => {}
            }
            // A commit that the remote does not have at all is not worth fetching the whole history.
            if steps.len() == STEPS.len() && !self.has_commit(commit).await? {
                let _turn = self.turn.lock().await;
                if !self.git().probe(commit).await? {
                    return Ok(false);
                }
            }
            match steps.next() {
                Some(step) if self.lengthen(*step).await?.changed => {}
                _ => return Ok(false),
            }
        }
    }

    async fn reach(self: &Arc<Self>, commit: &CommitSha) -> Result<Reach, Fault<Reason>> {
        let commit = commit.clone();
        self.objects(move |objects, _| reach::reach(objects, &commit))
            .await
    }

    pub(super) fn is_there(&self) -> bool {
        self.mirror.join("HEAD").is_file()
    }

    fn is_shallow(&self) -> bool {
        std::fs::metadata(self.mirror.join("shallow")).is_ok_and(|file| file.len() > 0)
    }

    /// Removes the locks that git leaves behind when it is killed. Called before anything uses the mirror.
    pub(crate) fn recover(&self) {
        self.remove_locks(Duration::ZERO);
    }

    /// Removes the locks that have been there for so long.
    fn remove_locks(&self, age: Duration) {
        let old = |file: &std::fs::DirEntry| {
            let written = file.metadata().and_then(|data| data.modified());
            written.is_ok_and(|at| at.elapsed().unwrap_or_default() >= age)
        };
        let mut folders = vec![self.mirror.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() && path.file_name().is_some_and(|name| name != "objects") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "lock") && old(&entry) {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }

    /// Fetches objects that the mirror lacks. A remote that omits files and does not serve them individually is asked
    /// for everything again, with its files.
    async fn bring_objects(self: &Arc<Self>, ids: &[ObjectId]) -> Result<(), Fault<Reason>> {
        match self.git().fetch_objects(ids).await {
            Err(fault) if remote::wants_it_whole(fault.error()) => {
                let _turn = self.turn.lock().await;
                tracing::info!(repository = self.name, error = %fault, "the remote serves no single files");
                self.git().keep_files().await?;
                let here = self.objects(|objects, _| objects::branches(objects)).await?;
                let names: Vec<String> = here.into_iter().map(|(name, _)| name).collect();
                self.git().fetch_again(&names).await
            }
            result => result,
        }
    }

    /// Works on the mirror's objects, away from the runtime's threads. Missing objects are fetched, and the work is
    /// started again; so it must not do anything that may not be repeated.
    pub(super) async fn objects<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Fn(&gix::Repository, &Committer) -> Result<T, MirrorError> + Send + Sync + 'static,
    ) -> Result<T, Fault<Reason>> {
        let work = Arc::new(work);
        let mut brought: HashSet<ObjectId> = HashSet::new();
        for _ in 0..MAX_EXCHANGES {
            let (this, once) = (Arc::clone(self), Arc::clone(&work));
            let done =
                tokio::task::spawn_blocking(move || work_on(&this, |objects| once(objects, &this.committer)));
            match done.await.map_err(|error| internal(error.to_string()))? {
                Ok(value) => return Ok(value),
                // What was fetched and is still missing is not available.
                Err(MirrorError::Missing(ids)) if ids.iter().all(|id| brought.insert(*id)) => {
                    // Boxed: this function calls itself indirectly when it fetches all files again.
                    Box::pin(self.bring_objects(&ids)).await?;
                    self.tidy.wrote(&self.mirror);
                }
                Err(MirrorError::Beyond(id)) if brought.insert(id) => {
                    // Boxed: this function calls itself indirectly when it fetches history.
                    if !Box::pin(self.lengthen(STEPS[0])).await?.changed {
                        return Err(mirror_problem(&MirrorError::Beyond(id)));
                    }
                }
                Err(error) => return Err(mirror_problem(&error)),
            }
        }
        Err(internal(format!(
            "mirror: objects were missing {MAX_EXCHANGES} times in a row"
        )))
    }
}
