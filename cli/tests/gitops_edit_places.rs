//! `slipway gitops edit` where an image stands in an unusual place: what is recognised, which flags are asked for.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use pretty_assertions::assert_eq;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn edit(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipway"))
        .args(["gitops", "edit"])
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("SLIPWAY_CONTEXT")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn happened(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\n  next: "), "without a remedy: {said}");
    said
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

#[test]
fn shared_values_need_a_flag_that_the_refusal_names() {
    const VALUES: &str = "defaults: &defaults\n  image:\n    repository: r/app\n    tag: \"1.0\"\nweb:\n  <<: *defaults\nworker:\n  <<: *defaults\n";
    let folder = folder(&[("values.yaml", VALUES)]);
    let set = ["--helm", "web.image", "--image", ":1.1", "values.yaml"];
    let said = refused(&edit(&folder, &set));
    for words in [
        "`defaults.image.tag`, `worker.image.tag`",
        "--allow-shared",
        "line 4",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(read(&folder, "values.yaml"), VALUES);
    let said = happened(&edit(&folder, &[&["--allow-shared"], &set[..]].concat()));
    assert!(said.contains("r/app:1.0 → r/app:1.1"), "{said}");
    assert!(said.contains("web.image.tag, worker.image.tag"), "{said}");
    assert_eq!(read(&folder, "values.yaml"), VALUES.replace("1.0", "1.1"));
}

#[test]
fn an_image_is_added_to_an_override_file_with_a_flag() {
    let folder = folder(&[("values-prod.yaml", "replicaCount: 3\n")]);
    let set = [
        "--helm",
        "image",
        "--image",
        "registry.example/app:v2",
        "values-prod.yaml",
    ];
    let said = refused(&edit(&folder, &set));
    assert!(said.contains("--add-missing"), "{said}");
    let said = happened(&edit(&folder, &[&["--add-missing"], &set[..]].concat()));
    assert!(said.contains("registry.example/app:v2, added"), "{said}");
    assert_eq!(
        read(&folder, "values-prod.yaml"),
        "replicaCount: 3\nimage:\n  repository: registry.example/app\n  tag: v2\n"
    );
}

#[test]
fn a_manifest_is_recognised_though_a_key_stands_twice() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: p, labels: {app: p, app: p}}\nspec:\n  template:\n    spec:\n      containers:\n      - name: p\n        image: r/p:1 \n";
    let folder = folder(&[("deploy.yaml", text)]);
    happened(&edit(&folder, &["--image", "r/p:2", "deploy.yaml"]));
    assert_eq!(read(&folder, "deploy.yaml"), text.replace("r/p:1", "r/p:2"));
}

#[test]
fn a_broken_file_and_an_application_are_explained_in_plain_words() {
    let application = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: a}\nspec:\n  source:\n    helm:\n      values: |\n        image:\n          repository: r/p\n          tag: v1\n";
    let folder = folder(&[
        ("broken.yaml", "kind: X\napiVersion: v1\na: [x\nb: 1\n"),
        ("app.yaml", application),
    ]);
    let said = refused(&edit(&folder, &["--image", "r/p:2", "broken.yaml"]));
    assert!(said.contains("not YAML: ") && !said.contains("parsing"), "{said}");
    let said = refused(&edit(&folder, &["--image", "r/p:2", "app.yaml"]));
    assert!(said.contains("spec.source.helm.values.image"), "{said}");
    let path = "spec.source.helm.values.image";
    happened(&edit(
        &folder,
        &["--helm", path, "--image", "r/p=*:v2", "app.yaml"],
    ));
    assert_eq!(
        read(&folder, "app.yaml"),
        application.replace("tag: v1", "tag: v2")
    );
}
