//! Bare git repositories for tests, written without a checkout.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    Error, Result,
    process::{check, run},
    tool,
};

/// A bare repository, like a remote.
#[derive(Debug, Clone)]
pub struct GitRepo {
    path: PathBuf,
}

/// A commit as shown by `git log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full SHA.
    pub sha: String,
    /// Name and address of the author: `Name <address>`.
    pub author: String,
    /// The whole message, without the newlines at its end.
    pub message: String,
}

impl GitRepo {
    /// Creates an empty bare repository with the branch `main` at a path that does not exist.
    ///
    /// # Errors
    /// When git is missing or cannot write the folder.
    pub fn bare(path: impl Into<PathBuf>) -> Result<Self> {
        let repo = Self { path: path.into() };
        let mut init = git()?;
        init.args(["init", "--quiet", "--bare", "--initial-branch=main", "--"])
            .arg(&repo.path);
        run(&mut init)?;
        Ok(repo)
    }

    /// Its path, which git accepts as a URL.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address in URL form: `file://…`.
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Commits files on top of a branch, which is created if it does not exist, and returns the new commit's SHA.
    /// Existing files stay.
    ///
    /// # Errors
    /// When git refuses, for example because the branch was moved concurrently.
    pub fn commit(&self, branch: &str, message: &str, files: &[(&str, &[u8])]) -> Result<String> {
        self.import(branch, message, files, &[], "100644")
    }

    /// [`GitRepo::commit`] for programs: the files are executable.
    ///
    /// # Errors
    /// As [`GitRepo::commit`].
    pub fn commit_programs(&self, branch: &str, message: &str, files: &[(&str, &[u8])]) -> Result<String> {
        self.import(branch, message, files, &[], "100755")
    }

    /// [`GitRepo::commit`] for symbolic links: each content is a target.
    ///
    /// # Errors
    /// As [`GitRepo::commit`].
    pub fn commit_links(&self, branch: &str, message: &str, links: &[(&str, &[u8])]) -> Result<String> {
        self.import(branch, message, links, &[], "120000")
    }

    /// Commits the removal of files.
    ///
    /// # Errors
    /// As [`GitRepo::commit`].
    pub fn remove(&self, branch: &str, message: &str, paths: &[&str]) -> Result<String> {
        self.import(branch, message, &[], paths, "100644")
    }

    /// The SHA that a branch, tag or other revision refers to.
    ///
    /// # Errors
    /// When there is none.
    pub fn head(&self, revision: &str) -> Result<String> {
        self.text(&[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &format!("{revision}^{{commit}}"),
        ])
    }

    /// The commits reachable from a revision, newest first.
    ///
    /// # Errors
    /// When there is no such revision.
    pub fn log(&self, revision: &str) -> Result<Vec<Commit>> {
        let text = self.text(&[
            "log",
            "--format=%H%x00%an <%ae>%x00%B%x01",
            "--end-of-options",
            revision,
        ])?;
        Ok(text
            .split('\u{1}')
            .filter_map(|entry| {
                let mut parts = entry.trim_start().splitn(3, '\0');
                Some(Commit {
                    sha: parts.next()?.to_owned(),
                    author: parts.next()?.to_owned(),
                    message: parts.next()?.trim_end().to_owned(),
                })
            })
            .collect())
    }

    /// A file's content at a revision, byte for byte.
    ///
    /// # Errors
    /// When there is no such file or revision.
    pub fn read(&self, revision: &str, path: &str) -> Result<Vec<u8>> {
        let mut command = self.git()?;
        command.args(["cat-file", "blob", &format!("{revision}:{path}")]);
        Ok(run(&mut command)?.stdout)
    }

    /// The paths of all files at a revision, sorted.
    ///
    /// # Errors
    /// When there is no such revision.
    pub fn files(&self, revision: &str) -> Result<Vec<String>> {
        let text = self.text(&["ls-tree", "-r", "-z", "--name-only", revision])?;
        Ok(text
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// fast-import writes objects and moves the branch in one process, and never discards another writer's commits.
    fn import(
        &self,
        branch: &str,
        message: &str,
        files: &[(&str, &[u8])],
        removed: &[&str],
        mode: &str,
    ) -> Result<String> {
        let parent = self.head(&format!("refs/heads/{branch}")).ok();
        let mut stream = Vec::new();
        let mut line = |text: &str| stream.extend_from_slice(text.as_bytes());
        line(&format!(
            "commit refs/heads/{branch}\ncommitter Test Author <author@example.com> now\n"
        ));
        line(&format!("data {}\n{message}\n", message.len()));
        if let Some(parent) = parent {
            line(&format!("from {parent}\n"));
        }
        for path in removed {
            line(&format!("D {path}\n"));
        }
        for (path, content) in files {
            stream.extend_from_slice(format!("M {mode} inline {path}\ndata {}\n", content.len()).as_bytes());
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }

        let mut command = self.git()?;
        command.args(["fast-import", "--quiet", "--date-format=now"]);
        let failed = || Error::io("git fast-import");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        if let Some(mut input) = child.stdin.take() {
            // When git hangs up, its exit code and output say why.
            let _ = input.write_all(&stream);
        }
        check(
            "git fast-import".into(),
            child.wait_with_output().map_err(failed())?,
        )?;
        self.head(&format!("refs/heads/{branch}"))
    }

    fn text(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.git()?;
        command.args(arguments);
        Ok(String::from_utf8_lossy(&run(&mut command)?.stdout)
            .trim_end()
            .to_owned())
    }

    fn git(&self) -> Result<Command> {
        let mut command = git()?;
        command.arg("--git-dir").arg(&self.path);
        Ok(command)
    }
}

/// git without this machine's or user's settings.
fn git() -> Result<Command> {
    let mut command = Command::new(tool("git")?);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestDir;

    #[test]
    fn commits_follow_each_other_and_keep_every_byte() {
        let folder = TestDir::new("git").unwrap();
        let repo = GitRepo::bare(folder.path().join("app.git")).unwrap();
        let bytes: Vec<u8> = (0..=255).collect();

        let first = repo
            .commit(
                "main",
                "one\n\nbody",
                &[("a/b.txt", b"no newline"), ("c.bin", &bytes)],
            )
            .unwrap();
        let second = repo
            .commit_programs("main", "two", &[("run", b"#!/bin/sh\n")])
            .unwrap();

        assert_eq!(repo.head("main").unwrap(), second);
        assert_eq!(repo.read("main", "c.bin").unwrap(), bytes);
        assert_eq!(repo.read(&first, "a/b.txt").unwrap(), b"no newline");
        assert_eq!(repo.files("main").unwrap(), ["a/b.txt", "c.bin", "run"]);
        assert_eq!(repo.files(&first).unwrap(), ["a/b.txt", "c.bin"]);
        let log = repo.log("main").unwrap();
        assert_eq!(
            log.iter()
                .map(|commit| commit.message.as_str())
                .collect::<Vec<_>>(),
            ["two", "one\n\nbody"]
        );
        assert_eq!(log[1].sha, first);
        assert_eq!(log[0].author, "Test Author <author@example.com>");

        repo.remove("main", "three", &["run"]).unwrap();
        assert_eq!(repo.files("main").unwrap(), ["a/b.txt", "c.bin"]);
        assert!(repo.head("no-such-branch").is_err());
    }

    #[test]
    fn a_branch_starts_empty() {
        let folder = TestDir::new("git").unwrap();
        let repo = GitRepo::bare(folder.path().join("app.git")).unwrap();
        repo.commit("main", "one", &[("a", b"")]).unwrap();
        repo.commit("other", "two", &[("b", b"")]).unwrap();
        assert_eq!(repo.files("other").unwrap(), ["b"]);
    }
}
