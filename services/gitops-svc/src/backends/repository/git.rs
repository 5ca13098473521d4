//! The `git` program: the only way to the remote.
//!
//! Credentials are passed in its environment, which only this user and root can read; they never appear in a URL, an
//! argument, a file of the mirror, or an error.

use std::{ffi::OsStr, path::Path, time::Duration};

use gitops_domain::{
    reason::Code,
    remote::{self, Fetched, Moved},
};
use slipway_model::{BranchName, CommitSha, Fault, Reason};

use crate::{
    backends::{
        credentials::Access,
        process::{Output, ProcessError, Program},
    },
    config::RepositoryConfig,
};

/// One exchange with the remote must not take longer; otherwise it is tried again.
const TIMEOUT: Duration = Duration::from_secs(120);

/// For packing a mirror of some gigabytes.
const TIDY_TIMEOUT: Duration = Duration::from_secs(1800);

/// One thread and a limited window: the machine is there for pushes. A pack of more than 64 MB is left as it is.
const TIDY: &[&str] = &[
    "-c",
    "gc.autoDetach=false",
    "-c",
    "gc.auto=2000",
    "-c",
    "gc.autoPackLimit=20",
    "-c",
    "gc.bigPackThreshold=64m",
    "-c",
    "pack.threads=1",
    "-c",
    // Of no use to a mirror, and a partial one does not have a pack with everything that a bitmap covers.
    "repack.writeBitmaps=false",
    "-c",
    "pack.windowMemory=32m",
    "gc",
    "--auto",
    "--quiet",
    "--cruft",
    "--prune=2.weeks.ago",
];

/// What may be taken from our own environment: how to reach the network, and which certificates to trust.
const INHERITED: [&str; 10] = [
    "PATH",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];

/// Runs git on one mirror.
#[derive(Debug)]
pub(super) struct Git<'a> {
    pub(super) mirror: &'a Path,
    pub(super) config: &'a RepositoryConfig,
    pub(super) access: &'a Access,
}

/// How much of a branch's history is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// What was added since the last time.
    New,
    /// Only the latest commit, for a branch that was not in the mirror before.
    Latest,
    /// This many more commits beyond what is in the mirror.
    Further(u32),
    /// Everything that the remote has.
    Whole,
}

/// Where the mirror keeps the remote's branches.
const TRACKED: &str = "remote.origin.fetch=+refs/heads/*:refs/remotes/origin/*";

/// Files are fetched when they are read, not with the commits.
const NO_FILES: &str = "--filter=blob:none";

/// A fetch that leaves the mirror's maintenance to [`Git::tidy`], and writes nothing but objects and the given refs.
const FETCH: [&str; 9] = [
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-recurse-submodules",
];

impl Git<'_> {
    /// Makes the mirror, for objects whose ids are of a format: `sha1` or `sha256`.
    pub(super) async fn init(&self, format: &str) -> Result<(), Fault<Reason>> {
        let format = format!("--object-format={format}");
        let init = base(self.mirror).args(["init", "--quiet", "--bare", &format]);
        checked(init.run().await)?;
        // A gc that outlives its caller would be orphaned.
        for (key, value) in [("gc.autoDetach", "false"), ("maintenance.autoDetach", "false")] {
            checked(base(self.mirror).args(["config", key, value]).run().await)?;
        }
        Ok(())
    }

    /// Fetches branches, by their refs below `refs/heads/` or a pattern, and forgets those that no longer exist.
    pub(super) async fn fetch(
        &self,
        branches: &[String],
        history: History,
    ) -> Result<Fetched, Fault<Reason>> {
        let depth = match history {
            History::New => None,
            History::Latest => Some("--depth=1".to_owned()),
            History::Further(commits) => Some(format!("--deepen={commits}")),
            // git's own way to say everything; `--unshallow` fails if nothing is missing.
            History::Whole => Some("--depth=2147483647".to_owned()),
        };
        let mut fetch: Vec<String> = FETCH.map(str::to_owned).to_vec();
        fetch.push("--prune".to_owned());
        fetch.extend(depth);
        if history == History::Latest {
            fetch.push(NO_FILES.to_owned());
        }
        fetch.push("origin".to_owned());
        fetch.extend(branches.iter().map(|branch| refspec(branch)));
        let output = self.ask(&fetch).await?;
        if history == History::Latest && output.stderr.contains("filtering not recognized") {
            self.keep_files().await?;
        }
        remote::fetch_answer(output.success, &output.stderr)
    }

    /// Forgets the branches that no longer exist at the remote, packed or not. Fetches nothing.
    pub(super) async fn prune(&self) -> Result<(), Fault<Reason>> {
        finished(self.ask(&["-c", TRACKED, "remote", "prune", "origin"]).await?).map(|_| ())
    }

    /// From now on files are fetched with their commits: the remote does not serve them individually.
    pub(super) async fn keep_files(&self) -> Result<(), Fault<Reason>> {
        for key in ["remote.origin.promisor", "remote.origin.partialclonefilter"] {
            let unset = base(self.mirror).args(["config", "--unset-all", key]);
            // Absent is fine as well.
            unset.run().await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Fetches omitted files, all in one exchange. git itself would do it one by one.
    pub(super) async fn fetch_objects(&self, objects: &[gix::ObjectId]) -> Result<(), Fault<Reason>> {
        let mut fetch = vec!["-c", "fetch.negotiationAlgorithm=noop"];
        fetch.extend(FETCH);
        fetch.extend([NO_FILES, "--stdin", "origin"]);
        let ids: String = objects.iter().map(|id| format!("{id}\n")).collect();
        finished(self.ask_with(&fetch, ids.as_bytes()).await?).map(|_| ())
    }

    /// Fetches branches with everything that belongs to them, whatever is there already.
    pub(super) async fn fetch_again(&self, branches: &[String]) -> Result<(), Fault<Reason>> {
        let mut fetch: Vec<String> = FETCH.map(str::to_owned).to_vec();
        fetch.extend(["--refetch".to_owned(), "origin".to_owned()]);
        fetch.extend(branches.iter().map(|branch| refspec(branch)));
        finished(self.ask(&fetch).await?).map(|_| ())
    }

    /// Whether the remote has the commit at all, on a branch or not. Fetches only that commit.
    pub(super) async fn probe(&self, commit: &CommitSha) -> Result<bool, Fault<Reason>> {
        let mut fetch = FETCH.to_vec();
        fetch.extend(["--depth=1", NO_FILES, "origin", commit.as_str()]);
        let output = self.ask(&fetch).await?;
        Ok(output.success || !remote::has_no_such_object(&output.stderr))
    }

    /// The remote's branches.
    pub(super) async fn branches(&self) -> Result<Vec<String>, Fault<Reason>> {
        let output = finished(self.ask(&["ls-remote", "--heads", "origin"]).await?)?;
        let names = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| Some(line.split_once("\trefs/heads/")?.1.to_owned()))
            .collect();
        Ok(names)
    }

    /// Moves the remote's branch from `old` to `new`, its descendant; if it is not at `old` any more, nothing happens.
    pub(super) async fn push(
        &self,
        branch: &BranchName,
        old: &CommitSha,
        new: &CommitSha,
    ) -> Result<Moved, Fault<Reason>> {
        let push = [
            // The mirror then knows where the branch is, without a fetch.
            "-c",
            TRACKED,
            "push",
            "--porcelain",
            "--no-verify",
            "--no-recurse-submodules",
            // A compare-and-set, not a force: without it a branch that was reset to an ancestor of `old` would get back
            // the commits that were removed. `new` always descends from `old`.
            &format!("--force-with-lease=refs/heads/{branch}:{old}"),
            "origin",
            &format!("{new}:refs/heads/{branch}"),
        ];
        let output = self.ask(&push).await?;
        if !output.success && remote::is_ambiguous(&output.stderr) {
            let refs = self.refs_named(&format!("refs/heads/{branch}")).await?;
            return Err(remote::ambiguous(branch, &refs, &output.stderr));
        }
        remote::push_answer(
            output.success,
            &String::from_utf8_lossy(&output.stdout),
            &output.stderr,
        )
    }

    /// The remote's refs whose names end with these words, as git lists them.
    async fn refs_named(&self, end: &str) -> Result<String, Fault<Reason>> {
        let output = finished(self.ask(&["ls-remote", "origin", end]).await?)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn ask<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output, Fault<Reason>> {
        self.ask_with(arguments, &[]).await
    }

    /// Runs git against the remote; a second time if the credentials were rejected and there are newer ones.
    async fn ask_with<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        input: &[u8],
    ) -> Result<Output, Fault<Reason>> {
        let run = async || {
            let program = self.remote().await?.args(arguments).input(input);
            program.run().await.map_err(|error| failed(&error))
        };
        let output = run().await?;
        if !output.success && remote::rejects_credentials(&output.stderr) && self.access.refused().await {
            return run().await;
        }
        Ok(output)
    }

    /// git with the remote's address and credentials.
    async fn remote(&self) -> Result<Program, Fault<Reason>> {
        let url = self.config.url.as_str();
        let mut settings = vec![("remote.origin.url".to_owned(), url.to_owned())];
        let credentials = self.access.environment().await?;
        settings.extend(credentials.settings);
        let mut program = base(self.mirror);
        for (key, value) in credentials.variables {
            program = program.env(key, value);
        }
        program = program.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            program = program
                .env(format!("GIT_CONFIG_KEY_{index}"), key)
                .env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        Ok(program)
    }
}

/// Fetches a branch, or the branches of a pattern, to where the mirror keeps them.
fn refspec(branch: &str) -> String {
    format!("+refs/heads/{branch}:refs/remotes/origin/{branch}")
}

/// git without this machine's and this user's settings.
fn base(mirror: &Path) -> Program {
    let mut program = Program::new("git")
        .args(["--git-dir".as_ref(), mirror.as_os_str()])
        .inherit(&INHERITED)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        // Missing objects are fetched by us, together, and never by a git that happens to need them.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "file:https:http:ssh")
        .env("HOME", mirror)
        .env("LC_ALL", "C");
    program.timeout = TIMEOUT;
    program
}

fn checked(result: Result<Output, ProcessError>) -> Result<Output, Fault<Reason>> {
    finished(result.map_err(|error| failed(&error))?)
}

fn finished(output: Output) -> Result<Output, Fault<Reason>> {
    if output.success {
        Ok(output)
    } else {
        Err(remote::fault(&output.stderr))
    }
}

/// Packs what many pushes and fetches have left behind, if git finds that it is much, and only then takes long. Nothing
/// that a push in progress may need is removed: unreferenced objects stay for two weeks.
pub(super) async fn tidy(mirror: &Path) -> Result<(), Fault<Reason>> {
    let mut gc = base(mirror).args(TIDY);
    // Others do not wait for any of it.
    gc.timeout = TIDY_TIMEOUT;
    checked(gc.run().await).map(|_| ())
}

fn failed(error: &ProcessError) -> Fault<Reason> {
    let code = match error {
        ProcessError::Timeout { .. } => Code::RemoteUnreachable,
        _ => Code::Internal,
    };
    Fault::unavailable(code, error.to_string())
}
