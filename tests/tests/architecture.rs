//! The rules between the rooms, as ARCHITECTURE.md states them, held to what the manifests and sources say.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Crates that a decider may use: values, their text form, hashes. None of them reaches outside.
const VALUES: [&str; 10] = [
    "hex",
    "serde",
    "serde_json",
    "sha2",
    "slipway_decider",
    "slipway_edit",
    "slipway_ledger",
    "slipway_model",
    "slipway_verdict",
    "thiserror",
];

/// Files that decide, by crate. Each is given with what it may use beyond [`VALUES`].
const DECIDERS: [(&str, &[&str], &[&str]); 4] = [
    (
        "services/build-svc",
        &["build.rs", "spec.rs", "repository.rs"],
        &["url"],
    ),
    (
        "services/gitops-svc",
        &[
            "branch.rs",
            "change.rs",
            "history.rs",
            "images.rs",
            "layout.rs",
            "pull_request.rs",
            "pull_request/follow.rs",
            "reason.rs",
            "repository/remote.rs",
        ],
        &[],
    ),
    (
        "services/approval-svc",
        &["approval.rs", "approval/v1.rs", "policy.rs", "subject.rs"],
        &[],
    ),
    (
        "services/deploy-svc",
        &[
            "deployment.rs",
            "deployment/bake.rs",
            "deployment/decide.rs",
            "deployment/evolve.rs",
            "deployment/request.rs",
            "deployment/state.rs",
            "deployment/timing.rs",
            "lane.rs",
            "plan.rs",
            "release.rs",
            "release/decide.rs",
            "release/next.rs",
            "release/state.rs",
            "release/time.rs",
            "release/words.rs",
        ],
        &[],
    ),
];

/// What asks a clock, draws lots, waits, or reaches outside.
const IMPURE: [&str; 17] = [
    "Timestamp::now",
    "SystemTime",
    "Instant",
    "Id::generate",
    "async",
    "await",
    "tokio",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "fs::",
    "Mutex",
    "OnceLock",
];

/// All that a decider takes of the ledger.
const OF_THE_LEDGER: [&str; 6] = [
    "Decider",
    "EffectKey",
    "Impossible",
    "Index",
    "Refusal",
    "RefusalKind",
];

/// The rooms of a service that do things; deciding ones do not know them.
const ROOMS_THAT_ACT: [&str; 13] = [
    "backends",
    "builders",
    "deployment_effects",
    "drive",
    "effects",
    "git",
    "grpc",
    "grpc_deploy",
    "grpc_release",
    "owners",
    "registries",
    "render",
    "round",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders of the workspace's crates, from the root.
fn crates() -> Vec<String> {
    let mut found: Vec<String> = ["proto", "cli", "local-cluster", "tests"]
        .map(str::to_owned)
        .into();
    for parent in ["crates", "services"] {
        for entry in fs::read_dir(root().join(parent)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().join("Cargo.toml").exists() {
                found.push(format!("{parent}/{}", entry.file_name().to_string_lossy()));
            }
        }
    }
    found.sort();
    assert!(found.len() >= 14, "crates were not found: {found:?}");
    found
}

/// What a manifest depends on, in any of its tables of dependencies. Test tables count only when `tests` does.
fn dependencies(folder: &str, tests: bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in read(&root().join(folder).join("Cargo.toml")).lines() {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            // [dependencies], [target.'…'.dev-dependencies], [dependencies.NAME]
            let name = table.rsplit_once("dependencies.").map(|(_, name)| name);
            inside = table.ends_with("dependencies") && (tests || !table.ends_with("dev-dependencies"));
            if let Some(name) = name.filter(|_| tests || !table.contains("dev-dependencies")) {
                names.insert(name.trim_matches('"').to_owned());
            }
        } else if inside
            && !line.starts_with('#')
            && let Some((name, value)) = line.split_once('=')
        {
            let name = name.trim().split('.').next().unwrap().trim_matches('"');
            names.insert(name.to_owned());
            // A renamed dependency is still what it is.
            if let Some((_, package)) = value.split_once("package = \"") {
                names.insert(package.split('"').next().unwrap().to_owned());
            }
        }
    }
    names
}

/// The Rust files under a folder, from the root.
fn sources(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// The code of a file without comments, without what strings say, and without its tests, which come last.
fn code(path: &str) -> String {
    let text = read(&root().join(path));
    let mut code = String::new();
    let mut quoted = false;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let test_module = line == "#[cfg(test)]"
            && lines
                .peek()
                .is_some_and(|next| next.starts_with("mod tests {") || next.starts_with("pub mod tests {"));
        if test_module {
            break;
        }
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if quoted => drop(chars.next()),
                // A quotation mark between single ones is a character.
                '\'' if !quoted && chars.peek() == Some(&'"') => drop(chars.next()),
                '"' => quoted = !quoted,
                '/' if !quoted && chars.peek() == Some(&'/') => break,
                c if !quoted => code.push(c),
                _ => {}
            }
        }
        code.push('\n');
    }
    assert!(!quoted, "{path}: where strings end was not understood");
    code
}

/// Whether `word` stands in `code` as a word of its own.
fn says(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(part) && (word.ends_with(':') || !after.is_some_and(part))
    })
}

/// The names that `use NAME::{…}` takes, and those of `NAME::Name` in the text.
fn taken_from(code: &str, name: &str) -> BTreeSet<String> {
    let prefix = format!("{name}::");
    let mut taken = BTreeSet::new();
    for (at, _) in code.match_indices(&prefix) {
        let rest = &code[at + prefix.len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap(),
            None => rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap(),
        };
        taken.extend(
            list.split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        );
    }
    taken
}

/// Every file of the repository whose text people or machines read, from the root. Test data and what git ignores is
/// left out.
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

fn crate_name(package: &str) -> String {
    package.replace('-', "_")
}

#[test]
fn deciders_have_no_clock_and_reach_nothing() {
    for (folder, files, extra) in DECIDERS {
        let forbidden: Vec<String> = dependencies(folder, false)
            .iter()
            .map(|package| crate_name(package))
            .filter(|name| !VALUES.contains(&name.as_str()) && !extra.contains(&name.as_str()))
            .collect();
        assert!(
            forbidden.iter().any(|name| name == "tonic"),
            "the dependencies of {folder} were not read"
        );
        for file in files {
            let path = format!("{folder}/src/{file}");
            let code = code(&path);
            assert!(code.contains("fn "), "{path} was not read");
            for name in &forbidden {
                assert!(
                    !says(&code, &format!("{name}::")),
                    "{path} uses {name}: a decider reaches nothing outside"
                );
            }
            for word in IMPURE {
                assert!(
                    !says(&code, word),
                    "{path} says {word}: a decider has no clock, no I/O, and waits for nothing"
                );
            }
            for room in taken_from(&code, "crate") {
                assert!(
                    !ROOMS_THAT_ACT.contains(&room.as_str()),
                    "{path} uses crate::{room}, which acts"
                );
            }
            let ledger = taken_from(&code, "slipway_ledger");
            for name in ledger {
                assert!(
                    OF_THE_LEDGER.contains(&name.as_str()),
                    "{path} uses slipway_ledger::{name}"
                );
            }
        }
    }
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
    for (folder, allowed) in [("crates/edit", &edits[..]), ("crates/verdict", &verdicts[..])] {
        for package in dependencies(folder, false) {
            assert!(
                allowed.contains(&package.as_str()),
                "{folder} depends on {package}"
            );
        }
        for path in sources(&format!("{folder}/src")) {
            let code = code(&path);
            for word in IMPURE {
                assert!(
                    !says(&code, word),
                    "{path} says {word}: what it tells follows from what it is given"
                );
            }
        }
    }
}

#[test]
fn every_decider_is_on_the_list() {
    let listed: BTreeSet<String> = DECIDERS
        .iter()
        .flat_map(|(folder, files, _)| files.iter().map(move |file| format!("{folder}/src/{file}")))
        .collect();
    let mut kinds = 0;
    for folder in crates().iter().filter(|folder| folder.starts_with("services/")) {
        for path in sources(&format!("{folder}/src")) {
            if code(&path).contains("impl Decider for ") {
                assert!(
                    listed.contains(&path),
                    "{path} holds a decider: add it to DECIDERS"
                );
                kinds += 1;
            }
        }
    }
    assert!(kinds >= 7, "only {kinds} deciders were found");
}

#[test]
fn no_service_depends_on_another() {
    let services: Vec<String> = crates()
        .into_iter()
        .filter(|folder| folder.starts_with("services/"))
        .collect();
    let names: BTreeSet<&str> = services
        .iter()
        .map(|folder| &folder["services/".len()..])
        .collect();
    for folder in crates() {
        // `slipway dev` runs all four in one process, and so measures the benchmark.
        if folder == "cli" || folder == "tests" {
            continue;
        }
        for name in dependencies(&folder, true) {
            let own = folder.ends_with(&format!("/{name}"));
            assert!(
                own || !names.contains(name.as_str()),
                "{folder} depends on {name}"
            );
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
        ("octocrab", "services/gitops-svc"),
    ] {
        for folder in crates() {
            let knows = dependencies(&folder, false).contains(client);
            assert_eq!(
                knows,
                folder == owner,
                "{client} belongs to {owner} alone; this is {folder}"
            );
        }
    }
}

#[test]
fn only_the_api_files_know_messages() {
    for folder in crates().iter().filter(|folder| folder.starts_with("services/")) {
        for path in sources(&format!("{folder}/src")) {
            let file = &path[folder.len() + "/src/".len()..];
            let api = file.starts_with("grpc") || file.starts_with("owners/");
            // Asks whatever service is deployed by the standard health protocol, which is not ours.
            let api = api || file == "checks/grpc.rs";
            let code = code(&path);
            for name in ["prost", "prost_types", "slipway_proto", "tonic"] {
                // What registers a service names its server and the descriptors.
                let registers = file == "lib.rs" && name == "slipway_proto";
                assert!(
                    api || registers || !says(&code, &format!("{name}::")),
                    "{path} uses {name}"
                );
            }
        }
    }
}

#[test]
fn each_outside_system_has_its_place() {
    let places: [(&str, &str, &[&str]); 4] = [
        // The rules of trailers in a message are git's own.
        ("services/gitops-svc", "gix::", &["repository/", "message.rs"]),
        (
            "services/gitops-svc",
            "octocrab::",
            &["github.rs", "github/", "credentials"],
        ),
        (
            "services/build-svc",
            "oci_client::",
            &["registries/oci.rs", "layout.rs"],
        ),
        ("services/build-svc", "object_store::", &["logs.rs"]),
    ];
    for (folder, client, allowed) in places {
        let mut seen = false;
        for path in sources(&format!("{folder}/src")) {
            let file = &path[folder.len() + "/src/".len()..];
            if says(&code(&path), client) && !file.ends_with("_tests.rs") {
                assert!(
                    allowed.iter().any(|place| file.starts_with(place)),
                    "{path} uses {client}"
                );
                seen = true;
            }
        }
        assert!(seen, "{client} was not found in {folder}");
    }
}

/// A clone alone, in a folder of its own, is all that a build and the tests need.
#[test]
fn no_source_names_a_neighbouring_folder() {
    assert!(climbs_out(2, "../../../x") && climbs_out(1, "/a/../../../x"));
    assert!(!climbs_out(2, "../../x") && !climbs_out(1, "a/../../b"));
    // What earlier checkouts had beside them.
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
    for folder in crates() {
        for path in sources(&folder) {
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
    for folder in crates() {
        let manifest = read(&root().join(&folder).join("Cargo.toml"));
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder} takes the workspace's lints"
        );
    }
}

#[test]
fn versions_are_the_workspaces() {
    for folder in crates() {
        let manifest = read(&root().join(&folder).join("Cargo.toml"));
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
