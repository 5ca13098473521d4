//! The rules between the rooms, as ARCHITECTURE.md states them, checked against cargo and the sources.
#![allow(clippy::unwrap_used)]

mod circles;
mod code;
mod documents;
mod workspace;

use std::{collections::BTreeSet, fs};

use circles::{circles, imports};
use code::{files, sources};
use workspace::{packages, read, root};

const SERVICES: [&str; 4] = ["build", "gitops", "approval", "deploy"];

/// The rooms of a service, each with those that it may import.
const ROOMS: [(&str, &[&str]); 4] = [
    ("api", &["effects", "backends", "config"]),
    ("effects", &["backends", "config"]),
    ("backends", &["config"]),
    ("config", &[]),
];

/// Crates that a domain may use: values, their text form, hashes, decisions. None of them reaches the outside world.
const VALUES: [&str; 15] = [
    // The rules for trailers in a message are git's own.
    "gix-object",
    "hex",
    // Types alone.
    "k8s-openapi",
    "serde",
    "serde-saphyr",
    "serde_json",
    "serde_path_to_error",
    "sha2",
    "slipway-check",
    "slipway-decider",
    "slipway-edit",
    "slipway-model",
    "slipway-verdict",
    "thiserror",
    "url",
];

/// Every text file of the repository that people or machines read, from the root. Test data and what git ignores is
/// excluded.
fn texts() -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let ignored = [".git", "target", ".slipway", ".tools", "tests/data"].contains(&name.as_str())
                || name.ends_with(".log");
            if ignored {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if fs::read_to_string(&path).is_ok() {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Whether a path leaves the repository when it is followed from `depth` folders below the root.
fn climbs_out(depth: usize, path: &str) -> bool {
    let mut depth = i64::try_from(depth).unwrap();
    path.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    })
}

/// Fails with everything that breaks a rule, not only with the first.
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn each_service_has_the_same_rooms() {
    let packages = packages();
    let rooms: BTreeSet<&str> = ROOMS
        .iter()
        .map(|(room, _)| *room)
        .chain(["lib", "main"])
        .collect();
    let mut broken = Vec::new();
    for name in SERVICES {
        let folder = format!("services/{name}-svc");
        let src = root().join(&folder).join("src");
        for entry in fs::read_dir(&src).unwrap() {
            let entry = entry.unwrap().file_name().to_string_lossy().into_owned();
            if !rooms.contains(entry.trim_end_matches(".rs")) {
                broken.push(format!("{folder}/src/{entry} is not one of the rooms"));
            }
        }
        // A service without outside systems has no backends.
        for file in [
            "lib.rs",
            "main.rs",
            "config.rs",
            "effects.rs",
            "api.rs",
            "api/convert.rs",
        ] {
            if !src.join(file).exists() {
                broken.push(format!("{folder} has no src/{file}"));
            }
        }
        if !packages[&folder].depends_on(&format!("{name}-domain")) {
            broken.push(format!("{folder} does not use its domain"));
        }
        for (room, imported) in imports(&folder) {
            let may = ROOMS
                .iter()
                .find(|(name, _)| *name == room)
                .map_or(&[][..], |(_, may)| may);
            let others = imported.iter().filter(|other| !may.contains(&other.as_str()));
            broken.extend(others.map(|other| format!("{folder}: {room} imports {other}")));
        }
    }
    none("the rooms of a service", &broken);
}

/// What a service exposes to others: how to run it, its configuration, and what tests need.
#[test]
fn a_service_shows_run_config_and_testing() {
    let mut broken = Vec::new();
    for name in SERVICES {
        let lib = sources(&format!("services/{name}-svc"))
            .into_iter()
            .find(|source| source.path.ends_with("/lib.rs"))
            .unwrap();
        let allowed = [
            "async fn run ",
            "use crate :: config :: Config ;",
            "mod testing {",
        ];
        let shown = public_items(&lib.text);
        assert!(shown.len() >= 2, "{} was not read: {shown:?}", lib.path);
        let others = shown
            .iter()
            .filter(|item| !allowed.iter().any(|start| item.starts_with(start)));
        broken.extend(others.map(|item| format!("{} shows `{item}`", lib.path)));
    }
    none("what a service shows", &broken);
}

/// How the public items at the top of a file begin.
fn public_items(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut depth = 0;
    let mut items = Vec::new();
    for (at, word) in words.iter().enumerate() {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            "pub" if depth == 0 => items.push(
                words[at + 1..]
                    .iter()
                    .take(7)
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
            _ => {}
        }
    }
    items.retain(|item| !item.starts_with('('));
    items
}

/// A domain depends on values alone, so the compiler keeps it from doing anything, and clippy keeps it from asking the
/// standard library for a clock, a file or a lock.
#[test]
fn domains_reach_nothing() {
    let packages = packages();
    let rules = packages["services/build-svc/domain"].read("clippy.toml");
    assert!(rules.contains("slipway_model::Timestamp::now") && rules.contains("std::fs::read_to_string"));
    let domains = SERVICES.map(|name| format!("services/{name}-svc/domain"));
    let pure = ["crates/check", "crates/decider", "crates/edit", "crates/verdict"].map(str::to_owned);
    let mut broken = Vec::new();
    for folder in domains.iter().chain(&pure) {
        if packages[folder].read("clippy.toml") != rules {
            broken.push(format!("{folder}/clippy.toml differs from the others"));
        }
    }
    for folder in &domains {
        let others = packages[folder]
            .dependencies
            .iter()
            .filter(|name| !VALUES.contains(&name.as_str()));
        broken.extend(others.map(|name| format!("{folder} depends on {name}")));
    }
    for folder in domains.iter().chain(&pure) {
        let waiting = sources(folder)
            .into_iter()
            .filter(|source| source.text.contains("async "));
        broken.extend(waiting.map(|source| format!("{} waits", source.path)));
    }
    none("a domain reaches nothing", &broken);
}

#[test]
fn edits_and_verdicts_are_pure() {
    let edits = ["granit-parser", "regex", "serde", "slipway-model", "thiserror"];
    // Verdicts read the cluster's types.
    let verdicts = [
        "croner",
        "globset",
        "jiff",
        "k8s-openapi",
        "regex",
        "serde",
        "serde_json",
        "slipway-model",
        "thiserror",
    ];
    let packages = packages();
    for (folder, allowed) in [("crates/edit", &edits[..]), ("crates/verdict", &verdicts[..])] {
        for dependency in &packages[folder].dependencies {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{folder} depends on {dependency}"
            );
        }
    }
}

#[test]
fn what_decides_is_in_a_domain() {
    let mut deciders = 0;
    for name in SERVICES {
        for source in sources(&format!("services/{name}-svc")) {
            assert!(
                !source.text.contains("impl Decider for"),
                "{} holds a decider: it belongs into the domain",
                source.path
            );
        }
        let domain = sources(&format!("services/{name}-svc/domain"));
        deciders += domain
            .iter()
            .map(|source| source.text.matches("impl Decider for").count())
            .sum::<usize>();
    }
    assert!(deciders >= 7, "only {deciders} deciders were found");
}

/// Two modules that import each other cannot be read one after the other. Parent and child may.
#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for folder in packages()
        .into_keys()
        .filter(|folder| root().join(folder).join("src").exists())
    {
        let imports = imports(&folder);
        for circle in circles(&imports) {
            for module in &circle {
                let others: Vec<&str> = imports[module]
                    .intersection(&circle)
                    .map(String::as_str)
                    .collect();
                found.push(format!("{folder}: {module} → {}", others.join(", ")));
            }
        }
    }
    assert!(found.is_empty(), "circles between modules:\n{}", found.join("\n"));
}

#[test]
fn modules_have_one_style() {
    for folder in packages().into_keys() {
        if !root().join(&folder).join("src").exists() {
            continue;
        }
        for file in files(&format!("{folder}/src")) {
            assert!(
                !file.ends_with("/mod.rs"),
                "{file}: write name.rs beside the folder"
            );
        }
    }
}

#[test]
fn no_service_depends_on_another() {
    let names = SERVICES.map(|name| format!("{name}-svc"));
    for (folder, package) in packages() {
        // `slipway dev` runs all four in one process, and so does the benchmark.
        if folder == "cli" || folder == "tests" {
            continue;
        }
        for name in package.dependencies.iter().chain(&package.test_dependencies) {
            let own = folder.ends_with(&format!("/{name}"));
            assert!(own || !names.contains(name), "{folder} depends on {name}");
        }
    }
}

#[test]
fn each_store_has_one_crate_that_knows_it() {
    for (client, owner) in [
        ("sqlx", "crates/ledger"),
        ("redis", "crates/events"),
        ("kube", "crates/kubernetes"),
        ("gix", "services/gitops-svc"),
        ("octocrab", "crates/github"),
    ] {
        for (folder, package) in packages() {
            assert_eq!(
                package.depends_on(client),
                folder == owner,
                "{client} belongs to {owner} alone; this is {folder}"
            );
        }
    }
}

#[test]
fn only_the_api_knows_messages() {
    let mut broken = Vec::new();
    for name in SERVICES {
        let folder = format!("services/{name}-svc");
        for source in sources(&folder) {
            let file = &source.path[folder.len() + "/src/".len()..];
            // The step backends are the calling side of the other services.
            let api = file.starts_with("api") || file.starts_with("backends/steps");
            for package in ["prost", "prost_types", "slipway_proto", "tonic"] {
                // Registering a service requires its server type and the descriptors.
                let registers = file == "lib.rs" && package == "slipway_proto";
                if !api && !registers && source.uses(package) {
                    broken.push(format!("{} uses {package}", source.path));
                }
            }
        }
    }
    none("messages outside the API", &broken);
}

#[test]
fn each_outside_system_has_its_place() {
    let mut broken = Vec::new();
    for (folder, client, places) in [
        ("services/gitops-svc", "gix", &["backends/repository"][..]),
        (
            "services/build-svc",
            "oci_client",
            &["backends/registries", "backends/image_layout.rs"],
        ),
        ("services/build-svc", "object_store", &["backends/logs.rs"]),
    ] {
        let mut seen = false;
        for source in sources(folder).into_iter().filter(|source| source.uses(client)) {
            let file = &source.path[folder.len() + "/src/".len()..];
            seen = true;
            if !places.iter().any(|place| file.starts_with(place)) {
                broken.push(format!("{} uses {client}", source.path));
            }
        }
        assert!(seen, "{client} was not found in {folder}");
    }
    none("outside systems", &broken);
}

/// A bare clone, in its own folder, is all that a build and the tests need.
#[test]
fn no_source_names_a_neighbouring_folder() {
    assert!(climbs_out(2, "../../../x") && climbs_out(1, "/a/../../../x"));
    assert!(!climbs_out(2, "../../x") && !climbs_out(1, "a/../../b"));
    // What earlier checkouts had next to them.
    let neighbour = format!("../{}", "shared");
    let texts = texts();
    for file in ["Makefile", "README.md", ".ci/run", "crates/testbed/src/data.rs"] {
        assert!(texts.iter().any(|path| path == file), "{file} was not found");
    }
    for path in &texts {
        let named = read(&root().join(path)).contains(&neighbour);
        assert!(!named, "{path} names {neighbour}, which a clone does not have");
    }
    let mut followed = 0;
    for folder in packages().into_keys() {
        for path in files(&folder) {
            let text = read(&root().join(&path));
            // From the crate's folder, and from the file's own.
            let above = |path: &str| path.split('/').count();
            for (word, depth) in [
                ("\"CARGO_MANIFEST_DIR\"", above(&folder)),
                ("include_str!(", above(&path) - 1),
                ("include_bytes!(", above(&path) - 1),
            ] {
                for (at, _) in text.match_indices(word) {
                    let statement = text[at + word.len()..].split(';').next().unwrap();
                    for relative in statement.split('"').skip(1).step_by(2) {
                        followed += usize::from(relative.contains("../"));
                        assert!(
                            !climbs_out(depth, relative),
                            "{path}: {relative} is outside the repository"
                        );
                    }
                }
            }
        }
    }
    assert!(followed >= 5, "only {followed} paths were followed");
}

#[test]
fn every_crate_takes_the_lints_and_none_is_unsafe() {
    let workspace = read(&root().join("Cargo.toml"));
    assert!(
        workspace.contains("\nunsafe_code = \"forbid\"\n"),
        "the workspace forbids unsafe code"
    );
    for (folder, package) in packages() {
        let manifest = package.read("Cargo.toml");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder} takes the workspace's lints"
        );
    }
}

#[test]
fn versions_are_the_workspaces() {
    for (folder, package) in packages() {
        let manifest = package.read("Cargo.toml");
        let mut inside = false;
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            } else if inside && !line.is_empty() && !line.starts_with('#') {
                let shared = line.contains(".workspace = true") || line.contains("workspace = true");
                assert!(
                    shared,
                    "{folder}: {line}: versions are in the workspace's Cargo.toml"
                );
            }
        }
    }
}
