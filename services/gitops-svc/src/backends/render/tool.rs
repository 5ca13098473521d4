//! The program that renders.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use gitops_domain::reason::Code;
use serde_json::Value;
use slipway_model::{Fault, Reason};

use crate::{
    backends::process::{ProcessError, Program},
    config::KustomizeConfig,
};

/// The program, and the arguments before the folder.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// Why nothing was rendered.
#[derive(Debug)]
pub(super) enum Unrendered {
    /// The program refuses the folder, in its own words.
    Failed(String),
    /// It takes too long, or prints too much.
    Unbounded(String),
    /// It could not be run.
    Unrunnable(String),
}

impl From<Unrendered> for Fault<Reason> {
    fn from(unrendered: Unrendered) -> Self {
        let failed = |words: &str| {
            let words = gitops_domain::remote::paragraph(words);
            Fault::refused(Code::RenderFailed, format!("kustomize: {words}"))
        };
        match unrendered {
            Unrendered::Failed(words) | Unrendered::Unbounded(words) => failed(&words),
            Unrendered::Unrunnable(words) => Fault::unavailable(Code::Internal, words),
        }
    }
}

impl Tool {
    /// kustomize 5 as configured, otherwise a kubectl with kustomize 5 built in.
    pub(super) async fn find(path: &Path) -> Result<Self, Fault<Reason>> {
        if let Some(program) = on_path(path) {
            // Debian builds 5.6 with the version "(devel)", so we test for a command that was new in 5.
            let help = Program::new(&program).args(["localize", "--help"]).run().await;
            if help.is_ok_and(|output| {
                output.success && String::from_utf8_lossy(&output.stdout).contains("localize")
            }) {
                return Ok(Self {
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
                return Ok(Self {
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

    /// The manifests of a folder below `root`. Whatever it needs for itself is in `home`.
    pub(super) async fn run(
        &self,
        config: &KustomizeConfig,
        home: &Path,
        root: &Path,
        folder: &Path,
    ) -> Result<Arc<str>, Unrendered> {
        let mut program = Program::new(&self.program)
            .args(self.arguments)
            .args([folder])
            .folder(home)
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("XDG_CONFIG_HOME", home)
            // Without git, remote bases cannot be fetched; and nothing listens at the discard port.
            .env("PATH", "/nonexistent")
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("HTTPS_PROXY", "http://127.0.0.1:9");
        program.max_output = config.max_output_bytes;
        program.timeout = config.timeout;
        match program.run().await {
            Ok(output) if output.success => match String::from_utf8(output.stdout) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(Unrendered::Failed("the manifests are not UTF-8".to_owned())),
            },
            Ok(output) => {
                // Our own paths mean nothing to the reader: paths are from the repository's root.
                let inside = root.display().to_string();
                let text = output.stderr.replace(&format!("{inside}/"), "");
                Err(Unrendered::Failed(text.replace(&inside, ".")))
            }
            Err(error @ (ProcessError::Timeout { .. } | ProcessError::TooMuch { .. })) => {
                Err(Unrendered::Unbounded(error.to_string()))
            }
            Err(error) => Err(Unrendered::Unrunnable(error.to_string())),
        }
    }
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
