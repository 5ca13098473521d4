//! The `git` program: a bare cache of each repository, resolving revisions to full commit ids, writing out folders.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// The time limit of one call.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a program's output an error carries.
const MAX_MESSAGE: usize = 2_000;
/// How many bytes a program may write: the files of one commit, or the result of building them.
const MAX_OUTPUT: u64 = 256 * 1024 * 1024;
/// How many bytes of its error output are read.
const MAX_WORDS: u64 = 64 * 1024;

/// Runs a program to its end: argv only, no terminal, limited in time, killed as a group with everything it started.
///
/// # Errors
/// What it wrote to stderr, or why it could not run.
pub(crate) async fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let kill = Group(child.id());
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(format!("{program} has no output"));
    };
    let (mut output, mut words) = (Vec::new(), Vec::new());
    let all = async {
        let (mut stdout, mut stderr) = (stdout.take(MAX_OUTPUT + 1), stderr.take(MAX_WORDS));
        let (read, said) = tokio::join!(stdout.read_to_end(&mut output), stderr.read_to_end(&mut words));
        read.and(said)?;
        child.wait().await
    };
    let status = tokio::time::timeout(PATIENCE, all)
        .await
        .map_err(|_| format!("{program} took longer than {} s", PATIENCE.as_secs()))?
        .map_err(|error| format!("{program}: {error}"))?;
    if u64::try_from(output.len()).unwrap_or(u64::MAX) > MAX_OUTPUT {
        return Err(format!("{program} wrote more than {MAX_OUTPUT} bytes"));
    }
    // It ended by itself: its id may have been reused by now.
    std::mem::forget(kill);
    if status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&words);
    let words: String = words.trim().chars().take(MAX_MESSAGE).collect();
    Err(format!("`{program}` failed {status}: {words}"))
}

/// Kills a process group when it is dropped: on a time-out, and when the cluster stops.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, killpg};
        use nix::unistd::Pid;
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok())
            && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL)
        {
            tracing::debug!(%error, "process group not killed");
        }
    }
}

/// One repository, kept as a bare one below the cluster's data.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    url: String,
    bare: PathBuf,
}

impl Repository {
    /// The cache of a repository below `root`.
    ///
    /// # Errors
    /// For addresses other than file, http and https, and paths that are not absolute.
    pub(crate) fn new(root: &Path, url: &str) -> Result<Self, String> {
        let known = ["file://", "http://", "https://"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        if !known && !url.starts_with('/') {
            return Err(format!(
                "repository '{url}' is neither file://, http://, https:// nor an absolute path"
            ));
        }
        let digest = hex::encode(Sha256::digest(url.as_bytes()));
        Ok(Self {
            url: url.to_owned(),
            bare: root.join(&digest[..24]),
        })
    }

    fn git<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new("git");
        command
            .arg("--git-dir")
            .arg(&self.bare)
            // The user's own settings could run programs; GIT_SSL_* in the environment are for https.
            .args([
                "-c",
                "protocol.ext.allow=never",
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "gc.auto=0",
            ])
            .args(["-c", "credential.helper=", "-c", "safe.directory=*"])
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("LC_ALL", "C")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE");
        command
    }

    async fn prepare(&self) -> Result<(), String> {
        if self.bare.join("HEAD").exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.bare).map_err(|error| format!("{}: {error}", self.bare.display()))?;
        run(&mut self.git(["init", "--quiet", "--bare"]))
            .await
            .map(|_| ())
    }

    /// The commit that a revision refers to: a branch, a tag, `HEAD`, or the commit itself. Asks the repository, except
    /// for a full commit id.
    ///
    /// # Errors
    /// When there is no such revision or the repository does not answer.
    pub(crate) async fn resolve(&self, revision: &str) -> Result<String, String> {
        let revision = if revision.is_empty() { "HEAD" } else { revision };
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        self.prepare().await?;
        let patterns = [
            revision.to_owned(),
            format!("refs/heads/{revision}"),
            format!("refs/tags/{revision}"),
            format!("refs/tags/{revision}^{{}}"),
        ];
        let mut arguments = vec!["ls-remote".to_owned(), "--".to_owned(), self.url.clone()];
        arguments.extend(patterns);
        let listing = run(&mut self.git(arguments)).await?;
        find(&String::from_utf8_lossy(&listing), revision)
            .ok_or_else(|| format!("unable to resolve '{revision}' to a commit SHA"))
    }

    /// Writes the files of a commit into `target`, which must not exist.
    ///
    /// # Errors
    /// When the commit is not available.
    pub(crate) async fn check_out(&self, commit: &str, target: &Path) -> Result<(), String> {
        self.prepare().await?;
        let has = format!("{commit}^{{commit}}");
        if run(&mut self.git(["cat-file", "-e", &has])).await.is_err() {
            let fetch = |refspecs: &[&str]| {
                let mut arguments = vec![
                    "fetch",
                    "--quiet",
                    "--no-tags",
                    "--no-write-fetch-head",
                    "--",
                    &self.url,
                ];
                arguments.extend(refspecs);
                self.git(arguments)
            };
            // A server that does not serve commits by id serves its branches and tags.
            if run(&mut fetch(&[commit])).await.is_err() {
                let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
                run(&mut fetch(&all)).await?;
            }
            run(&mut self.git(["cat-file", "-e", &has])).await?;
        }
        let archive = run(&mut self.git(["archive", "--format=tar", commit])).await?;
        let target = target.to_owned();
        tokio::task::spawn_blocking(move || unpack(&archive, &target))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("files of {commit}: {error}"))
    }
}

/// Unpacks git's own archive. Links are omitted: they could lead outside.
fn unpack(archive: &[u8], target: &Path) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_dir() {
            entry.unpack_in(target)?;
        }
    }
    Ok(())
}

pub(crate) fn is_commit(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64)
        && revision
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

/// Looks up a revision in the output of `git ls-remote`: branches before tags, tags as the commits that they point to.
fn find(listing: &str, revision: &str) -> Option<String> {
    let names = [
        format!("refs/heads/{revision}"),
        format!("refs/tags/{revision}^{{}}"),
        format!("refs/tags/{revision}"),
        revision.to_owned(),
    ];
    names.iter().find_map(|wanted| {
        listing
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find_map(|(commit, name)| (name == wanted).then(|| commit.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_among_references() {
        let listing = "aa\tHEAD\nbb\trefs/heads/main\ncc\trefs/heads/x/main\ndd\trefs/tags/v1\nee\trefs/tags/v1^{}\nff\trefs/tags/v2\n";
        let table = [
            ("HEAD", Some("aa")),
            ("main", Some("bb")),
            ("v1", Some("ee")),
            ("v2", Some("ff")),
            ("refs/heads/main", Some("bb")),
            ("missing", None),
        ];
        for (revision, expected) in table {
            assert_eq!(find(listing, revision).as_deref(), expected, "{revision}");
        }
    }

    #[test]
    fn addresses_that_could_run_programs_are_refused() {
        for wrong in [
            "ext::sh -c x",
            "ssh://host/x",
            "-u",
            "relative/path",
            "git@host:x",
        ] {
            assert!(Repository::new(Path::new("/r"), wrong).is_err(), "{wrong}");
        }
        assert!(is_commit(&"a".repeat(40)) && !is_commit("main") && !is_commit(&"A".repeat(40)));
    }
}
