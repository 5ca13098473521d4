//! Renders a folder of a repository at one commit with the real kustomize.
//!
//! kustomize would fetch remote bases and files, and read any folder of this machine that a kustomization names. So the
//! commit's files are written into a separate folder; every kustomization that will be reached is read first, and one
//! that leads out of that folder, or to the network, is refused; symbolic links that lead out are omitted; and the
//! program runs without `git` on its path, without plugins, and with a proxy that never answers.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use gitops_domain::{reason::Code, remote::paragraph};
use moka::sync::Cache;
use serde_json::Value;
use slipway_edit::{Folder, KUSTOMIZATION_NAMES, MAX_FILE_BYTES, Place};
use slipway_model::{CommitSha, Fault, Reason};
use tokio::sync::{OnceCell, Semaphore};

use crate::{
    backends::{
        process::{ProcessError, Program},
        repository::{Leaf, Repository},
    },
    config::KustomizeConfig,
};

/// The total size of manifests that are cached, in bytes: a commit's rendering never changes.
const CACHED_BYTES: u64 = 32 << 20;
/// kustomize keeps one core busy.
const AT_ONCE: usize = 4;

/// A commit's folder of a repository.
type Key = (String, CommitSha, Folder);

/// Runs kustomize and remembers what it printed.
#[derive(Debug)]
pub(crate) struct Renderer {
    config: KustomizeConfig,
    scratch: PathBuf,
    tool: OnceCell<Tool>,
    cache: Cache<Key, Arc<str>>,
    turns: Semaphore,
}

/// The program, and the arguments before the folder.
#[derive(Debug, Clone)]
struct Tool {
    program: PathBuf,
    arguments: &'static [&'static str],
}

impl Renderer {
    pub(crate) fn new(config: KustomizeConfig, data_dir: &Path) -> Self {
        Self {
            config,
            scratch: data_dir.join("scratch"),
            tool: OnceCell::new(),
            cache: Cache::builder()
                .max_capacity(CACHED_BYTES)
                .weigher(|_, text: &Arc<str>| u32::try_from(text.len()).unwrap_or(u32::MAX))
                .build(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Removes what a dead process left behind.
    pub(crate) fn recover(&self) {
        // Usually there is nothing there.
        let _ = std::fs::remove_dir_all(&self.scratch);
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
        let tool = self.tool.get_or_try_init(|| find_tool(&self.config.path)).await?;
        let _turn = self.turns.acquire().await;
        let internal =
            |error: std::io::Error| Fault::unavailable(Code::Internal, format!("scratch folder: {error}"));
        std::fs::create_dir_all(&self.scratch).map_err(internal)?;
        let scratch = tempfile::Builder::new()
            .prefix("render-")
            .tempdir_in(&self.scratch)
            .map_err(internal)?;
        let root = scratch
            .path()
            .canonicalize()
            .map_err(internal)?
            .join("repository");
        std::fs::create_dir(&root).map_err(internal)?;

        let target = root.clone();
        let (max_bytes, max_files) = (self.config.max_tree_bytes, self.config.max_tree_files);
        let links: Arc<std::sync::Mutex<Vec<PathBuf>>> = Arc::default();
        let made = Arc::clone(&links);
        repository
            .export(commit, max_bytes, max_files, move |path, leaf| {
                write_leaf(&target, path, leaf, &made)
                    .map_err(|error| Reason::new(Code::Internal, format!("scratch folder: {error}")))
            })
            .await
            .map_err(unavailable)?
            .map_err(Fault::Permanent)?;
        let (inside, place) = (root.clone(), folder.clone());
        tokio::task::spawn_blocking(move || {
            let links = std::mem::take(&mut *links.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            drop_outside_links(&inside, &links);
            confine(&inside, &inside.join(place.as_str()))
        })
        .await
        .map_err(|error| Fault::unavailable(Code::Internal, error.to_string()))?
        .map_err(|words| Fault::refused(Code::OutsideRepository, words))?;

        let text = self
            .run(tool, scratch.path(), &root.join(folder.as_str()))
            .await?;
        self.cache.insert(key, Arc::clone(&text));
        Ok(text)
    }

    async fn run(&self, tool: &Tool, home: &Path, folder: &Path) -> Result<Arc<str>, Fault<Reason>> {
        let mut program = Program::new(&tool.program)
            .args(tool.arguments)
            .args([folder])
            .folder(home)
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("XDG_CONFIG_HOME", home)
            // Without git, remote bases cannot be fetched; and nothing listens at the discard port.
            .env("PATH", "/nonexistent")
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("HTTPS_PROXY", "http://127.0.0.1:9");
        program.max_output = self.config.max_output_bytes;
        program.timeout = self.config.timeout;
        match program.run().await {
            Ok(output) if output.success => match String::from_utf8(output.stdout) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(failed("the manifests are not UTF-8")),
            },
            Ok(output) => {
                // Our own paths mean nothing to the reader.
                let inside = folder.display().to_string();
                let root = home.display().to_string();
                let text = output.stderr.replace(&inside, ".").replace(&root, "");
                Err(failed(&paragraph(&text)))
            }
            Err(error @ (ProcessError::Timeout { .. } | ProcessError::TooMuch { .. })) => {
                Err(failed(&error.to_string()))
            }
            Err(error) => Err(Fault::unavailable(Code::Internal, error.to_string())),
        }
    }
}

/// kustomize 5 as configured, otherwise a kubectl with kustomize 5 built in.
async fn find_tool(path: &Path) -> Result<Tool, Fault<Reason>> {
    if let Some(program) = on_path(path) {
        // Debian builds 5.6 with the version "(devel)", so we test for a command that was new in 5.
        let help = Program::new(&program).args(["localize", "--help"]).run().await;
        if help.is_ok_and(|output| {
            output.success && String::from_utf8_lossy(&output.stdout).contains("localize")
        }) {
            return Ok(Tool {
                program,
                arguments: &["build"],
            });
        }
    }
    if let Some(program) = on_path(Path::new("kubectl")) {
        let version = Program::new(&program)
            .args(["version", "--client", "--output=json"])
            .run()
            .await;
        let version = version
            .ok()
            .and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok())
            .and_then(|value| Some(value.get("kustomizeVersion")?.as_str()?.to_owned()));
        if version.is_some_and(|version| version.starts_with("v5")) {
            return Ok(Tool {
                program,
                arguments: &["kustomize"],
            });
        }
    }
    Err(Fault::refused(
        Code::KustomizeMissing,
        format!(
            "{} is not kustomize 5, and kubectl has none: install one, or set kustomize.path",
            path.display()
        ),
    ))
}

/// kustomize cannot render it.
fn failed(words: &str) -> Fault<Reason> {
    Fault::refused(Code::RenderFailed, format!("kustomize: {words}"))
}

/// The remote does not have such a commit on a branch.
pub(crate) fn commit_not_found(commit: &CommitSha) -> Fault<Reason> {
    Fault::refused(
        Code::CommitNotFound,
        format!("commit {commit} is on no branch of the repository"),
    )
}

fn on_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|file| {
            file.metadata()
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

/// Writes one file or link. The path comes from a git tree, whose names do not contain a slash; still, only plain names
/// are followed, and nothing is written through a link.
fn write_leaf(
    root: &Path,
    path: &str,
    leaf: Leaf,
    links: &std::sync::Mutex<Vec<PathBuf>>,
) -> std::io::Result<()> {
    let relative = Path::new(path);
    if !relative
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
    {
        return Ok(());
    }
    let file = root.join(relative);
    match leaf {
        Leaf::File(data) => {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&file, data)
        }
        Leaf::Link(target) => {
            use std::os::unix::ffi::OsStringExt as _;
            // Created when all files exist, so that no file is written through one.
            let mut links = links.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            links.push(file);
            links.push(PathBuf::from(std::ffi::OsString::from_vec(target)));
            Ok(())
        }
    }
}

/// Creates the links, pairs of place and target, and omits those that lead out of the folder or nowhere.
fn drop_outside_links(root: &Path, links: &[PathBuf]) {
    let mut made = Vec::new();
    for pair in links.chunks_exact(2) {
        let [place, target] = pair else { continue };
        if target.is_absolute()
            || place
                .parent()
                .is_none_or(|folder| std::fs::create_dir_all(folder).is_err())
        {
            continue;
        }
        if std::os::unix::fs::symlink(target, place).is_ok() {
            made.push(place);
        }
    }
    for place in made {
        if !place.canonicalize().is_ok_and(|real| real.starts_with(root)) {
            let _ = std::fs::remove_file(place);
        }
    }
}

/// The fields of a kustomization whose values are folders or files.
const FOLDERS_AND_FILES: [&str; 8] = [
    "resources",
    "bases",
    "components",
    "crds",
    "configurations",
    "generators",
    "transformers",
    "validators",
];
/// Fields below which a value is content, not a path.
const CONTENT: [&str; 9] = [
    "literals",
    "patch",
    "commonAnnotations",
    "commonLabels",
    "labels",
    "images",
    "metadata",
    "options",
    "buildMetadata",
];

/// Follows a kustomization to everything that it uses.
fn confine(root: &Path, folder: &Path) -> Result<(), String> {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mut pending = vec![folder.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(place) = pending.pop() {
        let real = place
            .canonicalize()
            .map_err(|_| format!("{} is not there", shown(&place)))?;
        if !real.starts_with(root) {
            return Err(format!("{} points outside the repository", shown(&place)));
        }
        if !seen.insert(real.clone()) {
            continue;
        }
        let files: Vec<PathBuf> = if real.is_dir() {
            KUSTOMIZATION_NAMES
                .iter()
                .map(|name| real.join(name))
                .filter(|file| file.exists())
                .collect()
        } else {
            continue;
        };
        for file in files {
            if !file.canonicalize().is_ok_and(|file| file.starts_with(root)) {
                return Err(format!("{} points outside the repository", shown(&file)));
            }
            let value = read_yaml(&file).map_err(|error| format!("{}: {error}", shown(&file)))?;
            for key in FOLDERS_AND_FILES {
                for text in value
                    .get(key)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    // An inline transformer or generator.
                    if text.contains('\n') {
                        no_network(&Value::from(text), &shown(&file))?;
                        continue;
                    }
                    let target = real.join(text);
                    if Path::new(text).is_absolute() || !target.exists() {
                        return Err(format!(
                            "{}: {key}: {text} is not in the repository at this commit; remote bases and files are not fetched",
                            shown(&file)
                        ));
                    }
                    let target = target
                        .canonicalize()
                        .map_err(|error| format!("{}: {error}", shown(&target)))?;
                    if target.is_file() && matches!(key, "generators" | "transformers" | "validators") {
                        let text = std::fs::read_to_string(&target).unwrap_or_default();
                        no_network(&Value::from(text), &shown(&target))?;
                    }
                    pending.push(target);
                }
            }
            no_network(&value, &shown(&file))?;
        }
    }
    Ok(())
}

/// Refuses every text that could be interpreted as the address of a file or folder to fetch.
fn no_network(value: &Value, file: &str) -> Result<(), String> {
    match value {
        Value::String(text) => {
            // A whole inline configuration is scanned line by line.
            let address = text.lines().any(|line| {
                let line = line.to_ascii_lowercase();
                ["http://", "https://", "git::", "ssh://", "file://", "git@"]
                    .iter()
                    .any(|scheme| line.contains(scheme))
            });
            if address {
                let shown: String = text
                    .lines()
                    .find(|line| line.contains(':'))
                    .unwrap_or_default()
                    .chars()
                    .take(120)
                    .collect();
                return Err(format!("{file}: {shown}: remote bases and files are not fetched"));
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| no_network(item, file)),
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !CONTENT.contains(&key.as_str()))
            .try_for_each(|(_, value)| no_network(value, file)),
        _ => Ok(()),
    }
}

fn read_yaml(file: &Path) -> Result<Value, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES as u64 {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| error.without_snippet().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{confine, drop_outside_links};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    fn check(kustomization: &str) -> Result<(), String> {
        let folder = folder(&[
            ("app/kustomization.yaml", kustomization),
            ("app/d.yaml", "kind: Deployment\n"),
            ("base/kustomization.yaml", "resources: [x.yaml]\n"),
            ("base/x.yaml", ""),
            ("bad/kustomization.yaml", "resources: [github.com/a/b?ref=main]\n"),
        ]);
        let root = folder.path().canonicalize().unwrap();
        confine(&root, &root.join("app"))
    }

    #[test]
    fn only_what_is_in_the_repository_is_used() {
        for good in [
            "resources: [d.yaml, ../base]",
            "commonAnnotations: {docs: 'https://example.com'}",
            "configMapGenerator: [{name: a, literals: ['URL=https://example.com']}]",
            "patches: [{patch: 'x: https://example.com'}]",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "resources: [github.com/a/b?ref=main]",
            "resources: ['https://example.com/x.yaml']",
            "resources: ['git@example.com:a/b']",
            "resources: [/etc]",
            "resources: [../../..]",
            "components: [../bad]",
            "patches: [{path: 'https://example.com/x.yaml'}]",
            "configMapGenerator: [{name: a, files: ['k=https://example.com/x']}]",
            "openapi: {path: 'http://example.com/x'}",
            "transformers: ['kind: PatchTransformer\n\npath: http://example.com/x\n\n']",
        ] {
            assert!(check(&bad.replace("\\n", "\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_that_lead_out_are_left_out() {
        let folder = folder(&[("a/b/file", "x"), ("d1/d2/file", "y")]);
        let root = folder.path().canonicalize().unwrap();
        let pair = |place: &str, target: &str| [root.join(place), Path::new(target).to_owned()];
        let links = [
            pair("in", "a/b/file"),
            pair("out", "../outside"),
            pair("abs", "/etc/passwd"),
            pair("dangling", "nothing"),
            // Lexically inside, but outside once the first link is followed.
            pair("a/up", "../d1"),
            pair("sly", "a/up/../.."),
        ]
        .concat();
        drop_outside_links(&root, &links);
        assert!(root.join("in").exists());
        for gone in ["out", "abs", "dangling", "sly"] {
            assert!(root.join(gone).symlink_metadata().is_err(), "{gone}");
        }
    }
}
