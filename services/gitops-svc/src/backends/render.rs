//! Renders a folder of a repository at one commit with the real kustomize, or the real Helm.
//!
//! kustomize would fetch remote bases and files, and read any folder of this machine that a kustomization names. So the
//! commit's files are written into a separate folder; every kustomization that will be reached is read first, and one
//! that leads out of that folder, or to the network, is refused; symbolic links that lead out are omitted; and the
//! program runs without `git` on its path, without plugins, and with a proxy that never answers.
//!
//! Helm reads the chart and the values that it is given, and nothing else: only their files are written, without links.
//! What a chart's schema refers to it would read or fetch, too (`chart`).

mod chart;
mod check;
mod confine;
mod tool;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use gitops_domain::reason::Code;
use moka::sync::Cache;
use slipway_edit::{Folder, Place};
use slipway_model::{CommitSha, Fault, Reason};
use tokio::sync::{OnceCell, Semaphore};

pub(crate) use self::check::by;
use self::{
    check::Answers,
    confine::{Absent, confine, drop_outside_links, write_leaf},
    tool::Tool,
};
use crate::{backends::repository::Repository, config::RendererConfig};

/// The total size of manifests that are cached, in bytes: a commit's rendering never changes.
const CACHED_BYTES: u64 = 32 << 20;
/// Each keeps one core busy.
const AT_ONCE: usize = 4;

/// A commit's folder of a repository.
type Key = (String, CommitSha, Folder);

/// Runs kustomize and Helm, and remembers what they printed.
#[derive(Debug)]
pub(crate) struct Renderer {
    kustomize: RendererConfig,
    helm: RendererConfig,
    scratch: PathBuf,
    tool: OnceCell<Tool>,
    helm_tool: OnceCell<Tool>,
    cache: Cache<Key, Arc<str>>,
    answers: Answers,
    turns: Semaphore,
}

/// A folder for the files of one rendering; removed with it.
struct Scratch {
    folder: tempfile::TempDir,
    /// Where the repository's files are.
    root: PathBuf,
}

impl Scratch {
    fn new(within: &Path) -> Result<Self, Fault<Reason>> {
        let internal =
            |error: std::io::Error| Fault::unavailable(Code::Internal, format!("scratch folder: {error}"));
        std::fs::create_dir_all(within).map_err(internal)?;
        let folder = tempfile::Builder::new()
            .prefix("render-")
            .tempdir_in(within)
            .map_err(internal)?;
        let root = folder.path().canonicalize().map_err(internal)?.join("repository");
        std::fs::create_dir(&root).map_err(internal)?;
        Ok(Self { folder, root })
    }

    /// Where the program may write.
    fn home(&self) -> &Path {
        self.folder.path()
    }
}

impl Renderer {
    pub(crate) fn new(kustomize: RendererConfig, helm: RendererConfig, data_dir: &Path) -> Self {
        Self {
            kustomize,
            helm,
            scratch: data_dir.join("scratch"),
            tool: OnceCell::new(),
            helm_tool: OnceCell::new(),
            cache: Cache::builder()
                .max_capacity(CACHED_BYTES)
                .weigher(|_, text: &Arc<str>| u32::try_from(text.len()).unwrap_or(u32::MAX))
                .build(),
            answers: Answers::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Removes what a dead process left behind.
    pub(crate) fn recover(&self) {
        // Usually there is nothing there.
        let _ = std::fs::remove_dir_all(&self.scratch);
    }

    async fn tool(&self) -> Result<&Tool, Fault<Reason>> {
        self.tool
            .get_or_try_init(|| Tool::kustomize(&self.kustomize))
            .await
    }

    /// The manifests as kustomize prints them.
    ///
    /// # Errors
    /// Permanent if the commit or folder does not exist, points outside the repository or cannot be rendered; transient
    /// if that could not be determined.
    pub(crate) async fn render(
        &self,
        repository: &Arc<Repository>,
        commit: &CommitSha,
        folder: &Folder,
    ) -> Result<Arc<str>, Fault<Reason>> {
        let key = (repository.name().to_owned(), commit.clone(), folder.clone());
        if let Some(text) = self.cache.get(&key) {
            return Ok(text);
        }
        // The remote was only asked to read: anything it reported may be temporary.
        let unavailable = |fault: Fault<Reason>| Fault::transient(fault.into_error());
        if !repository.ensure(commit).await.map_err(unavailable)? {
            return Err(commit_not_found(commit));
        }
        // Says in our own words what kustomize would report.
        repository
            .images(commit, &Place::Kustomization(folder.clone()))
            .await
            .map_err(unavailable)?
            .map_err(Fault::Permanent)?;
        let text = self.whole(repository, commit, folder).await?;
        self.cache.insert(key, Arc::clone(&text));
        Ok(text)
    }

    /// The manifests of a folder of a commit that is in the mirror, among all of the commit's files.
    async fn whole(
        &self,
        repository: &Arc<Repository>,
        commit: &CommitSha,
        folder: &Folder,
    ) -> Result<Arc<str>, Fault<Reason>> {
        let unavailable = |fault: Fault<Reason>| Fault::transient(fault.into_error());
        let tool = self.tool().await?;
        let _turn = self.turns.acquire().await;
        let scratch = Scratch::new(&self.scratch)?;
        let target = scratch.root.clone();
        let (max_bytes, max_files) = (self.kustomize.max_tree_bytes, self.kustomize.max_tree_files);
        let links: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
        let made = Arc::clone(&links);
        repository
            .export(commit, max_bytes, max_files, move |path, leaf| {
                write_leaf(&target, path, leaf, &made)
                    .map_err(|error| Reason::new(Code::Internal, format!("scratch folder: {error}")))
            })
            .await
            .map_err(unavailable)?
            .map_err(Fault::Permanent)?;
        let (inside, place) = (scratch.root.clone(), folder.clone());
        tokio::task::spawn_blocking(move || {
            let links = std::mem::take(&mut *links.lock().unwrap_or_else(PoisonError::into_inner));
            drop_outside_links(&inside, &links);
            confine(&inside, &inside.join(place.as_str()), Absent::Refused)
        })
        .await
        .map_err(|error| Fault::unavailable(Code::Internal, error.to_string()))?
        .map_err(|words| Fault::refused(Code::OutsideRepository, words))?;
        let place = scratch.root.join(folder.as_str());
        Ok(tool.run(&self.kustomize, &scratch, [place]).await?)
    }
}

/// The remote does not have such a commit on a branch.
pub(crate) fn commit_not_found(commit: &CommitSha) -> Fault<Reason> {
    Fault::refused(
        Code::CommitNotFound,
        format!("commit {commit} is on no branch of the repository"),
    )
}
