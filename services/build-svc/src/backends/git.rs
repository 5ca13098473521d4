//! Fetches exactly one commit with the `git` program: shallow, by its id, without hooks, and with no configuration but
//! ours.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use build_domain::{build::codes, repository::RepositoryUrl};
use slipway_model::CommitSha;
use tokio_util::sync::CancellationToken;

use super::{
    logs::Log,
    process::{self, ProcessError, Program},
    stop::Stop,
    workspace::Attempt,
};

/// Fetches commits, with the configured credentials.
#[derive(Debug, Clone, Default)]
pub(crate) struct Git {
    /// For `https` URLs that begin with a prefix; the longest prefix wins.
    pub(crate) credentials: Vec<GitCredential>,
    pub(crate) ssh: Option<Ssh>,
}

/// A user name and password, or token, for one prefix of URLs.
#[derive(Clone)]
pub(crate) struct GitCredential {
    pub(crate) prefix: String,
    pub(crate) username: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for GitCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GitCredential({:?}, {:?})", self.prefix, self.username)
    }
}

/// Key and known hosts for `ssh` URLs.
#[derive(Debug, Clone)]
pub(crate) struct Ssh {
    pub(crate) key_file: PathBuf,
    pub(crate) known_hosts_file: PathBuf,
}

/// A checked-out commit.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its files, without `.git`.
    pub(crate) tree: PathBuf,
    /// E-mail addresses of its author, committer and co-authors, each once.
    pub(crate) authors: Vec<String>,
}

/// More authors than this are a mistake or an attack. An author who is left out could approve their own work, so the list
/// is then empty, which approval-svc treats as an unmapped author.
const MAX_AUTHORS: usize = 100;
/// Output of git beyond this is not interpreted, in bytes.
const MAX_OUTPUT: usize = 16 * 1024;

impl Git {
    /// Fetches `commit` into the attempt's folder and checks that it is the commit that was checked out. The tree is
    /// without `.git`; submodules and large files (LFS) are not fetched.
    pub(crate) async fn fetch(
        &self,
        repository: &RepositoryUrl,
        commit: &CommitSha,
        attempt: &Attempt,
        log: &Log,
        cancelled: &CancellationToken,
    ) -> Result<Source, Stop> {
        let (store, tree) = (attempt.path().join("git"), attempt.folder("tree")?);
        let config = attempt.private_file("gitconfig", &self.config(repository, &store)?)?;
        let git = GitRun {
            attempt,
            config: &config,
            log,
            cancelled,
            commit,
        };

        let format = if commit.as_str().len() == 64 {
            "sha256"
        } else {
            "sha1"
        };
        let format = format!("--object-format={format}");
        git.run(&[
            "init",
            "--quiet",
            "--bare",
            "--template=",
            &format,
            "--",
            &text(&store),
        ])
        .await?;
        let git_dir = format!("--git-dir={}", text(&store));
        let fetch = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-auto-gc",
            "--",
        ];
        let mut arguments = vec![git_dir.as_str()];
        arguments.extend(fetch);
        arguments.extend([repository.as_str(), commit.as_str()]);
        git.run(&arguments).await?;

        let work_tree = format!("--work-tree={}", text(&tree));
        git.run(&[
            &git_dir,
            &work_tree,
            "-c",
            "core.bare=false",
            "checkout",
            "--quiet",
            "--force",
            "--detach",
            commit.as_str(),
        ])
        .await?;
        let head = git.run(&[&git_dir, "rev-parse", "--verify", "HEAD"]).await?;
        if head.trim() != commit.as_str() {
            // An annotated tag's id, for instance, peels to another commit.
            return Err(no_commit(commit));
        }
        let format = "--format=%ae%n%ce%n%(trailers:key=Co-authored-by,valueonly)";
        let people = git
            .run_unlogged(&[&git_dir, "show", "--no-patch", format, commit.as_str()])
            .await?;
        fs::remove_file(&config)?;
        Ok(Source {
            tree,
            authors: authors(&people),
        })
    }

    /// The only configuration that git sees.
    fn config(&self, repository: &RepositoryUrl, store: &Path) -> Result<String, Stop> {
        use std::fmt::Write as _;
        let mut config = String::from(
            "[protocol]\n\tversion = 2\n\tallow = never\n[protocol \"https\"]\n\tallow = always\n[protocol \"ssh\"]\n\tallow = always\n\
             [protocol \"file\"]\n\tallow = always\n[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\
             [http]\n\tfollowRedirects = false\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = 60\n[gc]\n\tauto = 0\n\
             [advice]\n\tdetachedHead = false\n[fetch]\n\tfsckObjects = true\n",
        );
        // A local repository on the allow-list may belong to another user, and need not serve commits that no branch
        // points to. With a file URL, the serving git is a child of ours and reads this same configuration.
        if let Some(path) = repository.local_path() {
            let _ = write!(
                config,
                "[safe]\n\tdirectory = {}\n\tdirectory = {}\n",
                quoted(path),
                quoted(&format!("{path}/.git"))
            );
            config.push_str("[uploadpack]\n\tallowAnySHA1InWant = true\n");
        }
        let _ = write!(config, "[safe]\n\tdirectory = {}\n", quoted(&text(store)));
        let credential = self
            .credentials
            .iter()
            .filter(|credential| repository.as_str().starts_with(&credential.prefix))
            .max_by_key(|credential| credential.prefix.len());
        if let Some(GitCredential {
            username, password, ..
        }) = credential
        {
            let basic = STANDARD.encode(format!("{username}:{password}"));
            let _ = write!(
                config,
                "[http {}]\n\textraHeader = {}\n",
                quoted(repository.as_str()),
                quoted(&format!("Authorization: Basic {basic}"))
            );
        }
        if let Some(ssh) = &self.ssh {
            let command = format!(
                "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=20 -o UserKnownHostsFile={} -i {}",
                ssh.known_hosts_file.display(),
                ssh.key_file.display()
            );
            let _ = write!(config, "[core]\n\tsshCommand = {}\n", quoted(&command));
        }
        Ok(config)
    }
}

struct GitRun<'a> {
    attempt: &'a Attempt,
    config: &'a Path,
    log: &'a Log,
    cancelled: &'a CancellationToken,
    commit: &'a CommitSha,
}

impl GitRun<'_> {
    /// Runs git, with its output in the build's log.
    async fn run(&self, arguments: &[&str]) -> Result<String, Stop> {
        self.execute(arguments, true).await
    }

    /// Runs git without a trace in the build's log.
    async fn run_unlogged(&self, arguments: &[&str]) -> Result<String, Stop> {
        self.execute(arguments, false).await
    }

    async fn execute(&self, arguments: &[&str], logged: bool) -> Result<String, Stop> {
        let mut program = Program::new("git", self.attempt.path())
            .args(arguments.iter().copied())
            .env("HOME", self.attempt.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.config)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("LC_ALL", "C");
        program.group_file = Some(self.attempt.group_file());
        for key in ["https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(key) {
                program = program.env(key, value);
            }
        }
        let mut output = String::new();
        let status = process::run(&program, self.cancelled, &mut |line| {
            // The answer of `rev-parse` is not for people.
            if logged && line.text.trim() != self.commit.as_str() {
                self.log.write(&line);
            }
            if output.len() < MAX_OUTPUT {
                output.push_str(&line.text);
                output.push('\n');
            }
        })
        .await;
        match status {
            Ok(status) if status.success() => Ok(output),
            Ok(_) => Err(classify(&output, self.commit)),
            Err(ProcessError::Cancelled) => Err(Stop::Cancelled),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}

/// The e-mail addresses in lines that are an address, or a name and an address in angle brackets.
fn authors(people: &str) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for line in people.lines() {
        let address = match line.rsplit_once('<') {
            Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
            None => line,
        };
        let address = address.trim();
        // It stays an address that belongs to no one, and can be named in a request.
        let address = address.replace(char::is_control, "\u{fffd}");
        if !address.is_empty() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.len() > MAX_AUTHORS || people.len() >= MAX_OUTPUT {
        addresses.clear();
    }
    addresses
}

/// What git's messages mean. Unknown ones are taken as transient faults.
fn classify(output: &str, commit: &CommitSha) -> Stop {
    let lower = output.to_ascii_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    let absent = [
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "no such remote ref",
        "reference is not a tree",
        "cannot be peeled",
        "not a commit",
        "invalid object",
    ];
    let refused = [
        "authentication failed",
        "could not read username",
        "could not read password",
        "permission denied",
        "host key verification failed",
        "does not appear to be a git repository",
        "repository not found",
        "not found",
        "does not exist",
        "dubious ownership",
        "error: 401",
        "error: 403",
        "error: 404",
        "access denied",
        "transport 'ext' not allowed",
        "unable to update url base from redirection",
        "error: 301",
        "error: 302",
    ];
    let last = output
        .lines()
        .rev()
        .find(|line| line.contains("fatal:") || line.contains("error:"))
        .unwrap_or("git failed without a message");
    let last: String = last.chars().take(500).collect();
    if has(&absent) {
        no_commit(commit)
    } else if has(&refused) {
        Stop::failed(
            codes::REPOSITORY_REFUSED,
            format!(
                "the repository refused the fetch: {last}; check its URL and this service's credentials for it"
            ),
        )
    } else {
        let message = format!("the repository is unreachable: {last}");
        Stop::unavailable(codes::SOURCE_UNAVAILABLE, message)
    }
}

fn no_commit(commit: &CommitSha) -> Stop {
    let message = format!("the repository has no commit {commit}");
    Stop::failed(codes::COMMIT_NOT_FOUND, message)
}

/// A value, quoted for git's configuration.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
