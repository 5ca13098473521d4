//! The README of gitops-svc keeps its word: the configuration is read by the service's own code, each of its keys is
//! there, each code of the API is explained, and the examples of edits print what they do.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use gitops_svc::Config;
use slipway_server::config::parse;

const README: &str = include_str!("../../services/gitops-svc/README.md");

/// The text below a heading, up to the next one of its kind.
fn section(heading: &str) -> &'static str {
    let (_, text) = README.split_once(&format!("\n## {heading}\n")).unwrap();
    text.split("\n## ").next().unwrap()
}

/// The fenced blocks of a text, each with its language.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut blocks = Vec::new();
    for (at, part) in text.split("```").enumerate() {
        if at % 2 == 1 {
            blocks.push(part.split_once('\n').unwrap());
        }
    }
    blocks
}

fn source(path: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../services/gitops-svc")
            .join(path),
    )
    .unwrap()
}

#[test]
fn the_configuration_is_one_that_the_service_takes() {
    let text = section("Configuration");
    let [("yaml", yaml)] = blocks(text)[..] else {
        panic!("one block of YAML");
    };
    let config: Config = parse("README.md", yaml).unwrap();
    config.check().unwrap();
    let mut keys = BTreeSet::new();
    for file in ["src/config.rs", "src/config/pull_requests.rs"] {
        let text = source(file);
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines() {
            let field = line
                .strip_prefix("    pub ")
                .and_then(|line| line.split_once(": "));
            if let Some((field, _)) = field
                && field.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            {
                keys.insert(field.to_owned());
            }
        }
    }
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        assert!(yaml.contains(&format!("{key}:")), "{key} is not in the README");
    }
}

#[test]
fn every_code_of_the_api_is_explained() {
    let text = section("How a change ends");
    let source = source("domain/src/reason.rs");
    let codes: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().split_once(" => \"")?.1.strip_suffix("\","))
        .collect();
    assert!(codes.len() > 15, "{codes:?}");
    for code in &codes {
        assert!(
            text.contains(&format!("\n| `{code}` |")),
            "{code} is not in the README"
        );
    }
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for code in rows {
        assert!(codes.contains(&code), "{code} is not a code of the API");
    }
}

#[test]
fn examples_of_edits_print_what_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut shown = 0;
    for (language, text) in blocks(section("What an edit does")) {
        match language {
            "yaml" => {
                let name = text.lines().next().unwrap().strip_prefix("# ").unwrap();
                fs::write(folder.path().join(name), text).unwrap();
            }
            "console" => {
                let (command, printed) = text.split_once('\n').unwrap();
                let command = command.strip_prefix("$ slipway ").unwrap();
                let output = Command::new(env!("CARGO_BIN_EXE_slipway"))
                    .args(command.split_whitespace())
                    .current_dir(folder.path())
                    .output()
                    .unwrap();
                assert!(
                    output.status.success(),
                    "{command}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                pretty_assertions::assert_eq!(
                    String::from_utf8(output.stdout).unwrap(),
                    printed,
                    "{command}"
                );
                shown += 1;
            }
            other => panic!("a block of {other}"),
        }
    }
    assert!(shown >= 3);
}
