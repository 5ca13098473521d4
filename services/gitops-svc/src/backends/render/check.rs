//! Whether a folder renders: asked before a change of it is committed, and remembered for all that it reads.

use std::{ffi::OsString, path::Path, sync::Arc, time::Duration};

use gitops_domain::{
    reason::Code,
    rendering::{Answer, By, is_kept_elsewhere},
};
use moka::sync::Cache;
use slipway_edit::{Chart, Inputs};
use slipway_model::{CommitSha, Fault, Reason};
use tokio::sync::OnceCell;

use super::{
    Renderer, Scratch,
    chart::{schemas_are_own, takes_any_image},
    confine::{Absent, confine, write_leaf},
    tool::{Tool, Unrendered, one_of_a_list},
};
use crate::{
    backends::repository::{Leaf, Repository},
    config::RendererConfig,
};

/// The total size of what the remembered folders read, in bytes, without the contents of files.
const REMEMBERED_BYTES: u64 = 32 << 20;
/// What is remembered is asked again after this time: a missing program may have been installed.
const REMEMBERED: Duration = Duration::from_secs(600);

type Cell = Arc<OnceCell<Answer>>;

/// What is known of folders, by everything that decides it. Those who ask at the same time wait for one rendering.
#[derive(Debug)]
pub(super) struct Answers(Cache<Arc<[u8]>, Cell>);

impl Default for Answers {
    fn default() -> Self {
        let size = |key: &Arc<[u8]>, _: &Cell| u32::try_from(key.len()).unwrap_or(u32::MAX);
        let cache = Cache::builder().max_capacity(REMEMBERED_BYTES).weigher(size);
        Self(cache.time_to_live(REMEMBERED).build())
    }
}

impl Answers {
    /// kustomize copies images, so that what is known with one is known with all. A chart may look at them: only that it
    /// renders is known with others, and only if nothing in it does.
    fn cell(&self, inputs: &Inputs) -> Cell {
        if inputs.chart.is_none() {
            return self.0.get_with(inputs.key().into(), Arc::default);
        }
        let renders = self.0.get(with_every_image(inputs).as_slice());
        renders.unwrap_or_else(|| self.0.get_with(inputs.exact_key().into(), Arc::default))
    }

    /// Whether a chart is known to render with every image.
    fn is_known(&self, inputs: &Inputs) -> bool {
        inputs.chart.is_some() && self.0.contains_key(with_every_image(inputs).as_slice())
    }

    /// A chart renders, and does so with every image.
    fn renders_with_every_image(&self, inputs: &Inputs) {
        let cell = Arc::new(OnceCell::new_with(Some(Answer::Renders)));
        self.0.insert(with_every_image(inputs).into(), cell);
    }
}

/// No other key begins so.
fn with_every_image(inputs: &Inputs) -> Vec<u8> {
    let mut key = b"every image".to_vec();
    key.append(&mut inputs.key());
    key
}

/// What renders a folder.
pub(crate) fn by(inputs: &Inputs) -> By {
    match &inputs.chart {
        None => By::Kustomize,
        Some(chart) => By::Helm {
            values: chart.values.clone(),
        },
    }
}

impl Renderer {
    /// Whether what was read of a folder of a commit renders. The rendering goes on when the caller gives up, so that
    /// the next one finds its answer.
    pub(crate) async fn check(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        commit: &CommitSha,
        inputs: &Inputs,
    ) -> Answer {
        let cell = self.answers.cell(inputs);
        if let Some(answer) = cell.get() {
            return answer.clone();
        }
        let folder = inputs.folder.as_str().to_owned();
        let (this, repository) = (Arc::clone(self), Arc::clone(repository));
        let (commit, inputs) = (commit.clone(), inputs.clone());
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
        let shown = |why: &str| {
            let folder = match folder.as_str() {
                "" => "the root folder",
                folder => folder,
            };
            Answer::NotHere(format!("{folder} cannot be rendered here: {why}"))
        };
        let (tool, config) = match self.tool_of(inputs).await? {
            Ok(found) => found,
            Err(why) => return Ok(shown(&why)),
        };
        let paths: Vec<String> = inputs.paths().map(str::to_owned).collect();
        if paths.len() > config.max_tree_files {
            let most = config.max_tree_files;
            return Ok(shown(&format!("it reads more than {most} files")));
        }
        let contents = repository.contents(commit, paths).await?;
        let size: usize = contents.iter().map(|(_, content)| content.len()).sum();
        if size as u64 > config.max_tree_bytes {
            let most = config.max_tree_bytes;
            return Ok(shown(&format!("what it reads is larger than {most} bytes")));
        }
        let elsewhere = contents
            .iter()
            .find_map(|(path, content)| Some(format!("{path} {}", is_kept_elsewhere(content)?)));
        let turn = self.turns.acquire().await;
        if self.answers.is_known(inputs) {
            return Ok(Answer::Renders);
        }
        let scratch = Scratch::new(&self.scratch)?;
        let place = scratch.root.join(folder.as_str());
        let mut arguments = vec![OsString::from(&place)];
        let mut any_image = false;
        if let Some(chart) = &inputs.chart {
            any_image = takes_any_image(&contents);
            if let Some(file) = &chart.values {
                arguments.extend(["--values".into(), one_of_a_list(&scratch.root.join(file)).into()]);
            }
            if !schemas_are_own(&contents) {
                arguments.push("--skip-schema-validation".into());
            }
        }
        let (root, chart) = (scratch.root.clone(), inputs.chart.clone());
        let written = tokio::task::spawn_blocking(move || write(&root, &place, chart.as_ref(), contents));
        let internal = |words: String| Fault::unavailable(Code::Internal, words);
        let confined = written
            .await
            .map_err(|error| internal(error.to_string()))?
            .map_err(internal)?;
        if let Err(why) = confined {
            return Ok(shown(&why));
        }
        let rendered = tool.run(config, &scratch, arguments).await;
        drop(turn);
        let answer = match rendered {
            Ok(_) => {
                if any_image {
                    self.answers.renders_with_every_image(inputs);
                }
                return Ok(Answer::Renders);
            }
            Err(Unrendered::Unrunnable(why)) => return Err(internal(why)),
            Err(Unrendered::Unbounded(why)) => return Ok(shown(&why)),
            Err(Unrendered::Failed(words)) => by(inputs).failure(&words),
        };
        match (answer, elsewhere) {
            (Answer::Fails(_), Some(why)) => Ok(shown(&why)),
            (Answer::NotHere(why), _) => Ok(shown(&why)),
            // A chart reads nothing else.
            (answer, _) if inputs.chart.is_some() => Ok(answer),
            // Only if that is so with everything that the repository has.
            (answer, _) => match self.whole(repository, commit, folder).await {
                Ok(_) => Ok(Answer::Renders),
                Err(Fault::Permanent(_)) => Ok(answer),
                Err(fault) => Err(fault),
            },
        }
    }

    /// The program and its settings; inner: there is none here, and what to do.
    async fn tool_of(
        &self,
        inputs: &Inputs,
    ) -> Result<Result<(&Tool, &RendererConfig), String>, Fault<Reason>> {
        if inputs.chart.is_some() {
            let tool = self.helm_tool.get_or_try_init(|| Tool::helm(&self.helm)).await;
            return Ok(tool.map(|tool| (tool, &self.helm)));
        }
        match self.tool().await {
            Err(Fault::Permanent(reason)) if reason.code == Code::KustomizeMissing => Ok(Err(reason.message)),
            tool => Ok(Ok((tool?, &self.kustomize))),
        }
    }
}

/// Writes what was read. Inner: something in it leads elsewhere.
fn write(
    root: &Path,
    place: &Path,
    chart: Option<&Chart>,
    contents: Vec<(String, Vec<u8>)>,
) -> Result<Result<(), String>, String> {
    let links = std::sync::Mutex::default();
    let leaf = |path: &str, content| {
        write_leaf(root, path, Leaf::File(content), &links).map_err(|error| error.to_string())
    };
    for (from, to) in chart.iter().flat_map(|chart| &chart.dependencies) {
        let below = |path: &str| match from.as_str() {
            "" => Some(format!("{to}/{path}")),
            from => Some(format!(
                "{to}{}",
                path.strip_prefix(from).filter(|rest| rest.starts_with('/'))?
            )),
        };
        for (path, content) in &contents {
            if let Some(path) = below(path) {
                leaf(&path, content.clone())?;
            }
        }
    }
    for (path, content) in contents {
        leaf(&path, content)?;
    }
    Ok(match chart {
        Some(_) => Ok(()),
        None => confine(root, place, Absent::LeftToKustomize),
    })
}
