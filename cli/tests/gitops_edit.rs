//! `slipway gitops edit` on copies of real files: which bytes change, what is refused, and the exit codes.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use pretty_assertions::assert_eq;
use tempfile::TempDir;

const FLAGGER: &str = "fluxcd__flagger/kustomize/base/flagger";
const VALUES: &str = "stefanprodan__podinfo/charts/podinfo/values.yaml";
const WEB: &str = "stefanprodan__podinfo/kustomize/deployment.yaml";

/// A copy of the corpus, each of its repositories in a folder of one git repository.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let corpus = slipway_testbed::data("corpus");
        for path in ["fluxcd__flagger/kustomize", "stefanprodan__podinfo"] {
            copy(&corpus.join(path), &folder.path().join(path));
        }
        let copy = Self { folder };
        copy.git(&["init", "--quiet"]);
        copy
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// `slipway gitops edit` with these arguments, in the root of the copy.
    fn edit(&self, arguments: &[&str]) -> Output {
        edit_in(self.folder.path(), arguments)
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.folder.path());
        assert!(command.status().unwrap().success(), "git {arguments:?}");
    }

    /// Every file with its bytes, but for git's own.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.ends_with(".git") {
                    folders.push(path);
                } else if path.is_file() {
                    files.push((path.clone(), fs::read(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::write(&to, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn edit_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .args(["gitops", "edit"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("SLIPWAY_CONTEXT")
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command said that did not do what was asked.
#[track_caller]
fn refused(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "{}", out(output));
    assert!(said.contains("\n  next: "), "without a remedy: {said}");
    said
}

#[track_caller]
fn happened(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    out(output)
}

#[test]
fn each_kind_of_file_changes_only_where_it_must() {
    let copy = Copy::new();
    for (arguments, path, from, to) in [
        (
            &["--image", "ghcr.io/fluxcd/flagger:2.0.0", FLAGGER][..],
            &*format!("{FLAGGER}/kustomization.yaml"),
            "newTag: 1.44.0",
            "newTag: 2.0.0",
        ),
        (
            &["--helm", "image", "--image", "podinfo=*:7.0", VALUES],
            VALUES,
            "tag: 6.14.1",
            "tag: \"7.0\"",
        ),
        (
            &["--image", "ghcr.io/stefanprodan/podinfo:7.0.0", WEB],
            WEB,
            "image: ghcr.io/stefanprodan/podinfo:6.14.1",
            "image: ghcr.io/stefanprodan/podinfo:7.0.0",
        ),
    ] {
        let before = copy.snapshot();
        let text = copy.read(path);
        assert_eq!(text.matches(from).count(), 1, "{path}");
        happened(&copy.edit(arguments));
        assert_eq!(copy.read(path), text.replace(from, to), "{path}");
        let changed: Vec<_> = before
            .into_iter()
            .zip(copy.snapshot())
            .filter(|(before, after)| before != after)
            .map(|(before, _)| before.0)
            .collect();
        assert_eq!(changed, [copy.path(path)]);

        // Again, there is nothing to do.
        assert_eq!(happened(&copy.edit(arguments)), "no change\n");
    }
}

#[test]
fn a_file_in_the_own_folder_and_a_base_in_another_one() {
    let copy = Copy::new();
    fs::create_dir_all(copy.path("overlay")).unwrap();
    let kustomization = "resources: [../stefanprodan__podinfo/kustomize]\n";
    fs::write(copy.path("overlay/kustomization.yaml"), kustomization).unwrap();
    let image = "ghcr.io/stefanprodan/podinfo:7.0.0";
    let told = happened(&edit_in(&copy.path("overlay"), &["--image", image, "."]));
    assert!(told.contains("added"), "{told}");
    let text = copy.read("overlay/kustomization.yaml");
    assert!(
        text.starts_with(kustomization) && text.contains("newTag: 7.0.0"),
        "{text}"
    );
    let said = refused(&copy.edit(&["--image", "nobody/uses-it:1", "overlay"]));
    assert!(said.contains("overlay") && said.contains("podinfo"), "{said}");
}

#[test]
fn a_difference_is_a_patch_that_git_applies_and_nothing_is_written() {
    let copy = Copy::new();
    let crlf = "overlays/dev/kustomization.yaml";
    fs::create_dir_all(copy.path("overlays/dev")).unwrap();
    fs::write(
        copy.path(crlf),
        "images:\r\n- name: a\r\n  newTag: 'x' # c\r\n- name: b\r\n  newTag: y",
    )
    .unwrap();
    let arguments = ["--image", "a:1", "--image", "b=r/b:2", "overlays/dev", "--diff"];
    let before = copy.snapshot();
    let patch = happened(&copy.edit(&arguments));
    assert_eq!(copy.snapshot(), before, "--diff writes nothing");
    assert!(
        patch.starts_with(&format!("--- a/{crlf}\n+++ b/{crlf}\n@@ ")),
        "{patch}"
    );

    fs::write(copy.path("patch"), &patch).unwrap();
    copy.git(&[
        "-c",
        "core.autocrlf=false",
        "apply",
        "--whitespace=nowarn",
        "patch",
    ]);
    let patched = copy.read(crlf);
    fs::write(
        copy.path(crlf),
        &before.iter().find(|(path, _)| path.ends_with(crlf)).unwrap().1,
    )
    .unwrap();
    happened(&copy.edit(&arguments[..5]));
    assert_eq!(copy.read(crlf), patched);
    assert!(
        patched.contains("newTag: '1' # c\r\n") && !patched.ends_with('\n'),
        "{patched:?}"
    );

    assert_eq!(happened(&copy.edit(&arguments)), "", "no change is no patch");
}

#[test]
fn check_tells_by_its_exit_code() {
    let copy = Copy::new();
    let before = copy.snapshot();
    let output = copy.edit(&["--check", "--image", "ghcr.io/fluxcd/flagger:2.0.0", FLAGGER]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("1.44.0 → "), "{}", out(&output));
    assert_eq!(copy.snapshot(), before);
    happened(&copy.edit(&["--check", "--image", "ghcr.io/fluxcd/flagger:1.44.0", FLAGGER]));
}

#[test]
fn when_one_file_is_refused_none_is_written() {
    let copy = Copy::new();
    fs::write(
        copy.path("anchored.yaml"),
        "a: &tag 1.0.0\nimage: {repository: r/x, tag: *tag}\n",
    )
    .unwrap();
    symlink("anchored.yaml", copy.path("link.yaml")).unwrap();
    fs::write(copy.path("broken.yaml"), "image: {tag: 1\n").unwrap();
    let before = copy.snapshot();
    for (file, words) in [
        ("anchored.yaml", "line 1"),
        ("link.yaml", "symbolic link"),
        ("broken.yaml", "not YAML"),
        ("absent.yaml", "absent.yaml"),
    ] {
        let said = refused(&copy.edit(&["--helm", "image", "--image", ":2.0.0", VALUES, file]));
        assert!(said.contains(file) && said.contains(words), "{said}");
        assert_eq!(copy.snapshot(), before, "{file}");
    }
    let said = refused(&copy.edit(&["--helm", "image", "--image", "nginx=*:2", VALUES]));
    assert!(said.contains("line 11") && said.contains("not nginx"), "{said}");
}

#[test]
fn a_kind_that_is_not_clear_is_asked_for() {
    let copy = Copy::new();
    let said = refused(&copy.edit(&["--image", "podinfo:7", VALUES]));
    assert!(said.contains("--helm PATH; there are image"), "{said}");
    let said = refused(&copy.edit(&["--kustomize", "--image", "podinfo:7", VALUES]));
    assert!(said.contains("kustomization.yaml"), "{said}");
    let said = refused(&copy.edit(&["--image", "podinfo", FLAGGER]));
    assert!(said.contains("NAME=REF"), "{said}");
    for arguments in [
        &["--image", "app:", FLAGGER][..],
        &["--image", "app:1"],
        &["--helm", "image", "--kustomize", "--image", "app:1", VALUES],
        &["--document", "1", "--image", "app:1", WEB],
    ] {
        assert_eq!(copy.edit(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn programs_read_the_differences() {
    let copy = Copy::new();
    let image = ["--image", "ghcr.io/fluxcd/flagger:2.0.0", FLAGGER, "-o", "json"];
    let text = happened(&copy.edit(&image));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["changed"], true);
    assert_eq!(value["written"], true);
    assert_eq!(value["files"][0]["path"], format!("{FLAGGER}/kustomization.yaml"));
    assert_eq!(value["differences"][0]["after"]["new_tag"]["value"], "2.0.0");
    let value: serde_json::Value = serde_json::from_str(&happened(&copy.edit(&image))).unwrap();
    assert_eq!(value["changed"], false);
}

#[test]
fn rights_stay_and_files_outside_are_out_of_reach() {
    let copy = Copy::new();
    let file = copy.path(VALUES);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    happened(&copy.edit(&["--helm", "image", "--image", ":7.0.0", VALUES]));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let beside: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert!(
        beside
            .iter()
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with(".slipway")),
        "{beside:?}"
    );

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("values.yaml"), "image: r/x:1\n").unwrap();
    let outside = other.path().join("values.yaml").display().to_string();
    let said = refused(&copy.edit(&["--helm", "image", "--image", ":2", VALUES, &outside]));
    assert!(said.contains("repositor"), "{said}");
    // Alone it is fine: the folder that is not of a repository is its own.
    happened(&copy.edit(&["--helm", "image", "--image", ":2", &outside]));
    assert_eq!(fs::read_to_string(&outside).unwrap(), "image: r/x:2\n");
}
