//! The `git` program: the only way to the remote.
//!
//! Credentials reach it through its environment, which only this user and root can read; they are in no URL, no
//! argument, no file of the mirror, and no error.

use std::{ffi::OsStr, path::Path, time::Duration};

use slipway_model::{BranchName, CommitSha};

use super::remote::{self, Problem};
use crate::{
    change::{Code, Reason},
    config::RepositoryConfig,
    credentials::Access,
    process::{Output, ProcessError, Program},
};

/// One exchange with the remote takes no longer, or is tried again.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What may come from our own environment: how to reach the network, and which certificates to trust.
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

impl Git<'_> {
    /// Makes the mirror.
    pub(super) async fn init(&self) -> Result<(), Problem> {
        let init = base(self.mirror).args(["init", "--quiet", "--bare"]);
        checked(init.run().await)?;
        // A gc that outlives its caller would be nobody's child.
        for (key, value) in [("gc.autoDetach", "false"), ("maintenance.autoDetach", "false")] {
            checked(base(self.mirror).args(["config", key, value]).run().await)?;
        }
        Ok(())
    }

    /// Brings a branch, or all of them, and forgets what is no longer there.
    pub(super) async fn fetch(&self, branch: Option<&BranchName>) -> Result<(), Problem> {
        let refspec = match branch {
            Some(branch) => format!("+refs/heads/{branch}:refs/remotes/origin/{branch}"),
            None => "+refs/heads/*:refs/remotes/origin/*".to_owned(),
        };
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--prune",
            "origin",
            &refspec,
        ];
        finished(self.ask(&fetch).await?).map(|_| ())
    }

    /// Moves the remote's branch from `old` to `new`, its descendant; when it is not at `old` any more, nothing happens.
    pub(super) async fn push(
        &self,
        branch: &BranchName,
        old: &CommitSha,
        new: &CommitSha,
    ) -> Result<(), Problem> {
        let push = [
            "push",
            "--porcelain",
            "--no-verify",
            "--no-recurse-submodules",
            // A compare-and-set, not a force: without it a branch that was reset to an ancestor of `old` would take
            // back what its owner took out. `new` always descends from `old`.
            &format!("--force-with-lease=refs/heads/{branch}:{old}"),
            "origin",
            &format!("{new}:refs/heads/{branch}"),
        ];
        let output = self.ask(&push).await?;
        remote::push_answer(
            output.success,
            &String::from_utf8_lossy(&output.stdout),
            &output.stderr,
        )
    }

    /// Whether a branch of the remote, as fetched, holds the commit.
    pub(super) async fn on_some_branch(&self, commit: &CommitSha) -> Result<bool, Problem> {
        let list = base(self.mirror).args([
            "for-each-ref",
            "--count=1",
            "--format=%(refname)",
            &format!("--contains={commit}"),
            "refs/remotes/origin/",
        ]);
        Ok(!checked(list.run().await)?.stdout.is_empty())
    }

    /// Runs git against the remote; a second time when the credentials were refused and there are newer ones.
    async fn ask<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output, Problem> {
        let run = async || {
            let program = self.remote().await?.args(arguments);
            program.run().await.map_err(|error| failed(&error))
        };
        let output = run().await?;
        if !output.success && refuses_us(&output.stderr) && self.access.refused().await {
            return run().await;
        }
        Ok(output)
    }

    /// git with the remote's address and credentials.
    async fn remote(&self) -> Result<Program, Problem> {
        let url = self.config.url.as_deref().unwrap_or_default();
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

fn refuses_us(stderr: &str) -> bool {
    matches!(remote::problem(stderr), Problem::Final(reason) if reason.code == Code::CredentialsRefused)
}

/// git without this machine's and this user's settings.
fn base(mirror: &Path) -> Program {
    let mut program = Program::new("git")
        .args(["--git-dir".as_ref(), mirror.as_os_str()])
        .inherit(&INHERITED)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "file:https:http:ssh")
        .env("HOME", mirror)
        .env("LC_ALL", "C");
    program.timeout = TIMEOUT;
    program
}

fn checked(result: Result<Output, ProcessError>) -> Result<Output, Problem> {
    finished(result.map_err(|error| failed(&error))?)
}

fn finished(output: Output) -> Result<Output, Problem> {
    if output.success {
        Ok(output)
    } else {
        Err(remote::problem(&output.stderr))
    }
}

fn failed(error: &ProcessError) -> Problem {
    let code = match error {
        ProcessError::Timeout { .. } => Code::RemoteUnreachable,
        _ => Code::Internal,
    };
    Problem::Transient(Reason::new(code, error.to_string()))
}
