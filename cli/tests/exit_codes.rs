//! The program as a shell sees it: what it prints where, and its exit codes.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output},
};

fn slipway(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(arguments).current_dir(folder.path());
    command.env_remove("SLIPWAY_CONTEXT").env_remove("SLIPWAY_USER");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_teaches_every_noun() {
    let output = slipway(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for noun in [
        "dev",
        "demo",
        "release",
        "deployment",
        "approval",
        "build",
        "gitops",
        "events",
        "config",
        "Exit codes",
    ] {
        assert!(help.contains(noun), "{noun}: {help}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &[][..],
        &["release", "start"],
        &["release", "start", "shop", "--label", "x"],
        &["fly"],
    ] {
        let output = slipway(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_context_it_says_what_to_do_next() {
    let output = slipway(&["release", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("slipway dev"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_service_that_is_not_there_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t").unwrap();
    let context = folder.path().join("context.yaml");
    // Port 1 is not listened on.
    let url = "http://127.0.0.1:1";
    let yaml = format!(
        "build: {url}\ngitops: {url}\napproval: {url}\ndeploy: {url}\nuser: alice\ntoken_files: {{ alice: token }}\n"
    );
    fs::write(&context, yaml).unwrap();
    let path = context.display().to_string();
    let output = slipway(&["--context", &path, "release", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("is the service running?"),
        "{}",
        text(&output.stderr)
    );
    let output = slipway(&["--context", &path, "--as", "mallory", "release", "list"]);
    assert!(
        text(&output.stderr).contains("one of: alice"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_catalog_with_a_typo_is_told_with_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.yaml");
    fs::write(&path, "environments: [dev]\nservcies: []\n").unwrap();
    let output = slipway(&["config", "validate", "--catalog", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("line 2") && said.contains("servcies"), "{said}");
    fs::write(&path, "environments: [dev]\nservices: []\n").unwrap();
    let output = slipway(&["config", "validate", "--catalog", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
