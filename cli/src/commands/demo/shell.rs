//! Runs the programs that the demo shows, and prints what it runs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::failure::Failure;

/// How the demo calls programs.
pub(crate) struct Shell {
    /// This program.
    pub(crate) slipway: PathBuf,
    /// The context file of the running `slipway dev`.
    pub(crate) context: PathBuf,
}

impl Shell {
    /// A program without the caller's git or slipway settings.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        for name in [
            "SLIPWAY_CONTEXT",
            "SLIPWAY_USER",
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs to the end, and fails with its output.
    pub(crate) fn quiet(&self, mut command: Command) -> Result<String, Failure> {
        let output = command.output().map_err(|error| missing(&command, &error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(format!(
            "{:?} ended with {}: {said}",
            command.get_program(),
            output.status
        )))
    }

    /// git as alice, who is the author of everything.
    pub(crate) fn git(&self, folder: &Path, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = self.command("git", arguments);
        command.current_dir(folder);
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Alice")
                .env(format!("GIT_{role}_EMAIL"), "alice@example.com");
        }
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        self.quiet(command)
    }

    /// `slipway …` as one of the people, shown as they would type it.
    pub(crate) fn slipway(&self, person: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.slipway, &["--as", person]);
        command.arg("--context").arg(&self.context).args(arguments);
        command
    }

    /// Prints and runs `slipway …`; both its streams are shown.
    pub(crate) fn show(&self, person: &str, arguments: &[&str]) -> Result<Output, Failure> {
        say(&format!("$ slipway --as {person} {}", arguments.join(" ")));
        let mut command = self.slipway(person, arguments);
        let output = command.output().map_err(|error| missing(&command, &error))?;
        for stream in [&output.stderr, &output.stdout] {
            for line in String::from_utf8_lossy(stream).lines() {
                say(&format!("  {line}"));
            }
        }
        Ok(output)
    }

    /// Runs `slipway … -o json` and parses its output.
    pub(crate) fn json(
        &self,
        person: &str,
        arguments: &[&str],
    ) -> Result<(bool, serde_json::Value), Failure> {
        let mut command = self.slipway(person, arguments);
        let output = command
            .args(["-o", "json"])
            .output()
            .map_err(|error| missing(&command, &error))?;
        let value = serde_json::from_slice(&output.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Failure::new(format!(
                "slipway {}: the output is not JSON ({error}): {said}",
                arguments.join(" ")
            ))
        })?;
        Ok((output.status.success(), value))
    }
}

/// A line of the demo.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

fn missing(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot run {:?}: {error}", command.get_program()))
        .next("install what is missing with: scripts/install-prerequisites demo")
}
