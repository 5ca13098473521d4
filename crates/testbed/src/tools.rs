//! Finds programs: on PATH, in the tools folder that `scripts/install-prerequisites` fills, and where Debian installs
//! PostgreSQL's.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Where Debian keeps one folder per PostgreSQL version, none of them on PATH.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// The path of a program.
///
/// # Errors
/// [`Error::MissingTool`], which names the command that installs it.
pub fn tool(name: &str) -> Result<PathBuf> {
    folders()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
        .ok_or_else(|| Error::MissingTool(name.to_owned()))
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = tools_folder().into_iter().collect();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(newest_postgres(Path::new(DEBIAN_POSTGRES)));
    folders.push("/usr/sbin".into());
    folders
}

/// The same choice as in `scripts/install-prerequisites`.
fn tools_folder() -> Option<PathBuf> {
    let own = env::var_os("SLIPWAY_TOOLS_DIR").map(PathBuf::from);
    let cache = || {
        env::var_os("XDG_CACHE_HOME")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cache")))
    };
    own.or_else(|| Some(cache()?.join("slipway/tools")))
        .map(|folder| folder.join("bin"))
}

fn newest_postgres(root: &Path) -> Option<PathBuf> {
    std::fs::read_dir(root)
        .ok()?
        .filter_map(|entry| {
            let version: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let bin = root.join(version.to_string()).join("bin");
            is_program(&bin.join("initdb")).then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there() {
        assert!(tool("git").unwrap().is_absolute());
        assert!(tool("initdb").unwrap().ends_with("initdb"));
    }

    #[test]
    fn names_the_remedy_for_what_is_not() {
        let message = tool("no-such-program").unwrap_err().to_string();
        assert_eq!(
            message,
            "no-such-program is not on this machine: run `scripts/install-prerequisites test`"
        );
    }
}
