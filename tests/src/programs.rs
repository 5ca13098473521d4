//! The programs under test, as built by cargo next to the running test.
//!
//! `cargo test --workspace` builds the programs of packages that have their own tests; other ways to run a test do not.
//! Programs that are missing, or older than their sources, are built here first.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// The services' programs.
pub const SERVICES: [&str; 4] = ["build-svc", "gitops-svc", "approval-svc", "deploy-svc"];
/// The cluster's program.
pub const CLUSTER: &str = "local-cluster";
/// The command line.
pub const SLIPWAY: &str = "slipway";

/// The folder of this profile in cargo's target directory, such as `target/debug`.
pub fn profile_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let folder = exe.parent().unwrap();
    // Tests are in `deps`, programs above it.
    if folder.ends_with("deps") {
        folder.parent().unwrap()
    } else {
        folder
    }
    .to_owned()
}

/// A folder with the programs to test, instead of those that cargo builds.
const PROGRAMS: &str = "SLIPWAY_TEST_PROGRAMS";

/// The path of a program that exists and is not older than its sources.
pub fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return PathBuf::from(folder).join(name);
    }
    ensure(&[name]);
    profile_folder().join(name)
}

/// Builds those of the programs that are missing or outdated, together.
pub fn ensure(names: &[&str]) {
    if std::env::var_os(PROGRAMS).is_some() {
        return;
    }
    static CHECKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = profile_folder();
    let stale: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !checked.contains(*name) && !is_fresh(&folder, name))
        .collect();
    if !stale.is_empty() {
        build(&folder, &stale);
    }
    checked.extend(names.iter().map(|name| (*name).to_owned()));
}

/// Next to each program, cargo writes the list of the sources that it was built from.
fn is_fresh(folder: &Path, name: &str) -> bool {
    let built = match modified(&folder.join(name)) {
        Some(built) => built,
        None => return false,
    };
    let Ok(listed) = fs::read_to_string(folder.join(format!("{name}.d"))) else {
        return false;
    };
    let Some((_, sources)) = listed.split_once(": ") else {
        return false;
    };
    // Spaces within paths are escaped with a backslash.
    let sources = sources.replace("\\ ", "\0");
    sources
        .split_whitespace()
        .map(|source| source.replace('\0', " "))
        .all(|source| modified(Path::new(&source)).is_some_and(|changed| changed <= built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn build(folder: &Path, names: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    // Built like the tests: other selections of packages unify features differently, and recompile everything.
    command.args(["build", "--quiet", "--workspace"]);
    for name in names {
        command.args(["--bin", name]);
    }
    if folder.ends_with("release") {
        command.arg("--release");
    }
    command
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    // Variables that cargo sets for a test run must not leak into the build of another package.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    eprintln!("building {}", names.join(", "));
    let status = command.status().unwrap();
    assert!(status.success(), "cargo build of {names:?} ended with {status}");
}
