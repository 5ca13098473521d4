//! The programs that render.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use gitops_domain::reason::Code;
use serde_json::Value;
use slipway_model::{Fault, Reason};

use super::Scratch;
use crate::{
    backends::process::{ProcessError, Program},
    config::RendererConfig,
};

/// What helm may need: templates are programs, and one of a few letters can ask for all of a machine's memory.
const MAX_MEMORY: u64 = 1 << 30;

/// The program, and the arguments before those of the folder.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    program: PathBuf,
    arguments: &'static [&'static str],
    max_memory: Option<u64>,
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
    pub(super) async fn kustomize(config: &RendererConfig) -> Result<Self, Fault<Reason>> {
        let path = config.path.as_deref().unwrap_or(Path::new("kustomize"));
        let tool = |program, arguments| Self {
            program,
            arguments,
            max_memory: None,
        };
        if let Some(program) = on_path(path) {
            // Debian builds 5.6 with the version "(devel)", so we test for a command that was new in 5.
            let help = Program::new(&program).args(["localize", "--help"]).run().await;
            if help.is_ok_and(|output| {
                output.success && String::from_utf8_lossy(&output.stdout).contains("localize")
            }) {
                return Ok(tool(program, &["build"]));
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
                return Ok(tool(program, &["kustomize"]));
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

    /// helm 3 or 4 as configured; otherwise what to do.
    pub(super) async fn helm(config: &RendererConfig) -> Result<Self, String> {
        let path = config.path.as_deref().unwrap_or(Path::new("helm"));
        if let Some(program) = on_path(path) {
            let version = Program::new(&program).args(["version", "--short"]).run().await;
            let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            if version.is_ok_and(|version| version.starts_with("v3.") || version.starts_with("v4.")) {
                return Ok(Self {
                    program,
                    arguments: &["template"],
                    max_memory: Some(MAX_MEMORY),
                });
            }
        }
        Err(format!(
            "{} is not helm 3 or 4: install one, or set helm.path",
            path.display()
        ))
    }

    /// The manifests of a folder, with these arguments.
    pub(super) async fn run<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        config: &RendererConfig,
        scratch: &Scratch,
        arguments: I,
    ) -> Result<Arc<str>, Unrendered> {
        // Whatever it needs for itself.
        let home = scratch.home();
        let mut program = Program::new(&self.program)
            .args(self.arguments)
            .args(arguments)
            .folder(home)
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("XDG_CONFIG_HOME", home)
            .env("HELM_CACHE_HOME", home)
            .env("HELM_CONFIG_HOME", home)
            .env("HELM_DATA_HOME", home)
            .env("HELM_PLUGINS", "/nonexistent")
            // Without git, remote bases cannot be fetched; and nothing listens at the discard port.
            .env("PATH", "/nonexistent")
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("HTTPS_PROXY", "http://127.0.0.1:9");
        program.max_output = config.max_output_bytes;
        program.timeout = config.timeout;
        program.max_memory = self.max_memory;
        match program.run().await {
            Ok(output) if output.success => match String::from_utf8(output.stdout) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(Unrendered::Failed("the manifests are not UTF-8".to_owned())),
            },
            Ok(output) => {
                // Our own paths mean nothing to the reader: paths are from the repository's root.
                let inside = scratch.root.display().to_string();
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

/// A file as an argument that is a list in the form of CSV: a comma in its name parts nothing.
pub(super) fn one_of_a_list(file: &Path) -> String {
    format!("\"{}\"", file.display().to_string().replace('"', "\"\""))
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
