//! kustomize itself, as the judge of what a kustomization results in.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Renders a folder; what kustomize says where it cannot. Never reaches for the network: no proxy answers, and git is
/// not found.
pub(crate) fn build(program: &Path, folder: &Path) -> Result<String, String> {
    let output = Command::new(program)
        .arg("build")
        .arg(folder)
        .env_clear()
        .env("HOME", folder)
        .env("https_proxy", "http://127.0.0.1:9")
        .env("http_proxy", "http://127.0.0.1:9")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// In the folder of tools that scripts/install-prerequisites fills, or on PATH.
pub(crate) fn program() -> PathBuf {
    let own = std::env::var_os("SLIPWAY_TOOLS_DIR").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .map(|cache| cache.join("slipway/tools"));
    own.or(cache)
        .map(|tools| tools.join("bin"))
        .into_iter()
        .chain(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ))
        .map(|folder| folder.join("kustomize"))
        .find(|path| path.is_file())
        .expect("kustomize is needed: scripts/install-prerequisites test puts it where the tests look")
}
