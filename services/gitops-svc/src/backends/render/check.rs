//! Whether a folder renders: asked before a change of it is committed, and remembered for all that it reads.

use std::{sync::Arc, time::Duration};

use gitops_domain::{
    reason::Code,
    rendering::{Answer, failure, is_kept_elsewhere},
};
use moka::sync::Cache;
use slipway_edit::Inputs;
use slipway_model::{CommitSha, Fault, Reason};
use tokio::sync::OnceCell;

use super::{
    Renderer, Scratch,
    confine::{Absent, confine, write_leaf},
    tool::Unrendered,
};
use crate::backends::repository::{Leaf, Repository};

/// The total size of what the remembered folders read, in bytes, without the contents of files.
const REMEMBERED_BYTES: u64 = 32 << 20;
/// What is remembered is asked again after this time: a missing program may have been installed.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What is known of folders, by everything that decides it. Those who ask at the same time wait for one rendering.
#[derive(Debug)]
pub(super) struct Answers(Cache<Arc<[u8]>, Arc<OnceCell<Answer>>>);

impl Default for Answers {
    fn default() -> Self {
        let size = |key: &Arc<[u8]>, _: &Arc<OnceCell<Answer>>| u32::try_from(key.len()).unwrap_or(u32::MAX);
        let cache = Cache::builder().max_capacity(REMEMBERED_BYTES).weigher(size);
        Self(cache.time_to_live(REMEMBERED).build())
    }
}

impl Renderer {
    /// Whether what was read of a folder of a commit renders. The rendering goes on when the caller gives up, so that
    /// the next one finds its answer.
    pub(crate) async fn check(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        commit: &CommitSha,
        inputs: Inputs,
    ) -> Answer {
        let cell = self.answers.0.get_with(inputs.key().into(), Arc::default);
        if let Some(answer) = cell.get() {
            return answer.clone();
        }
        let folder = inputs.folder.as_str().to_owned();
        let (this, repository, commit) = (Arc::clone(self), Arc::clone(repository), commit.clone());
        let work = tokio::spawn(async move {
            let answer = cell
                .get_or_try_init(|| this.answer(&repository, &commit, &inputs))
                .await;
            answer.cloned()
        });
        let answer = match work.await {
            Ok(answer) => answer.map_err(|fault| fault.to_string()),
            Err(error) => Err(error.to_string()),
        };
        answer.unwrap_or_else(|why| Answer::NotHere(format!("{folder} could not be rendered: {why}")))
    }

    async fn answer(
        &self,
        repository: &Arc<Repository>,
        commit: &CommitSha,
        inputs: &Inputs,
    ) -> Result<Answer, Fault<Reason>> {
        let folder = &inputs.folder;
        let shown =
            |why: &str| Answer::NotHere(format!("{} cannot be rendered here: {why}", folder.as_str()));
        let tool = match self.tool().await {
            Err(Fault::Permanent(reason)) if reason.code == Code::KustomizeMissing => {
                return Ok(shown(&reason.message));
            }
            tool => tool?,
        };
        let paths = inputs.paths().map(str::to_owned).collect();
        let contents = repository.contents(commit, paths).await?;
        let size: usize = contents.iter().map(|(_, content)| content.len()).sum();
        if size as u64 > self.config.max_tree_bytes {
            let most = self.config.max_tree_bytes;
            return Ok(shown(&format!("what it reads is larger than {most} bytes")));
        }
        let elsewhere = contents
            .iter()
            .find_map(|(path, content)| Some(format!("{path} {}", is_kept_elsewhere(content)?)));
        let turn = self.turns.acquire().await;
        let scratch = Scratch::new(&self.scratch)?;
        let (root, place) = (scratch.root.clone(), scratch.root.join(folder.as_str()));
        let written = tokio::task::spawn_blocking(move || {
            let links = std::sync::Mutex::default();
            for (path, content) in contents {
                write_leaf(&root, &path, Leaf::File(content), &links).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(confine(&root, &place, Absent::LeftToKustomize))
        });
        let internal = |words: String| Fault::unavailable(Code::Internal, words);
        let confined = written
            .await
            .map_err(|error| internal(error.to_string()))?
            .map_err(internal)?;
        if let Err(why) = confined {
            return Ok(shown(&why));
        }
        let place = scratch.root.join(folder.as_str());
        let rendered = tool
            .run(&self.config, scratch.home(), &scratch.root, &place)
            .await;
        drop(turn);
        let answer = match rendered {
            Ok(_) => return Ok(Answer::Renders),
            Err(Unrendered::Unrunnable(why)) => return Err(internal(why)),
            Err(Unrendered::Unbounded(why)) => return Ok(shown(&why)),
            Err(Unrendered::Failed(words)) => failure(&words),
        };
        match (answer, elsewhere) {
            (Answer::Fails(_), Some(why)) => Ok(shown(&why)),
            (Answer::NotHere(why), _) => Ok(shown(&why)),
            // Only if that is so with everything that the repository has.
            (answer, _) => match self.whole(repository, commit, folder).await {
                Ok(_) => Ok(Answer::Renders),
                Err(Fault::Permanent(_)) => Ok(answer),
                Err(fault) => Err(fault),
            },
        }
    }
}
