//! The files that documents name.

use crate::{
    code::files,
    workspace::{packages, read, root},
};

const DOCUMENTS: [&str; 10] = [
    "ARCHITECTURE.md",
    "CONFIGURATION.md",
    "README.md",
    "deploy/README.md",
    "local-cluster/README.md",
    "proto/README.md",
    "services/approval-svc/README.md",
    "services/build-svc/README.md",
    "services/deploy-svc/README.md",
    "services/gitops-svc/README.md",
];

/// What is in backticks and ends like a Rust file name: `crates/model/src/id.rs`, `api/{convert,edits}.rs`, `next.rs`.
fn named(text: &str) -> Vec<String> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let names = quoted
        .flat_map(str::split_whitespace)
        .filter(|name| name.ends_with(".rs"));
    names.flat_map(alternatives).collect()
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn alternatives(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else {
        return vec![name.to_owned()];
    };
    let (inner, after) = rest.split_once('}').unwrap_or((rest, ""));
    let each = inner.split(',').map(|one| format!("{before}{one}{after}"));
    each.flat_map(|name| alternatives(&name)).collect()
}

/// Whether a file has this path, or its end; `*` is any one folder.
fn is_at(file: &str, name: &str) -> bool {
    let (mut parts, mut wanted) = (file.rsplit('/'), name.rsplit('/'));
    wanted.all(|part| parts.next().is_some_and(|own| part == "*" || part == own))
}

#[test]
fn files_that_documents_name_exist() {
    assert_eq!(alternatives("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert!(is_at("services/build-svc/src/main.rs", "services/*/src/main.rs") && !is_at("a/b.rs", "c/b.rs"));
    let all: Vec<String> = packages().into_keys().flat_map(|folder| files(&folder)).collect();
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let names = named(&read(&root().join(document)));
        let absent = names
            .iter()
            .filter(|name| !all.iter().any(|file| is_at(file, name)));
        missing.extend(absent.map(|name| format!("{document}: {name}")));
    }
    assert!(
        missing.is_empty(),
        "documents name what is not there:\n{}",
        missing.join("\n")
    );
}
