//! The workspace's crates and their dependencies, according to cargo itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// From the root of the repository.
    pub(crate) folder: String,
    /// The packages that its code depends on, under their own names; without those of tests and build scripts.
    pub(crate) dependencies: BTreeSet<String>,
    pub(crate) test_dependencies: BTreeSet<String>,
}

impl Package {
    pub(crate) fn depends_on(&self, name: &str) -> bool {
        self.dependencies.contains(name)
    }

    pub(crate) fn read(&self, file: &str) -> String {
        read(&root().join(&self.folder).join(file))
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All crates, by folder.
pub(crate) fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(package);
    let packages: BTreeMap<String, Package> = packages
        .map(|package| (package.folder.clone(), package))
        .collect();
    assert!(
        packages.len() >= 18,
        "crates were not found: {:?}",
        packages.keys()
    );
    packages
}

fn package(package: &Value) -> Package {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    let folder = manifest.parent().unwrap().strip_prefix(root()).unwrap();
    let named = |kind: Option<&str>| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|dependency| dependency["kind"].as_str() == kind)
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    Package {
        folder: folder.to_string_lossy().into_owned(),
        dependencies: named(None),
        test_dependencies: named(Some("dev")),
    }
}
